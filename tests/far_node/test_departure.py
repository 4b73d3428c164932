"""Asked once, a node lets its sessions end; asked again, it goes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from far_node.departure import Departure

PATIENCE = 30.0


async def forever(patience: float = 0.0) -> bool:
    await asyncio.Event().wait()
    return True


async def test_work_that_is_done_in_time_has_its_result() -> None:
    async def work() -> int:
        return 7

    assert await Departure().outrun_by(work()) == 7


async def test_work_that_fails_has_its_error() -> None:
    async def work() -> int:
        raise LookupError("gone wrong")

    with pytest.raises(LookupError, match="gone wrong"):
        await Departure().outrun_by(work())


async def test_who_is_asked_to_leave_ends_the_work_at_hand() -> None:
    departure, ended = Departure(), asyncio.Event()

    async def work() -> int:
        try:
            await forever()
        finally:
            ended.set()
        return 7

    waiting = asyncio.create_task(departure.outrun_by(work()))
    await asyncio.sleep(0)
    departure.ask()
    assert await waiting is None
    assert ended.is_set()


@pytest.mark.parametrize("ended", [True, False])
async def test_everybody_is_told_how_the_sessions_ended(ended: bool) -> None:
    departure = Departure()

    async def drain(patience: float) -> bool:
        assert patience == PATIENCE
        return ended

    waiting = [asyncio.create_task(departure.drained()) for _ in range(2)]
    departure.ask()
    await departure.when_asked()
    assert await departure.take(drain, PATIENCE) is ended
    assert await asyncio.gather(*waiting) == [ended, ended]


async def test_the_owner_can_name_another_patience() -> None:
    departure, given = Departure(), list[float]()

    async def drain(patience: float) -> bool:
        given.append(patience)
        return True

    departure.ask(2.5)
    await departure.take(drain, PATIENCE)
    assert given == [2.5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_waits_for_nobody(number: signal.Signals) -> None:
    departure = Departure()
    departure.listen()
    try:
        os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            await departure.when_asked()
        taking = asyncio.create_task(departure.take(forever, PATIENCE))
        await asyncio.sleep(0)
        assert not taking.done()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            assert await taking is False
    finally:
        for heard in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(heard)
