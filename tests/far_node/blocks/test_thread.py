"""The thread that computes."""

from __future__ import annotations

import asyncio
import threading
import weakref
from functools import partial

import pytest

from far_node.blocks.thread import ComputeThread


async def test_calls_run_one_after_the_other_in_a_thread_of_their_own() -> None:
    thread, order, inside = ComputeThread("test"), [], []

    def call(number: int) -> int:
        inside.append(number)
        assert inside == [number]
        order.append(number)
        inside.remove(number)
        assert threading.current_thread().name == "test"
        return number * number

    results = await asyncio.gather(*(thread.run(partial(call, number)) for number in range(20)))
    thread.close()
    assert results == [number * number for number in range(20)]
    assert order == list(range(20))


async def test_what_a_call_raises_reaches_its_caller_and_the_thread_goes_on() -> None:
    thread = ComputeThread("test")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: "still here") == "still here"
    thread.close()


async def test_a_caller_who_gives_up_disturbs_nobody() -> None:
    thread, begun, go_on = ComputeThread("test"), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(10)

    impatient = asyncio.create_task(thread.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    patient = asyncio.create_task(thread.run(lambda: 7))
    await asyncio.sleep(0)
    go_on.set()
    assert await patient == 7
    thread.close()


async def test_closing_waits_for_the_calls_that_were_made() -> None:
    thread = ComputeThread("test")
    asked = asyncio.ensure_future(thread.run(lambda: 3))
    await asyncio.sleep(0)
    await asyncio.to_thread(thread.close)
    assert await asked == 3


async def test_a_result_is_not_kept_alive_by_the_thread_that_made_it() -> None:
    class Large:
        pass

    thread = ComputeThread("test")
    made = weakref.ref(await thread.run(Large))
    await thread.run(lambda: None)
    again = await thread.run(Large)
    last = weakref.ref(again)
    del again
    assert made() is None
    async with asyncio.timeout(20):
        while last() is not None:
            await asyncio.sleep(0.005)
    thread.close()
