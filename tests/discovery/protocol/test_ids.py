"""Names of peers and wallets: what is one, and what only looks like one."""

from __future__ import annotations

import base58
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import InvalidIdentity, InvalidWallet
from discovery.protocol.ids import (
    check_peer_id,
    check_wallet,
    new_session_id,
    peer_id_of,
    public_key_of,
    sign,
    signature_is_valid,
)
from tests.support.documents import key_of, peer_of

# the examples of https://eips.ethereum.org/EIPS/eip-55
CHECKSUMMED = [
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_contains_the_key_it_was_made_of(seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert public_key_of(peer_id_of(key)).public_bytes_raw() == key.public_bytes_raw()
    assert peer_id_of(key).startswith("12D3KooW")


@given(st.text(max_size=80))
def test_text_that_is_no_peer_id_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(InvalidIdentity):
        check_peer_id(text)


@given(st.integers(0, 51), st.characters())
def test_a_peer_id_with_one_character_changed_is_another_peer_or_none(place: int, character: str) -> None:
    right = peer_of("node")
    wrong = right[:place] + character + right[place + 1 :]
    if wrong == right:
        return
    try:
        key = public_key_of(wrong)
    except InvalidIdentity:
        return
    assert peer_id_of(key) == wrong, "a peer has one name only"
    assert key.public_bytes_raw() != public_key_of(right).public_bytes_raw()


@pytest.mark.parametrize("addition", [" ", "\n", "\t", "  \r\n"])
def test_a_peer_id_with_white_space_is_not_a_second_name_of_the_peer(addition: str) -> None:
    for text in (peer_of("node") + addition, addition + peer_of("node")):
        with pytest.raises(InvalidIdentity):
            check_peer_id(text)


@pytest.mark.parametrize("kind", [0, 2, 3])
def test_the_peer_id_of_another_kind_of_key_is_refused(kind: int) -> None:
    raw = bytes([0x00, 0x24, 0x08, kind, 0x12, 0x20]) + bytes(32)
    with pytest.raises(InvalidIdentity, match="ed25519"):
        check_peer_id(base58.b58encode(raw).decode())


def test_a_peer_id_of_a_megabyte_is_refused_before_it_is_worked_on() -> None:
    with pytest.raises(InvalidIdentity) as refusal:
        check_peer_id("2" * 2**20)
    assert len(refusal.value.message) < 300


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_signature_is_for_one_body_one_domain_and_one_peer(body: bytes, other: bytes) -> None:
    signature = sign(key_of("node"), "domain", body)
    assert signature_is_valid(peer_of("node"), "domain", body, signature)
    assert signature_is_valid(peer_of("node"), "domain", other, signature) == (other == body)
    assert not signature_is_valid(peer_of("node"), "other domain", body, signature)
    assert not signature_is_valid(peer_of("stranger"), "domain", body, signature)
    assert not signature_is_valid("nobody", "domain", body, signature)


@pytest.mark.parametrize("address", CHECKSUMMED)
def test_a_wallet_is_given_back_in_its_eip_55_form(address: str) -> None:
    assert check_wallet(address) == address
    assert check_wallet(address.lower()) == address
    assert check_wallet("0x" + address[2:].upper()) == address
    assert check_wallet(f"  {address}\n") == address


@pytest.mark.parametrize("address", CHECKSUMMED)
def test_a_wallet_with_the_case_of_one_letter_wrong_is_refused(address: str) -> None:
    letters = [place for place, character in enumerate(address) if character.isalpha() and place > 1]
    for place in letters:
        wrong = address[:place] + address[place].swapcase() + address[place + 1 :]
        with pytest.raises(InvalidWallet, match="checksum"):
            check_wallet(wrong)


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_wallet_is_asked_for(text: str) -> None:
    with pytest.raises(InvalidWallet, match="a wallet is needed"):
        check_wallet(text)


@pytest.mark.parametrize("text", ["0x", "0x123", CHECKSUMMED[0][2:], CHECKSUMMED[0] + "0", "0x" + "g" * 40, "bc1qxyz"])
def test_what_is_no_evm_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidWallet, match="40 hexadecimal digits"):
        check_wallet(text)


@given(st.text())
def test_any_text_is_a_wallet_or_refused_as_one(text: str) -> None:
    try:
        wallet = check_wallet(text)
    except InvalidWallet:
        return
    assert check_wallet(wallet) == wallet


def test_session_ids_do_not_repeat() -> None:
    assert len({new_session_id() for _ in range(1000)}) == 1000
    assert all(len(new_session_id()) == 16 for _ in range(10))
