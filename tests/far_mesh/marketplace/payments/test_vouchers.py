"""Vouchers: what is accepted, what is not, and that neither side risks more than one step."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.payments.errors import ChannelClosing, VoucherForged, VoucherMalformed, VoucherRefused
from far_mesh.marketplace.payments.vouchers import (
    MAX_UNITS,
    channel_id_of,
    check,
    may_serve,
    new_channel,
    next_promise,
    parse,
    sign,
    signer_of,
)
from tests.support.vouchers import DEPOSIT, KINDS, PROMISED, attempts, bench, good

EXPECTED = {
    "double_spent": "voucher_stale",
    "stale": "voucher_stale",
    "over_deposit": "voucher_too_high",
    "malformed": "voucher_malformed",
}


def test_a_right_voucher_adds_what_it_is_above_the_last_one() -> None:
    on = bench(random.Random(1))
    assert check(on.domain, on.channel, parse(good(on, PROMISED + 1))) == 1
    assert check(on.domain, on.channel, parse(good(on, DEPOSIT))) == DEPOSIT - PROMISED


def test_what_is_signed_is_the_typed_data_that_a_wallet_shows() -> None:
    on = bench(random.Random(2))
    data: dict[str, Any] = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Voucher": [{"name": "channelId", "type": "bytes32"}, {"name": "maxClaimableAmount", "type": "uint128"}],
        },
        "primaryType": "Voucher",
        "domain": {
            "name": "Far Mesh Escrow",
            "version": "1",
            "chainId": on.domain.chain_id,
            "verifyingContract": on.domain.escrow,
        },
        "message": {"channelId": bytes.fromhex(on.channel.channel_id[2:]), "maxClaimableAmount": 7 * 10**9},
    }
    signed = Account.sign_message(encode_typed_data(full_message=data), on.key)
    voucher = sign(on.domain, on.channel.channel_id, 7, on.key)
    assert voucher.signature == signed.signature.to_0x_hex()
    assert signer_of(on.domain, voucher) == on.channel.signer
    assert parse(voucher.document()) == voucher
    assert voucher.signature[2:] not in repr(voucher)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bad_voucher_is_refused_for_its_own_reason(kind: str) -> None:
    chance = random.Random(kind)
    on = bench(chance)
    for _ in range(10):
        with pytest.raises(VoucherRefused) as caught:
            check(on.domain, on.channel, parse(KINDS[kind](on, chance)))
        assert caught.value.code == EXPECTED.get(kind, "voucher_forged")


def test_of_five_thousand_bad_vouchers_none_is_accepted() -> None:
    chance = random.Random(5)
    on = bench(chance)
    refused = 0
    for _, document in attempts(on, chance, 5_000):
        with pytest.raises(VoucherRefused):
            check(on.domain, on.channel, parse(document))
        refused += 1
    assert refused == 5_000
    assert check(on.domain, on.channel, parse(good(on, PROMISED + 1))) == 1


def test_a_channel_that_is_closing_takes_nothing() -> None:
    on = bench(random.Random(3))
    with pytest.raises(ChannelClosing):
        check(on.domain, replace(on.channel, closes_at=now()), parse(good(on, DEPOSIT)))


def test_a_voucher_is_checked_against_the_channel_it_names() -> None:
    on = bench(random.Random(4))
    other = replace(on.channel, channel_id=channel_id_of(on.channel.user, b"\1" * 32))
    with pytest.raises(VoucherForged, match="another channel"):
        check(on.domain, other, parse(good(on, DEPOSIT)))


def test_a_channel_is_checked_at_the_door() -> None:
    on = bench(random.Random(6)).channel
    assert new_channel(on.channel_id, on.user.lower(), on.signer, 5).user == on.user
    bad: list[dict[str, Any]] = [
        {"channel_id": "0x12"},
        {"user": "0x12"},
        {"signer": ""},
        {"deposit_units": 0},
        {"deposit_units": MAX_UNITS + 1},
    ]
    values: dict[str, Any] = {"channel_id": on.channel_id, "user": on.user, "signer": on.signer, "deposit_units": 5}
    for change in bad:
        with pytest.raises(VoucherMalformed):
            new_channel(**(values | change))


# ---- who risks what

STEP = 1_000


@given(
    st.lists(st.integers(1, STEP // 2), min_size=20, max_size=60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 20 * STEP),
)
def test_whoever_stops_when_costs_the_other_one_step_at_most(
    costs: list[int], user_stops: int, gateway_stops: int, deposit: int
) -> None:
    """From some piece on the user signs no more, or the gateway serves no more; the other one does not know."""
    earned = promised = 0
    for index, cost in enumerate(costs):
        asked = next_promise(received_units=earned, promised_units=promised, deposit_units=deposit, step_units=STEP)
        if index < user_stops and asked is not None:
            assert asked > promised
            promised = asked
        known = {"earned_units": earned, "promised_units": promised, "deposit_units": deposit, "step_units": STEP}
        if index < gateway_stops and may_serve(cost, **known):
            earned += cost
        assert earned - promised <= STEP  # what the gateway loses if the user goes away now
        assert promised - earned <= STEP  # what the user loses if the gateway redeems all it can and goes away now
        assert earned <= deposit
        assert promised <= deposit


def test_the_gateway_serves_one_step_ahead_and_no_more() -> None:
    known = {"earned_units": 700, "promised_units": 500, "deposit_units": 10_000, "step_units": STEP}
    assert may_serve(800, **known)
    assert not may_serve(801, **known)
    assert may_serve(800, **(known | {"deposit_units": 1_500}))
    assert not may_serve(800, **(known | {"deposit_units": 1_499}))


def test_the_user_signs_one_step_ahead_once_half_of_the_last_is_used() -> None:
    known = {"promised_units": 1_000, "deposit_units": 10_000, "step_units": STEP}
    assert next_promise(received_units=499, **known) is None
    assert next_promise(received_units=500, **known) == 1_500
    assert next_promise(received_units=900, **(known | {"deposit_units": 1_200})) == 1_200
    assert next_promise(received_units=900, **(known | {"deposit_units": 1_000})) is None


@given(st.lists(st.integers(1, STEP // 2), max_size=60), st.integers(60 * STEP, 100 * STEP))
def test_two_who_keep_to_the_rules_are_never_stuck(costs: list[int], deposit: int) -> None:
    earned = promised = 0
    for cost in costs:
        asked = next_promise(received_units=earned, promised_units=promised, deposit_units=deposit, step_units=STEP)
        promised = asked or promised
        assert may_serve(cost, earned_units=earned, promised_units=promised, deposit_units=deposit, step_units=STEP)
        earned += cost
    assert promised <= earned + STEP
