"""What a node and a wallet sign to be known to a marketplace."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from discovery.protocol.registration import HEARTBEAT, REGISTRATION, consent_text, is_signed_by, sign_request
from tests.support.documents import key_of, peer_of

HERE, BODY = "https://far.test", b'{"node_id": "\xe2\x98\xb9"}'


def test_only_the_very_bytes_for_this_gateway_under_this_domain_are_signed() -> None:
    signature = sign_request(key_of("ann"), HEARTBEAT, HERE, BODY)
    assert is_signed_by(peer_of("ann"), HEARTBEAT, HERE, BODY, signature)
    assert not is_signed_by(peer_of("ann"), HEARTBEAT, HERE, BODY + b" ", signature)
    assert not is_signed_by(peer_of("ann"), HEARTBEAT, "https://elsewhere.test", BODY, signature)
    assert not is_signed_by(peer_of("ann"), REGISTRATION, HERE, BODY, signature)
    assert not is_signed_by(peer_of("eve"), HEARTBEAT, HERE, BODY, signature)


def test_what_is_no_signature_is_none() -> None:
    for text in ("", "=", "☹", "AAAA", sign_request(key_of("ann"), HEARTBEAT, HERE, BODY)[:-4]):
        assert not is_signed_by(peer_of("ann"), HEARTBEAT, HERE, BODY, text)
    assert not is_signed_by("nobody", HEARTBEAT, HERE, BODY, "AAAA")


def test_a_wallet_signs_a_sentence_with_the_same_time_in_any_zone() -> None:
    at = datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    assert consent_text(HERE, "12D3", "0xAb", at) == (
        "This Far Mesh node earns for my wallet.\n\n"
        "Gateway: https://far.test\nNode: 12D3\nWallet: 0xAb\nIssued At: 2026-03-01T12:00:00.000Z"
    )
