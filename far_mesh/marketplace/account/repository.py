"""What was seen on chain, and how far was looked.

Whoever books what the chain tells holds the cursor's row (:func:`hold` or :func:`move`), so that one does so at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import chain_attempts, chain_cursors, chain_events, chain_outbox

DEPOSITS = "deposits"
_CURSOR = chain_cursors.c.name == DEPOSITS
_LIVE = chain_events.c.vanished_at.is_(None)


@dataclass(frozen=True)
class ChainIdentity:
    """What makes one chain with one escrow different from all others. Where deposits come by transfer, the names of the
    chain and of the coin."""

    chain_id: int
    genesis_hash: str
    escrow_address: str


@dataclass(frozen=True)
class Cursor:
    """How far was looked: ``last_hash`` is that of the block before ``next_block``, if it was looked at."""

    next_block: int
    last_hash: str | None


@dataclass(frozen=True)
class NewEvent:
    """Something to be booked. ``amount`` is by how much the user's deposit changes, in the coin's smallest parts."""

    tx_hash: str
    log_index: int
    block_number: int
    block_hash: str | None
    kind: str
    wallet: str
    amount: int
    about: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class BookedEvent:
    """Something that was booked, as its row has it."""

    id: int
    tx_hash: str
    log_index: int
    block_number: int
    block_hash: str | None
    kind: str
    wallet_address: str
    amount_wei: str
    booked_as: str
    about: str | None
    detail: Mapping[str, Any] | None
    seen_at: datetime
    vanished_at: datetime | None

    @property
    def amount(self) -> int:
        """By how much the user's deposit changed, in the coin's smallest parts."""
        return int(self.amount_wei)


_COLUMNS = [chain_events.c[field.name] for field in fields(BookedEvent)]


# ---- how far was looked


async def open_cursor(connection: AsyncConnection, identity: ChainIdentity, first_block: int) -> ChainIdentity:
    """Begin to look at ``first_block`` if this is the first time. The chain that this database belongs to."""
    await connection.execute(
        insert_if_absent(connection, chain_cursors).values(
            name=DEPOSITS,
            chain_id=identity.chain_id,
            genesis_hash=identity.genesis_hash,
            escrow_address=identity.escrow_address,
            next_block=first_block,
        )
    )
    row = (await connection.execute(select(chain_cursors).where(_CURSOR))).one()
    return ChainIdentity(row.chain_id, row.genesis_hash, row.escrow_address)


async def cursor(connection: AsyncConnection) -> Cursor:
    """How far was looked."""
    row = (await connection.execute(select(chain_cursors.c.next_block, chain_cursors.c.last_hash).where(_CURSOR))).one()
    return Cursor(row.next_block, row.last_hash)


async def move(connection: AsyncConnection, before: Cursor, after: Cursor) -> bool:
    """Move the cursor, unless somebody else has moved it since."""
    same_hash = chain_cursors.c.last_hash.is_not_distinct_from(before.last_hash)
    unmoved = _CURSOR & (chain_cursors.c.next_block == before.next_block) & same_hash
    values = {"next_block": after.next_block, "last_hash": after.last_hash}
    return (await connection.execute(update(chain_cursors).where(unmoved).values(**values))).rowcount == 1


async def hold(connection: AsyncConnection) -> None:
    """Others who book what the chain tells wait until this transaction ends (SQLite has one writer anyway)."""
    await connection.execute(select(chain_cursors.c.name).where(_CURSOR).with_for_update())


# ---- what was seen


async def add_event(connection: AsyncConnection, event: NewEvent, booked_as: str) -> bool:
    """Keep the event as the chain told it. False: it is there."""
    values = {
        "tx_hash": event.tx_hash,
        "log_index": event.log_index,
        "block_number": event.block_number,
        "block_hash": event.block_hash,
        "kind": event.kind,
        "wallet_address": event.wallet,
        "amount_wei": str(event.amount),
        "booked_as": booked_as,
        "about": event.about,
        "detail": dict(event.detail) or None,
        "seen_at": now(),
    }
    return (await connection.execute(insert_if_absent(connection, chain_events).values(**values))).rowcount == 1


async def mark_vanished(connection: AsyncConnection, event: BookedEvent) -> bool:
    """It is no part of the chain any more. False: that was known."""
    row = (chain_events.c.id == event.id) & _LIVE
    return (await connection.execute(update(chain_events).where(row).values(vanished_at=now()))).rowcount == 1


async def mark_moved(connection: AsyncConnection, event: BookedEvent, number: int, block_hash: str | None) -> None:
    """It is in another block now, and counts as before."""
    values = {"block_number": number, "block_hash": block_hash}
    await connection.execute(update(chain_events).where(chain_events.c.id == event.id).values(**values))


async def times_booked(connection: AsyncConnection, tx_hash: str, name: str) -> int:
    """How often something of a transaction was booked as ``name``, or as ``name`` with a number behind it."""
    query = select(chain_events.c.booked_as).where(chain_events.c.tx_hash == tx_hash)
    names = (await connection.execute(query)).scalars()
    return sum(booked_as == name or booked_as.startswith(f"{name}~") for booked_as in names)


async def live_of(connection: AsyncConnection, tx_hash: str) -> list[BookedEvent]:
    """What a transaction has done, as far as it was booked and is on chain."""
    return await _select(connection, _LIVE & (chain_events.c.tx_hash == tx_hash))


async def live_between(connection: AsyncConnection, first_block: int, last_block: int) -> list[BookedEvent]:
    """What was booked of these blocks, both included, in the order in which it was booked."""
    return await _select(connection, _LIVE & chain_events.c.block_number.between(first_block, last_block))


async def live_about(connection: AsyncConnection, about: str, kinds: Collection[str]) -> list[BookedEvent]:
    """What was booked of these kinds about a channel or an escrow."""
    return await _select(connection, _LIVE & (chain_events.c.about == about) & chain_events.c.kind.in_(kinds))


async def latest_since(connection: AsyncConnection, kind: str, first_block: int) -> list[BookedEvent]:
    """What was booked of this kind in ``first_block`` or later, on chain or not: of what was booked more than once the
    latest row."""
    rows = await _select(connection, (chain_events.c.block_number >= first_block) & (chain_events.c.kind == kind))
    return list({(row.tx_hash, row.log_index): row for row in rows}.values())


async def page(connection: AsyncConnection, wallet: str, before: int | None, limit: int) -> Sequence[BookedEvent]:
    """What was booked of a wallet, newest first. ``before``: only what is older than the row of this id."""
    query = select(*_COLUMNS).where(chain_events.c.wallet_address == wallet).order_by(chain_events.c.id.desc())
    if before is not None:
        query = query.where(chain_events.c.id < before)
    return [BookedEvent(*row) for row in await connection.execute(query.limit(limit))]


async def is_our_escrow(connection: AsyncConnection, escrow_id: str, tx_hash: str) -> bool:
    """Whether an escrow was made for a request of ours: asked for in the outbox, or by a transaction that we signed."""
    asked = (
        (chain_outbox.c.escrow_id == escrow_id)
        & (chain_outbox.c.kind == Kind.LOCK.value)
        & (chain_outbox.c.status != RowStatus.FAILED.value)
    )
    query = select(or_(exists().where(asked), exists().where(chain_attempts.c.tx_hash == tx_hash)))
    return bool((await connection.execute(query)).scalar_one())


async def _select(connection: AsyncConnection, where: ColumnElement[bool]) -> list[BookedEvent]:
    query = select(*_COLUMNS).where(where).order_by(chain_events.c.id)
    return [BookedEvent(*row) for row in await connection.execute(query)]
