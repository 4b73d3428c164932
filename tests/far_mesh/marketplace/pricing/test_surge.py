"""Prices follow demand in steps, and do not flutter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.pricing.surge import STEPS, multiplier_bps, next_level, raised, utilisation_of
from tests.support.documents import signed_announcement

loads = st.floats(0, 3)
levels = st.integers(0, len(STEPS))


@pytest.mark.parametrize(
    ("utilisation", "multiplier"),
    [(0.0, 10_000), (0.5, 10_000), (0.51, 12_000), (0.8, 12_000), (0.81, 15_000), (3.0, 15_000)],
)
def test_the_steps_are_those_of_the_specification(utilisation: float, multiplier: int) -> None:
    assert multiplier_bps(next_level(0, utilisation)) == multiplier


@pytest.mark.parametrize(
    ("level", "utilisation", "after"),
    [(1, 0.49, 1), (1, 0.46, 1), (1, 0.45, 0), (2, 0.79, 2), (2, 0.76, 2), (2, 0.75, 1), (2, 0.46, 1), (2, 0.1, 0)],
)
def test_a_price_comes_down_when_it_is_clearly_quieter(level: int, utilisation: float, after: int) -> None:
    assert next_level(level, utilisation) == after


@given(levels, loads)
def test_the_same_load_seen_again_changes_nothing(level: int, utilisation: float) -> None:
    once = next_level(level, utilisation)
    assert next_level(once, utilisation) == once


@given(levels, loads, loads)
def test_more_load_is_never_cheaper(level: int, one: float, other: float) -> None:
    assert next_level(level, min(one, other)) <= next_level(level, max(one, other))


@given(levels, levels, loads)
def test_who_was_dearer_is_not_cheaper_after(one: int, other: int, load: float) -> None:
    assert next_level(min(one, other), load) <= next_level(max(one, other), load)


@pytest.mark.parametrize("above", [above for above, _ in STEPS])
def test_a_load_that_wavers_round_a_step_moves_the_price_once(above: float) -> None:
    level, changes = 0, 0
    for index in range(100):
        after = next_level(level, above + (0.02 if index % 2 else -0.02))
        changes, level = changes + (after != level), after
    assert changes == (1 if above == STEPS[0][0] else 2)


def test_prices_are_rounded_down_to_whole_units() -> None:
    assert (raised(1, 12_000), raised(10, 12_000), raised(3, 15_000), raised(7, 10_000)) == (1, 12, 4, 7)


def test_the_block_that_the_fewest_nodes_serve_decides() -> None:
    nodes = [
        signed_announcement(name, first_block=first, end_block=end).announcement
        for name, first, end in (("ann", 0, 6), ("bob", 0, 8), ("cid", 4, 8))
    ]
    assert utilisation_of(8, nodes, 8, 4) == 1.0  # blocks 0:4 and 6:8 have two nodes each
    assert utilisation_of(8, nodes[:2], 8, 4) == 2.0  # blocks 6:8 have one
    assert utilisation_of(0, nodes, 8, 4) == 0.0
    assert utilisation_of(1, nodes[:1], 8, 4) == 1.0  # nobody serves 6:8
    assert utilisation_of(0, [], 8, 4) == 0.0
