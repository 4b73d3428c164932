"""A node goes where the swarm lacks it most."""

from __future__ import annotations

import pytest

from discovery.protocol.announcement import Announcement
from far_node.placement import coverage, least_covered
from tests.support.documents import announcement, peer_of

ME = peer_of("me")


def serving(name: str, first: int, end: int, **more: object) -> Announcement:
    return announcement(name, first_block=first, end_block=end, **more)


def test_each_block_counts_the_nodes_that_serve_it() -> None:
    swarm = [serving("a", 0, 4), serving("b", 3, 8), serving("c", 3, 5)]
    assert coverage(swarm, 8, ME) == [1, 1, 1, 3, 2, 1, 1, 1]


def test_who_leaves_does_not_count_and_neither_do_we() -> None:
    swarm = [serving("a", 0, 4, state="leaving"), serving("me", 0, 8), serving("b", 6, 8)]
    assert coverage(swarm, 8, ME) == [0, 0, 0, 0, 0, 0, 1, 1]


def test_an_announcement_of_a_model_with_another_number_of_blocks_is_no_cover() -> None:
    assert coverage([serving("a", 8, 16, block_count=16)], 8, ME) == [0] * 8


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
