"""Serverless nodes: registered with an address at which they are woken, and asked there by who needs them.

A registration is an announcement of another kind: what the node will serve once it is up, signed with its own key, for
up to a day. A call names the address it is meant for, the node and a time, and carries a number that is used once, so
nobody who sees one can make another of it.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from discovery.protocol.announcement import MAX_LIFETIME_SECONDS, MAX_SWARM_LENGTH, Announcement, Digest
from discovery.protocol.errors import AnnouncementInvalid, CallRefused
from discovery.protocol.ids import PeerId, check_peer_id, peer_id_of
from discovery.protocol.signed import Body, SignedDocument, read_body, sign_document

DOMAIN = "far-mesh/on-call/v1"
CALL_DOMAIN = "far-mesh/wake-call/v1"
REGISTERED_SECONDS = MAX_LIFETIME_SECONDS
MAX_URL_LENGTH = 1024
CALL_SECONDS = 60
"""How far the time in a call may be from ours."""
MOST_CALLS = 16_384


class Registration(Announcement):
    """What a node will serve when it has been woken at ``wake_url``; None: it is on call no longer."""

    wake_url: Annotated[str, Field(max_length=MAX_URL_LENGTH, pattern=r"^https?://")] | None


@dataclass(frozen=True)
class SignedRegistration:
    """A registration with the document that proves it."""

    registration: Registration
    document: SignedDocument

    def to_bytes(self) -> bytes:
        """The value stored in the DHT."""
        return self.document.to_bytes()


class Call(Body):
    """``peer_id`` asks the node to come up."""

    version: Literal[1] = 1
    node: str
    swarm: Annotated[str, Field(max_length=MAX_SWARM_LENGTH)]
    model_digest: Digest
    url: Annotated[str, Field(max_length=MAX_URL_LENGTH)]
    issued_at: Annotated[int, Field(ge=0)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def register(about: Announcement, key: Ed25519PrivateKey, wake_url: str | None, expires_at: int) -> SignedRegistration:
    """A registration for what ``about`` says is served.

    Args:
        expires_at: Unix time, a day from now at most.

    Raises:
        AnnouncementInvalid: the address is none.
    """
    now = int(time.time())
    fields = about.model_dump() | {"state": "ready", "queue_ms": 0.0, "load": 0.0, "links": (), "wake_url": wake_url}
    try:
        registration = Registration.model_validate(fields | {"issued_at": now, "expires_at": expires_at})
    except ValueError:
        raise AnnouncementInvalid(f"{wake_url!r} is no address at which a node is woken") from None
    return SignedRegistration(registration, sign_document(registration, key, DOMAIN))


def read_registration(data: bytes) -> SignedRegistration:
    """A stranger's bytes as a registration: shape, signature and owner checked (not the time).

    Raises:
        AnnouncementInvalid: with the first thing that is wrong.
    """
    return SignedRegistration(*read_body(data, Registration, DOMAIN, AnnouncementInvalid))


def call(key: Ed25519PrivateKey, registration: Registration) -> bytes:
    """What is sent to the address of a registration."""
    assert registration.wake_url is not None
    asked = Call(
        peer_id=peer_id_of(key.public_key()),
        node=registration.peer_id,
        swarm=registration.swarm,
        model_digest=registration.model_digest,
        url=registration.wake_url,
        issued_at=int(time.time()),
        nonce=secrets.token_hex(16),
    )
    return sign_document(asked, key, CALL_DOMAIN).to_bytes()


class Calls:
    """Calls that one door hears, each of them once.

    Args:
        url: the door's address, as nodes registered it.
        nodes: who can be woken here.
        callers: whose calls are heard; empty: everybody's.
    """

    def __init__(self, url: str, nodes: frozenset[str], callers: frozenset[str] = frozenset()) -> None:
        self._url, self._nodes, self._callers = url, nodes, callers
        self._heard: OrderedDict[str, float] = OrderedDict()

    def hear(self, data: bytes, now: float | None = None) -> PeerId:
        """The node that is called.

        Raises:
            CallRefused: malformed, forged, meant for another door, of another time, or heard before.
        """
        now = time.time() if now is None else now
        asked, _ = read_body(data, Call, CALL_DOMAIN, CallRefused)
        while self._heard and next(iter(self._heard.values())) < now:
            self._heard.popitem(last=False)
        if asked.url != self._url:
            raise CallRefused("the call is meant for another address")
        if asked.node not in self._nodes:
            raise CallRefused("no such node is woken here")
        if self._callers and asked.peer_id not in self._callers:
            raise CallRefused("the call is of somebody who is not heard here")
        if abs(now - asked.issued_at) > CALL_SECONDS:
            raise CallRefused("the call is from another time: is the clock right?")
        if asked.nonce in self._heard or len(self._heard) >= MOST_CALLS:
            raise CallRefused("the call was heard before, or there are too many")
        self._heard[asked.nonce] = now + 2 * CALL_SECONDS
        return check_peer_id(asked.node)
