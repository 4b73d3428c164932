"""How a request is paid is decided by what is wanted and by four numbers."""

from __future__ import annotations

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.errors import AllowanceTooLow, InsufficientBalance, TransactionReverted
from far_mesh.marketplace.inference.payment import Means, Terms, Wanted, Way, choose, wanted
from far_mesh.marketplace.payments.errors import UnsettledLimit, VoucherMalformed, VoucherNeeded
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.owed import Owed

CHANNEL = "0x" + "ab" * 32
INTENT = Intent("0x" + "11" * 20, "0x" + "22" * 32, 1, 1800, 2000, 0, 1)
TERMS = Terms(31337, "0xToken", "0xEscrow", lock_seconds=1800, fee_bps=2000, step_units=10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Wanted(Way.AUTO)),
        ("auto", Wanted(Way.AUTO)),
        ("balance", Wanted(Way.BALANCE)),
        ("escrow", Wanted(Way.ESCROW)),
        ("channel", Wanted(Way.CHANNEL)),
        (f"channel:{CHANNEL}", Wanted(Way.CHANNEL, CHANNEL)),
    ],
)
def test_a_way_is_named(text: str | None, expected: Wanted) -> None:
    assert wanted(text) == expected


@pytest.mark.parametrize("text", ["", "cash", "AUTO", "auto:", "escrow:1", "channel:", ":", " auto", "balance\n"])
def test_what_is_no_way_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        wanted(text)
    assert caught.value.facts["param"] == "payment"


def test_an_intent_is_for_an_escrow() -> None:
    assert wanted(None, INTENT) == wanted("escrow", INTENT) == Wanted(Way.ESCROW, intent=INTENT)
    for text in ("balance", "channel", f"channel:{CHANNEL}"):
        with pytest.raises(InvalidArgument, match="intent"):
            wanted(text, INTENT)


@pytest.mark.parametrize(
    ("chargeable", "limit", "held", "owed", "expected"),
    [
        (100, 100, 100, Owed(), Payment.NETTED),
        (100, 100, 40, Owed(60), Payment.NETTED),
        (100, 100, 41, Owed(60), Payment.ESCROW),  # over the limit
        (99, 100, 40, Owed(60), Payment.ESCROW),  # the chain could not be charged for all of it
        (100, 1_000, 40, Owed(50, 10), Payment.NETTED),
        (100, 1_000, 40, Owed(50, 11), Payment.ESCROW),  # what is about to be locked cannot be charged too
        (1_000, 100, 100, Owed(0, 500), Payment.NETTED),  # what is locked is not lent
        (10**18, 0, 1, Owed(), Payment.ESCROW),
        (0, 100, 1, Owed(), Payment.ESCROW),
    ],
)
def test_netted_while_it_is_safe_for_both_or_else_an_escrow(
    chargeable: int, limit: int, held: int, owed: Owed, expected: Payment
) -> None:
    means = Means(chargeable, limit)
    assert choose(Way.AUTO, means, held, owed) is expected
    if expected is Payment.NETTED:
        assert choose(Way.BALANCE, means, held, owed) is expected
    else:
        with pytest.raises((UnsettledLimit, AllowanceTooLow)):
            choose(Way.BALANCE, means, held, owed)


def test_who_wants_the_balance_is_told_what_is_missing() -> None:
    with pytest.raises(UnsettledLimit, match="60 units are owed"):
        choose(Way.BALANCE, Means(10**9, 100), 41, Owed(60))
    with pytest.raises(AllowanceTooLow, match="101 are needed") as caught:
        choose(Way.BALANCE, Means(100, 10**9), 41, Owed(50, 10))
    assert caught.value.facts["needed_units"] == 101


def test_where_the_caller_has_said_it_there_is_nothing_to_choose() -> None:
    for way in (Way.ESCROW, Way.CHANNEL):
        with pytest.raises(ValueError, match="nothing to choose"):
            choose(way, Means(1, 1), 1, Owed())


def test_a_402_says_how_what_is_missing_can_be_paid() -> None:
    offers = TERMS.accepts(AllowanceTooLow("too low", needed_units=7))
    assert offers is not None
    assert [offer["scheme"] for offer in offers] == ["far-balance", "far-escrow-intent", "batch-settlement"]
    for offer in offers:
        assert (offer["network"], offer["amount"]) == ("eip155:31337", "7000000000")
        assert (offer["asset"], offer["payTo"], offer["maxTimeoutSeconds"]) == ("0xToken", "0xEscrow", 1800)
    deposit = TERMS.accepts(InsufficientBalance("empty", needed_units=7))
    assert deposit is not None
    assert [offer["scheme"] for offer in deposit] == ["far-balance"]
    voucher = TERMS.accepts(VoucherNeeded("sign", promise_units=9, channel_id=CHANNEL, deposit_units=20))
    assert voucher is not None
    assert (voucher[0]["amount"], voucher[0]["extra"]["channelId"]) == ("9000000000", CHANNEL)


def test_where_no_amount_is_missing_nothing_is_offered() -> None:
    assert TERMS.accepts(VoucherMalformed("no voucher")) is None
    assert TERMS.accepts(TransactionReverted("no", needed_units=1)) is None
