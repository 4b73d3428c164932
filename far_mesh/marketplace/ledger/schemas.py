"""The words of the books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Book(StrEnum):
    """Kinds of accounts.

    ``CHAIN`` is the other side of what a wallet pays in and takes out, so its sum is minus what was paid in, net.
    ``USER_CHANNEL`` is what a user has put into payment channels and has not spent over them.
    ``IN_FLIGHT`` is what the chain has been asked to pay and has not confirmed, by who gets it. ``ROUNDING`` takes up
    the units by which the chain rounds otherwise than we do. ``USER_CREDIT`` is by how much the platform's fees on
    later requests of a user will be lower; ``CREDITS`` is its other side. Both are promises of ours: the chain knows of
    none.
    """

    CHAIN = "chain"
    USER_DEPOSIT = "user_deposit"
    USER_CHANNEL = "user_channel"
    USER_HOLD = "user_hold"
    PROVIDER_EARNED = "provider_earned"
    PROVIDER_PAID = "provider_paid"
    PLATFORM_FEE = "platform_fee"
    PLATFORM_PAID = "platform_paid"
    IN_FLIGHT = "in_flight"
    ROUNDING = "rounding"
    USER_CREDIT = "user_credit"
    CREDITS = "credits"


MAY_BE_NEGATIVE = frozenset({Book.CHAIN, Book.ROUNDING, Book.CREDITS})
"""All others stay at zero or above, but a ``USER_DEPOSIT`` whose owner took out on chain what was in use here."""

PLATFORM = "platform"
"""Owner of the platform's accounts."""


class Told(StrEnum):
    """What a chain tells of a user's money: the first word of the keys under which it is booked."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    CHANNEL_FUNDED = "channel_funded"
    CHANNEL_CLOSED = "channel_closed"
    ESCROW_LOCKED = "escrow_locked"
    ESCROW_RETURNED = "escrow_returned"

    @property
    def vanished(self) -> str:
        """The kind of posting that takes it back."""
        return f"{self}_vanished"


@dataclass(frozen=True, order=True)
class Account:
    """An account by its name. ``owner`` is a wallet in EIP-55 form, or :data:`PLATFORM`."""

    kind: Book
    owner: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.owner}"


@dataclass(frozen=True)
class Posting:
    """A balanced set of lines in units, under a key that names what was done for ever."""

    key: str
    kind: str
    reason: str
    lines: Mapping[Account, int]
    request_id: str | None = None


@dataclass(frozen=True)
class Balance:
    """A user's money in units: what can be spent, what is held for requests under way, what was paid in net, what lies
    in payment channels and is not spent; and by how much the fees on later requests will be lower."""

    available: int
    held: int
    deposited: int
    in_channels: int = 0
    credit: int = 0
