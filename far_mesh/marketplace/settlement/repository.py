"""The outbox and the leases in SQL. Every change of a row is a compare-and-set on its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Interval, case, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import SignedCall, escrow_id_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement.schemas import Fence, Kind, Row, RowStatus
from far_mesh.marketplace.tables import UtcDateTime, chain_outbox, leases

_COLUMNS = [chain_outbox.c[field.name] for field in fields(Row)]
_UNFINISHED = (RowStatus.PENDING.value, RowStatus.SENT.value)


async def add(
    connection: AsyncConnection, kind: Kind, request_id: str, wallet: str, payload: Mapping[str, Any]
) -> None:
    """Ask the chain for something, once: the same kind for the same request is the same row."""
    await connection.execute(
        insert_if_absent(connection, chain_outbox).values(
            idempotency_key=f"{kind}:{request_id}",
            kind=kind.value,
            request_id=request_id,
            wallet_address=wallet,
            payload=dict(payload),
            status=RowStatus.PENDING.value,
            attempts=0,
            created_at=now(),
            escrow_id="0x" + escrow_id_of(wallet, request_id).hex() if kind is Kind.LOCK else None,
        )
    )


async def find(connection: AsyncConnection, kind: Kind, request_id: str) -> Row | None:
    """The row of this kind for a request."""
    query = select(*_COLUMNS).where(chain_outbox.c.idempotency_key == f"{kind}:{request_id}")
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _row(row)


async def of_request(connection: AsyncConnection, request_id: str) -> dict[Kind, Row]:
    """All rows of a request."""
    return {row.kind: row for row in await _select(connection, chain_outbox.c.request_id == request_id)}


async def with_status(connection: AsyncConnection, status: RowStatus, limit: int = 100) -> list[Row]:
    """Rows in this state, in the order in which they were asked for."""
    return await _select(connection, chain_outbox.c.status == status.value, limit)


async def has_unfinished_before(connection: AsyncConnection, row: Row) -> bool:
    """Whether something that was asked for earlier may still change what the user of ``row`` has on chain."""
    earlier = (chain_outbox.c.wallet_address == row.wallet_address) & (chain_outbox.c.id < row.id)
    return bool(await _select(connection, earlier & chain_outbox.c.status.in_(_UNFINISHED), 1))


async def last_nonce(connection: AsyncConnection) -> int | None:
    """The highest nonce among rows that are on their way."""
    query = select(func.max(chain_outbox.c.nonce)).where(chain_outbox.c.status == RowStatus.SENT.value)
    found: int | None = (await connection.execute(query)).scalar_one()
    return found


async def mark_sent(connection: AsyncConnection, row: Row, signed: SignedCall) -> bool:
    """Write down what is about to be sent. False: somebody else has taken the row."""
    values = {"nonce": signed.nonce, "raw_tx": signed.raw, "tx_hash": signed.tx_hash, "sent_at": now()}
    return await _change(
        connection, row, RowStatus.PENDING, status=RowStatus.SENT.value, attempts=row.attempts + 1, error=None, **values
    )


async def mark_pending(connection: AsyncConnection, row: Row) -> bool:
    """What was signed can never be mined, because its nonce was used for something else: sign anew."""
    cleared = {"nonce": None, "raw_tx": None, "tx_hash": None, "sent_at": None}
    return await _change(connection, row, RowStatus.SENT, status=RowStatus.PENDING.value, **cleared)


async def mark_confirmed(connection: AsyncConnection, row: Row, note: str | None = None) -> bool:
    """The chain has done it, or there was nothing to do (``note``)."""
    return await _change(
        connection, row, row.status, status=RowStatus.CONFIRMED.value, finished_at=now(), error=note, error_code=None
    )


async def mark_failed(connection: AsyncConnection, row: Row, code: str, error: str) -> bool:
    """The chain refuses it for good."""
    return await _change(
        connection,
        row,
        row.status,
        status=RowStatus.FAILED.value,
        finished_at=now(),
        error_code=code[:64],
        error=error[:500],
    )


async def note_objection(connection: AsyncConnection, row: Row, objection: str) -> None:
    """Why the node did not take what was sent; it will be offered again."""
    await _change(connection, row, RowStatus.SENT, error=objection[:500])


async def abandon_lock(connection: AsyncConnection, request_id: str) -> bool:
    """Take back a lock that was never signed. False: the chain may have it, so it has to be cancelled there."""
    row = await find(connection, Kind.LOCK, request_id)
    if row is None or row.status is RowStatus.FAILED:
        return True
    return await _change(
        connection,
        row,
        RowStatus.PENDING,
        status=RowStatus.FAILED.value,
        finished_at=now(),
        error_code="abandoned",
        error="the request ended before its money was locked",
    )


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """How many rows are in each state; abandoned locks are not failures."""
    query = (
        select(chain_outbox.c.status, func.count())
        .where(or_(chain_outbox.c.error_code.is_(None), chain_outbox.c.error_code != "abandoned"))
        .group_by(chain_outbox.c.status)
    )
    found = {str(status): int(count) for status, count in await connection.execute(query)}
    return {status.value: found.get(status.value, 0) for status in RowStatus}


async def failed_releases(connection: AsyncConnection) -> list[Row]:
    """Work that was done and captured, and that the chain refused to pay: somebody has to look."""
    kinds = chain_outbox.c.kind.in_([Kind.RELEASE.value, Kind.CANCEL.value])
    return await _select(connection, (chain_outbox.c.status == RowStatus.FAILED.value) & kinds, 20)


async def _select(connection: AsyncConnection, where: ColumnElement[bool], limit: int | None = None) -> list[Row]:
    query = select(*_COLUMNS).where(where).order_by(chain_outbox.c.id).limit(limit)
    return [_row(row) for row in await connection.execute(query)]


async def _change(connection: AsyncConnection, row: Row, expected: RowStatus, **values: Any) -> bool:
    same = (chain_outbox.c.id == row.id) & (chain_outbox.c.status == expected.value)
    return (await connection.execute(update(chain_outbox).where(same).values(**values))).rowcount == 1


def _row(row: Any) -> Row:
    return Row(**{**row._asdict(), "kind": Kind(row.kind), "status": RowStatus(row.status)})


# ---- leases
#
# It is the database's clock that says when a lease ends, not that of the process which holds it: their holders' clocks
# need not agree. SQLite has none of its own; its file belongs to one machine, and so do all processes that share it.


async def take_lease(connection: AsyncConnection, name: str, gateway: Gateway, lifetime: timedelta) -> Fence | None:
    """Get or keep a lease; None when somebody else has it. It is free when it has expired, or when its holder was an
    earlier life of this gateway. Each new holder has a higher token than all before."""
    mine = {"gateway": gateway.name, "incarnation": gateway.incarnation}
    absent = insert_if_absent(connection, leases).values(name=name, **mine, token=0, expires_at=_in(connection))
    await connection.execute(absent)
    is_kept = leases.c.incarnation == gateway.incarnation
    free = or_(is_kept, leases.c.gateway == gateway.name, leases.c.expires_at < _in(connection))
    taken = (
        update(leases)
        .where(leases.c.name == name, free)
        .values(
            **mine,
            expires_at=_in(connection, lifetime),
            token=case((is_kept, leases.c.token), else_=leases.c.token + 1),
        )
        .returning(leases.c.token)
    )
    token = (await connection.execute(taken)).scalar_one_or_none()
    return None if token is None else Fence(name, token)


async def lease_left(connection: AsyncConnection, fence: Fence) -> timedelta:
    """For how long a lease is still held; nothing when somebody else holds it."""
    query = select(leases.c.expires_at, _in(connection).label("at")).where(_is_of(fence))
    found = (await connection.execute(query)).one_or_none()
    return timedelta(0) if found is None else found.expires_at - found.at


async def hold_fence(connection: AsyncConnection, fence: Fence) -> None:
    """Until this transaction ends, nobody else can take the lease. Belongs first into whatever only its holder may
    write: a process that slept past its lease does nothing.

    Raises:
        LeaseLost: somebody else has taken it, or could have.
    """
    held = select(leases.c.name).where(_is_of(fence), leases.c.expires_at > _in(connection)).with_for_update()
    if (await connection.execute(held)).first() is None:
        raise LeaseLost(f"the lease {fence.name} is somebody else's, or nobody's", lease=fence.name)


async def holder(connection: AsyncConnection, name: str) -> str | None:
    """The gateway that holds a lease now."""
    query = select(leases.c.gateway).where(leases.c.name == name, leases.c.expires_at > _in(connection))
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def drop_leases(connection: AsyncConnection, gateway: Gateway) -> None:
    """A gateway that ends politely lets the next one begin at once."""
    mine = leases.c.incarnation == gateway.incarnation
    await connection.execute(update(leases).where(mine).values(expires_at=_in(connection, timedelta(seconds=-1))))


def _is_of(fence: Fence) -> ColumnElement[bool]:
    return (leases.c.name == fence.name) & (leases.c.token == fence.token)


def _in(connection: AsyncConnection, after: timedelta = timedelta(0)) -> ColumnElement[datetime]:
    """The present by the database's clock, or ``after`` later."""
    if connection.dialect.name == "sqlite":
        return literal(now() + after, UtcDateTime)
    # The moment of asking, not that in which the transaction began: it may have waited for a lock since.
    return func.clock_timestamp(type_=DateTime(timezone=True)) + literal(after, Interval)
