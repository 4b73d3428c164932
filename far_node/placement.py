"""Which of the ranges that fit a node should serve: the one that the swarm lacks most. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def least_covered(candidates: Sequence[tuple[int, int]], covered: Sequence[int]) -> tuple[int, int]:
    """The candidate whose blocks the fewest nodes serve; the lowest of several.

    The rarest block of a range counts first, then its next rarest: a block that nobody serves stops the whole model, so
    it outweighs any number of blocks that few serve (as Petals places its servers, arXiv:2209.01188).
    """
    return min(candidates, key=lambda one: (sorted(covered[one[0] : one[1]]), one))
