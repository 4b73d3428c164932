"""What differs between waiting in a thread and waiting in an event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from farlabs.errors import AuthenticationError, FarLabsError

T = TypeVar("T")


class Flight(Generic[T]):
    """Something that is done once at a time: whoever asks for it meanwhile gets the same result, or the same error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None

    def join(self, have: Callable[[], T | None], act: Callable[[], T]) -> T:
        """What is had already, or else what is being done, or else what is done now."""
        with self._lock:
            found = have()
            if found is not None:
                return found
            future = self._under_way
            is_mine = future is None
            if future is None:
                future = self._under_way = Future()
        if is_mine:
            self._do(act, future)
        return future.result()

    def _do(self, act: Callable[[], T], future: Future[T]) -> None:
        try:
            result = act()
        except BaseException as error:
            mine_alone = not isinstance(error, Exception)  # such as the interrupt of this thread
            told = AuthenticationError("to sign in was interrupted", code="interrupted") if mine_alone else error
            with self._lock:
                self._under_way = None
            future.set_exception(told)
            if mine_alone:
                raise
        else:
            with self._lock:
                self._under_way = None
            future.set_result(result)


class AsyncFlight(Generic[T]):
    """The same in an event loop. Who gives up leaves it to the others."""

    def __init__(self) -> None:
        self._under_way: asyncio.Task[T] | None = None

    async def join(self, have: Callable[[], T | None], act: Callable[[], Awaitable[T]]) -> T:
        """What is had already, or else what is being done, or else what is done now."""
        found = have()
        if found is not None:
            return found
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._do(act))
            self._under_way.add_done_callback(self._ended)
        return await asyncio.shield(self._under_way)

    @staticmethod
    async def _do(act: Callable[[], Awaitable[T]]) -> T:
        return await act()

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._under_way = None
        if not task.cancelled():
            task.exception()  # whoever waits is told; where nobody does any more, nobody need be


async def async_settled(value: T | Awaitable[T]) -> T:
    """What a wallet or a callback gives, now or later."""
    return await value if inspect.isawaitable(value) else value


def settled(value: T | Awaitable[T]) -> T:
    """What a wallet or a callback gives, which has to be now.

    Raises:
        FarLabsError: ``needs_async``.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise FarLabsError("this waits for something: use AsyncFarLabsClient", code="needs_async")
    return value
