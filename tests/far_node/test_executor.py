"""One thread owns the device."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest
import torch

from far_node.errors import BadPosition, Busy, ComputeFailed
from far_node.executor import Executor


async def test_calls_run_one_after_the_other_in_their_order_on_one_thread() -> None:
    executor, story, threads = Executor(), list[str](), set[int]()

    def call(number: int) -> int:
        threads.add(threading.get_ident())
        story.append(f"{number} begins")
        story.append(f"{number} ends")
        return number

    answers = await asyncio.gather(*(executor.run(partial(call, number)) for number in range(20)))
    assert answers == list(range(20))
    assert story == [f"{number} {what}" for number in range(20) for what in ("begins", "ends")]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    executor.close()


@pytest.mark.parametrize("trouble", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=repr)
async def test_a_device_without_memory_is_busy(trouble: Exception) -> None:
    executor = Executor()

    def call() -> None:
        raise trouble

    with pytest.raises(Busy, match="out of memory") as failure:
        await executor.run(call)
    assert failure.value.retry_after is not None
    assert await executor.run(lambda: "on it goes") == "on it goes"
    executor.close()


async def test_a_bug_has_a_type_of_its_own_which_nobody_retries() -> None:
    executor = Executor()
    with pytest.raises(ComputeFailed, match="its log says why") as failure:
        await executor.run(lambda: 1 // 0)
    assert not failure.value.retry
    assert "zero" not in failure.value.message, "what broke inside is for the node's own log"
    assert await executor.run(lambda: "on it goes") == "on it goes"
    executor.close()


async def test_errors_of_our_family_pass_as_they_are() -> None:
    executor = Executor()

    def call() -> None:
        raise BadPosition("not there")

    with pytest.raises(BadPosition, match="not there"):
        await executor.run(call)
    executor.close()
