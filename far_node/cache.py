"""How much attention cache is promised to whom: admit, free, refuse. Counts only; the tensors grow in the sessions."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.protocol.ids import SessionId
from far_node.errors import Busy

RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class CacheCost:
    """Bytes of cache a row takes in one block: once, and for each position."""

    fixed_bytes: int
    position_bytes: int

    def of(self, rows: int, positions: int, blocks: int) -> int:
        """Bytes for a session of this size."""
        return rows * blocks * (self.fixed_bytes + positions * self.position_bytes)


class CacheBudget:
    """A session is admitted with all it may ever need, so no session runs out half way."""

    def __init__(self, capacity_bytes: int, cost: CacheCost, max_sessions: int) -> None:
        self.capacity_bytes, self._cost, self._max_sessions = capacity_bytes, cost, max_sessions
        self._promised: dict[SessionId, int] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes promised to open sessions."""
        return sum(self._promised.values())

    @property
    def sessions(self) -> int:
        """Sessions that hold cache."""
        return len(self._promised)

    def admit(self, session_id: SessionId, rows: int, positions: int, blocks: int) -> None:
        """Promise a session its cache.

        Raises:
            Busy: it does not fit now, too many sessions are open, or the id is taken.
        """
        if session_id in self._promised:
            raise Busy("a session with this id is open", retry_after=RETRY_SECONDS)
        if len(self._promised) >= self._max_sessions:
            raise Busy(f"{self._max_sessions} sessions are open, the most this node takes", retry_after=RETRY_SECONDS)
        needed = self._cost.of(rows, positions, blocks)
        free = self.capacity_bytes - self.used_bytes
        if needed > free:
            raise Busy(
                f"the session needs {needed} bytes of cache and {free} are free",
                needed_bytes=needed,
                free_bytes=free,
                retry_after=RETRY_SECONDS,
            )
        self._promised[session_id] = needed

    def free(self, session_id: SessionId) -> None:
        """Take the promise back; a session that has none is no fault."""
        self._promised.pop(session_id, None)
