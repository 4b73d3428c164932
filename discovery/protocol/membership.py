"""Who belongs to a private swarm: what its owner has signed. Pure; :mod:`discovery.dht.gate` acts on it.

A swarm is named after the key that founded it, so nobody else can speak for it. Its *charter* says who owns it now,
through which peers it is joined, and which invitations are revoked; of two charters the later one counts. An
*invitation* names one peer, or, where it is for whoever bears it, a key of its own, whose owner signs over to a peer
what is shown at doors then: nobody who is shown a *pass* can use it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from discovery.protocol.announcement import CLOCK_SKEW_SECONDS, MAX_INVITATION_LENGTH, MAX_SWARM_LENGTH
from discovery.protocol.errors import MembershipInvalid, NotInvited
from discovery.protocol.ids import PeerId, check_peer_id, peer_id_of
from discovery.protocol.signed import Body, SignedDocument, read_body, sign_document

Role = Literal["client", "node"]
"""What a member may do: ask nodes, or serve as well. Who serves may also ask."""

CHARTER = "far-mesh/charter/v1"
HANDOVER = "far-mesh/handover/v1"
INVITATION = "far-mesh/invitation/v1"
DELEGATION = "far-mesh/delegation/v1"

MAX_NAME_LENGTH = 64
MAX_REVOKED = 256
MAX_HANDOVERS = 8
MAX_PEERS = 16
MAX_TOKEN_LENGTH = 8192
_LONGEST_PATH = 256
DAY_SECONDS = 86_400
MAX_INVITATION_SECONDS = 3 * 366 * DAY_SECONDS

_NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_NAME_LENGTH - 1}}}\Z")
INVITATION_MARK = "far-invite-"
"""What an invitation as its guest has it begins with."""
PRIVATE = "private/"
"""What the name of every private swarm begins with."""
_Time = Annotated[int, Field(ge=0, lt=2**53)]
_Swarm = Annotated[str, Field(max_length=MAX_SWARM_LENGTH)]
_InvitationId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Handover(Body):
    """The owner ``peer_id`` gives the swarm to another.

    Attributes:
        to: peer id of the new owner.
        until: Unix time up to which the invitations count that the former owner has signed.
    """

    swarm: _Swarm
    to: str
    until: _Time


class Charter(Body):
    """What the owner ``peer_id`` says of the swarm.

    Attributes:
        serial: counts the charters of a swarm, through all owners.
        handovers: signed documents, from the founder's to the one that made the signer owner.
        initial_peers: multiaddrs through which one joins.
        revoked: invitations that count no longer.
    """

    version: Literal[1] = 1
    swarm: _Swarm
    serial: Annotated[int, Field(ge=1, lt=2**53)]
    issued_at: _Time
    initial_peers: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=MAX_PEERS)] = ()
    revoked: Annotated[tuple[_InvitationId, ...], Field(max_length=MAX_REVOKED)] = ()
    handovers: Annotated[tuple[str, ...], Field(max_length=MAX_HANDOVERS)] = ()


class Invitation(Body):
    """The owner ``peer_id`` lets somebody in.

    Attributes:
        id: by which it is revoked.
        guest: the peer that may come in, or, for ``is_bearer``, the key that may say which peers do.
    """

    version: Literal[1] = 1
    swarm: _Swarm
    id: _InvitationId
    guest: str
    is_bearer: bool
    role: Role
    issued_at: _Time
    expires_at: _Time

    @model_validator(mode="after")
    def _lasts_for_a_while(self) -> Self:
        if not 0 < self.expires_at - self.issued_at <= MAX_INVITATION_SECONDS:
            raise ValueError("an invitation counts for some time, and for three years at most")
        return self


class _Delegation(Body):
    """The bearer of an invitation, whose key is ``peer_id``, comes as the peer ``holder``."""

    invitation: _InvitationId
    holder: str


@dataclass(frozen=True)
class Pass:
    """What a member shows: an invitation, and for a bearer's the word that it is this peer's."""

    invitation: Invitation
    document: SignedDocument
    delegation: SignedDocument | None = None

    def to_text(self) -> str:
        """JSON."""
        parts = [self.document] if self.delegation is None else [self.document, self.delegation]
        return json.dumps([part.to_bytes().decode() for part in parts])

    @property
    def holder(self) -> str:
        """The peer that may show it."""
        if self.delegation is None:
            return self.invitation.guest
        return str(json.loads(self.delegation.body)["holder"])


@dataclass(frozen=True)
class Token:
    """An invitation as its guest has it: with the key of its own, where it is for whoever bears it."""

    invitation: Invitation
    document: SignedDocument
    key: Ed25519PrivateKey | None = field(default=None, repr=False)

    def pass_of(self, peer_id: str) -> Pass:
        """What the peer shows at doors.

        Raises:
            NotInvited: the invitation is for another peer.
        """
        invitation = self.invitation
        if self.key is not None:
            delegation = _Delegation(peer_id=invitation.guest, invitation=invitation.id, holder=peer_id)
            return Pass(invitation, self.document, sign_document(delegation, self.key, DELEGATION))
        if invitation.guest != peer_id:
            raise NotInvited(f"the invitation is for {invitation.guest}, and this is {peer_id}")
        return Pass(invitation, self.document)

    def to_text(self) -> str:
        """One word, to be handed on as a secret where it has a key."""
        seed = None if self.key is None else base64.b64encode(self.key.private_bytes_raw()).decode()
        packed = json.dumps([self.document.to_bytes().decode(), seed]).encode()
        return INVITATION_MARK + base64.urlsafe_b64encode(packed).decode().rstrip("=")


@dataclass(frozen=True)
class SignedCharter:
    """A charter with the document that proves it, and the handovers that lead to its signer."""

    charter: Charter
    document: SignedDocument
    handovers: tuple[Handover, ...]

    @property
    def swarm(self) -> str:
        """Name and founder: the prefix under which the swarm lives."""
        return self.charter.swarm

    @property
    def owner(self) -> PeerId:
        """Whose invitations count."""
        return self.document.signer

    def to_bytes(self) -> bytes:
        """What the swarm's file holds."""
        return self.document.to_bytes()

    def supersedes(self, old: SignedCharter) -> bool:
        """Whether it counts in the place of ``old``. An owner who has given the swarm away cannot give it again."""
        mine, theirs = self.handovers, old.handovers
        order = len(mine), self.charter.serial
        return (
            self.swarm == old.swarm
            and mine[: len(theirs)] == theirs
            and order > (len(theirs), old.charter.serial)
            and self.charter.serial >= old.charter.serial
        )

    def counts_until(self, shown: Pass, peer_id: str, role: Role = "client", now: float | None = None) -> int:
        """Until when ``peer_id`` is a member that may act in ``role``, as Unix time, by the pass that it shows.

        Raises:
            NotInvited: it is none, or may not; the message says why.
        """
        now = time.time() if now is None else now
        invitation = shown.invitation
        until = min(invitation.expires_at, self._word_of(invitation.peer_id, invitation.expires_at))
        if invitation.swarm != self.swarm:
            raise NotInvited("the invitation is for another swarm")
        if shown.holder != peer_id:
            raise NotInvited("the invitation is another peer's")
        if invitation.id in self.charter.revoked:
            raise NotInvited("the invitation was revoked")
        if now >= until:
            raise NotInvited("the invitation counts no longer: its time is over, or the swarm has another owner")
        if now < invitation.issued_at - CLOCK_SKEW_SECONDS:
            raise NotInvited("the invitation is from the future: is the clock of this machine right?")
        if role == "node" and invitation.role != "node":
            raise NotInvited("the invitation is a client's, and this is for nodes")
        return until

    def _word_of(self, issuer: str, at_most: int) -> int:
        """Until when invitations of somebody count."""
        if issuer == self.owner:
            return at_most
        return max((one.until for one in self.handovers if one.peer_id == issuer), default=0)


@dataclass(frozen=True)
class Membership:
    """What somebody has who was invited: the swarm's charter, the invitation, and the file in which a later charter is
    kept."""

    charter: SignedCharter
    token: Token
    file: Path | None = None


def initial_peers_of(membership: Membership | None) -> tuple[str, ...]:
    """Through whom the charter says that one joins."""
    return () if membership is None else membership.charter.charter.initial_peers


def membership_of(file: Path | None, invitation: str | None) -> Membership | None:
    """What ``--swarm`` and ``--invite`` name; None where it is not a private swarm. The invitation may lie in a file.

    Raises:
        MembershipInvalid: one is there without the other, they cannot be read, are damaged, or do not belong together.
    """
    if file is None and invitation is None:
        return None
    if file is None or invitation is None:
        raise MembershipInvalid("a private swarm takes both, --swarm with its file and --invite with an invitation")
    try:
        charter = read_charter(file.expanduser().read_bytes())
        place = Path(invitation).expanduser() if len(invitation) < _LONGEST_PATH else None
        token = read_token(place.read_text() if place is not None and place.is_file() else invitation)
    except (OSError, UnicodeDecodeError) as error:
        raise MembershipInvalid(f"the swarm's file or the invitation cannot be read: {error}") from None
    if token.invitation.swarm != charter.swarm:
        raise MembershipInvalid(f"the invitation is for {token.invitation.swarm}, and {file} is of {charter.swarm}")
    return Membership(charter, token, file.expanduser())


def found_swarm(name: str, key: Ed25519PrivateKey, initial_peers: Sequence[str] = ()) -> SignedCharter:
    """A new swarm, which belongs to ``key``.

    Raises:
        MembershipInvalid: names have up to 64 small letters, digits and hyphens.
    """
    if not _NAME.match(name):
        raise MembershipInvalid(f"a swarm's name has 1 to {MAX_NAME_LENGTH} of a-z, 0-9 and -, not {name!r}")
    owner = peer_id_of(key.public_key())
    fields = {"peer_id": owner, "swarm": f"{PRIVATE}{name}/{owner}", "serial": 1}
    return _sign_charter(key, fields | {"initial_peers": tuple(initial_peers)})


def amend(
    old: SignedCharter,
    key: Ed25519PrivateKey,
    *,
    revoke: Iterable[str] = (),
    initial_peers: Sequence[str] | None = None,
) -> SignedCharter:
    """The owner's next charter.

    Raises:
        NotInvited: ``key`` is not the owner's.
        MembershipInvalid: more is revoked than a charter holds, or not in the right form.
    """
    _check_owner(old, key)
    revoked = tuple(dict.fromkeys((*old.charter.revoked, *revoke)))
    peers = old.charter.initial_peers if initial_peers is None else tuple(initial_peers)
    changes = {"serial": old.charter.serial + 1, "revoked": revoked, "initial_peers": peers}
    return _sign_charter(key, old.charter.model_dump() | changes)


def hand_over(old: SignedCharter, key: Ed25519PrivateKey, to: Ed25519PrivateKey, until: int) -> SignedCharter:
    """The first charter of a new owner.

    Args:
        until: Unix time up to which invitations of the former owner count.

    Raises:
        NotInvited: ``key`` is not the owner's.
        MembershipInvalid: the swarm has changed hands too often, or has been the new owner's before.
    """
    _check_owner(old, key)
    new_owner = peer_id_of(to.public_key())
    handover = Handover(peer_id=old.owner, swarm=old.swarm, to=new_owner, until=until)
    handovers = (*old.charter.handovers, sign_document(handover, key, HANDOVER).to_bytes().decode())
    changes = {"peer_id": new_owner, "serial": old.charter.serial + 1, "handovers": handovers}
    return _sign_charter(to, old.charter.model_dump() | changes)


def invite(charter: SignedCharter, key: Ed25519PrivateKey, role: Role, seconds: int, guest: str | None = None) -> Token:
    """An invitation for the peer ``guest``, or for whoever bears it.

    Raises:
        NotInvited: ``key`` is not the owner's.
        MembershipInvalid: it lasts too long, or not at all.
        InvalidIdentity: ``guest`` is no peer id.
    """
    _check_owner(charter, key)
    bearer = None if guest is not None else Ed25519PrivateKey.generate()
    now = int(time.time())
    fields = {
        "peer_id": charter.owner,
        "swarm": charter.swarm,
        "id": secrets.token_hex(16),
        "guest": peer_id_of(bearer.public_key()) if bearer is not None else check_peer_id(str(guest)),
        "is_bearer": bearer is not None,
        "role": role,
        "issued_at": now,
        "expires_at": now + seconds,
    }
    try:
        invitation = Invitation.model_validate(fields)
    except ValueError:
        raise MembershipInvalid("an invitation counts for some time, and for three years at most") from None
    return Token(invitation, sign_document(invitation, key, INVITATION), bearer)


def read_charter(data: bytes) -> SignedCharter:
    """Bytes of a file or of a stranger as a charter; every signature from the founder's on is checked.

    Raises:
        MembershipInvalid: with the first thing that is wrong.
    """
    charter, document = read_body(data, Charter, CHARTER, MembershipInvalid)
    kind, _, name_and_founder = charter.swarm.partition("/")
    name, _, owner = name_and_founder.partition("/")
    if kind != "private" or not _NAME.match(name):
        raise MembershipInvalid("the charter is not one of a private swarm")
    owners, handovers = [owner], []
    for text in charter.handovers:
        handover, _ = read_body(text.encode(), Handover, HANDOVER, MembershipInvalid)
        if handover.peer_id != owners[-1] or handover.swarm != charter.swarm:
            raise MembershipInvalid("the swarm was given away by somebody who did not own it")
        owners.append(handover.to)
        handovers.append(handover)
    if document.signer != owners[-1] or len(set(owners)) < len(owners):
        raise MembershipInvalid(f"the charter is signed by {document.signer}, who does not own the swarm")
    return SignedCharter(charter, document, tuple(handovers))


@lru_cache(maxsize=1024)  # the same ones are shown again and again
def read_pass(text: str) -> Pass:
    """A stranger's text as a pass: signatures and shape are checked, not whether it counts.

    Raises:
        MembershipInvalid: with the first thing that is wrong.
    """
    if len(text) > MAX_INVITATION_LENGTH:
        raise MembershipInvalid(f"a pass of {len(text)} characters is too long (limit {MAX_INVITATION_LENGTH})")
    parts = _json(text)
    if not isinstance(parts, list) or len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise MembershipInvalid("this is not a pass")
    invitation, document = read_body(parts[0].encode(errors="replace"), Invitation, INVITATION, MembershipInvalid)
    if invitation.is_bearer != (len(parts) == 2):
        raise MembershipInvalid("a bearer's pass says which peer it is for, and no other does")
    if not invitation.is_bearer:
        return Pass(invitation, document)
    delegation, by_bearer = read_body(parts[1].encode(errors="replace"), _Delegation, DELEGATION, MembershipInvalid)
    if delegation.peer_id != invitation.guest or delegation.invitation != invitation.id:
        raise MembershipInvalid("the pass was signed over by somebody who does not bear the invitation")
    return Pass(invitation, document, by_bearer)


def read_token(text: str) -> Token:
    """What :meth:`Token.to_text` wrote.

    Raises:
        MembershipInvalid: it is no invitation, or a damaged one.
    """
    wrong = MembershipInvalid(f"this is no invitation; one begins with {INVITATION_MARK}")
    text = text.strip()
    if not text.startswith(INVITATION_MARK) or len(text) > MAX_TOKEN_LENGTH:
        raise wrong
    try:
        packed = text.removeprefix(INVITATION_MARK)
        parts = _json(base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True).decode())
        document, seed = parts
        invitation, signed = read_body(document.encode(), Invitation, INVITATION, MembershipInvalid)
        key = None if seed is None else Ed25519PrivateKey.from_private_bytes(base64.b64decode(seed, validate=True))
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise wrong from None
    if (key is not None) != invitation.is_bearer or (key and peer_id_of(key.public_key()) != invitation.guest):
        raise wrong
    return Token(invitation, signed, key)


def _sign_charter(key: Ed25519PrivateKey, fields: dict[str, Any]) -> SignedCharter:
    try:
        charter = Charter.model_validate(fields | {"issued_at": int(time.time())})
    except ValueError as error:
        raise MembershipInvalid(f"the charter cannot say that: {error}") from None
    return read_charter(sign_document(charter, key, CHARTER).to_bytes())


def _check_owner(charter: SignedCharter, key: Ed25519PrivateKey) -> None:
    if peer_id_of(key.public_key()) != charter.owner:
        raise NotInvited(f"the swarm belongs to {charter.owner}, and that is not this key")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MembershipInvalid("this is not JSON") from None
