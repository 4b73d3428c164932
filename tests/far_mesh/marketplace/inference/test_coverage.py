"""Which blocks nobody serves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.inference.coverage import in_words, ready_ranges, uncovered
from tests.support.documents import signed_announcement


@pytest.mark.parametrize(
    ("ranges", "gaps"),
    [
        ([], [(0, 8)]),
        ([(0, 8)], []),
        ([(4, 8), (0, 4)], []),
        ([(0, 3), (2, 8)], []),
        ([(0, 3), (6, 8)], [(3, 6)]),
        ([(2, 4)], [(0, 2), (4, 8)]),
    ],
)
def test_gaps(ranges: list[tuple[int, int]], gaps: list[tuple[int, int]]) -> None:
    assert uncovered(8, ranges) == gaps


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(1, 20)).filter(lambda r: r[0] < r[1]), max_size=8))
def test_gaps_and_ranges_together_are_all_blocks(ranges: list[tuple[int, int]]) -> None:
    served = {block for first, end in ranges for block in range(first, end)}
    missing = [block for first, end in uncovered(20, ranges) for block in range(first, end)]
    assert sorted(missing) == sorted(set(range(20)) - served)


def test_who_is_leaving_takes_no_new_sessions() -> None:
    staying, leaving = signed_announcement("a"), signed_announcement("b", state="leaving", first_block=4, end_block=8)
    assert ready_ranges([staying, leaving]) == [(0, 4)]


def test_people_count_the_last_block_too() -> None:
    assert in_words([(0, 3), (7, 8)]) == "0-2, 7-7"
