"""Who is paid by transfer now, how much and for what; and what the chain's word on a transfer means. Pure.

Where there is no escrow, the books alone say what a provider has earned. A transfer pays a provider for whole requests,
the oldest first, and never more than the books owe. What is less than the smallest part of the coin waits: it is paid
with the next transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from far_mesh.marketplace.payments.provider import Coin, State, Status
from far_mesh.marketplace.settlement.merkle import Tree, detail_leaves

TRANSFER = "transfer-"
"""What comes before the number of a transfer in the name under which the outbox and the books know it."""


@dataclass(frozen=True)
class Rule:
    """When a provider is paid: once ``threshold_units`` are owed, or once the oldest request has waited ``seconds``."""

    seconds: float
    threshold_units: int


@dataclass(frozen=True)
class Waiting:
    """A provider who was not paid for everything: for how long, and what the books owe, in units."""

    wallet: str
    oldest: datetime
    owed_units: int


@dataclass(frozen=True)
class Work:
    """What a provider earned by one request."""

    session_id: str
    request_id: str
    units: int


@dataclass(frozen=True)
class Share:
    """What a provider gets of a transfer, at which address, and for what."""

    wallet: str
    address: str
    units: int
    works: tuple[Work, ...]


def is_due(one: Waiting, rule: Rule, at: datetime) -> bool:
    """Whether ``one`` should be paid at this time."""
    waited = at - one.oldest >= timedelta(seconds=rule.seconds)
    return one.owed_units > 0 and (waited or one.owed_units >= rule.threshold_units)


def share_of(one: Waiting, address: str, works: Sequence[Work], coin: Coin, *, is_all: bool) -> Share | None:
    """What ``one`` is paid for ``works``, which come oldest first and are all that waits if ``is_all``. None when it is
    less than the coin can be divided into.

    Where the books owe less than the works say, because something was taken back, only what fits is paid for. Where
    they owe more, because less than the coin's smallest part was left, that is paid too.
    """
    covered, units = [], 0
    for work in works:
        if units + work.units <= one.owed_units:
            covered.append(work)
            units += work.units
    if is_all and len(covered) == len(works):
        units = one.owed_units
    payable = coin.payable(units)
    return Share(one.wallet, address, payable, tuple(covered)) if covered and payable else None


def detail_root(shares: Sequence[Share]) -> bytes:
    """What stands for every line of a transfer: the same tree as that of a batch."""
    lines = (detail_leaves(work.request_id, {share.wallet: work.units}, 0) for share in shares for work in share.works)
    return Tree.of(leaf for leaves in lines for leaf in leaves).root


# ---- what has become of a transfer


class Fate(Enum):
    """PAID: by one of its attempts. WAIT: one is in a block that is too young. OPEN: any may still happen. NEVER: none
    of them ever will."""

    PAID = "paid"
    WAIT = "wait"
    OPEN = "open"
    NEVER = "never"


def fate(told: Sequence[Status]) -> Fate:
    """What the chain says of all attempts of one transfer. Only when none of them has paid or ever will, may it be paid
    again."""
    states = {status.state for status in told}
    if State.CONFIRMED in states:
        return Fate.PAID
    if State.CONFIRMING in states:
        return Fate.WAIT
    return Fate.NEVER if all(status.may_pay_again for status in told) else Fate.OPEN
