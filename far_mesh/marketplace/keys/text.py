"""What an API key looks like: ``sk-far-``, 256 random bits, and a checksum, all in letters and digits.

The checksum tells a key that was mistyped or cut from one that is unknown, without asking the database, and lets
scanners of leaked secrets be sure of what they found. It keeps nobody out.

A key is kept as its SHA-256. Slow hashes protect passwords, which can be guessed; of 2^256 keys none can be, and a slow
hash would have to be computed for every request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

from far_mesh.marketplace.errors import Unauthorized

PREFIX = "sk-far-"
SECRET_BYTES = 32
SHOWN_CHARACTERS = 15
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARACTERS = 43  # 62 ** 43 > 2 ** 256
_CHECKSUM_CHARACTERS = 6  # 62 ** 6 > 2 ** 32
_KEY = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_CHARACTERS + _CHECKSUM_CHARACTERS}}}\Z")


def new_key() -> str:
    """A fresh key."""
    body = PREFIX + _base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), _SECRET_CHARACTERS)
    return body + _checksum(body)


def hash_of(key: str) -> str:
    """What is kept of a key, and found by.

    Raises:
        Unauthorized: this cannot be a key.
    """
    body, checksum = key[:-_CHECKSUM_CHARACTERS], key[-_CHECKSUM_CHARACTERS:]
    if not _KEY.match(key) or _checksum(body) != checksum:
        raise Unauthorized("this is not a whole API key: its checksum does not fit. Was it copied to the end?")
    return hashlib.sha256(key.encode()).hexdigest()


def shown(key: str) -> str:
    """The beginning, by which people tell their keys apart. 208 of its random bits stay unknown."""
    return key[:SHOWN_CHARACTERS]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARACTERS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
