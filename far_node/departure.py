"""How a node leaves: asked once it lets its sessions end, asked again it waits for nobody."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Departure:
    """Whether the node has been asked to leave, by a signal or by its owner, and how it went.

    Attributes:
        asked: how often.
    """

    def __init__(self) -> None:
        self._asked, self._hurried = asyncio.Event(), asyncio.Event()
        self._drained: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._patience: float | None = None
        self.asked = 0

    def listen(self) -> None:
        """SIGTERM and SIGINT ask from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def ask(self, patience: float | None = None) -> None:
        """Leave, when the open sessions have ended or ``patience`` seconds are over; the second time, at once."""
        self.asked += 1
        if self._asked.is_set():
            self._hurried.set()
        else:
            self._patience = patience
            self._asked.set()

    async def outrun_by(self, work: Awaitable[T]) -> T | None:
        """The result of ``work``; None, and the work is cancelled, when the node is asked to leave before."""
        return await _before(self._asked, work)

    async def when_asked(self) -> None:
        """Returns when the node is to leave."""
        await self._asked.wait()

    async def take(self, drain: Callable[[float], Awaitable[bool]], patience: float) -> bool:
        """Let the sessions end: ``drain`` with the patience that was asked for, or else ``patience``.

        Returns:
            Whether all sessions ended by themselves.
        """
        patience = patience if self._patience is None else self._patience
        ended = bool(await _before(self._hurried, drain(patience)))
        self._drained.set_result(ended)
        return ended

    async def drained(self) -> bool:
        """Returns when the sessions have ended: whether all of them did so by themselves."""
        return await asyncio.shield(self._drained)


async def _before(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    working, waiting = asyncio.ensure_future(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
