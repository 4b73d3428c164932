"""Names of peers, wallets, models and sessions, each checked where it enters.

A node is its libp2p peer id. With an ed25519 key the id contains the public key itself (an identity multihash,
https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md), so a signature can be checked from the id alone.
"""

from __future__ import annotations

import re
import secrets
from typing import NewType

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_utils.address import is_checksum_address, to_checksum_address

from discovery.protocol.errors import InvalidIdentity, InvalidWallet

PeerId = NewType("PeerId", str)
"""Base58 libp2p peer id of an ed25519 key, such as ``12D3KooW…``."""

Wallet = NewType("Wallet", str)
"""EVM address in EIP-55 form."""

SessionId = NewType("SessionId", bytes)
"""16 random bytes, known only to the client and the nodes of one session."""

SESSION_ID_BYTES = 16

ZERO_ADDRESS = Wallet("0x" + "00" * 20)
"""The EVM address that nobody has the key of."""

# identity multihash (0x00), 36 bytes, protobuf PublicKey{type: Ed25519, data: 32 bytes}
_ED25519_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_PEER_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{1,64}\Z")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")


def peer_id_of(key: Ed25519PublicKey) -> PeerId:
    """The peer id that contains ``key``."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PeerId(base58.b58encode(_ED25519_PREFIX + raw).decode())


def public_key_of(peer_id: str) -> Ed25519PublicKey:
    """The public key inside ``peer_id``.

    Raises:
        InvalidIdentity: the id is not base58, or not that of an ed25519 key.
    """
    # the length first: base58 takes quadratic time, and it would forgive white space, which gives a peer more names
    if not _PEER_ID.match(peer_id):
        raise InvalidIdentity(f"{peer_id[:80]!r} is not a base58 peer id")
    raw = base58.b58decode(peer_id)
    if len(raw) != len(_ED25519_PREFIX) + 32 or not raw.startswith(_ED25519_PREFIX):
        raise InvalidIdentity(f"{peer_id!r} is not the peer id of an ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw[len(_ED25519_PREFIX) :])


def check_peer_id(text: str) -> PeerId:
    """``text`` as a :data:`PeerId`, or :class:`InvalidIdentity`."""
    public_key_of(text)
    return PeerId(text)


def sign(key: Ed25519PrivateKey, domain: str, body: bytes) -> bytes:
    """Ed25519 signature (RFC 8032) of ``body`` under a domain, so that no signature has two meanings."""
    return key.sign(domain.encode() + b"\n" + body)


def signature_is_valid(peer_id: str, domain: str, body: bytes, signature: bytes) -> bool:
    """Whether ``peer_id`` signed ``body`` under ``domain``."""
    try:
        public_key_of(peer_id).verify(signature, domain.encode() + b"\n" + body)
    except (InvalidSignature, InvalidIdentity):
        return False
    return True


def check_wallet(text: str) -> Wallet:
    """An EVM address in EIP-55 form.

    All-lower and all-upper addresses carry no checksum and are accepted; a mixed-case one must carry the right one,
    because a typing error there sends money to nobody.

    Raises:
        InvalidWallet: empty, not an address, or the wrong checksum.
    """
    text = text.strip()
    if not text:
        raise InvalidWallet("a wallet is needed: pass --wallet 0x… (40 hexadecimal digits)")
    if not _ADDRESS.match(text):
        raise InvalidWallet(f"{text!r} is not an EVM address: 0x and 40 hexadecimal digits are expected", wallet=text)
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and not is_checksum_address(text):
        raise InvalidWallet(f"the EIP-55 checksum of {text} is wrong: is one of its letters mistyped?", wallet=text)
    return Wallet(str(to_checksum_address("0x" + digits.lower())))


def new_session_id() -> SessionId:
    """A fresh unguessable session id."""
    return SessionId(secrets.token_bytes(SESSION_ID_BYTES))
