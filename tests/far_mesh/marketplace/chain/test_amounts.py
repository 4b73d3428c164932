"""Units and wei."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.chain.amounts import units_to_far, units_to_wei, wei_to_units, wei_to_units_up


@given(st.integers(0, 2**62))
def test_there_and_back(units: int) -> None:
    assert wei_to_units(units_to_wei(units)) == wei_to_units_up(units_to_wei(units)) == units


@given(st.integers(0, 2**96))
def test_what_comes_in_is_rounded_down_and_what_goes_out_up(wei: int) -> None:
    assert wei_to_units(wei) * 10**9 <= wei <= wei_to_units_up(wei) * 10**9


def test_far_is_for_eyes() -> None:
    assert units_to_far(9_500_000) == 0.0095
    assert units_to_far(1) == 1e-09
