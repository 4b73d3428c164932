"""Which requests are settled now, and in which batches: pure, so that everything here can be recomputed.

A batch is made of whole requests. What it takes out of deposits and of the pool is exactly what its requests cost, and
what it pays is exactly what they earned: nothing is carried from one batch to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from far_mesh.marketplace.ledger.schemas import PLATFORM
from far_mesh.marketplace.ledger.split import fee_on
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.merkle import Tree, detail_leaves

MAX_PROVIDERS = 100
"""The escrow takes no more in one batch. Where more are to be paid at once, a payout root does it."""
MAX_USERS = 100
"""So that the gas of one batch stays a small part of that of a block."""
CAP_PARTS = 4
"""A batch takes no more than this part of what may leave the escrow in a day, if it has more than one request: so one
that has to wait for the next day leaves little of this day unused."""


@dataclass(frozen=True)
class Ended:
    """A request that has ended, costs something, and is in no batch. ``payouts`` are units by wallet."""

    request_id: str
    user: str
    payment: Payment
    channel_id: str | None
    ended_at: datetime
    fee_units: int
    payouts: Mapping[str, int]

    @property
    def paid_units(self) -> int:
        """What its providers get together."""
        return sum(self.payouts.values())

    @property
    def cost_units(self) -> int:
        """What its user pays."""
        return self.paid_units + self.fee_units

    @property
    def payer(self) -> str:
        """Where the money comes from: the id of a channel, or the wallet whose deposit is charged."""
        return self.channel_id if self.payment is Payment.CHANNEL and self.channel_id else self.user


# ---- when


@dataclass(frozen=True)
class Rule:
    """When to settle: as soon as the oldest request has waited ``seconds``, a provider is owed ``threshold_units``, or
    a user's requests come near to what the operator lends (``unsettled_limit_units``)."""

    seconds: float
    threshold_units: int
    unsettled_limit_units: int


@dataclass(frozen=True)
class Gathered:
    """What waits to be settled: since when, the most that one provider is owed, the most that one user owes."""

    oldest: datetime | None = None
    provider_units: int = 0
    user_units: int = 0


def gathered(requests: Iterable[Ended]) -> Gathered:
    """The same of requests at hand."""
    oldest: datetime | None = None
    providers: dict[str, int] = defaultdict(int)
    users: dict[str, int] = defaultdict(int)
    for request in requests:
        oldest = request.ended_at if oldest is None else min(oldest, request.ended_at)
        for wallet, units in request.payouts.items():
            providers[wallet] += units
        if request.payment is Payment.NETTED:
            users[request.user] += request.cost_units
    return Gathered(oldest, max(providers.values(), default=0), max(users.values(), default=0))


def is_due(waiting: Gathered, rule: Rule, at: datetime) -> bool:
    """Whether ``waiting`` should be settled at this time."""
    if waiting.oldest is None:
        return False
    return (
        at - waiting.oldest >= timedelta(seconds=rule.seconds)
        or waiting.provider_units >= rule.threshold_units
        or 2 * waiting.user_units > rule.unsettled_limit_units
    )


# ---- what


@dataclass(frozen=True)
class Means:
    """What there is to settle with, in units.

    ``users`` is what can be charged to deposits: the smaller of deposit and spending allowance. ``channels`` is what
    was redeemed of each and is in no batch. ``owed`` is what the books owe to each wallet, and to the platform.
    ``fee_bps`` is the fee that the escrow allows now, ``cap_units`` what it lets out in a day. ``unpayable`` are
    wallets that it does not credit.
    """

    users: Mapping[str, int]
    channels: Mapping[str, int]
    owed: Mapping[str, int]
    fee_bps: int
    cap_units: int
    unpayable: frozenset[str] = frozenset()


class Why(StrEnum):
    """Why a request is left out."""

    UNCOVERED = "uncovered"  # the deposit, the allowance or what was redeemed of the channel is less than it costs
    FEE_TOO_HIGH = "fee_too_high"  # its fee was frozen when the escrow allowed a higher one
    NOT_OWED = "not_owed"  # the books owe less to one of its providers, or to the platform: there was a refund
    UNPAYABLE = "unpayable"  # the escrow does not credit one of its wallets
    OVER_CAP = "over_cap"  # it alone costs more than may leave the escrow in a day


@dataclass(frozen=True)
class LeftOut:
    """A request that cannot be settled now."""

    request: Ended
    why: Why


@dataclass(frozen=True)
class Batch:
    """Requests that are settled by one transaction: a batch of the escrow, or a payout root."""

    requests: tuple[Ended, ...]

    @property
    def payouts(self) -> dict[str, int]:
        """Units by wallet, in the order of the wallets."""
        return _sums((wallet, units) for one in self.requests for wallet, units in one.payouts.items())

    @property
    def charges(self) -> dict[str, int]:
        """Units that are taken from deposits, by wallet."""
        return _sums((one.user, one.cost_units) for one in self.requests if one.payment is Payment.NETTED)

    @property
    def netted(self) -> dict[str, int]:
        """Units that come out of the pool, by the channel that they were redeemed from."""
        return _sums((one.payer, one.cost_units) for one in self.requests if one.payment is Payment.CHANNEL)

    @property
    def total_units(self) -> int:
        """What all providers get together."""
        return sum(one.paid_units for one in self.requests)

    @property
    def fee_units(self) -> int:
        """What the platform gets."""
        return sum(one.fee_units for one in self.requests)

    @property
    def is_root(self) -> bool:
        """Whether it has more providers than the escrow takes in a batch."""
        return len(self.payouts) > MAX_PROVIDERS

    def detail_root(self) -> bytes:
        """What stands for every line of it."""
        lines = (detail_leaves(one.request_id, one.payouts, one.fee_units) for one in self.requests)
        return Tree.of(leaf for leaves in lines for leaf in leaves).root


def _sums(lines: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for name, units in lines:
        sums[name] += units
    return dict(sorted(sums.items()))


@dataclass(frozen=True)
class Composition:
    """What is settled together, and what is not. Requests that are in neither wait for the next time."""

    batches: tuple[Batch, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def requests(self) -> list[Ended]:
        """Everything that is settled."""
        return [request for batch in self.batches for request in batch.requests]


def compose(requests: Sequence[Ended], means: Means) -> Composition:
    """Batches of these requests, which come oldest first. With more than :data:`MAX_PROVIDERS` to be paid it is one
    payout root, and what does not fit waits: a leaf of a root says all that its wallet was ever given by roots, so a
    second root must not begin before the first has ended."""
    filled = _fill(requests, means, MAX_PROVIDERS)
    wallets = {wallet for batch in filled.batches for wallet in batch.payouts}
    if len(wallets) <= MAX_PROVIDERS:
        return filled
    root = _fill(requests, means, None)
    return Composition(root.batches[:1], root.left_out)


def _fill(requests: Sequence[Ended], means: Means, most_providers: int | None) -> Composition:
    purse, drafts = _Purse(means), [_Draft(means, most_providers)]
    left_out = []
    for request in requests:
        why = purse.refuses(request) or drafts[-1].refuses(request)
        if why is None and not drafts[-1].has_room_for(request):
            drafts.append(_Draft(means, most_providers))
            why = drafts[-1].refuses(request)
        if why is not None:
            left_out.append(LeftOut(request, why))
            continue
        purse.take(request)
        drafts[-1].add(request)
    batches = (Batch(tuple(draft.requests)) for draft in drafts if draft.requests)
    return Composition(tuple(batches), tuple(left_out))


class _Purse:
    """What is left of the means."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._left = {**means.users, **means.channels}
        self._owed = dict(means.owed)
        self._blocked: set[str] = set()

    def refuses(self, request: Ended) -> Why | None:
        if not request.payouts.keys().isdisjoint(self._means.unpayable):
            return Why.UNPAYABLE
        if request.cost_units > self._means.cap_units:
            return Why.OVER_CAP
        if any(units > self._owed.get(owner, 0) for owner, units in _owed_for(request).items()):
            return Why.NOT_OWED
        # A payer's requests are settled in order: a dear one does not wait for ever behind cheap ones that came later.
        if request.payer in self._blocked or request.cost_units > self._left.get(request.payer, 0):
            self._blocked.add(request.payer)
            return Why.UNCOVERED
        return None

    def take(self, request: Ended) -> None:
        self._left[request.payer] -= request.cost_units
        for owner, units in _owed_for(request).items():
            self._owed[owner] -= units


def _owed_for(request: Ended) -> dict[str, int]:
    return {**request.payouts, **({PLATFORM: request.fee_units} if request.fee_units else {})}


@dataclass
class _Draft:
    """A batch that is being filled."""

    means: Means
    most_providers: int | None
    requests: list[Ended] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    wallets: set[str] = field(default_factory=set)
    paid: int = 0
    fee: int = 0

    def refuses(self, request: Ended) -> Why | None:
        """The fee of the whole is rounded down once, those of the requests each: only a higher rate can be too much."""
        fits = self.fee + request.fee_units <= fee_on(self.paid + request.paid_units, self.means.fee_bps)
        return None if fits else Why.FEE_TOO_HIGH

    def has_room_for(self, request: Ended) -> bool:
        if not self.requests:
            return True
        users = self.users | ({request.user} if request.payment is Payment.NETTED else set())
        wallets = self.wallets | request.payouts.keys()
        cost = self.paid + self.fee + request.cost_units
        return (
            len(users) <= MAX_USERS
            and (self.most_providers is None or len(wallets) <= self.most_providers)
            and cost <= self.means.cap_units // CAP_PARTS
        )

    def add(self, request: Ended) -> None:
        self.requests.append(request)
        if request.payment is Payment.NETTED:
            self.users.add(request.user)
        self.wallets |= request.payouts.keys()
        self.paid += request.paid_units
        self.fee += request.fee_units
