"""Which requests are settled together: every rule of it, and what holds for any requests and any means."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.ids import ZERO_ADDRESS
from far_mesh.marketplace.ledger.schemas import PLATFORM
from far_mesh.marketplace.ledger.split import fee_on
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.batches import (
    MAX_PROVIDERS,
    MAX_USERS,
    Composition,
    Ended,
    Gathered,
    Means,
    Rule,
    Why,
    compose,
    gathered,
    is_due,
)
from far_mesh.marketplace.settlement.merkle import Tree, detail_leaves

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FEE_BPS = 2_000
PLENTY = 10**15
RULE = Rule(seconds=3_600, threshold_units=1_000, unsettled_limit_units=10_000)


def wallet(index: int) -> str:
    return f"0x{index + 1:040x}"


def ended(name: str, user: str = "ann", *, pays: int = 400, to: str = wallet(0), **changes: Any) -> Ended:
    fee = fee_on(pays, FEE_BPS)
    return replace(Ended(name, user, Payment.NETTED, None, NOON, fee, {to: pays}), **changes)


def over(channel: str, name: str, user: str = "ann", *, pays: int = 400) -> Ended:
    return ended(name, user, pays=pays, payment=Payment.CHANNEL, channel_id=channel)


def means(**changes: Any) -> Means:
    owed = {PLATFORM: PLENTY, **{wallet(index): PLENTY for index in range(300)}}
    users = {name: PLENTY for name in ("ann", "bob", "cid", *(f"user {index}" for index in range(300)))}
    return replace(Means(users, {}, owed, FEE_BPS, PLENTY), **changes)


def names(composition: Composition) -> list[list[str]]:
    return [[request.request_id for request in batch.requests] for batch in composition.batches]


def left(composition: Composition) -> dict[str, Why]:
    return {one.request.request_id: one.why for one in composition.left_out}


# ---- when


@pytest.mark.parametrize(
    ("waiting", "due"),
    [
        (Gathered(), False),
        (Gathered(NOON - timedelta(seconds=3_599), 999, 5_000), False),
        (Gathered(NOON - timedelta(seconds=3_600), 1, 1), True),
        (Gathered(NOON, 1_000, 1), True),
        (Gathered(NOON, 1, 5_001), True),
    ],
)
def test_it_is_time_when_somebody_has_waited_long_or_is_owed_or_owes_much(waiting: Gathered, due: bool) -> None:
    assert is_due(waiting, RULE, NOON) is due


def test_what_has_gathered_is_counted_for_each_provider_and_each_user_whose_deposit_pays() -> None:
    requests = [
        ended("1", "ann", pays=400, to=wallet(1), ended_at=NOON + timedelta(seconds=1)),
        ended("2", "bob", pays=400, to=wallet(1)),
        over("0xc", "3", "bob", pays=4_000),
    ]
    assert gathered(requests) == Gathered(NOON, 4_000, 500)
    assert gathered([]) == Gathered()


# ---- what


def test_many_requests_are_one_line_for_each_user_and_provider() -> None:
    requests = [
        ended("1", "ann", to=wallet(1)),
        ended("2", "ann", to=wallet(2)),
        ended("3", "bob", to=wallet(1)),
        over("0xc", "4", "cid"),
    ]
    found = compose(requests, means(channels={"0xc": 500}))
    (batch,) = found.batches
    assert not found.left_out
    assert batch.charges == {"ann": 1_000, "bob": 500}
    assert batch.payouts == {wallet(0): 400, wallet(1): 800, wallet(2): 400}
    assert batch.netted == {"0xc": 500}
    assert (batch.total_units, batch.fee_units) == (1_600, 400)
    assert not batch.is_root


def test_a_user_who_cannot_be_charged_is_left_out_and_the_others_are_settled() -> None:
    requests = [ended("1", "ann"), ended("2", "bob"), ended("3", "ann"), ended("4", "bob")]
    found = compose(requests, means(users={"ann": 499, "bob": 999}))
    assert names(found) == [["2"]]
    assert left(found) == {"1": Why.UNCOVERED, "3": Why.UNCOVERED, "4": Why.UNCOVERED}


def test_what_was_redeemed_pays_the_oldest_requests_of_its_channel_and_no_younger_one_overtakes() -> None:
    requests = [over("0xc", "1"), over("0xc", "2", pays=800), over("0xc", "3", pays=4), over("0xd", "4")]
    found = compose(requests, means(channels={"0xc": 600, "0xd": 500}))
    assert names(found) == [["1", "4"]]
    assert left(found) == {"2": Why.UNCOVERED, "3": Why.UNCOVERED}


def test_a_fee_that_was_frozen_higher_than_the_escrow_allows_now_waits_and_a_lower_one_does_not() -> None:
    requests = [ended("1", fee_units=101), ended("2", "bob", fee_units=60), ended("3", "bob", fee_units=140)]
    found = compose(requests, means())
    assert names(found) == [["2", "3"]]  # the third just fits in what the second leaves
    assert left(found) == {"1": Why.FEE_TOO_HIGH}


def test_nobody_gets_more_than_the_books_owe() -> None:
    requests = [ended("1"), ended("2"), ended("3", pays=100)]
    assert left(compose(requests, means(owed={wallet(0): 500, PLATFORM: PLENTY}))) == {"2": Why.NOT_OWED}
    assert left(compose(requests, means(owed={wallet(0): PLENTY, PLATFORM: 124}))) == {
        "2": Why.NOT_OWED,
        "3": Why.NOT_OWED,
    }


def test_wallets_that_the_escrow_does_not_credit_are_left_out() -> None:
    found = compose([ended("1", to=ZERO_ADDRESS), ended("2")], means(unpayable=frozenset({ZERO_ADDRESS})))
    assert (names(found), left(found)) == ([["2"]], {"1": Why.UNPAYABLE})


def test_a_batch_has_at_most_a_hundred_users() -> None:
    requests = [ended(str(index), f"user {index}") for index in range(MAX_USERS + 1)]
    assert [len(batch.requests) for batch in compose(requests, means()).batches] == [MAX_USERS, 1]


def test_a_hundred_providers_are_a_batch_and_more_are_a_payout_root() -> None:
    requests = [ended(str(index), to=wallet(index)) for index in range(MAX_PROVIDERS + 1)]
    (batch,) = compose(requests[:-1], means()).batches
    assert len(batch.payouts) == MAX_PROVIDERS
    assert not batch.is_root
    (root,) = compose(requests, means()).batches
    assert len(root.payouts) == MAX_PROVIDERS + 1
    assert root.is_root


def test_only_one_payout_root_is_made_at_a_time() -> None:
    requests = [ended(str(index), f"user {index}", to=wallet(index)) for index in range(250)]
    (first,) = compose(requests, means()).batches
    assert [one.request_id for one in first.requests] == [str(index) for index in range(MAX_USERS)]


def test_batches_are_small_beside_what_the_escrow_lets_out_in_a_day() -> None:
    requests = [ended(str(index)) for index in range(4)] + [ended("dear", pays=1_600), ended("dearest", pays=3_204)]
    found = compose(requests, means(cap_units=4_000))
    assert names(found) == [["0", "1"], ["2", "3"], ["dear"]]
    assert left(found) == {"dearest": Why.OVER_CAP}


def test_the_detail_root_is_that_of_all_lines() -> None:
    (batch,) = compose([ended("1"), ended("2", "bob", to=wallet(1))], means()).batches
    lines = detail_leaves("1", {wallet(0): 400}, 100) + detail_leaves("2", {wallet(1): 400}, 100)
    assert batch.detail_root() == Tree.of(lines).root


# ---- whatever comes

WALLETS = [wallet(index) for index in range(5)]
USERS, CHANNELS = ["ann", "bob", "cid"], ["0xc", "0xd"]


@st.composite
def requests_of_any_kind(draw: st.DrawFn) -> list[Ended]:
    payouts = st.dictionaries(st.sampled_from(WALLETS), st.integers(1, 1_000), min_size=1, max_size=4)
    bps = st.sampled_from([0, 1_000, 2_000, 3_000])
    found = []
    for index in range(draw(st.integers(0, 25))):
        paid, channel = draw(payouts), draw(st.sampled_from([None, *CHANNELS]))
        fee = fee_on(sum(paid.values()), draw(bps))
        payment = Payment.NETTED if channel is None else Payment.CHANNEL
        found.append(Ended(str(index), draw(st.sampled_from(USERS)), payment, channel, NOON, fee, paid))
    return found


def amounts(owners: list[str], most: int) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({owner: st.integers(0, most) for owner in owners})


ANY_MEANS = st.builds(
    Means,
    users=amounts(USERS, 20_000),
    channels=amounts(CHANNELS, 20_000),
    owed=amounts([*WALLETS, PLATFORM], 30_000),
    fee_bps=st.sampled_from([0, 500, 2_000, 3_000]),
    cap_units=st.integers(0, 100_000),
    unpayable=st.frozensets(st.sampled_from(WALLETS), max_size=1),
)


@settings(max_examples=150, deadline=None)
@given(requests_of_any_kind(), ANY_MEANS)
def test_whatever_comes_the_sums_agree_and_nobody_is_charged_or_paid_beyond_the_means(
    requests: list[Ended], these: Means
) -> None:
    found = compose(requests, these)
    settled = [request.request_id for request in found.requests]
    assert settled == sorted(settled, key=int), "the oldest first"
    assert sorted([*settled, *left(found)], key=int) == [one.request_id for one in requests], "each exactly once"
    charged, netted, owed = Counter[str](), Counter[str](), Counter[str]()
    for batch in found.batches:
        assert batch.total_units + batch.fee_units == sum(batch.charges.values()) + sum(batch.netted.values())
        assert sum(batch.payouts.values()) == batch.total_units
        assert batch.fee_units <= fee_on(batch.total_units, these.fee_bps), "as the escrow checks it"
        assert batch.total_units + batch.fee_units <= these.cap_units
        assert these.unpayable.isdisjoint(batch.payouts)
        charged.update(batch.charges)
        netted.update(batch.netted)
        owed.update({**batch.payouts, PLATFORM: batch.fee_units})
    assert all(units <= these.users[user] for user, units in charged.items())
    assert all(units <= these.channels[channel] for channel, units in netted.items())
    assert all(units <= these.owed[owner] for owner, units in owed.items())
