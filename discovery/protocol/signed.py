"""A JSON document with its signer: the form of announcements and receipts outside the process.

The signature covers the exact text of ``body`` as it was written, so nobody has to agree on a canonical JSON, and a
reader in any language verifies it with an ed25519 library and the peer id alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId, peer_id_of, sign, signature_is_valid

MAX_DOCUMENT_BYTES = 16 * 1024

BodyT = TypeVar("BodyT", bound="Body")


class Body(BaseModel):
    """Base of what a peer signs about itself: frozen, strict, and open to fields of later versions."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    peer_id: str


@dataclass(frozen=True)
class SignedDocument:
    """``body`` (JSON text), the peer that signed it, and the ed25519 signature."""

    body: str
    signer: PeerId
    signature: bytes

    def to_bytes(self) -> bytes:
        """JSON with the three fields; the signature in base64."""
        signature = base64.b64encode(self.signature).decode()
        return json.dumps({"body": self.body, "signer": self.signer, "signature": signature}).encode()


def sign_document(body: Body, key: Ed25519PrivateKey, domain: str) -> SignedDocument:
    """``body`` as signed JSON text."""
    text = body.model_dump_json()
    return SignedDocument(text, peer_id_of(key.public_key()), sign(key, domain, text.encode()))


def read_document(data: bytes, domain: str, error: type[FarError], limit: int = MAX_DOCUMENT_BYTES) -> SignedDocument:
    """The document in ``data`` once its signature was checked under ``domain``.

    Raises:
        error: too long, not of this shape, or not signed by its signer.
    """
    if len(data) > limit:
        raise error(f"a signed document of {len(data)} bytes is too long (limit {limit})")
    try:
        fields: Any = json.loads(data)
        body, signer = fields["body"], fields["signer"]
        signature = base64.b64decode(fields["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise error("this is not a signed document") from None
    if not isinstance(body, str) or not isinstance(signer, str):
        raise error("this is not a signed document")
    if not signature_is_valid(signer, domain, body.encode(), signature):
        raise error(f"the signature is not that of {signer}", signer=signer)
    return SignedDocument(body, PeerId(signer), signature)


def read_body(
    data: bytes, kind: type[BodyT], domain: str, error: type[FarError], limit: int = MAX_DOCUMENT_BYTES
) -> tuple[BodyT, SignedDocument]:
    """A stranger's bytes as a ``kind`` about its signer, and the document that proves it.

    Raises:
        error: with the first thing that is wrong: signature, shape or owner.
    """
    document = read_document(data, domain, error, limit)
    name = kind.__name__.lower()
    try:
        body = kind.model_validate_json(document.body)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        raise error(f"the {name} of {document.signer} is malformed: {first['msg']}") from None
    if body.peer_id != document.signer:
        raise error(f"{document.signer} signed the {name} of {body.peer_id}", signer=document.signer)
    return body, document
