"""The identity file of a peer: an ed25519 libp2p private key, readable by its owner only.

The format is libp2p's own (protobuf ``PrivateKey{type: Ed25519, data: seed ‖ public key}``,
https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys), so the p2p daemon reads the same file.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from discovery.protocol.errors import InvalidIdentity
from discovery.protocol.ids import PeerId, peer_id_of

_HEADER = bytes([0x08, 0x01, 0x12, 0x40])  # key type Ed25519; 64 bytes of data


@dataclass(frozen=True)
class Identity:
    """A key, the peer id it gives, and the file it lies in."""

    key: Ed25519PrivateKey
    path: Path

    @property
    def peer_id(self) -> PeerId:
        """The libp2p peer id of the key."""
        return peer_id_of(self.key.public_key())


def load_identity(path: Path) -> Identity:
    """Read an identity file; make it first (mode 0600) if there is none.

    Raises:
        InvalidIdentity: the file is not an ed25519 identity, or it cannot be read or written.
    """
    path = path.expanduser()
    try:
        if not path.exists():
            _write_new(path, Ed25519PrivateKey.generate())
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidIdentity(f"the identity file {path} cannot be used: {reason}") from None
    return Identity(_parse(data, path), path)


def ephemeral_identity() -> Identity:
    """A fresh identity in a private temporary file; the p2p daemon needs a file. ``discard_identity`` removes it."""
    directory = Path(tempfile.mkdtemp(prefix="far-identity-"))
    return load_identity(directory / "identity")


def discard_identity(identity: Identity) -> None:
    """Remove an ephemeral identity's file and folder."""
    identity.path.unlink(missing_ok=True)
    identity.path.parent.rmdir()


def _write_new(path: Path, key: Ed25519PrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = key.private_bytes_raw()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_HEADER + seed + public)


def _parse(data: bytes, path: Path) -> Ed25519PrivateKey:
    if len(data) != len(_HEADER) + 64 or not data.startswith(_HEADER):
        raise InvalidIdentity(f"{path} is not an ed25519 libp2p identity; remove it to have a new one made")
    seed, public = data[4:36], data[36:]
    key = Ed25519PrivateKey.from_private_bytes(seed)
    if key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != public:
        raise InvalidIdentity(f"{path} is damaged: its public key does not belong to its private key")
    return key
