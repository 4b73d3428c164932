"""Keys, announcements and receipts to test with, and ways to forge them."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.announcement import DOMAIN as ANNOUNCEMENT_DOMAIN
from discovery.protocol.announcement import LIFETIME_SECONDS, Announcement, SignedAnnouncement, sign_announcement
from discovery.protocol.ids import PeerId, Wallet, check_wallet, peer_id_of, sign
from discovery.protocol.receipt import Receipt
from discovery.protocol.signed import Body, SignedDocument, sign_document

DIGEST = hashlib.sha256(b"the model of the tests").hexdigest()
OTHER_DIGEST = hashlib.sha256(b"another model").hexdigest()


def key_of(name: str) -> Ed25519PrivateKey:
    """The same key for the same name, in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def peer_of(name: str) -> PeerId:
    """The peer id of :func:`key_of`."""
    return peer_id_of(key_of(name).public_key())


def wallet_of(name: str) -> Wallet:
    """A wallet for each name, in EIP-55 form."""
    return check_wallet("0x" + hashlib.sha256(name.encode()).hexdigest()[:40])


def announcement(name: str = "node", **changes: Any) -> Announcement:
    """A live announcement of the peer ``name``; ``changes`` are checked like any other field."""
    now = int(time.time())
    fields: dict[str, Any] = {
        "peer_id": peer_of(name),
        "wallet": wallet_of(name),
        "model_id": "tiny",
        "model_digest": DIGEST,
        "block_count": 8,
        "first_block": 0,
        "end_block": 4,
        "quantization": "none",
        "dtype": "float32",
        "maddrs": ("/ip4/127.0.0.1/tcp/31330",),
        "software": "far-mesh/test",
        "issued_at": now,
        "expires_at": now + LIFETIME_SECONDS,
    }
    return Announcement.model_validate(fields | changes)


def signed_announcement(name: str = "node", **changes: Any) -> SignedAnnouncement:
    """:func:`announcement`, signed by its own peer."""
    return sign_announcement(announcement(name, **changes), key_of(name))


def forged_announcement(signer: str, body: Body) -> bytes:
    """``body`` signed by ``signer``, whoever it is about."""
    return sign_document(body, key_of(signer), ANNOUNCEMENT_DOMAIN).to_bytes()


def signed_json(signer: str, value: object, domain: str) -> bytes:
    """Any JSON value signed by ``signer``, as a stranger's program could do it."""
    text = json.dumps(value)
    return SignedDocument(text, peer_of(signer), sign(key_of(signer), domain, text.encode())).to_bytes()


def unchecked(body: Announcement, **changes: Any) -> Announcement:
    """``body`` with ``changes`` that no validation sees, as a stranger's program could write it."""
    return body.model_copy(update=changes)


def tampered(document: SignedDocument, old: str, new: str) -> bytes:
    """The document with its text changed after it was signed."""
    assert old in document.body
    return SignedDocument(document.body.replace(old, new), document.signer, document.signature).to_bytes()


def receipt(name: str = "node", **changes: Any) -> Receipt:
    """A receipt of the peer ``name`` for 10 positions of blocks 0:4."""
    root = hashlib.sha256(b"root").hexdigest()
    fields: dict[str, Any] = {
        "session_id": "ab" * 16,
        "nonce": "cd" * 16,
        "peer_id": peer_of(name),
        "wallet": wallet_of(name),
        "model_digest": DIGEST,
        "first_block": 0,
        "end_block": 4,
        "quantization": "none",
        "codec": "float32",
        "steps": 3,
        "positions": 10,
        "token_layers": 40,
        "input_root": root,
        "output_root": root,
        "price_units": 7,
        "issued_at": int(time.time()),
    }
    return Receipt.model_validate(fields | changes)
