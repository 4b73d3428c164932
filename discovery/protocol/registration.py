"""How a node tells a marketplace of itself over HTTP: what its own key signs, and what the wallet signs that it earns
for.

The node signs the bytes of the request's body, together with the address of the gateway that it is meant for, under a
domain for each kind of request. The wallet signs a sentence that a person can read (EIP-191). Both name a time, so that
neither counts twice.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.ids import sign, signature_is_valid

REGISTRATION = "far-mesh/registration/v1"
HEARTBEAT = "far-mesh/heartbeat/v1"
HEADER = "X-Far-Node-Signature"


def consent_text(audience: str, node_id: str, wallet: str, issued_at: datetime) -> str:
    """What the wallet signs, so that nobody can name it as theirs without asking. ``audience`` is the gateway's URI."""
    time = issued_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        "This Far Mesh node earns for my wallet.\n\n"
        f"Gateway: {audience}\nNode: {node_id}\nWallet: {wallet}\nIssued At: {time}"
    )


def sign_request(key: Ed25519PrivateKey, domain: str, audience: str, body: bytes) -> str:
    """The value of the header :data:`HEADER`: base64 of the ed25519 signature."""
    return base64.b64encode(sign(key, domain, _signed(audience, body))).decode()


def is_signed_by(node_id: str, domain: str, audience: str, body: bytes, signature: str) -> bool:
    """Whether the node signed this body for this gateway."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error):
        return False
    return signature_is_valid(node_id, domain, _signed(audience, body), raw)


def _signed(audience: str, body: bytes) -> bytes:
    return audience.encode() + b"\n" + body
