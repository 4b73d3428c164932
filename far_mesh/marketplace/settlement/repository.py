"""The outbox and the leases in SQL. Every change of a row is a compare-and-set on its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import SignedCall, escrow_id_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement.schemas import Kind, Row, RowStatus
from far_mesh.marketplace.tables import chain_outbox, leases

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


async def take_lease(connection: AsyncConnection, name: str, gateway: Gateway, lifetime: timedelta) -> bool:
    """Get or keep a lease. It is free when it has expired, or when its holder was an earlier life of this gateway."""
    values = {"gateway": gateway.name, "incarnation": gateway.incarnation, "expires_at": now() + lifetime}
    free = or_(leases.c.gateway == gateway.name, leases.c.expires_at < now())
    await connection.execute(insert_if_absent(connection, leases).values(name=name, **values))
    return (await connection.execute(update(leases).where(leases.c.name == name, free).values(**values))).rowcount == 1


async def lease_left(connection: AsyncConnection, name: str, gateway: Gateway) -> timedelta:
    """For how long this life of this gateway holds the lease; nothing when somebody else does."""
    mine = (leases.c.name == name) & (leases.c.incarnation == gateway.incarnation)
    expires = (await connection.execute(select(leases.c.expires_at).where(mine))).scalar_one_or_none()
    return timedelta(0) if expires is None else expires - now()


async def holds_lease(connection: AsyncConnection, name: str, gateway: Gateway) -> bool:
    """Whether this life of this gateway holds the lease now."""
    mine = (leases.c.name == name) & (leases.c.incarnation == gateway.incarnation) & (leases.c.expires_at > now())
    return (await connection.execute(select(leases.c.name).where(mine).with_for_update())).first() is not None


async def drop_leases(connection: AsyncConnection, gateway: Gateway) -> None:
    """A gateway that ends politely lets the next one begin at once."""
    mine = leases.c.incarnation == gateway.incarnation
    await connection.execute(update(leases).where(mine).values(expires_at=now() - timedelta(seconds=1)))
