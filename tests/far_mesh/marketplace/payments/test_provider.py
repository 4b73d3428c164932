"""Units, atoms, and what holds for payouts everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.payments.errors import PayoutInvalid
from far_mesh.marketplace.payments.provider import Coin, Payout, check_payouts

DECIMALS = st.integers(0, 30)


@given(DECIMALS, st.integers(0, 2**63 - 1))
def test_what_is_payable_is_paid_exactly_and_the_rest_is_less_than_an_atom(decimals: int, units: int) -> None:
    coin = Coin("X", decimals, "x:1")
    payable = coin.payable(units)
    assert coin.units_of(coin.atoms_of(payable)) == payable <= units
    assert units - payable < max(10 ** (9 - decimals), 1)


@given(DECIMALS, st.integers(0, 2**128))
def test_what_comes_in_is_never_more_than_what_arrived(decimals: int, atoms: int) -> None:
    coin = Coin("X", decimals, "x:1")
    back = coin.atoms_of(coin.units_of(atoms))
    assert back <= atoms < back + max(10 ** (decimals - 9), 1)


def test_a_part_of_an_atom_cannot_be_paid() -> None:
    coin = Coin("USDC", 6, "x:1")
    assert (coin.atoms_of(2_000), coin.payable(2_999)) == (2, 2_000)
    with pytest.raises(PayoutInvalid, match="smallest part of USDC"):
        coin.atoms_of(2_999)


@pytest.mark.parametrize(
    "payouts",
    [[], [Payout("a", 1), Payout("b", 1), Payout("c", 1)], [Payout("a", 0)], [Payout("a", 1), Payout("a", 2)]],
)
def test_payouts_are_some_and_not_too_many_each_to_somebody_else(payouts: list[Payout]) -> None:
    check_payouts([Payout("a", 1), Payout("b", 2)], 2)
    with pytest.raises(PayoutInvalid):
        check_payouts(payouts, 2)
