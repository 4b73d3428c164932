"""What users said, encrypted before it goes into the database: AES-256-GCM (NIST SP 800-38D), a random nonce each time.

    version (1 byte) | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag

What it is about (a job's id, and which of its parts) is authenticated with it, so nothing can be put in the place of
something else. The first key writes, all of them read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from far_mesh.marketplace.errors import SealBroken

_VERSION = b"\x01"
_ID, _NONCE = slice(1, 5), slice(5, 17)
_ID_BYTES = 4


class Seals:
    """Owner of the keys, 32 bytes each."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_id_of(key): key for key in reversed(keys)}
        self._first = keys[0]

    def __repr__(self) -> str:
        return f"Seals({len(self._keys)} keys)"

    def seal(self, text: bytes, about: str) -> bytes:
        """Encrypt ``text`` with the first key."""
        head, nonce = _VERSION + _id_of(self._first), secrets.token_bytes(12)
        return head + nonce + AESGCM(self._first).encrypt(nonce, text, head + about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was encrypted.

        Raises:
            SealBroken: with a key that is not there any more, or it was changed, or is about something else.
        """
        key = self._keys.get(sealed[_ID])
        if sealed[:1] != _VERSION or key is None:
            raise SealBroken("this was encrypted with a key that FAR_JOBS_KEYS does not have any more")
        try:
            return AESGCM(key).decrypt(sealed[_NONCE], sealed[_NONCE.stop :], sealed[: _ID.stop] + about.encode())
        except InvalidTag:
            raise SealBroken("what was encrypted has been changed") from None

    def fingerprint(self, text: bytes, about: str) -> bytes:
        """By which ``text`` is known again. Without the key nobody can try what it may have been."""
        return _id_of(self._first) + _mac(self._first, text, about)

    def is_of(self, fingerprint: bytes, text: bytes, about: str) -> bool:
        """Whether it is the fingerprint of ``text``; never, when its key is not there any more."""
        key = self._keys.get(fingerprint[:_ID_BYTES])
        return key is not None and hmac.compare_digest(fingerprint[_ID_BYTES:], _mac(key, text, about))


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"far-mesh key id" + key).digest()[:_ID_BYTES]


def _mac(key: bytes, text: bytes, about: str) -> bytes:
    apart = hmac.digest(key, b"far-mesh fingerprint", "sha256")  # the same key must not do two things
    return hmac.digest(apart, about.encode() + b"\0" + text, "sha256")
