"""Where streams wait that have no session yet: for their first message, or for the session they are to feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from discovery.protocol.ids import PeerId
from far_node.errors import Busy

RETRY_SECONDS = 2.0


class Lobby:
    """Nobody waits for long, no peer fills it, and who has waited longest makes room where many peers do so."""

    def __init__(self, room: int, room_per_peer: int) -> None:
        self._room, self._room_per_peer = room, room_per_peer
        self._waiting: dict[asyncio.Timeout, PeerId] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def wait(self, peer_id: PeerId, patience: float) -> AsyncIterator[None]:
        """For a stream that waits for something.

        Raises:
            Busy: too many streams of this peer wait.
            TimeoutError: ``patience`` seconds are over, or the room is needed for another.
        """
        if sum(waiting == peer_id for waiting in self._waiting.values()) >= self._room_per_peer:
            raise Busy(
                f"{self._room_per_peer} of your streams have no session yet, the most there is room for",
                retry_after=RETRY_SECONDS,
            )
        if len(self._waiting) >= self._room:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.reschedule(0)
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                self._waiting[limit] = peer_id
                yield
        finally:
            self._waiting.pop(limit, None)
