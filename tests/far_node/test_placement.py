"""A node goes where the swarm lacks it most."""

from __future__ import annotations

import pytest

from far_node.placement import least_covered


@pytest.mark.parametrize(
    ("covered", "size", "chosen"),
    [
        ([0, 0, 0, 0], 2, (0, 2)),
        ([1, 1, 0, 0], 2, (2, 4)),
        ([2, 1, 1, 2], 2, (1, 3)),
        ([1, 1, 1, 1], 4, (0, 4)),
        ([0, 9, 1, 1], 2, (0, 2)),
        ([0, 9, 0, 1], 2, (2, 4)),
    ],
    ids=["an empty swarm", "the half that is free", "the middle", "all", "a hole first", "the cheaper of two holes"],
)
def test_the_rarest_blocks_are_chosen_and_the_lowest_of_equals(
    covered: list[int], size: int, chosen: tuple[int, int]
) -> None:
    candidates = [(first, first + size) for first in range(len(covered) - size + 1)]
    assert least_covered(candidates, covered) == chosen
    assert least_covered(candidates[::-1], covered) == chosen
