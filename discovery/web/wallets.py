"""Signatures of wallets."""

from __future__ import annotations

import re

from eth_account.messages import defunct_hash_message
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature as BadKeySignature
from eth_utils.exceptions import ValidationError as KeyValidationError

from discovery.web.errors import BadSignature

_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}\Z")
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def signer_of(message: str, signature: str) -> str:
    """The wallet that signed ``message`` as EIP-191 text. Raises as :func:`recover`."""
    return recover(defunct_hash_message(text=message), signature)


def recover(digest: bytes, signature: str) -> str:
    """The wallet that signed these 32 bytes, in EIP-55 form.

    Raises:
        BadSignature: not 65 bytes of hexadecimal, or a signature that a wallet would not make. Each signature has a
            twin with a high s that recovers to the same wallet; only one of the two is accepted.
    """
    if not _SIGNATURE.match(signature):
        raise BadSignature("a signature is 0x and 130 hexadecimal digits")
    raw = bytes.fromhex(signature[2:])
    s, v = int.from_bytes(raw[32:64]), raw[64]
    if not 0 < s <= _CURVE_ORDER // 2 or v not in (0, 1, 27, 28):
        raise BadSignature("the signature is malleable: its s is too high, or its v means nothing")
    try:
        made = Signature(raw[:64] + bytes([v % 27]))
        return str(made.recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadKeySignature, KeyValidationError, ValueError):
        raise BadSignature("the signature is not one of any wallet") from None
