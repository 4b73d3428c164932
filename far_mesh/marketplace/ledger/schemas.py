"""The words of the books."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Book(StrEnum):
    """Kinds of accounts. All sums are ≥ 0 but ``USER_DEPOSITS``, where the money comes from, and a
    ``USER_AVAILABLE`` whose owner withdrew on chain what was already held here."""

    USER_DEPOSITS = "user_deposits"
    USER_AVAILABLE = "user_available"
    USER_HELD = "user_held"
    PROVIDER_OWED = "provider_owed"
    PROVIDER_CREDITED = "provider_credited"
    FEES_OWED = "fees_owed"
    FEES_CREDITED = "fees_credited"


PLATFORM = "platform"
"""Owner of the fee accounts."""


@dataclass(frozen=True, order=True)
class Account:
    """An account by its name. ``owner`` is a wallet in EIP-55 form, or :data:`PLATFORM`."""

    kind: Book
    owner: str


@dataclass(frozen=True)
class Balance:
    """A user's money in units: what can be spent, what is held for requests under way, what was paid in net."""

    available: int
    held: int
    deposited: int
