"""Bars and amounts."""

from __future__ import annotations

import pytest

from far_node.rewards.amounts import far
from far_node.rewards.answers import DayRewards, NodeScore
from far_node.rewards.display import PARTS, bars, shares


@pytest.mark.parametrize(
    ("units", "words"),
    [(0, "0.000000000 FAR"), (1, "0.000000001 FAR"), (1_234_000_000_005, "1,234.000000005 FAR")],
)
def test_amounts_are_exact(units: int, words: str) -> None:
    assert far(units) == words


def test_the_best_day_is_the_highest_and_a_day_without_work_has_no_bar() -> None:
    days = [DayRewards(date="d", requests=1, earned_units=units) for units in (0, 1, 500, 999, 1000)]
    assert bars(days) == " ▁▄██"
    assert bars([]) == ""
    assert bars(days[:1]) == " "


def test_a_score_is_shown_with_its_parts_or_as_unknown() -> None:
    score = NodeScore(value=0.5, dependability=0.8, honesty=0.75, presence=0.875, standing=0.9525)
    assert shares(score) == ("0.500", "0.800", "0.750", "0.875", "0.953")
    assert len(shares(score)) == 1 + len(PARTS)
    assert shares(None) == ("unknown",)
