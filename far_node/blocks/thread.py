"""A thread that computes, and a short way to it.

``run_in_executor`` passes each call through two kinds of future and their locks, which costs a decode step of a small
range of blocks a good part of its time; here it is one queue there and one wake-up back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class ComputeThread:
    """Runs calls one after the other, in the order they come."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises. A caller who gives up does not stop a call that has begun."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, answer, call))
        return await answer

    def close(self) -> None:
        """Let the calls that were made end, and the thread after them."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, answer, call = job
            try:
                result = call()
            except BaseException as error:  # whatever it is, it is the caller's
                _tell(loop, answer, None, error)
            else:
                _tell(loop, answer, result, None)
                del result
            del job, answer, call  # nothing is kept alive while waiting


def _tell(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, answer, result, error)


def _settle(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():  # cancelled meanwhile
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
