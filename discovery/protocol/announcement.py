"""What a node says of itself on the DHT: an :class:`Announcement`, signed with its own key.

An announcement is only ever about its signer. It expires by itself; a node renews it well before
(:data:`RENEW_SECONDS`, :data:`LIFETIME_SECONDS`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from discovery.protocol.errors import AnnouncementInvalid, FarError
from discovery.protocol.ids import PeerId, check_peer_id, check_wallet
from discovery.protocol.signed import Body, SignedDocument, read_body, sign_document

DOMAIN = "far-mesh/announcement/v1"
LIFETIME_SECONDS = 120
RENEW_SECONDS = 30
MAX_LIFETIME_SECONDS = 24 * 3600
CLOCK_SKEW_SECONDS = 60
MAX_MODEL_ID_LENGTH = 256
MAX_MADDRS = 16

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["float32", "bfloat16", "float16"]
State = Literal["ready", "leaving"]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""


class Announcement(Body):
    """A node serves blocks ``[first_block, end_block)`` of the model whose weights have ``model_digest``."""

    version: Literal[1] = 1
    wallet: str
    model_id: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_ID_LENGTH)]
    model_digest: Digest
    block_count: Annotated[int, Field(ge=1, le=4096)]
    first_block: Annotated[int, Field(ge=0)]
    end_block: Annotated[int, Field(ge=1)]
    quantization: Quantization
    dtype: Dtype
    maddrs: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=MAX_MADDRS)]
    software: Annotated[str, Field(max_length=64)]
    state: State = "ready"
    issued_at: Annotated[int, Field(ge=0)]
    expires_at: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            check_peer_id(self.peer_id)
            wallet = check_wallet(self.wallet)
        except FarError as error:
            raise ValueError(error.message) from None
        if wallet != self.wallet:
            raise ValueError("the wallet must be written in its EIP-55 form")
        if not self.first_block < self.end_block <= self.block_count:
            raise ValueError(f"blocks {self.first_block}:{self.end_block} are not within 0:{self.block_count}")
        if not 0 < self.expires_at - self.issued_at <= MAX_LIFETIME_SECONDS:
            raise ValueError("the lifetime must be between 0 and 24 hours")
        return self

    @property
    def blocks(self) -> tuple[int, int]:
        """``(first_block, end_block)``, end exclusive."""
        return self.first_block, self.end_block

    def is_live(self, now: float | None = None) -> bool:
        """Whether it is valid at ``now`` (unix seconds), with :data:`CLOCK_SKEW_SECONDS` for a clock ahead of ours."""
        now = time.time() if now is None else now
        return self.issued_at - CLOCK_SKEW_SECONDS <= now < self.expires_at


@dataclass(frozen=True)
class SignedAnnouncement:
    """An announcement with the document that proves it."""

    announcement: Announcement
    document: SignedDocument

    def to_bytes(self) -> bytes:
        """The value stored in the DHT."""
        return self.document.to_bytes()

    @property
    def peer_id(self) -> PeerId:
        """Who announced, proven by the signature."""
        return self.document.signer


def sign_announcement(announcement: Announcement, key: Ed25519PrivateKey) -> SignedAnnouncement:
    """Sign with the node's key.

    Raises:
        AnnouncementInvalid: the announcement is about another peer than the owner of ``key``.
    """
    document = sign_document(announcement, key, DOMAIN)
    if announcement.peer_id != document.signer:
        raise AnnouncementInvalid("a node can only announce itself", peer_id=announcement.peer_id)
    return SignedAnnouncement(announcement, document)


def read_announcement(data: bytes) -> SignedAnnouncement:
    """A stranger's bytes as an announcement: shape, signature and owner checked (not the time).

    Raises:
        AnnouncementInvalid: with the first thing that is wrong.
    """
    return SignedAnnouncement(*read_body(data, Announcement, DOMAIN, AnnouncementInvalid))
