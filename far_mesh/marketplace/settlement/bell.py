"""A bell: whoever waits is woken when it rings. It carries nothing; the database says what is new."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Bell:
    """Rings inside one process. Other processes find out by looking, so every wait has an end."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits now."""
        self._rung.set()
        self._rung = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """The next ring. Take it *before* looking, so that a ring in between is not missed."""
        return self._rung


async def either(event: asyncio.Event, seconds: float) -> None:
    """Until ``event`` happens, or ``seconds`` have passed."""
    # Not wait_for: in Python 3.11 it forgets that it was cancelled, if the event happens in the same moment.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
