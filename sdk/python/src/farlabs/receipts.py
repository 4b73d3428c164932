"""Receipts: what a node says it did, signed with its key. Checked here with nobody's help.

A receipt is JSON text (``body``), the peer id of its signer, and an ed25519 signature (RFC 8032) over the name of its
kind, a line feed and ``body``. A peer id contains the key itself: base58 of an identity multihash
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md). Needs ``pip install 'farlabs[receipts]'``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from farlabs.errors import FarLabsError, ReceiptError
from farlabs.json_text import parsed
from farlabs.models import RequestReceipts

DOMAIN = "far-mesh/receipt/v1"
MAX_DOCUMENT_BYTES = 16 * 1024

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
"""Identity multihash of 36 bytes: a protobuf PublicKey of type Ed25519 with 32 bytes."""
_SAFE = 2**53


@dataclass(frozen=True)
class Receipt:
    """A node ran blocks ``[first_block, end_block)`` for so many positions of a session.

    ``token_layers`` is ``positions × (end_block - first_block)``: what is paid for. Of the positions,
    ``cached_positions`` were known from an earlier session, and ``replayed_positions`` brought it to where a lost node
    was. ``issued_at`` is Unix time, in seconds.
    """

    peer_id: str
    wallet: str
    session_id: str
    model_digest: str
    first_block: int
    end_block: int
    quantization: str
    positions: int
    token_layers: int
    cached_positions: int
    replayed_positions: int
    issued_at: int


@dataclass(frozen=True)
class Verified:
    """What the receipts of a request prove.

    ``token_layers`` is the work that is paid for. ``blocks`` are those that somebody has a receipt for, as ranges
    ``[first, end)`` that do not touch.
    """

    receipts: tuple[Receipt, ...]
    token_layers: int
    blocks: tuple[tuple[int, int], ...]


def verify_receipt(document: str) -> Receipt:
    """A receipt, once the signature and all that it says of itself are right.

    Raises:
        ReceiptError: with the first thing that is wrong.
        FarLabsError: ``cannot_verify``.
    """
    if len(document.encode(errors="replace")) > MAX_DOCUMENT_BYTES:
        raise _wrong("the document is too long")
    outer = _object(document)
    body, signer, signature = outer.get("body"), outer.get("signer"), outer.get("signature")
    if not (isinstance(body, str) and isinstance(signer, str) and isinstance(signature, str)):
        raise _wrong("this is not a signed document")
    if not _is_signed(_key_of(signer), f"{DOMAIN}\n{body}", signature):
        raise _wrong(f"the signature is not that of {signer}")
    said = _object(body)
    if said.get("version", 1) != 1:
        raise _wrong("this is a receipt of another version")
    receipt = Receipt(
        peer_id=_text(said, "peer_id"),
        wallet=_text(said, "wallet", r"0x[0-9a-fA-F]{40}"),
        session_id=_text(said, "session_id", r"[0-9a-f]{32}"),
        model_digest=_text(said, "model_digest", r"[0-9a-f]{64}"),
        first_block=_count(said, "first_block"),
        end_block=_count(said, "end_block"),
        quantization=_text(said, "quantization"),
        positions=_count(said, "positions"),
        token_layers=_count(said, "token_layers"),
        cached_positions=_count(said, "cached_positions", 0),
        replayed_positions=_count(said, "replayed_positions", 0),
        issued_at=_count(said, "issued_at"),
    )
    if receipt.peer_id != signer:
        raise _wrong(f"{signer} signed the receipt of {receipt.peer_id}")
    if receipt.first_block >= receipt.end_block:
        raise _wrong("the block range is empty")
    if receipt.token_layers != receipt.positions * (receipt.end_block - receipt.first_block):
        raise _wrong("token_layers is not positions × blocks")
    if max(receipt.cached_positions, receipt.replayed_positions) > receipt.positions:
        raise _wrong("more positions were cached or replayed than there were")
    return receipt


def verify_receipts(told: RequestReceipts) -> Verified:
    """The receipts of a request, each right by itself and the same as the gateway says of it: the node, its wallet, its
    blocks, and the work that it is paid for; all of one model.

    Raises:
        ReceiptError: with the first thing that is wrong.
        FarLabsError: ``cannot_verify``.
    """
    receipts: list[Receipt] = []
    for one in told.receipts:
        receipt = verify_receipt(one.receipt)
        said = (one.node_id, one.wallet_address, one.layers, one.quantization)
        blocks = list(range(receipt.first_block, min(receipt.end_block, receipt.first_block + len(one.layers) + 1)))
        if said != (receipt.peer_id, receipt.wallet, blocks, receipt.quantization):
            raise _wrong(f"what is said of {one.node_id} is not what it has signed")
        if one.token_layers > receipt.token_layers:
            raise _wrong(f"{one.node_id} is paid for more than it has signed for")
        receipts.append(receipt)
    if len({receipt.model_digest for receipt in receipts}) > 1:
        raise _wrong("two models served one request")
    paid_for = sum(one.token_layers for one in told.receipts)
    return Verified(tuple(receipts), paid_for, _union((one.first_block, one.end_block) for one in receipts))


def _union(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return tuple(joined)


def _key_of(peer_id: str) -> bytes:
    if len(peer_id) > 64:
        raise _wrong("this is no peer id")
    number = 0
    for character in peer_id:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise _wrong("this is no peer id")
        number = number * 58 + digit
    zeros = len(peer_id) - len(peer_id.lstrip("1"))  # zero bytes at the beginning are written as ones
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(raw) != len(_PREFIX) + 32 or not raw.startswith(_PREFIX):
        raise _wrong("this is not the peer id of an ed25519 key")
    return raw[len(_PREFIX) :]


def _is_signed(key: bytes, text: str, signature: str) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise FarLabsError(
            "to check receipts takes cryptography: pip install 'farlabs[receipts]'", code="cannot_verify"
        ) from None
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 64:
        raise _wrong("the signature is not base64 of 64 bytes")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(raw, text.encode())
    except (InvalidSignature, ValueError):  # ValueError: half a character, or no point of the curve
        return False
    return True


def _object(text: str) -> Mapping[str, Any]:
    value: object = parsed(text)
    if not isinstance(value, dict):
        raise _wrong("this is not a signed document")
    return value


def _text(said: Mapping[str, Any], name: str, form: str = r"(?s:.*)") -> str:
    value = said.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{name} is missing")
    if re.fullmatch(form, value) is None:
        raise _wrong(f"{name} is malformed")
    return value


def _count(said: Mapping[str, Any], name: str, otherwise: int | None = None) -> int:
    value = said.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _SAFE:
        raise _wrong(f"{name} is no count")
    return value


def _wrong(message: str) -> ReceiptError:
    return ReceiptError(message, code="receipt_invalid")
