"""What to do when nodes are lost in the middle of a session: whom to suspect, what to replace, when to give up. Pure.

:class:`~far_mesh.session.MeshSession` acts on it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from discovery.dht.transport import SLOW_BYTES_PER_SECOND
from discovery.protocol.errors import FarError, ProtocolViolation, RemoteError
from discovery.protocol.messages import Pong
from far_node.errors import ComputeFailed, SessionUnknown

_MENDED_ALTHOUGH_FINAL = (ComputeFailed, RemoteError, SessionUnknown)
_SMOOTHING = 0.2
_PACE_FACTOR = 4.0


def can_mend(error: FarError, *, is_own_finding: bool) -> bool:
    """Whether another node in the place of the one that failed may do better.

    Args:
        is_own_finding: we found it in what the node sent; else the node reports it. What a node says is wrong with what
            it was given would be wrong for the next one too.
    """
    if isinstance(error, ProtocolViolation):
        return is_own_finding
    return error.retry or isinstance(error, _MENDED_ALTHOUGH_FINAL)


def first_gap(lost: Collection[int], count: int) -> tuple[int, int]:
    """The first run of lost hops among ``count``: index of its first, and after its last."""
    first = min(lost)
    end = first
    while end < count and end in lost:
        end += 1
    return first, end


@dataclass
class Pace:
    """How long steps take, by what was measured: when to begin to wonder. Times in seconds."""

    at_least: float
    _by_size: dict[int, float] = field(default_factory=dict)

    def learn(self, positions: int, seconds: float) -> None:
        """An answer came after ``seconds``."""
        size = positions.bit_length()
        old = self._by_size.get(size)
        self._by_size[size] = seconds if old is None else old + _SMOOTHING * (seconds - old)

    def patience(self, positions: int) -> float:
        """How long an answer may take before the nodes are asked whether they are there."""
        known = self._by_size.get(positions.bit_length(), 0.0)
        return max(self.at_least, _PACE_FACTOR * known)


def transfer_seconds(bytes_in_flight: int) -> float:
    """What steps in flight may take on slow links, in which pings wait behind them."""
    return bytes_in_flight / SLOW_BYTES_PER_SECOND


class StandStill:
    """Finds the link on which steps vanish, while the nodes at both ends answer."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[tuple[str, str, int, int], float] = {}

    def suspects(self, peers: Sequence[str], pongs: Sequence[Pong], now: float, slack: float = 0.0) -> set[int]:
        """Hops that have not got what the one before gave out, for longer than ``patience`` and ``slack`` seconds."""
        gaps = {
            (peers[index], peers[index + 1], before.given, after.taken): index + 1
            for index, (before, after) in enumerate(pairwise(pongs))
            if after.taken < before.given
        }
        self._since = {gap: self._since.get(gap, now) for gap in gaps}
        return {gaps[gap] for gap, since in self._since.items() if now - since > self._patience + slack}


@dataclass
class Shunned:
    """Peers that are not asked for a while. Times in seconds of a steady clock."""

    seconds: float
    _until: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)

    def add(self, peer_id: str, now: float, retry_after: float | None = None) -> None:
        """It failed now: again, and it is shunned twice as long. Who said when to come back is taken at its word."""
        failures = self._failures[peer_id] = self._failures.get(peer_id, 0) + 1
        longest = self.seconds * 2 ** (failures - 1)
        self._until[peer_id] = now + (longest if retry_after is None else min(retry_after, longest))

    def forget_others(self, peer_ids: Collection[str]) -> None:
        """Of all but these it does not matter any more how often they failed."""
        self._until = {peer_id: until for peer_id, until in self._until.items() if peer_id in peer_ids}
        self._failures = {peer_id: count for peer_id, count in self._failures.items() if peer_id in peer_ids}

    def at(self, now: float) -> set[str]:
        """Who is shunned."""
        return {peer_id for peer_id, until in self._until.items() if now < until}
