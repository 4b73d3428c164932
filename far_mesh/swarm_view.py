"""What the client believes of the swarm: a recent picture of who serves the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from discovery.dht.board import Board
from discovery.protocol.announcement import MAX_LIFETIME_SECONDS, Announcement, SignedAnnouncement


class SwarmView:
    """Reads the board when its picture is older than ``max_age`` seconds; one reader at a time."""

    def __init__(self, board: Board, model_digest: str, max_age: float) -> None:
        self._board, self._digest, self._max_age = board, model_digest, max_age
        self._nodes: list[SignedAnnouncement] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._gone: dict[str, tuple[int, float]] = {}
        """What they had announced by then, and when that was."""

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

    def gone(self, peer_ids: Iterable[str]) -> None:
        """They could not be reached, or broke off: what they have announced up to now counts for little."""
        now = time.monotonic()
        issued = {node.announcement.peer_id: node.announcement.issued_at for node in self.known()}
        still = {peer_id: at for peer_id, at in self._gone.items() if now - at[1] < MAX_LIFETIME_SECONDS}
        self._gone = still | {peer_id: (issued[peer_id], now) for peer_id in peer_ids if peer_id in issued}

    def absent(self) -> list[Announcement]:
        """Those who are gone, and are still announced."""
        nodes = [node.announcement for node in self.known()]
        there = {node.peer_id for node in self.present(nodes)}
        return [node for node in nodes if node.peer_id not in there]

    def back(self, peer_ids: Iterable[str]) -> None:
        """They are there."""
        for peer_id in peer_ids:
            self._gone.pop(peer_id, None)

    def present(self, nodes: Sequence[Announcement]) -> list[Announcement]:
        """Those who are not gone, or have announced themselves since."""
        return [
            node for node in nodes if node.peer_id not in self._gone or node.issued_at > self._gone[node.peer_id][0]
        ]
