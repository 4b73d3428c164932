"""A claim: what wallets show and sign, what the node signs, and the link between the two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.claim import NodeClaim
from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, InvalidWallet
from tests.support.documents import key_of, peer_of, wallet_of

CLAIM = NodeClaim(peer_of("ann"), wallet_of("ann"), "https://far.test", 31337, 1_772_366_400_000, 1_772_367_300)
HALF = CLAIM.signed_by_node(key_of("ann"))


def test_the_hash_is_that_of_eip_712() -> None:
    for claim in (CLAIM, replace(CLAIM, gateway="https://ünïcode.test/a?b=c&d#e", chain_id=2**53 - 1)):
        assert claim.digest() == _hash_eip191_message(encode_typed_data(full_message=claim.typed_data()))


def test_the_node_has_signed_every_word_of_it() -> None:
    assert CLAIM.is_signed_by_node(HALF)
    changes: list[dict[str, Any]] = [
        {"node": peer_of("bob")},
        {"wallet": wallet_of("bob")},
        {"gateway": "https://elsewhere.test"},
        {"chain_id": 1},
        {"nonce": CLAIM.nonce + 1},
        {"deadline": CLAIM.deadline + 1},
    ]
    for change in changes:
        assert not replace(CLAIM, **change).is_signed_by_node(HALF), change
    for nonsense in ("", "=", "ü", HALF[:-1], HALF + "A", "A" * 10_000, CLAIM.signed_by_node(key_of("bob"))):
        assert not CLAIM.is_signed_by_node(nonsense)


def test_a_link_carries_a_claim_whole() -> None:
    text = CLAIM.fragment(HALF)
    assert NodeClaim.from_fragment(text) == NodeClaim.from_fragment(f"#{text}") == (CLAIM, HALF)
    assert len(text) < 320, "it has to fit into a small QR code"
    strange = replace(CLAIM, gateway="https://far.test/a?b=c&d#e f+g")
    assert NodeClaim.from_fragment(strange.fragment(HALF)) == (strange, HALF)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("n=", "m=", InvalidArgument),
        ("&s=", "&s=a&s=", InvalidArgument),
        ("&c=31337", "", InvalidArgument),
        ("&c=31337", "&c=0", InvalidArgument),
        ("&c=31337", "&c=-1", InvalidArgument),
        ("&c=31337", "&c=1e3", InvalidArgument),
        ("&c=31337", "&c=٣", InvalidArgument),
        ("&c=31337", "&c=" + "9" * 17, InvalidArgument),
        ("https://far.test", "", InvalidArgument),
        ("https://far.test", "x" * 2001, InvalidArgument),
        ("1772367300", "1772366400", InvalidArgument),
        ("1772367300", "1872367300", InvalidArgument),
        ("n=12D3", "n=12D4", InvalidIdentity),
        ("w=0x", "w=0y", InvalidWallet),
    ],
)
def test_what_is_no_claim_is_refused(old: str, new: str, error: type[FarError]) -> None:
    text = CLAIM.fragment(HALF)
    assert old in text
    with pytest.raises(error):
        NodeClaim.from_fragment(text.replace(old, new, 1))


@given(st.text(max_size=200))
def test_strangers_text_is_refused_in_our_own_words(text: str) -> None:
    with pytest.raises(FarError):
        NodeClaim.from_fragment(text)


def test_a_wallet_has_one_way_to_be_written() -> None:
    with pytest.raises(InvalidArgument):
        replace(CLAIM, wallet=type(CLAIM.wallet)(CLAIM.wallet.lower()))
