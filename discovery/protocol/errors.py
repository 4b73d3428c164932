"""The error family of Far Mesh.

Every failure a user or a peer can meet is a :class:`FarError` with a stable ``code``, a sentence that says what to do,
and ``retry``: whether the same call may succeed if it is made again. Over HTTP an error takes its ``status``; between
peers it travels as :class:`~discovery.protocol.messages.Failure` and becomes the same class again on the other side.
Rooms add their own members in their ``errors.py``; two classes cannot claim one code.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FarError(Exception):
    """Base of the family. ``facts`` are the values the message speaks of, for programs to read."""

    code: ClassVar[str] = "internal_error"
    retry: ClassVar[bool] = False
    status: ClassVar[int] = 500

    _by_code: ClassVar[dict[str, type[FarError]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            return
        owner = FarError._by_code.setdefault(cls.code, cls)
        if owner.__qualname__ != cls.__qualname__ or owner.__module__ != cls.__module__:
            raise TypeError(f"error code {cls.code!r} is already taken by {owner.__qualname__}")

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before a retry, when the one who failed knows."""
        value = self.facts.get("retry_after")
        return float(value) if value is not None else None


class InvalidArgument(FarError):
    """A value from outside does not mean anything here."""

    code = "invalid_argument"
    status = 400


class InvalidWallet(InvalidArgument):
    """Not an EVM address, or an address whose EIP-55 checksum is wrong."""

    code = "invalid_wallet"
    status = 400


class InvalidIdentity(FarError):
    """An identity file or a peer id that is not an ed25519 libp2p identity."""

    code = "invalid_identity"
    status = 400


class ProtocolViolation(FarError):
    """A peer sent bytes that are not our protocol. Trying again sends the same bytes, so: no retry."""

    code = "protocol_violation"
    status = 502


class AnnouncementInvalid(FarError):
    """An announcement whose shape, signature, owner or time is wrong."""

    code = "announcement_invalid"
    status = 400


class MembershipInvalid(FarError):
    """A charter, a pass or an invitation of a private swarm whose shape or signature is wrong."""

    code = "membership_invalid"
    status = 400


class CallRefused(FarError):
    """A call that is to wake a node is malformed, forged, of another time, meant for another, or was heard before."""

    code = "call_refused"
    status = 403


class NotInvited(FarError):
    """A private swarm lets only those in whom its owner has invited, for as long as the invitation counts."""

    code = "not_invited"
    status = 403


class ReceiptInvalid(FarError):
    """A receipt whose signature, facts or place in the chain is wrong. It is not paid."""

    code = "receipt_invalid"
    status = 400


class PeerUnavailable(FarError):
    """A peer cannot be reached, or the stream to it broke."""

    code = "peer_unavailable"
    retry = True
    status = 503


class DeadlineExceeded(FarError):
    """No progress within the deadline of a step."""

    code = "deadline_exceeded"
    retry = True
    status = 504


class RemoteError(FarError):
    """A peer failed with a code this version does not know; the peer's own ``retry`` is in ``facts``."""

    code = "remote_error"
    status = 502


class WeightsDamaged(FarError):
    """A weight file that is not what its manifest says, or whose header is malformed. It is never used."""

    code = "weights_damaged"
    status = 502


def error_from_wire(code: str, message: str, retry_after: float | None = None) -> FarError:
    """The error a peer reported, as the class of its code; :class:`RemoteError` for an unknown code."""
    facts: dict[str, Any] = {} if retry_after is None else {"retry_after": retry_after}
    kind = FarError._by_code.get(code)
    if kind is None:
        return RemoteError(f"the peer reported {code!r}: {message}", remote_code=code, **facts)
    return kind(message, **facts)
