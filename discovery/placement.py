"""How well the blocks of a model are covered, and which nodes would do more good elsewhere. Pure.

Advice is only that: nobody can move a node but its owner. What serves as a measure is how few nodes the rarest block
has, and how many blocks are as rare as that: a block that nobody serves stops the whole model (as Petals places its
servers, arXiv:2209.01188).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from discovery.protocol.announcement import Announcement
from discovery.protocol.ids import PeerId

WANTED_REPLICAS = 2
"""With two nodes for each block the loss of one costs a pause."""
MOST_MOVES = 16

Span = tuple[int, int]
"""Blocks ``[first, end)``."""


@dataclass(frozen=True)
class Stretch:
    """Neighbouring blocks that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


@dataclass(frozen=True)
class Move:
    """A node that would do more good at ``to`` than where it is; both are equally long, so it has the memory."""

    peer_id: PeerId
    blocks: Span
    to: Span


@dataclass(frozen=True)
class Advice:
    """What a swarm has and what would be better. Per block: how many nodes serve it, ``now`` and ``after`` the moves.

    Attributes:
        wanted: how many nodes each block should have.
    """

    now: tuple[int, ...]
    wanted: int
    moves: tuple[Move, ...]
    after: tuple[int, ...]

    @property
    def thin(self) -> list[Stretch]:
        """What fewer nodes serve than should."""
        return thin(self.now, self.wanted)

    @property
    def lacking(self) -> list[Stretch]:
        """What moving cannot mend: here more nodes are needed."""
        return thin(self.after, self.wanted)

    def move_of(self, peer_id: str) -> Move | None:
        """What is advised to one node."""
        return next((move for move in self.moves if move.peer_id == peer_id), None)


def coverage(announcements: Iterable[Announcement], block_count: int, without: PeerId | None = None) -> list[int]:
    """For each block, how many nodes serve it and mean to stay; ``without`` is not counted."""
    served = [0] * block_count
    for about in announcements:
        if about.state == "ready" and about.peer_id != without and about.block_count == block_count:
            for block in range(*about.blocks):
                served[block] += 1
    return served


def stretches(covered: Sequence[int]) -> list[Stretch]:
    """Coverage in as few pieces as there are."""
    pieces, first = [], 0
    for replicas, blocks in groupby(covered):
        end = first + len(list(blocks))
        pieces.append(Stretch(first, end, replicas))
        first = end
    return pieces


def thin(covered: Sequence[int], wanted: int) -> list[Stretch]:
    """The stretches that fewer than ``wanted`` nodes serve."""
    return [piece for piece in stretches(covered) if piece.replicas < wanted]


def advise(
    announcements: Iterable[Announcement],
    block_count: int,
    wanted: int = WANTED_REPLICAS,
    most_moves: int = MOST_MOVES,
) -> Advice:
    """Which nodes should move where until every block has ``wanted`` nodes, or no single move makes it better.

    One after the other, each time the move after which the rarest block has the most nodes and the fewest blocks are as
    rare; of several that are equal the shortest way, and of a range's nodes the one that is least busy. A node moves
    once, and the same announcements give the same advice everywhere.
    """
    there = [about for about in announcements if about.state == "ready" and about.block_count == block_count]
    covered = coverage(there, block_count)
    now = tuple(covered)
    moves: list[Move] = []
    by_span: dict[Span, list[Announcement]] = {}
    for about in sorted(there, key=lambda about: (about.load, about.peer_id), reverse=True):
        by_span.setdefault(about.blocks, []).append(about)
    while len(moves) < most_moves and min(covered) < wanted:
        found = max((_best(span, covered) for span in sorted(by_span)), default=None)
        if found is None or found[0] <= _score(covered):
            break
        _, _, span, to = found
        movers = by_span[span]
        moves.append(Move(PeerId(movers.pop().peer_id), span, to))
        if not movers:
            del by_span[span]
        for block in range(*span):
            covered[block] -= 1
        for block in range(*to):
            covered[block] += 1
    return Advice(now, wanted, tuple(moves), tuple(covered))


_Score = tuple[int, int]
"""How many nodes the rarest block has, and how many blocks are as rare, negative."""


_Option = tuple[_Score, int, Span, Span]
"""What a move would lead to, how near it is (negative), from where and where to: the greatest is the best."""


def _score(covered: Sequence[int]) -> _Score:
    rarest = min(covered)
    return rarest, -sum(replicas == rarest for replicas in covered)


def _best(span: Span, covered: Sequence[int]) -> _Option:
    """Where one node of ``span`` would do the most good: among the rarest blocks, somewhere."""
    rest = [replicas - (span[0] <= block < span[1]) for block, replicas in enumerate(covered)]
    rarest, length = min(rest), span[1] - span[0]
    rare = [0, *accumulate(replicas == rarest for replicas in rest)]
    next_rare = [0, *accumulate(replicas == rarest + 1 for replicas in rest)]

    def option(first: int) -> _Option:
        end = first + length
        inside, left = rare[end] - rare[first], rare[-1] - rare[end] + rare[first]
        outside = next_rare[-1] - next_rare[end] + next_rare[first]
        score = (rarest, -left) if left else (rarest + 1, -(inside + outside))
        return score, -abs(first - span[0]), span, (first, end)

    starts = range(len(covered) - length + 1)
    return max(option(first) for first in starts if rare[first + length] > rare[first])
