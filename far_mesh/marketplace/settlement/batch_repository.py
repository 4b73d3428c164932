"""What waits for its batch, the batches, and the orders to settle, in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.ledger import repository as books
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.batches import Batch, Ended, Gathered
from far_mesh.marketplace.settlement.merkle import payout_tree
from far_mesh.marketplace.settlement.owed import BATCH
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.transfers import TRANSFER
from far_mesh.marketplace.tables import (
    TO_SETTLE,
    UNPAID,
    UtcDateTime,
    chain_outbox,
    inference_sessions,
    node_contributions,
    payout_leaves,
    settle_orders,
    settlement_batches,
)

BATCH_KINDS = (Kind.REDEEM, Kind.SETTLE, Kind.COMMIT, Kind.TRANSFER)
REQUESTS_AT_ONCE = 10_000
_CHUNK = 500
_ACT_OF = {
    "batch": f"{Kind.SETTLE}:{BATCH}{{}}",
    "root": f"{Kind.COMMIT}:{BATCH}{{}}",
    "transfer": f"{Kind.TRANSFER}:{TRANSFER}{{}}",
}
"""The name of the act that pays a batch, by the batch's kind."""
_UNFINISHED = (RowStatus.PENDING.value, RowStatus.SENT.value)


@dataclass(frozen=True)
class Kept:
    """A batch as it was written down. ``payouts`` and ``charges`` are units by wallet."""

    number: int
    kind: str
    detail_root: str
    requests: int
    total_units: int
    fee_units: int
    charges: Mapping[str, int]
    payouts: Mapping[str, int]


@dataclass(frozen=True)
class Unpaid:
    """Requests that nobody was asked to pay yet: how many, what they earned, and since when the oldest waits."""

    requests: int
    units: int
    oldest: datetime | None


@dataclass(frozen=True)
class Entry:
    """A batch in a list of them, and how far the act is that pays it: None where nothing of it is known."""

    number: int
    kind: str
    requests: int
    users: int
    providers: int
    total_units: int
    fee_units: int
    created_at: datetime
    act: Act | None = None


@dataclass(frozen=True)
class Act:
    """What the chain was asked for."""

    status: RowStatus
    attempts: int
    tx_hash: str | None
    block_number: int | None
    error: str | None


# ---- what waits


def _sum(column: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


async def waiting(connection: AsyncConnection) -> Gathered:
    """What has gathered, whether it can be settled or not."""
    session = inference_sessions.c
    oldest = (
        await connection.execute(select(func.min(session.completed_at, type_=UtcDateTime)).where(TO_SETTLE))
    ).scalar()
    if oldest is None:
        return Gathered()
    earned = (
        select(_sum(node_contributions.c.payment_units).label("units"))
        .join(inference_sessions, session.id == node_contributions.c.session_id)
        .where(TO_SETTLE)
        .group_by(node_contributions.c.wallet_address)
        .subquery()
    )
    owed = (
        select(_sum(session.total_cost_units).label("units"))
        .where(TO_SETTLE, session.payment == Payment.NETTED.value)
        .group_by(session.user_wallet)
        .subquery()
    )
    most = [(await connection.execute(select(func.max(sums.c.units)))).scalar() or 0 for sums in (earned, owed)]
    return Gathered(oldest, *most)


async def to_settle(connection: AsyncConnection, limit: int = REQUESTS_AT_ONCE) -> list[Ended]:
    """What has ended and is in no batch, the oldest first."""
    session = inference_sessions.c
    first = (
        select(inference_sessions).where(TO_SETTLE).order_by(session.completed_at, session.id).limit(limit).subquery()
    )
    paid: dict[str, dict[str, int]] = defaultdict(dict)
    lines = (
        select(first.c.id, node_contributions.c.wallet_address, _sum(node_contributions.c.payment_units))
        .join(node_contributions, node_contributions.c.session_id == first.c.id)
        .where(node_contributions.c.payment_units > 0)
        .group_by(first.c.id, node_contributions.c.wallet_address)
        .order_by(node_contributions.c.wallet_address)
    )
    for session_id, wallet, units in await connection.execute(lines):
        paid[session_id][wallet] = units
    columns = (first.c.id, first.c.request_id, first.c.user_wallet, first.c.payment, first.c.channel_id)
    query = select(*columns, first.c.completed_at, first.c.fee_units).order_by(first.c.completed_at, first.c.id)
    return [
        Ended(
            row.request_id,
            row.user_wallet,
            Payment(row.payment),
            row.channel_id,
            row.completed_at,
            row.fee_units,
            paid[row.id],
        )
        for row in await connection.execute(query)
    ]


async def count_left(connection: AsyncConnection) -> int:
    """How many requests somebody earned something by, and nothing was asked to pay it."""
    requests = select(func.count(node_contributions.c.session_id.distinct())).join(
        inference_sessions, inference_sessions.c.id == node_contributions.c.session_id
    )
    query = requests.where(TO_SETTLE, UNPAID)
    return int((await connection.execute(query)).scalar_one())


async def unpaid(connection: AsyncConnection) -> Unpaid:
    """The same requests with what they earned, and since when the oldest waits."""
    work = node_contributions.c
    columns = (
        func.count(work.session_id.distinct()),
        _sum(work.payment_units),
        func.min(work.earned_at, type_=UtcDateTime),
    )
    requests = select(*columns).join(inference_sessions, inference_sessions.c.id == work.session_id)
    return Unpaid(*(await connection.execute(requests.where(TO_SETTLE, UNPAID))).one())


async def locking(connection: AsyncConnection) -> dict[str, int]:
    """Units of deposits that are about to be locked for single requests, by wallet."""
    query = select(chain_outbox.c.wallet_address, chain_outbox.c.payload).where(
        chain_outbox.c.kind == Kind.LOCK.value, chain_outbox.c.status.in_(_UNFINISHED)
    )
    units: dict[str, int] = defaultdict(int)
    for wallet, payload in await connection.execute(query):
        units[wallet] += payload["units"]
    return units


async def owed(connection: AsyncConnection, wallets: Iterable[str]) -> dict[str, int]:
    """What the books owe to these wallets and to the platform, and the chain was not asked for."""
    named = [Account(Book.PROVIDER_EARNED, wallet) for wallet in wallets] + [Account(Book.PLATFORM_FEE, PLATFORM)]
    return {account.owner: units for account, units in (await books.balances(connection, named)).items()}


async def unfinished(connection: AsyncConnection) -> set[Kind]:
    """Which kinds of acts about batches are on their way."""
    query = select(chain_outbox.c.kind).where(
        chain_outbox.c.kind.in_([kind.value for kind in BATCH_KINDS]), chain_outbox.c.status.in_(_UNFINISHED)
    )
    return {Kind(kind) for kind in (await connection.execute(query.distinct())).scalars()}


async def count_of(connection: AsyncConnection, kind: Kind) -> int:
    """How many rows of this kind there ever were."""
    query = select(func.count()).where(chain_outbox.c.kind == kind.value)
    return int((await connection.execute(query)).scalar_one())


# ---- batches


async def next_number(connection: AsyncConnection) -> int:
    """One that no batch here ever had."""
    newest: int | None = (await connection.execute(select(func.max(settlement_batches.c.number)))).scalar()
    return 1 if newest is None else newest + 1


async def add(connection: AsyncConnection, number: int, batch: Batch) -> None:
    """Write a batch down, with its leaves if it is a payout root, and its number onto its requests.

    Raises:
        Conflict: one of them is in another batch already.
    """
    await connection.execute(
        insert(settlement_batches).values(
            number=number,
            kind="root" if batch.is_root else "batch",
            detail_root="0x" + batch.detail_root().hex(),
            requests=len(batch.requests),
            total_units=batch.total_units,
            fee_units=batch.fee_units,
            charges=batch.charges,
            payouts=batch.payouts,
            created_at=now(),
        )
    )
    if batch.is_root:
        lines = [
            {"number": number, "wallet_address": wallet, "cumulative_units": units}
            for wallet, units in (await leaves(connection, batch.payouts)).items()
        ]
        await connection.execute(insert(payout_leaves), lines)
    names = [request.request_id for request in batch.requests]
    session = inference_sessions.c
    for first in range(0, len(names), _CHUNK):
        some = names[first : first + _CHUNK]
        free = session.request_id.in_(some) & session.batch_number.is_(None)
        changed = await connection.execute(update(inference_sessions).where(free).values(batch_number=number))
        if changed.rowcount != len(some):
            raise Conflict(f"a request of batch {number} is in another one already", number=number)


async def leaves(connection: AsyncConnection, payouts: Mapping[str, int]) -> dict[str, int]:
    """What roots will ever have given to each of these wallets with a next one that pays ``payouts``, in units."""
    leaf, names = payout_leaves.c, sorted(payouts)
    cumulative = dict(payouts)
    for first in range(0, len(names), _CHUNK):
        some = leaf.wallet_address.in_(names[first : first + _CHUNK])
        query = select(leaf.wallet_address, func.max(leaf.cumulative_units)).where(some).group_by(leaf.wallet_address)
        for wallet, units in await connection.execute(query):
            cumulative[wallet] += units
    return cumulative


async def find(connection: AsyncConnection, number: int) -> Kept:
    """The batch of this number."""
    batch = settlement_batches.c
    columns = [batch[name] for name in Kept.__dataclass_fields__]
    return Kept(*(await connection.execute(select(*columns).where(batch.number == number))).one())


async def newest(connection: AsyncConnection, before: int | None, limit: int) -> list[Entry]:
    """Batches, payout roots and transfers, the newest first."""
    batch, row = settlement_batches.c, chain_outbox.c
    query = select(settlement_batches).order_by(batch.number.desc()).limit(limit)
    if before is not None:
        query = query.where(batch.number < before)
    found = {_ACT_OF[one.kind].format(one.number): one for one in await connection.execute(query)}
    columns = (row.idempotency_key, row.status, row.attempts, row.tx_hash, row.block_number, row.error)
    rows = await connection.execute(select(*columns).where(row.idempotency_key.in_(found)))
    acts = {key: Act(RowStatus(status), *rest) for key, status, *rest in rows}
    return [
        Entry(
            one.number,
            one.kind,
            one.requests,
            len(one.charges),
            len(one.payouts),
            one.total_units,
            one.fee_units,
            one.created_at,
            acts.get(key),
        )
        for key, one in found.items()
    ]


async def payout_root(connection: AsyncConnection, number: int) -> bytes:
    """The root from which providers claim."""
    leaf = payout_leaves.c
    query = select(leaf.wallet_address, leaf.cumulative_units).where(leaf.number == number)
    return payout_tree({wallet: units for wallet, units in await connection.execute(query)}).root


async def has_later_root(connection: AsyncConnection, number: int) -> bool:
    """Whether leaves that were made since count on what this root gives."""
    later = settlement_batches.c.number > number
    query = select(settlement_batches.c.number).where(later, settlement_batches.c.kind == "root").limit(1)
    return (await connection.execute(query)).first() is not None


async def netted(connection: AsyncConnection, number: int) -> dict[str, int]:
    """Units of a batch that come out of the pool, by channel."""
    session = inference_sessions.c
    query = (
        select(session.channel_id, _sum(session.total_cost_units))
        .where(session.batch_number == number, session.payment == Payment.CHANNEL.value)
        .group_by(session.channel_id)
    )
    return {channel_id: units for channel_id, units in await connection.execute(query)}


async def dissolve(connection: AsyncConnection, number: int) -> None:
    """Its requests wait for another batch. The row stays, so that its number is not used again."""
    await connection.execute(payout_leaves.delete().where(payout_leaves.c.number == number))
    of_batch = inference_sessions.c.batch_number == number
    await connection.execute(update(inference_sessions).where(of_batch).values(batch_number=None))


async def mark_paid(connection: AsyncConnection, number: int, at: datetime | None) -> None:
    """When the chain had paid everybody who worked on the requests of a batch; None: it has not, after all."""
    of_batch = select(inference_sessions.c.id).where(inference_sessions.c.batch_number == number)
    await connection.execute(
        update(node_contributions)
        .where(node_contributions.c.session_id.in_(of_batch), node_contributions.c.payment_units > 0)
        .values(paid_at=at)
    )


# ---- orders


async def order(connection: AsyncConnection) -> int:
    """Ask whoever settles to settle at once all that can be. The number of the order."""
    placed = insert(settle_orders).values(asked_at=now()).returning(settle_orders.c.id)
    return int((await connection.execute(placed)).scalar_one())


async def is_ordered(connection: AsyncConnection) -> bool:
    """Whether somebody has asked for that, and it is not done."""
    query = select(settle_orders.c.id).where(settle_orders.c.done_at.is_(None)).limit(1)
    return (await connection.execute(query)).first() is not None


async def finish_orders(connection: AsyncConnection) -> None:
    """All of it is settled that can be."""
    await connection.execute(update(settle_orders).where(settle_orders.c.done_at.is_(None)).values(done_at=now()))


async def is_done(connection: AsyncConnection, number: int) -> bool:
    """Whether an order is done."""
    query = select(settle_orders.c.done_at).where(settle_orders.c.id == number)
    return (await connection.execute(query)).scalar_one() is not None


@dataclass(frozen=True)
class Progress:
    """How far an act about batches is, for whoever watches."""

    id: int
    kind: Kind
    name: str
    status: RowStatus
    attempts: int
    tx_hash: str | None
    block_number: int | None
    error: str | None


async def first_open(connection: AsyncConnection) -> int:
    """The oldest act about batches that is on its way; when there is none, where the next row will be."""
    row = chain_outbox.c
    ours = row.kind.in_([kind.value for kind in BATCH_KINDS]) & row.status.in_(_UNFINISHED)
    found: int | None = (await connection.execute(select(func.min(row.id)).where(ours))).scalar()
    if found is not None:
        return found
    newest: int | None = (await connection.execute(select(func.max(row.id)))).scalar()
    return 1 if newest is None else newest + 1


async def progress(connection: AsyncConnection, first: int) -> list[Progress]:
    """The acts about batches from this row on."""
    row = chain_outbox.c
    columns = (row.id, row.kind, row.request_id, row.status, row.attempts, row.tx_hash, row.block_number, row.error)
    ours = row.kind.in_([kind.value for kind in BATCH_KINDS]) & (row.id >= first)
    found = await connection.execute(select(*columns).where(ours).order_by(row.id))
    return [Progress(one[0], Kind(one[1]), one[2], RowStatus(one[3]), *one[4:]) for one in found]
