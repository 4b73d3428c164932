"""Steps of one session that were taken in and not computed yet: in order, and bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from discovery.protocol.messages import Step

MOST_STEPS = 64


class Inbox:
    """Gives ``work`` one step after the other, in a task that lives while there are any.

    Args:
        most_bytes: hidden states that may wait; a single step may be larger.
    """

    def __init__(self, work: Callable[[Step], Awaitable[None]], most_bytes: int) -> None:
        self._work, self._most_bytes = work, most_bytes
        self._items: deque[Step | Callable[[], Awaitable[None]]] = deque()
        self._steps = self._bytes = 0
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do, nor in progress."""
        return self._worker is None

    async def room_for(self, step: Step) -> None:
        """Wait until there is room for a step."""
        size = len(step.hidden.data)
        while self._steps and (self._steps >= MOST_STEPS or self._bytes + size > self._most_bytes):
            await self._change()

    def put(self, step: Step) -> None:
        """Add a step, which there is room for."""
        self._steps += 1
        self._bytes += len(step.hidden.data)
        self._add(step)

    async def then(self, call: Callable[[], Awaitable[None]]) -> None:
        """Have ``call`` made after the steps that are here and before those to come; at once, if there are none."""
        if self.is_empty:
            await call()
        else:
            self._add(call)

    async def drained(self) -> None:
        """Wait until nothing is left to do."""
        while not self.is_empty:
            await self._change()

    async def close(self) -> None:
        """Drop what waits and stop in the middle of what is in progress."""
        while self._items:
            self._forget(self._items.popleft())
        if self._worker is not None and self._worker is not asyncio.current_task():
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None  # also where it had not begun
        self._tell()

    def _add(self, item: Step | Callable[[], Awaitable[None]]) -> None:
        self._items.append(item)
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._items:
                item = self._items.popleft()
                if not isinstance(item, Step):
                    await item()
                    continue
                try:
                    await self._work(item)
                finally:
                    self._forget(item)
                    self._tell()
        finally:
            self._worker = None
            self._tell()

    def _forget(self, item: Step | Callable[[], Awaitable[None]]) -> None:
        if isinstance(item, Step):
            self._steps -= 1
            self._bytes -= len(item.hidden.data)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
