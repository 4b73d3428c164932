"""What the client believes of the swarm: a recent picture of who serves the model."""

from __future__ import annotations

import asyncio
import time

from discovery.dht.board import Board
from discovery.protocol.announcement import SignedAnnouncement


class SwarmView:
    """Reads the board when its picture is older than ``max_age`` seconds; one reader at a time."""

    def __init__(self, board: Board, model_digest: str, max_age: float) -> None:
        self._board, self._digest, self._max_age = board, model_digest, max_age
        self._nodes: list[SignedAnnouncement] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def nodes(self, *, fresh: bool = False) -> list[SignedAnnouncement]:
        """Live announcements of the model's nodes; ``fresh`` looks again whatever the age."""
        asked_at = time.monotonic()
        async with self._reading:
            known_since = asked_at if fresh else asked_at - self._max_age
            if self._read_at < known_since or not self._nodes:
                self._nodes = await self._board.nodes_of(self._digest)
                self._read_at = time.monotonic()
        return self.known()

    def known(self) -> list[SignedAnnouncement]:
        """Those of the last picture that are still live, however old it is. Nobody is asked."""
        return [node for node in self._nodes if node.announcement.is_live()]
