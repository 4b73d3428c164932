"""Who is paid by transfer, how much and for what; what the chain's word means: pure."""

from __future__ import annotations

from datetime import timedelta

import pytest

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.payments.provider import Coin, State, Status
from far_mesh.marketplace.settlement.merkle import detail_leaves, is_proven
from far_mesh.marketplace.settlement.transfers import (
    Fate,
    Rule,
    Share,
    Waiting,
    Work,
    detail_root,
    fate,
    is_due,
    share_of,
)
from tests.support.documents import wallet_of

ANN, BOB = wallet_of("ann"), wallet_of("bob")
FINE, COARSE = Coin("F", 18, "eip155:1"), Coin("C", 6, "eip155:1")
RULE = Rule(3600, 1_000)


def waiting(owed: int, seconds: float = 0) -> Waiting:
    return Waiting(ANN, now() - timedelta(seconds=seconds), owed)


def works(*units: int) -> list[Work]:
    return [Work(f"s{place}", f"req{place}", one) for place, one in enumerate(units)]


@pytest.mark.parametrize(
    ("owed", "seconds", "due"),
    [(999, 0, False), (1_000, 0, True), (1, 3_599, False), (1, 3_601, True), (0, 3_601, False)],
)
def test_a_provider_is_paid_at_the_threshold_or_by_the_clock(owed: int, seconds: float, due: bool) -> None:
    assert is_due(waiting(owed, seconds), RULE, now()) is due


@pytest.mark.parametrize(
    ("coin", "owed", "earned", "is_all", "units", "covered"),
    [
        (FINE, 30, (10, 20), True, 30, 2),
        (COARSE, 3_500, (1_500, 2_000), True, 3_000, 2),  # half a unit of the coin's smallest part waits
        (COARSE, 4_000, (1_500, 2_000), True, 4_000, 2),  # and comes with the next
        (FINE, 25, (10, 20), True, 10, 1),  # something was taken back
        (FINE, 20, (30, 20), True, 20, 1),
        (FINE, 35, (10, 20), False, 30, 2),  # more waits than is paid for at once
    ],
)
def test_what_is_paid_is_for_whole_requests_and_no_more_than_the_books_owe(
    coin: Coin, owed: int, earned: tuple[int, ...], is_all: bool, units: int, covered: int
) -> None:
    share = share_of(waiting(owed), "there", works(*earned), coin, is_all=is_all)
    assert share is not None
    assert (share.units, len(share.works), share.address) == (units, covered, "there")


@pytest.mark.parametrize(("coin", "owed", "earned"), [(COARSE, 999, (999,)), (FINE, 5, (10,)), (FINE, 5, ())])
def test_what_cannot_be_paid_waits(coin: Coin, owed: int, earned: tuple[int, ...]) -> None:
    assert share_of(waiting(owed), "there", works(*earned), coin, is_all=True) is None


def test_every_line_is_proven_by_the_root() -> None:
    one, two, three = works(10, 20, 30)
    root = detail_root([Share(ANN, ANN, 30, (one, two)), Share(BOB, BOB, 30, (three,))])
    (leaf,) = detail_leaves(three.request_id, {BOB: 30}, 0)
    assert root != leaf
    assert not is_proven(root, leaf, [])


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ((State.PENDING,), Fate.OPEN),
        ((State.VANISHED,), Fate.OPEN),
        ((State.CONFIRMING, State.PENDING), Fate.WAIT),
        ((State.DISPLACED, State.CONFIRMED), Fate.PAID),
        ((State.DISPLACED, State.PENDING), Fate.OPEN),
        ((State.DISPLACED, State.CONFIRMING), Fate.WAIT),
        ((State.FAILED, State.VANISHED), Fate.OPEN),
        ((State.FAILED, State.DISPLACED), Fate.NEVER),
        ((State.DISPLACED,), Fate.NEVER),
    ],
)
def test_only_when_none_of_the_attempts_paid_or_ever_will_it_is_over(states: tuple[State, ...], found: Fate) -> None:
    assert fate([Status(state) for state in states]) is found
