"""Which nodes run which blocks. Pure: announcements in, a chain out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from discovery.protocol.announcement import Announcement
from far_mesh.errors import NoRoute

_PRECISION = {"none": 0, "int8": 1, "nf4": 2}


@dataclass(frozen=True)
class RouteHop:
    """A node and the blocks ``[first, end)`` it runs, which may be a part of those it serves."""

    node: Announcement
    first_block: int
    end_block: int

    @property
    def blocks(self) -> tuple[int, int]:
        """``(first_block, end_block)``, end exclusive."""
        return self.first_block, self.end_block


def plan_route(
    nodes: Iterable[Announcement],
    block_count: int,
    excluded: Collection[str] = (),
    *,
    span: tuple[int, int] | None = None,
    before: str | None = None,
    after: str | None = None,
) -> tuple[RouteHop, ...]:
    """The chain with the fewest hops that covers ``span``: blocks ``[first, end)``, by default all of them.

    At each border the node that reaches farthest is taken; among equals the more precise one, then the one announced
    last. Fewest hops is what one stream wants: each hop costs a one-way delay per token.

    Args:
        excluded: peer ids that are not used.
        before: who hands the chain its input, and ``after`` who takes its output: peer ids that are not used in
            between; ``None`` is the client.

    Raises:
        NoRoute: some blocks have no node; the message and ``facts["uncovered"]`` name them.
    """
    first, end = span or (0, block_count)
    usable = [node for node in takes_sessions(nodes) if node.peer_id not in {*excluded, before, after}]
    hops: list[RouteHop] = []
    position = first
    while position < end:
        here = [node for node in usable if node.first_block <= position < node.end_block]
        if not here:
            raise _no_route(uncovered_ranges(usable, end, first))
        best = max(here, key=lambda node: (node.end_block, -_PRECISION[node.quantization], node.issued_at))
        hops.append(RouteHop(best, position, min(best.end_block, end)))
        position = hops[-1].end_block
    return tuple(hops)


def takes_sessions(nodes: Iterable[Announcement]) -> list[Announcement]:
    """Those that take new sessions: who is leaving does not."""
    return [node for node in nodes if node.state == "ready"]


def uncovered_ranges(nodes: Sequence[Announcement], end_block: int, first_block: int = 0) -> list[tuple[int, int]]:
    """Maximal ranges within ``[first_block, end_block)`` that no node serves."""
    gaps: list[tuple[int, int]] = []
    position = first_block
    for node in sorted(nodes, key=lambda node: node.first_block):
        if position < min(node.first_block, end_block):
            gaps.append((position, min(node.first_block, end_block)))
        position = max(position, node.end_block)
    if position < end_block:
        gaps.append((position, end_block))
    return gaps


def _no_route(uncovered: list[tuple[int, int]]) -> NoRoute:
    return NoRoute(f"no live node serves blocks {in_words(uncovered)}", uncovered=uncovered, retry_after=5.0)


def in_words(ranges: Iterable[tuple[int, int]]) -> str:
    """``3:6, 8:10``, end exclusive, as ``--blocks`` is written."""
    return ", ".join(f"{first}:{end}" for first, end in ranges)
