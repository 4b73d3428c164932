"""Nothing is made, nothing is lost, and nobody is paid for what others could not prove."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from far_mesh.marketplace.ledger.split import BPS, Prices, Settlement, Tokens, divide, fee_on, price_of, settle

tokens = st.integers(0, 200_000)
prices = st.integers(0, 10**12)
fees = st.integers(0, 3_000)
layers = st.integers(0, 10**9)
routes = st.lists(st.tuples(st.sampled_from([f"w{i}" for i in range(12)]), layers), max_size=40)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    prompt, completion, prompt_price, completion_price = draw(tokens), draw(tokens), draw(prices), draw(prices)
    shares = draw(routes)
    prices_ = Prices(prompt_price, completion_price, draw(st.integers(0, prompt_price)), draw(fees))
    price = price_of(Tokens(prompt, completion), prices_)
    return {
        "held": draw(st.one_of(st.just(price), st.integers(0, 2 * price + 10))),
        "tokens": Tokens(prompt, completion, draw(st.integers(0, prompt))),
        "prices": prices_,
        "shares": shares,
        "expected_token_layers": sum(work for _, work in shares) + draw(st.one_of(st.just(0), layers)),
    }


def settled(request: dict[str, Any]) -> Settlement[str]:
    return settle(**request)


@given(requests())
@example(
    {
        "held": 1,
        "tokens": Tokens(0, 1),
        "prices": Prices(0, 1, 0, 3_000),
        "shares": [("w1", 1)],
        "expected_token_layers": 1,
    }
)
def test_providers_fee_and_refund_are_what_was_held(request: dict[str, Any]) -> None:
    divided = settled(request)
    assert sum(amount for _, amount in divided.amounts) + divided.fee + divided.refund == request["held"]
    assert divided.refund >= 0
    assert divided.fee >= 0
    assert all(amount > 0 for _, amount in divided.amounts)


@given(requests())
def test_the_user_never_pays_more_than_the_price_nor_than_was_held(request: dict[str, Any]) -> None:
    divided = settled(request)
    assert divided.cost <= price_of(request["tokens"], request["prices"])
    assert divided.cost == divided.paid + divided.fee <= int(request["held"])


@given(requests(), st.randoms())
def test_the_order_of_the_route_changes_nothing(request: dict[str, Any], shuffler: random.Random) -> None:
    shares = list(request["shares"])
    shuffler.shuffle(shares)
    assert settled(request) == settled({**request, "shares": shares})


@given(requests())
def test_the_fee_is_what_the_contract_computes_from_the_amounts(request: dict[str, Any]) -> None:
    divided = settled(request)
    fee_bps = request["prices"].fee_bps
    wei = divided.paid * 10**9 * fee_bps // (BPS - fee_bps)
    assert divided.fee * 10**9 == wei - wei % 10**9


@given(st.integers(0, 10**15), st.lists(layers, min_size=1, max_size=30).filter(any))
def test_parts_are_exact_and_within_one_unit_of_fair(total: int, weights: list[int]) -> None:
    parts, whole = divide(total, weights), sum(weights)
    assert sum(parts) == total
    assert all(abs(part * whole - total * weight) < whole for part, weight in zip(parts, weights, strict=True))


@given(st.integers(0, 10**12), st.lists(layers, min_size=2, max_size=10).filter(any))
def test_more_work_is_never_paid_less(total: int, weights: list[int]) -> None:
    paid = sorted(zip(weights, divide(total, weights), strict=True))
    for (less, small), (more, large) in pairwise(paid):
        assert small <= large or less == more


@given(requests())
def test_what_nobody_proved_goes_back_to_the_user_and_not_to_the_others(request: dict[str, Any]) -> None:
    shares = list(request["shares"])
    alone = dict(settled(request).amounts)
    more = int(request["expected_token_layers"]) + 10**6
    with_unproven = dict(settled({**request, "expected_token_layers": more}).amounts)
    assert all(with_unproven.get(payee, 0) <= alone.get(payee, 0) + 1 for payee, _ in shares)


def test_the_worked_example() -> None:
    divided = settle(1_000, Tokens(0, 10), Prices(0, 100, 0, 2_000), [("a", 30), ("b", 50)], 100)
    assert divided.amounts == (("a", 240), ("b", 400))
    assert divided.fee == 160
    assert divided.refund == 200


def test_prompt_and_answer_have_prices_of_their_own_and_known_tokens_a_third() -> None:
    prices = Prices(prompt=10, completion=100, cached=4, fee_bps=0)
    assert price_of(Tokens(7, 2), prices) == 270
    assert price_of(Tokens(7, 2, cached=5), prices) == 240
    assert price_of(Tokens(7, 2, cached=9), prices) == 228  # no more are known than there are


@given(requests())
def test_what_nodes_knew_from_before_never_makes_it_dearer(request: dict[str, Any]) -> None:
    fresh = Tokens(request["tokens"].prompt, request["tokens"].completion)
    assert settled(request).cost <= settled({**request, "tokens": fresh}).cost


def test_without_proof_everything_is_refunded() -> None:
    divided: Settlement[str] = settle(1_000, Tokens(5, 5), Prices(1, 1, 1, 2_000), [], 80)
    assert (divided.amounts, divided.fee, divided.refund) == ((), 0, 1_000)


def test_one_wallet_with_two_hops_is_one_payee() -> None:
    divided = settle(1_000, Tokens(0, 10), Prices(0, 100, 0, 0), [("a", 1), ("b", 2), ("a", 1)], 4)
    assert divided.amounts == (("a", 500), ("b", 500))


@pytest.mark.parametrize(("fee_bps", "work"), [(-1, 1), (3_001, 1), (0, -1)])
def test_numbers_that_mean_nothing_are_refused(fee_bps: int, work: int) -> None:
    with pytest.raises(ValueError, match=r"basis points|never negative"):
        settle(10, Tokens(1, 1), Prices(1, 1, 1, fee_bps), [("a", work)], 1)


def test_the_fee_is_a_fifth_of_both_together_by_default() -> None:
    assert fee_on(800, 2_000) == 200
