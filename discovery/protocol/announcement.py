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
MAX_SWARM_LENGTH = 256
MAX_INVITATION_LENGTH = 4096
DEFAULT_SWARM = "far"
MAX_MADDRS = 16
MAX_LINKS = 16
MAX_ASKED_UNITS = 10**12
MIN_LINK_MS, MAX_LINK_MS = 0.01, 10_000.0
MIN_BLOCK_MS, MAX_BLOCK_MS = 0.001, 60_000.0
MAX_QUEUE_MS = 600_000.0
MAX_SESSIONS = 65_536
REGION_PATTERN = r"[a-z0-9]{1,16}(-[a-z0-9]{1,16}){0,3}"

Quantization = Literal["none", "int8", "nf4"]
Dtype = Literal["float32", "bfloat16", "float16"]
Codec = Literal["float32", "bfloat16", "float16", "int8"]
"""How hidden states are written on the wire."""
State = Literal["ready", "leaving"]
Reached = Literal["direct", "relay", "none"]
"""How others get through to a node: at its own address, through relays, or not at all."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""


PeerLink = tuple[
    Annotated[str, Field(pattern=r"^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$")],
    Annotated[float, Field(ge=MIN_LINK_MS, le=MAX_LINK_MS, allow_inf_nan=False)],
]
"""The id of a peer, by its looks, and the round trip to it in milliseconds."""
Location = tuple[Annotated[int, Field(ge=-90, le=90)], Annotated[int, Field(ge=-180, le=180)]]
"""Latitude and longitude in whole degrees: within some 80 km, and no street."""


class Announcement(Body):
    """A node serves blocks ``[first_block, end_block)`` of the model whose weights have ``model_digest``.

    From ``price_units`` on it is what routes are planned with, and may be left out. These are claims: they are bounded
    here, and :mod:`far_mesh.costs` says what a false one can do.

    Attributes:
        price_units: asked for 1,000 token-layers, in 1e-9 FAR.
        block_ms: milliseconds that one token takes in one block, alone, as measured.
        queue_ms: milliseconds that a step waits for its turn at present.
        load: how full the node is, from 0 to 1: open sessions of those it takes.
        sessions: sessions of usual length that it takes at once from one client.
        region: where the owner says it is, such as ``eu-west``; ``location`` the same in whole degrees.
        links: round trips that the node measured to others of its models.
        auto_place: whether it goes by itself where it is needed more (:mod:`discovery.placement`).
        moving_to: the blocks it is about to serve instead of these, when it is on its way.
        reached: how others get through to it, as far as it knows: ``none`` warns them off, and only harms itself.
        swarm: the prefix of the swarm that it is meant for. In another one it counts for nothing, whoever carries it
            there.
        invitation: the pass by which it is a member of a private swarm (:mod:`discovery.protocol.membership`).
    """

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
    price_units: Annotated[int, Field(ge=0, le=MAX_ASKED_UNITS)] = 0
    block_ms: Annotated[float, Field(ge=MIN_BLOCK_MS, le=MAX_BLOCK_MS, allow_inf_nan=False)] | None = None
    queue_ms: Annotated[float, Field(ge=0, le=MAX_QUEUE_MS, allow_inf_nan=False)] = 0.0
    load: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    sessions: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = 64
    region: Annotated[str, Field(pattern=f"^{REGION_PATTERN}$")] | None = None
    location: Location | None = None
    links: Annotated[tuple[PeerLink, ...], Field(max_length=MAX_LINKS)] = ()
    auto_place: bool = False
    moving_to: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    reached: Reached | None = None
    swarm: Annotated[str, Field(max_length=MAX_SWARM_LENGTH)] = DEFAULT_SWARM
    invitation: Annotated[str, Field(max_length=MAX_INVITATION_LENGTH)] | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            check_peer_id(self.peer_id)
            wallet = check_wallet(self.wallet)
        except FarError as error:
            raise ValueError(error.message) from None
        if wallet != self.wallet:
            raise ValueError("the wallet must be written in its EIP-55 form")
        if len({self.peer_id, *(peer_id for peer_id, _ in self.links)}) <= len(self.links):
            raise ValueError("a link leads to another peer, and to each only once")
        if not self.first_block < self.end_block <= self.block_count:
            raise ValueError(f"blocks {self.first_block}:{self.end_block} are not within 0:{self.block_count}")
        if self.moving_to is not None and not self.moving_to[0] < self.moving_to[1] <= self.block_count:
            raise ValueError("moving_to {}:{} is not within 0:{}".format(*self.moving_to, self.block_count))
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
