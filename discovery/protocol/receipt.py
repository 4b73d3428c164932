"""Receipts: what a node says it did in a session, signed. Money is paid for verified receipts and nothing else.

``input_root`` and ``output_root`` are hash chains (:func:`extend_root`) over the wire bytes of every step the node
took in and gave out since the session began. In a ring a node's output root equals its successor's input root, the
first input root is the client's own, and the last output root is what the client received; so the chain has no gap
that one party alone can fill. Receipts are cumulative: a later one of the same session and peer replaces the earlier.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from discovery.protocol.announcement import Codec, Digest, Quantization
from discovery.protocol.errors import FarError, ReceiptInvalid
from discovery.protocol.ids import PeerId, SessionId, check_peer_id, check_wallet
from discovery.protocol.signed import Body, SignedDocument, read_body, sign_document

DOMAIN = "far-mesh/receipt/v1"
ROOT_DOMAIN = b"far-mesh/root/v1"
RECEIPT_EVERY_POSITIONS = 64

Count = Annotated[int, Field(ge=0, lt=2**53)]


class Receipt(Body):
    """Peer ``peer_id`` ran blocks ``[first_block, end_block)`` for ``positions`` positions of a session.

    ``positions`` counts every position that was computed (rows × positions, recomputed ones included);
    ``token_layers = positions × (end_block - first_block)`` is the unit of work that is paid. ``cached_positions`` of
    them were answered from states kept of an earlier session. ``replayed_positions`` of them brought this node to where
    a lost one had been, who is owed for them as far as its own receipts go. ``steps`` is the number of the session's
    steps that the roots cover; a root begins anew when the neighbour on its side is replaced.
    """

    version: Literal[1] = 1
    session_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    wallet: str
    model_digest: Digest
    first_block: Count
    end_block: Count
    quantization: Quantization
    codec: Codec
    steps: Count
    positions: Count
    token_layers: Count
    cached_positions: Count = 0
    replayed_positions: Count = 0
    input_root: Digest
    output_root: Digest
    price_units: Count
    issued_at: Count

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            check_peer_id(self.peer_id)
            check_wallet(self.wallet)
        except FarError as error:
            raise ValueError(error.message) from None
        if self.first_block >= self.end_block:
            raise ValueError("the block range is empty")
        if self.token_layers != self.positions * (self.end_block - self.first_block):
            raise ValueError("token_layers is not positions × blocks")
        if self.cached_positions > self.positions:
            raise ValueError("more positions were cached than there were")
        if self.replayed_positions > self.positions:
            raise ValueError("more positions were replayed than there were")
        return self

    @property
    def blocks(self) -> tuple[int, int]:
        """``(first_block, end_block)``, end exclusive."""
        return self.first_block, self.end_block


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt with the document that proves it."""

    receipt: Receipt
    document: SignedDocument

    def to_bytes(self) -> bytes:
        """The form in which a receipt travels and is kept."""
        return self.document.to_bytes()

    @property
    def peer_id(self) -> PeerId:
        """Who signed."""
        return self.document.signer


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> SignedReceipt:
    """Sign with the node's key."""
    return SignedReceipt(receipt, sign_document(receipt, key, DOMAIN))


def read_receipt(data: bytes) -> SignedReceipt:
    """Bytes as a receipt: shape and signature checked. Anyone can do this offline.

    Raises:
        ReceiptInvalid: with the first thing that is wrong.
    """
    return SignedReceipt(*read_body(data, Receipt, DOMAIN, ReceiptInvalid))


def first_root(session_id: SessionId) -> bytes:
    """The root before any step: 32 bytes that no other session shares."""
    return hashlib.sha256(ROOT_DOMAIN + session_id).digest()


def extend_root(root: bytes, start_position: int, shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    """The root after one more tensor on the wire: SHA-256 over the old root, the header and the bytes."""
    header = struct.pack(f">QB{len(shape)}I", start_position, len(shape), *shape)
    digest = hashlib.sha256(root)
    digest.update(header)
    digest.update(dtype.encode())
    digest.update(data)
    return digest.digest()
