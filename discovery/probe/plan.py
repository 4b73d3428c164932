"""What probing may cost a node, whose turn it is, and what is asked. Pure: the time is an argument.

A node is not paid for probes, so they must not be felt: :data:`TOKEN_LAYERS_PER_HOUR` of each prober is what a node
with 8 blocks and 20 tokens a second does in 26 seconds of an hour (0.7 %), and at most :data:`PROBES_PER_HOUR` sessions
are opened. When a node is asked is left to chance within bounds, so that nobody can wait for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

TOKEN_LAYERS_PER_HOUR = 4096
TOKEN_LAYERS_PER_PROBE = 1024
PROBES_PER_HOUR = 6
HOUR = 3600.0


@dataclass
class Budget:
    """Owner of what one prober has asked of whom in the last hour.

    Args:
        token_layers: a node is asked for no more within any hour; ``probes``: nor more often.
    """

    token_layers: int = TOKEN_LAYERS_PER_HOUR
    probes: int = PROBES_PER_HOUR
    _asked: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def left(self, peer_id: str, now: float) -> int:
        """Token-layers that a node may be asked for now; 0: it was asked often enough."""
        lately = self._lately(peer_id, now)
        if len(lately) >= self.probes:
            return 0
        return min(TOKEN_LAYERS_PER_PROBE, max(0, self.token_layers - sum(cost for _, cost in lately)))

    def spend(self, peer_id: str, token_layers: int, now: float) -> None:
        """It was asked for so many."""
        self._asked[peer_id] = [*self._lately(peer_id, now), (now, token_layers)]

    def forget(self, now: float) -> None:
        """Drop whom nobody has asked for an hour."""
        self._asked = {peer_id: those for peer_id in self._asked if (those := self._lately(peer_id, now))}

    def _lately(self, peer_id: str, now: float) -> list[tuple[float, int]]:
        return [one for one in self._asked.get(peer_id, []) if now - one[0] < HOUR]


class Turns:
    """Owner of whose turn it is: every ``seconds`` on average, between a half and one and a half of them."""

    def __init__(self, seconds: float, chance: random.Random) -> None:
        self._seconds, self._chance = seconds, chance
        self._due: dict[str, float] = {}

    def due(self, peer_ids: Iterable[str], now: float) -> list[str]:
        """Whose turn it is, who has waited longest first. Newcomers come within the first ``seconds``; who is not
        named is forgotten."""
        named = set(peer_ids)
        self._due = {peer_id: at for peer_id, at in self._due.items() if peer_id in named}
        for peer_id in sorted(named - self._due.keys()):
            self._due[peer_id] = now + self._chance.uniform(0.0, self._seconds)
        return sorted((one for one, at in self._due.items() if at <= now), key=lambda one: (self._due[one], one))

    def done(self, peer_id: str, now: float) -> None:
        """It had its turn."""
        self._due[peer_id] = now + self._chance.uniform(0.5, 1.5) * self._seconds


def cut(blocks: tuple[int, int], positions: int, token_layers: int, chance: random.Random) -> tuple[int, int] | None:
    """A part of ``[first, end)`` that ``positions`` through it cost no more than so many token-layers; the whole, where
    that is not too much. None: not a single block.

    A part begins with the first block or ends with the last one, as the parts that routes take do.
    """
    first, end = blocks
    count = min(end - first, token_layers // positions)
    if count < 1:
        return None
    return (first, first + count) if chance.random() < 0.5 else (end - count, end)


@dataclass(frozen=True)
class Server:
    """A node that could answer the same, whom it is paid to, and its blocks."""

    peer_id: str
    owner: str
    blocks: tuple[int, int]

    def covers(self, blocks: tuple[int, int]) -> bool:
        """Whether it serves all of these."""
        return self.blocks[0] <= blocks[0] and blocks[1] <= self.blocks[1]


def shared(node: Server, others: Sequence[Server], fewest: int) -> tuple[int, int]:
    """The longest part of a node's blocks that ``fewest`` other owners serve as well; all of them, where there is none.

    Of two that are as long it is the first.
    """
    rest = [one for one in others if one.owner != node.owner]
    borders = {*node.blocks, *(border for one in rest for border in one.blocks)}
    inside = sorted(border for border in borders if node.blocks[0] <= border <= node.blocks[1])
    parts = [(first, end) for first in inside for end in inside if first < end]
    parts.sort(key=lambda part: (part[0] - part[1], part))
    return next((part for part in parts if len({one.owner for one in rest if one.covers(part)}) >= fewest), node.blocks)
