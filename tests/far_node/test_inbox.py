"""Steps that wait: in order, bounded, and nobody is left waiting when they are dropped."""

from __future__ import annotations

import asyncio
import random

import pytest

from discovery.protocol.codec import WireTensor
from discovery.protocol.messages import Step
from far_node import inbox as inbox_module
from far_node.inbox import Inbox

SOON = 60.0


def step(index: int, size: int = 8) -> Step:
    return Step(index, index, WireTensor("float32", (1, 1, size // 4), bytes(size)))


class Desk:
    """Somebody who works when told to, and what is done."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.done: list[object] = []
        self.begun = 0
        self.go_on = asyncio.Semaphore(0)
        self.inbox = Inbox(self._work, most_bytes)

    async def _work(self, item: Step) -> None:
        self.begun += 1
        await self.go_on.acquire()
        self.done.append(item.index)

    async def note(self, what: object) -> None:
        self.done.append(what)

    async def give(self, item: Step) -> None:
        await self.inbox.room_for(item)
        self.inbox.put(item)

    def let(self, count: int) -> None:
        for _ in range(count):
            self.go_on.release()

    async def drained(self) -> None:
        async with asyncio.timeout(SOON):
            await self.inbox.drained()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_steps_are_done_one_after_the_other_in_their_order() -> None:
    desk = Desk()
    for index in range(5):
        await desk.give(step(index))
    await turns()
    assert desk.begun == 1
    desk.let(2)
    await turns()
    assert (desk.done, desk.begun) == ([0, 1], 3)
    desk.let(3)
    await desk.drained()
    assert desk.done == [0, 1, 2, 3, 4]
    assert desk.inbox.is_empty


async def test_a_call_is_made_after_the_steps_that_are_here_and_before_those_to_come() -> None:
    desk = Desk()
    await desk.inbox.then(lambda: desk.note("at once"))
    assert desk.done == ["at once"]
    await desk.give(step(0))
    await desk.give(step(1))
    await desk.inbox.then(lambda: desk.note("between"))
    await desk.give(step(2))
    assert desk.done == ["at once"]
    desk.let(3)
    await desk.drained()
    assert desk.done == ["at once", 0, 1, "between", 2]


async def test_only_so_many_steps_wait() -> None:
    desk = Desk()
    for index in range(inbox_module.MOST_STEPS):
        await desk.give(step(index))
    late = asyncio.create_task(desk.give(step(inbox_module.MOST_STEPS)))
    await turns()
    assert not late.done()
    desk.let(1)
    async with asyncio.timeout(SOON):
        await late
    desk.let(inbox_module.MOST_STEPS)
    await desk.drained()
    assert desk.done == list(range(inbox_module.MOST_STEPS + 1))


async def test_only_so_many_bytes_wait_but_one_step_may_be_larger() -> None:
    desk = Desk(most_bytes=100)
    await desk.give(step(0, 400))
    late = asyncio.create_task(desk.give(step(1, 8)))
    await turns()
    assert not late.done()
    desk.let(1)
    async with asyncio.timeout(SOON):
        await late
    await desk.give(step(2, 92))
    full = asyncio.create_task(desk.give(step(3, 4)))
    await turns()
    assert not full.done()
    desk.let(3)
    async with asyncio.timeout(SOON):
        await full
    await desk.drained()
    assert desk.done == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(20))
async def test_any_mixture_comes_out_in_the_order_it_went_in(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk(most_bytes=200)
    said: list[object] = []
    held: dict[int, int] = {}
    worker = asyncio.create_task(_let_at_random(desk, chance))
    async with asyncio.timeout(SOON):
        for number in range(150):
            if chance.random() < 0.2:
                await desk.inbox.then(lambda number=number: desk.note(f"call {number}"))  # type: ignore[misc]
                said.append(f"call {number}")
            else:
                item = step(number, 4 * chance.choice((1, 2, 20, 60)))
                await desk.give(item)
                said.append(number)
                held[number] = len(item.hidden.data)
                waiting = [held[index] for index in held if index not in desk.done]
                assert len(waiting) <= inbox_module.MOST_STEPS
                assert sum(waiting) <= 200 or len(waiting) == 1
            if chance.random() < 0.3:
                await turns(chance.randint(1, 3))
        await desk.drained()
    worker.cancel()
    assert desk.done == said


async def _let_at_random(desk: Desk, chance: random.Random) -> None:
    while True:
        desk.let(chance.randint(0, 2))
        await asyncio.sleep(0)


async def test_closing_stops_in_the_middle_and_drops_what_waits() -> None:
    desk = Desk()
    for index in range(4):
        await desk.give(step(index))
    await desk.inbox.then(lambda: desk.note("never"))
    await turns()
    async with asyncio.timeout(SOON):
        await desk.inbox.close()
    desk.let(9)
    await desk.drained()
    assert (desk.begun, desk.done) == (1, [])


@pytest.mark.parametrize("most_bytes", [1 << 20, 8 * inbox_module.MOST_STEPS], ids=["steps", "bytes"])
async def test_nobody_waits_for_room_in_what_was_closed(most_bytes: int) -> None:
    desk = Desk(most_bytes)
    for index in range(inbox_module.MOST_STEPS):
        await desk.give(step(index))
    late = [asyncio.create_task(desk.inbox.room_for(step(99, 80))) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in late)
    await desk.inbox.close()
    async with asyncio.timeout(SOON):
        await asyncio.gather(*late)


async def test_work_may_close_what_it_came_from() -> None:
    async def work(item: Step) -> None:
        done.append(item.index)
        await inbox.close()

    done: list[int] = []
    inbox = Inbox(work, 1000)
    for index in range(3):
        inbox.put(step(index))
    async with asyncio.timeout(SOON):
        await inbox.drained()
    assert done == [0]


async def test_closing_twice_or_when_there_is_nothing_is_no_fault() -> None:
    desk = Desk()
    await desk.inbox.close()
    await desk.give(step(0))
    await desk.inbox.close()
    await desk.inbox.close()
    assert desk.inbox.is_empty
