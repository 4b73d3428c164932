"""Can these nodes serve all blocks of a model? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from discovery.protocol.announcement import SignedAnnouncement


def ready_ranges(nodes: Iterable[SignedAnnouncement]) -> list[tuple[int, int]]:
    """The block ranges of nodes that take new sessions."""
    return [node.announcement.blocks for node in nodes if node.announcement.state == "ready"]


def uncovered(block_count: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The block ranges ``[a, b)`` that nobody serves, in order."""
    gaps: list[tuple[int, int]] = []
    reached = 0
    for first, end in sorted(ranges):
        if first > reached:
            gaps.append((reached, min(first, block_count)))
        reached = max(reached, end)
        if reached >= block_count:
            return gaps
    return [*gaps, (reached, block_count)]


def in_words(gaps: Sequence[tuple[int, int]]) -> str:
    """``0-3, 8-11``, last block included, as people count."""
    return ", ".join(f"{first}-{end - 1}" for first, end in gaps)
