"""Escrow intents: what a wallet signs is what we check, and everything else is refused by name."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.payments.errors import IntentRefused
from far_mesh.marketplace.payments.intents import (
    FIELDS,
    Intent,
    check,
    from_header,
    is_signed_by_key,
    parse,
    sign,
    to_header,
    typed_data,
)
from far_mesh.marketplace.payments.vouchers import Domain
from tests.support.vouchers import twin

KEY, OTHER_KEY = "0x" + "11" * 32, "0x" + "12" * 32
USER = Account.from_key(KEY).address
DOMAIN = Domain(31337, Account.from_key("0x" + "13" * 32).address)
NOW = 1_800_000_000
INTENT = Intent(USER, "0x" + "ab" * 32, 500, 1800, 2000, 2**255, NOW + 60)
SIGNED = sign(DOMAIN, INTENT, KEY)


def test_what_a_wallet_signs_as_typed_data_is_the_same_signature() -> None:
    signed = Account.sign_message(encode_typed_data(full_message=typed_data(DOMAIN, INTENT)), KEY)
    assert signed.signature.to_0x_hex() == SIGNED.signature
    assert is_signed_by_key(DOMAIN, SIGNED)


def test_an_intent_comes_back_from_its_document_and_its_header() -> None:
    assert parse(SIGNED.document()) == from_header(to_header(SIGNED)) == SIGNED
    assert parse(SIGNED.document() | {"user": USER.lower()}) == SIGNED


@pytest.mark.parametrize(
    "other",
    [
        replace(SIGNED, max_units=501),
        replace(SIGNED, nonce=1),
        replace(SIGNED, user=Account.from_key(OTHER_KEY).address),
        replace(SIGNED, signature=sign(DOMAIN, INTENT, OTHER_KEY).signature),
        replace(SIGNED, signature=sign(Domain(56, DOMAIN.escrow), INTENT, KEY).signature),
        replace(SIGNED, signature=sign(Domain(31337, USER), INTENT, KEY).signature),
        replace(SIGNED, signature=twin(SIGNED.signature)),
        replace(SIGNED, signature="0x" + "00" * 65),
        replace(SIGNED, signature="0x" + "ff" * 65),
        replace(SIGNED, signature=SIGNED.signature + "00"),
        replace(SIGNED, signature="0x00"),
    ],
)
def test_no_other_signature_is_the_users(other: Intent) -> None:
    assert not is_signed_by_key(DOMAIN, other)


def document(**changes: Any) -> dict[str, Any]:
    return SIGNED.document() | changes


@pytest.mark.parametrize(
    "broken",
    [
        {},
        document(extra=1),
        *({name: value for name, value in SIGNED.document().items() if name != missing} for missing in FIELDS),
        *(document(user=value) for value in (None, 1, "", "0x", USER[:-1], USER.swapcase())),
        *(document(requestId=value) for value in (None, "0x", "0x" + "AB" * 32, "ab" * 32, "0x" + "ab" * 32 + "\n")),
        *(document(maxAmount=value) for value in (5, "0", "", "-1", "1e9", "1", "1500000000", "٣", str(2**256))),
        *(document(nonce=value) for value in (5, "", "-1", "01", str(2**256), "9" * 78)),
        *(document(lockSeconds=value) for value in (None, "1800", -1, 2**32, 1800.0, True)),
        *(document(maxFeeBps=value) for value in ("1", -1, 2**16)),
        *(document(validUntil=value) for value in ("1", -1, 2**64)),
        *(document(signature=value) for value in (None, 1, "", "0x", "0x0", "00", "0x" + "0g", "0x" + "00" * 4097)),
    ],
)
def test_what_is_no_intent_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(broken)
    assert caught.value.facts["param"] == "escrow_intent"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense!",
        "ZZ",
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b"\xff\xfe").decode(),
        base64.b64encode(b"[" * 5_000).decode(),
        base64.b64encode(json.dumps([SIGNED.document()]).encode()).decode(),
    ],
)
def test_a_header_that_has_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        from_header(text)


@pytest.mark.parametrize(
    ("intent", "words"),
    [
        (replace(INTENT, user=Account.from_key(OTHER_KEY).address), "another user's"),
        (replace(INTENT, request_key="0x" + "cd" * 32), "another request"),
        (replace(INTENT, max_units=399), "may cost 400 units"),
        (replace(INTENT, lock_seconds=899), "lockSeconds"),
        (replace(INTENT, lock_seconds=86_401), "lockSeconds"),
        (replace(INTENT, max_fee_bps=1_999), "fee"),
        (replace(INTENT, valid_until=NOW), "expired"),
    ],
)
def test_an_intent_that_does_not_pay_for_the_request_is_refused(intent: Intent, words: str) -> None:
    request: dict[str, Any] = {"user": USER, "request_key": INTENT.request_key, "held_units": 400}
    request |= {"lock_seconds": 900, "fee_bps": 2_000, "at": NOW}
    check(INTENT, **request)
    with pytest.raises(IntentRefused, match=words):
        check(intent, **request)
