"""A provider's work and money in SQL. Every question is about one wallet, and answered along an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import BigInteger, ColumnElement, cast, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.sessions.schemas import Payment, Status
from far_mesh.marketplace.settlement.owed import BATCH
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.transfers import TRANSFER
from far_mesh.marketplace.tables import (
    chain_outbox,
    inference_sessions,
    node_contributions,
    node_registry,
    payout_leaves,
    settlement_batches,
)

RECENT = 100

_CURSOR = re.compile(r"(\d{8}T\d{12})-(\d{1,18})", re.ASCII)
_TIME = "%Y%m%dT%H%M%S%f"
_done = node_contributions.c


def bad_cursor() -> InvalidArgument:
    """What is said of a cursor that means nothing."""
    return InvalidArgument("this cursor was not given out here", param="cursor")


@dataclass(frozen=True)
class Place:
    """Where in the order of contributions a page ended."""

    earned_at: datetime
    id: int

    @classmethod
    def read(cls, text: str) -> Self:
        """From a cursor.

        Raises:
            InvalidArgument: it is none of ours.
        """
        found = _CURSOR.fullmatch(text)
        try:
            if found is not None:
                return cls(datetime.strptime(found[1], _TIME).replace(tzinfo=UTC), int(found[2]))
        except ValueError:
            pass
        raise bad_cursor()

    def __str__(self) -> str:
        return f"{self.earned_at.strftime(_TIME)}-{self.id}"


@dataclass(frozen=True)
class Contribution:
    """What a node did for a request, how that is paid, and when it was."""

    id: int
    request_id: str
    model_id: str
    payment: Payment
    batch_number: int | None
    transfer_number: int | None
    node_id: str
    first_block: int
    end_block: int
    quantization: str
    tokens: int
    token_layers: int
    units: int
    receipt: str
    earned_at: datetime
    paid_at: datetime | None

    @property
    def place(self) -> Place:
        """Where the next page begins when a page ends here."""
        return Place(self.earned_at, self.id)

    @property
    def outbox_keys(self) -> tuple[str, ...]:
        """The names of the acts by which it may be paid."""
        if self.payment is Payment.ESCROW:
            return (f"{Kind.RELEASE}:{self.request_id}",)
        return () if self.number is None else keys_of_batch(self.number)

    @property
    def number(self) -> int | None:
        """Of the batch or the transfer by which it is paid."""
        return self.batch_number if self.transfer_number is None else self.transfer_number


@dataclass(frozen=True)
class Act:
    """What the chain was asked for, and what became of it."""

    status: RowStatus
    tx_hash: str | None
    block_number: int | None


@dataclass(frozen=True)
class Batch:
    """A batch as it was put together. ``payouts`` are units by wallet."""

    number: int
    kind: str
    detail_root: str
    requests: int
    total_units: int
    fee_units: int
    payouts: Mapping[str, int]
    created_at: datetime


@dataclass(frozen=True)
class Earned:
    """What a node earned on a day, ``YYYY-MM-DD``. Added up, the node and the day are those of the first."""

    node_id: str
    date: str
    requests: int
    tokens: int
    token_layers: int
    units: int

    def __add__(self, other: Earned) -> Earned:
        return Earned(
            self.node_id,
            self.date,
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.token_layers + other.token_layers,
            self.units + other.units,
        )


@dataclass(frozen=True)
class Leaf:
    """What a payout root promises a wallet, in all."""

    number: int
    cumulative_units: int


def keys_of_batch(number: int) -> tuple[str, ...]:
    """The names of the acts that pay a batch: at once, by a root, or by transfer."""
    by_escrow = (f"{kind}:{BATCH}{number}" for kind in (Kind.SETTLE, Kind.COMMIT))
    return (*by_escrow, f"{Kind.TRANSFER}:{TRANSFER}{number}")


_CONTRIBUTION = (
    select(
        _done.id,
        inference_sessions.c.request_id,
        inference_sessions.c.model_id,
        inference_sessions.c.payment,
        inference_sessions.c.batch_number,
        _done.transfer_number,
        _done.node_id,
        _done.first_block,
        _done.end_block,
        _done.quantization,
        _done.tokens_contributed.label("tokens"),
        _done.token_layers,
        _done.payment_units.label("units"),
        _done.receipt,
        _done.earned_at,
        _done.paid_at,
    )
    .join(inference_sessions, inference_sessions.c.id == _done.session_id)
    .order_by(_done.earned_at.desc(), _done.id.desc())
)


async def contributions(
    connection: AsyncConnection, wallet: str, before: Place | None, limit: int
) -> list[Contribution]:
    """What the nodes of ``wallet`` did, newest first, from ``before`` on."""
    query = _CONTRIBUTION.where(_done.wallet_address == wallet).limit(limit)
    if before is not None:
        query = query.where(tuple_(_done.earned_at, _done.id) < (before.earned_at, before.id))
    rows = await connection.execute(query)
    return [Contribution(**{**row._asdict(), "payment": Payment(row.payment)}) for row in rows]


async def acts(connection: AsyncConnection, keys: Collection[str]) -> dict[str, Act]:
    """What the chain was asked for under these names."""
    found = chain_outbox.c
    query = select(found.idempotency_key, found.status, found.tx_hash, found.block_number)
    rows = await connection.execute(query.where(found.idempotency_key.in_(sorted(keys))))
    return {key: Act(RowStatus(status), tx_hash, block) for key, status, tx_hash, block in rows}


# ---- sums


async def earned_since(connection: AsyncConnection, wallet: str, since: datetime) -> list[Earned]:
    """What each node of ``wallet`` earned on each day (UTC) since then, where there was something."""
    is_sqlite = connection.dialect.name == "sqlite"
    of_sqlite = func.substr(_done.earned_at, 1, 10)  # it keeps times as text, in UTC
    of_postgresql = func.to_char(func.timezone("UTC", _done.earned_at), "YYYY-MM-DD")
    day = (of_sqlite if is_sqlite else of_postgresql).label("day")
    query = (
        select(
            _done.node_id,
            day,
            func.count(),
            _sum(_done.tokens_contributed),
            _sum(_done.token_layers),
            _sum(_done.payment_units),
        )
        .where(_done.wallet_address == wallet, _done.earned_at >= since)
        .group_by(_done.node_id, day)
    )
    return [Earned(*row) for row in await connection.execute(query)]


async def tokens_served(connection: AsyncConnection, wallet: str) -> int:
    """Positions that nodes which are paid to ``wallet`` ever computed and proved."""
    query = select(_sum(node_registry.c.total_tokens_served)).where(node_registry.c.wallet_address == wallet)
    return int((await connection.execute(query)).scalar_one())


async def average_latency_ms(connection: AsyncConnection, wallet: str) -> int | None:
    """Mean time from request to last token over the last hundred contributions; None when there is none."""
    recent = (
        select(inference_sessions.c.latency_ms)
        .join(node_contributions, inference_sessions.c.id == _done.session_id)
        .where(_done.wallet_address == wallet)
        .order_by(_done.earned_at.desc(), _done.id.desc())
        .limit(RECENT)
        .subquery()
    )
    mean = (await connection.execute(select(func.avg(recent.c.latency_ms)))).scalar_one()
    return None if mean is None else round(mean)


async def active_requests(connection: AsyncConnection, wallet: str) -> int:
    """Requests under way whose last checkpoint tells of work for ``wallet``."""
    query = select(inference_sessions.c.checkpoint).where(inference_sessions.c.status == Status.ACTIVE.value)
    shares = [(checkpoint or {}).get("shares", []) for checkpoint in (await connection.execute(query)).scalars()]
    return sum(any(share["wallet"] == wallet for share in done) for done in shares)


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


# ---- batches and roots


async def batch(connection: AsyncConnection, number: int) -> Batch | None:
    """A batch by its number."""
    found = settlement_batches.c
    columns = (
        found.number,
        found.kind,
        found.detail_root,
        found.requests,
        found.total_units,
        found.fee_units,
        found.payouts,
        found.created_at,
    )
    row = (await connection.execute(select(*columns).where(found.number == number))).one_or_none()
    return None if row is None else Batch(**row._asdict())


async def fees_of_batch(connection: AsyncConnection, number: int) -> dict[str, int]:
    """The fee of every request in a batch, in units, in the order in which they were asked."""
    found = inference_sessions.c
    query = select(found.request_id, found.fee_units).where(found.batch_number == number).order_by(found.started_at)
    return {request_id: fee or 0 for request_id, fee in await connection.execute(query)}


async def payouts_of_batch(connection: AsyncConnection, number: int) -> dict[str, dict[str, int]]:
    """What every request in a batch pays to each wallet, in units."""
    query = (
        select(inference_sessions.c.request_id, _done.wallet_address, _sum(_done.payment_units))
        .join(node_contributions, inference_sessions.c.id == _done.session_id)
        .where(inference_sessions.c.batch_number == number, _done.payment_units > 0)
        .group_by(inference_sessions.c.request_id, _done.wallet_address)
    )
    payouts: dict[str, dict[str, int]] = {}
    for request_id, wallet, units in await connection.execute(query):
        payouts.setdefault(request_id, {})[wallet] = units
    return payouts


async def payouts_of_transfer(connection: AsyncConnection, number: int) -> dict[str, dict[str, int]]:
    """What a transfer pays to each wallet for every request, in units, in the order in which they were asked."""
    query = (
        select(inference_sessions.c.request_id, _done.wallet_address, _sum(_done.payment_units))
        .join(node_contributions, inference_sessions.c.id == _done.session_id)
        .where(_done.transfer_number == number)
        .group_by(inference_sessions.c.request_id, inference_sessions.c.started_at, _done.wallet_address)
        .order_by(inference_sessions.c.started_at)
    )
    payouts: dict[str, dict[str, int]] = {}
    for request_id, wallet, units in await connection.execute(query):
        payouts.setdefault(request_id, {})[wallet] = units
    return payouts


async def leaves_of_wallet(connection: AsyncConnection, wallet: str, before: int | None, limit: int) -> list[Leaf]:
    """The payout roots in which ``wallet`` is, newest first."""
    found = payout_leaves.c
    query = select(found.number, found.cumulative_units).where(found.wallet_address == wallet)
    if before is not None:
        query = query.where(found.number < before)
    return [Leaf(*row) for row in await connection.execute(query.order_by(found.number.desc()).limit(limit))]


async def leaves_of_root(connection: AsyncConnection, number: int) -> dict[str, int]:
    """The cumulative units of every wallet in a payout root."""
    found = payout_leaves.c
    rows = await connection.execute(select(found.wallet_address, found.cumulative_units).where(found.number == number))
    return {wallet: units for wallet, units in rows}
