"""The outbox and the leases in SQL. Every change of a row is a compare-and-set on its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import escrow_id_of
from far_mesh.marketplace.chain.node import BlockId, SignedCall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent, moment
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.payments.provider import Block
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement.schemas import Attempt, Fence, Kind, Row, RowStatus
from far_mesh.marketplace.tables import UtcDateTime, chain_attempts, chain_outbox, leases

_COLUMNS = [chain_outbox.c[field.name] for field in fields(Row)]
Place = BlockId | Block
"""Where something happened, as the chain or as a payment provider tells it."""
ABANDONED, FEE_CAP = "abandoned", "fee_cap"
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


async def on_their_way(connection: AsyncConnection, limit: int = 100) -> list[Row]:
    """Rows that are sent, in the order in which the chain will take them."""
    query = select(*_COLUMNS).where(chain_outbox.c.status == RowStatus.SENT.value)
    ordered = query.order_by(chain_outbox.c.nonce, chain_outbox.c.id).limit(limit)
    return [_row(row) for row in await connection.execute(ordered)]


async def has_unfinished(connection: AsyncConnection) -> bool:
    """Whether anything is to be sent, or on its way."""
    return bool(await _select(connection, chain_outbox.c.status.in_(_UNFINISHED), 1))


async def last_nonce(connection: AsyncConnection) -> int | None:
    """The highest nonce that was signed for a row which is on its way."""
    is_sent = (chain_outbox.c.id == chain_attempts.c.outbox_id) & (chain_outbox.c.status == RowStatus.SENT.value)
    query = select(func.max(chain_attempts.c.nonce)).join(chain_outbox, is_sent)
    found: int | None = (await connection.execute(query)).scalar_one()
    return found


async def attempts(connection: AsyncConnection, row: Row) -> list[Attempt]:
    """All that was ever signed for a row, the newest first."""
    columns = [chain_attempts.c[field.name] for field in fields(Attempt)]
    query = select(*columns).where(chain_attempts.c.outbox_id == row.id).order_by(chain_attempts.c.id.desc())
    return [Attempt(**found._asdict()) for found in await connection.execute(query)]


# ---- a row goes on; each answers the row as it is then, or None when somebody else has changed it


async def mark_sent(connection: AsyncConnection, row: Row, signed: SignedCall) -> Row | None:
    """Write down what is about to be sent, for the first time or (``row`` is sent already) with another fee."""
    values = {"nonce": signed.nonce, "raw_tx": signed.raw, "tx_hash": signed.tx_hash, "sent_at": now()}
    count = row.attempts + 1
    sent = await _change(
        connection, row, status=RowStatus.SENT.value, attempts=count, error=None, error_code=None, **values
    )
    if sent is not None:
        # What is signed again with the same nonce and fee is the same transaction.
        attempt = {"outbox_id": row.id, "nonce": signed.nonce, "tx_hash": signed.tx_hash, "raw_tx": signed.raw}
        await connection.execute(insert_if_absent(connection, chain_attempts).values(**attempt, signed_at=now()))
    return sent


async def mark_pending(connection: AsyncConnection, row: Row) -> Row | None:
    """What was signed can never do it, because its nonce is used: sign anew."""
    cleared = {"nonce": None, "raw_tx": None, "tx_hash": None, "sent_at": None}
    return await _change(connection, row, status=RowStatus.PENDING.value, **cleared)


async def mark_confirmed(
    connection: AsyncConnection, row: Row, block: Place | None, attempt: Attempt | None, note: str | None = None
) -> Row | None:
    """The chain has done it, in ``block`` or before, by ``attempt`` or by something that is not ours; or there was
    nothing to do (``note``)."""
    values = {"status": RowStatus.CONFIRMED.value, "finished_at": now(), "error": note, "error_code": None}
    return await _change(connection, row, **values, **_place(block, attempt))


async def mark_moved(connection: AsyncConnection, row: Row, block: Place, attempt: Attempt | None) -> Row | None:
    """The chain has done it in another block than the one that was noted."""
    return await _change(connection, row, **_place(block, attempt))


async def mark_vanished(connection: AsyncConnection, row: Row) -> Row | None:
    """The chain has given up the block in which it had been done. What was signed for it is on its way again."""
    status = RowStatus.PENDING if row.raw_tx is None else RowStatus.SENT
    gone = {"block_number": None, "block_hash": None, "finished_at": None, "vanished": row.vanished + 1}
    return await _change(connection, row, status=status.value, sent_at=row.sent_at and now(), **gone)


async def mark_failed(connection: AsyncConnection, row: Row, code: str, error: str) -> Row | None:
    """The chain refuses it for good."""
    values = {"status": RowStatus.FAILED.value, "finished_at": now(), "error_code": code[:64], "error": error[:500]}
    return await _change(connection, row, **values)


async def mark_capped(connection: AsyncConnection, row: Row) -> Row | None:
    """It waits, and what would bring it on is dearer than is allowed."""
    return await _change(connection, row, error_code=FEE_CAP, error="its fee would have to be above FAR_MAX_FEE_GWEI")


async def note_objection(connection: AsyncConnection, row: Row, objection: str) -> None:
    """Why the node did not take what was sent; it will be offered again."""
    await _change(connection, row, error=objection[:500])


async def abandon_lock(connection: AsyncConnection, request_id: str) -> bool:
    """Take back a lock that was never signed. False: the chain may have it, so it has to be cancelled there."""
    row = await find(connection, Kind.LOCK, request_id)
    if row is None or row.status is RowStatus.FAILED:
        return True
    if row.status is not RowStatus.PENDING or row.attempts or row.vanished:
        return False
    return await mark_failed(connection, row, ABANDONED, "the request ended before its money was locked") is not None


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """How many rows are in each state; abandoned locks are not failures."""
    query = (
        select(chain_outbox.c.status, func.count())
        .where(or_(chain_outbox.c.error_code.is_(None), chain_outbox.c.error_code != ABANDONED))
        .group_by(chain_outbox.c.status)
    )
    found = {str(status): int(count) for status, count in await connection.execute(query)}
    return {status.value: found.get(status.value, 0) for status in RowStatus}


async def failures(connection: AsyncConnection) -> list[Row]:
    """What the chain refused for good, newest last, and somebody has to look at. A lock that was refused is not among
    them: its user was told. Nor are acts about batches: what was in them is in another one, or waits for one."""
    looked_at = chain_outbox.c.kind.in_([Kind.RELEASE.value, Kind.CANCEL.value])
    return await _select(connection, (chain_outbox.c.status == RowStatus.FAILED.value) & looked_at, 20)


async def objections(connection: AsyncConnection) -> list[Row]:
    """What the chain refuses for now, and why: a pause, the cap of a day, a pool that is too small."""
    is_pending = (chain_outbox.c.status == RowStatus.PENDING.value) & chain_outbox.c.error.is_not(None)
    return await _select(connection, is_pending, 20)


async def oldest_unfinished(connection: AsyncConnection) -> timedelta | None:
    """For how long the row that waits longest has been waiting."""
    query = select(func.min(chain_outbox.c.created_at, type_=UtcDateTime)).where(chain_outbox.c.status.in_(_UNFINISHED))
    found: datetime | None = (await connection.execute(query)).scalar_one()
    return None if found is None else now() - found


async def count_capped(connection: AsyncConnection) -> int:
    """How many rows wait because more may not be paid for them."""
    capped = (chain_outbox.c.status == RowStatus.SENT.value) & (chain_outbox.c.error_code == FEE_CAP)
    return int((await connection.execute(select(func.count()).where(capped))).scalar_one())


# ---- blocks in which something was confirmed


async def blocks_after(connection: AsyncConnection, number: int) -> list[BlockId]:
    """The blocks above ``number`` in which rows were confirmed."""
    columns = (chain_outbox.c.block_number, chain_outbox.c.block_hash)
    above = (chain_outbox.c.block_number > number) & (chain_outbox.c.status == RowStatus.CONFIRMED.value)
    found = await connection.execute(select(*columns).where(above).distinct().order_by(*columns))
    return [BlockId(*block) for block in found]


async def confirmed_in(connection: AsyncConnection, block: BlockId) -> list[Row]:
    """What was confirmed in a block, in nonce order."""
    same = (chain_outbox.c.block_number == block.number) & (chain_outbox.c.block_hash == block.hash)
    found = await _select(connection, same & (chain_outbox.c.status == RowStatus.CONFIRMED.value))
    return sorted(found, key=lambda row: row.nonce or 0)


async def _select(connection: AsyncConnection, where: ColumnElement[bool], limit: int | None = None) -> list[Row]:
    query = select(*_COLUMNS).where(where).order_by(chain_outbox.c.id).limit(limit)
    return [_row(row) for row in await connection.execute(query)]


def _place(block: Place | None, attempt: Attempt | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if block is not None:
        values |= {"block_number": block.number, "block_hash": block.hash}
    if attempt is not None:
        values |= {"nonce": attempt.nonce, "raw_tx": attempt.raw_tx, "tx_hash": attempt.tx_hash}
    return values


async def _change(connection: AsyncConnection, row: Row, **values: Any) -> Row | None:
    """Write, if the row is still in the state and with the bytes that ``row`` has."""
    same = (chain_outbox.c.id == row.id) & (chain_outbox.c.status == row.status.value)
    same &= chain_outbox.c.tx_hash.is_not_distinct_from(row.tx_hash)
    changed = await connection.execute(update(chain_outbox).where(same).values(**values).returning(*_COLUMNS))
    found = changed.one_or_none()
    return None if found is None else _row(found)


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
    absent = insert_if_absent(connection, leases).values(name=name, **mine, token=0, expires_at=moment(connection))
    await connection.execute(absent)
    is_kept = _is_by(gateway)
    free = or_(leases.c.gateway == gateway.name, leases.c.expires_at < moment(connection))
    taken = (
        update(leases)
        .where(leases.c.name == name, free)
        .values(
            **mine,
            expires_at=moment(connection, lifetime),
            token=case((is_kept, leases.c.token), else_=leases.c.token + 1),
        )
        .returning(leases.c.token)
    )
    token = (await connection.execute(taken)).scalar_one_or_none()
    return None if token is None else Fence(name, token)


async def lease_left(connection: AsyncConnection, fence: Fence) -> timedelta:
    """For how long a lease is still held; nothing when somebody else holds it."""
    query = select(leases.c.expires_at, moment(connection).label("at")).where(_is_of(fence))
    found = (await connection.execute(query)).one_or_none()
    return timedelta(0) if found is None else found.expires_at - found.at


async def hold_fence(connection: AsyncConnection, fence: Fence) -> None:
    """Until this transaction ends, nobody else can take the lease. Belongs first into whatever only its holder may
    write: a process that slept past its lease does nothing.

    Raises:
        LeaseLost: somebody else has taken it, or could have.
    """
    held = select(leases.c.name).where(_is_of(fence), leases.c.expires_at > moment(connection)).with_for_update()
    if (await connection.execute(held)).first() is None:
        raise LeaseLost(f"the lease {fence.name} is somebody else's, or nobody's", lease=fence.name)


async def holder(connection: AsyncConnection, name: str) -> str | None:
    """The gateway that holds a lease now."""
    query = select(leases.c.gateway).where(leases.c.name == name, leases.c.expires_at > moment(connection))
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def drop_leases(connection: AsyncConnection, gateway: Gateway) -> None:
    """A gateway that ends politely lets the next one begin at once."""
    await connection.execute(
        update(leases).where(_is_by(gateway)).values(expires_at=moment(connection, timedelta(seconds=-1)))
    )


def _is_by(gateway: Gateway) -> ColumnElement[bool]:
    return (leases.c.gateway == gateway.name) & (leases.c.incarnation == gateway.incarnation)


def _is_of(fence: Fence) -> ColumnElement[bool]:
    return (leases.c.name == fence.name) & (leases.c.token == fence.token)
