"""What waits to be paid by transfer, the transfers, and who cannot be paid, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, cast, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.ledger import repository as books
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.settlement.schemas import Kind, Row, RowStatus
from far_mesh.marketplace.settlement.transfers import Share, Waiting, Work, detail_root
from far_mesh.marketplace.tables import (
    UNPAID,
    UtcDateTime,
    chain_outbox,
    held_payouts,
    inference_sessions,
    node_contributions,
    settlement_batches,
)

WORKS_AT_ONCE = 5_000
_CHUNK = 500
_done = node_contributions.c


@dataclass(frozen=True)
class Held:
    """Why somebody who should be paid is not. ``reason`` is for people."""

    code: str
    reason: str


# ---- what waits


async def waiting(connection: AsyncConnection) -> list[Waiting]:
    """Everybody who was not paid for something, who has waited longest first."""
    oldest = func.min(_done.earned_at, type_=UtcDateTime).label("oldest")
    query = select(_done.wallet_address, oldest).where(UNPAID).group_by(_done.wallet_address).order_by(oldest)
    since = {wallet: at for wallet, at in await connection.execute(query)}
    owed = await books.balances(connection, [Account(Book.PROVIDER_EARNED, wallet) for wallet in since])
    return [Waiting(wallet, at, owed.get(Account(Book.PROVIDER_EARNED, wallet), 0)) for wallet, at in since.items()]


async def works(connection: AsyncConnection, wallet: str, limit: int = WORKS_AT_ONCE) -> list[Work]:
    """What ``wallet`` was not paid for, the oldest first."""
    session = inference_sessions.c
    query = (
        select(session.id, session.request_id, cast(func.sum(_done.payment_units), BigInteger))
        .join(node_contributions, _done.session_id == session.id)
        .where(UNPAID, _done.wallet_address == wallet)
        .group_by(session.id, session.request_id)
        .order_by(func.min(_done.earned_at), session.id)
        .limit(limit)
    )
    return [Work(*row) for row in await connection.execute(query)]


# ---- transfers


async def add(connection: AsyncConnection, number: int, shares: Sequence[Share]) -> None:
    """Write a transfer down, and its number onto what it pays for.

    Raises:
        Conflict: some of it is paid by another one.
    """
    await connection.execute(
        insert(settlement_batches).values(
            number=number,
            kind=Kind.TRANSFER.value,
            detail_root="0x" + detail_root(shares).hex(),
            requests=len({work.session_id for share in shares for work in share.works}),
            total_units=sum(share.units for share in shares),
            fee_units=0,
            charges={},
            payouts={share.wallet: share.units for share in shares},
            created_at=now(),
        )
    )
    for share in shares:
        for first in range(0, len(share.works), _CHUNK):
            some = {work.session_id: work.units for work in share.works[first : first + _CHUNK]}
            await _claim(connection, number, share.wallet, some)


async def _claim(connection: AsyncConnection, number: int, wallet: str, some: Mapping[str, int]) -> None:
    mine = UNPAID & (_done.wallet_address == wallet) & _done.session_id.in_(list(some))
    claimed = update(node_contributions).where(mine).values(transfer_number=number).returning(_done.payment_units)
    if sum((await connection.execute(claimed)).scalars()) != sum(some.values()):
        raise Conflict(f"something that transfer {number} pays for is paid by another one already", number=number)


async def dissolve(connection: AsyncConnection, number: int) -> None:
    """What it would have paid for waits for another one. The row stays, so that its number is not used again."""
    of_transfer = _done.transfer_number == number
    await connection.execute(update(node_contributions).where(of_transfer).values(transfer_number=None))


async def mark_paid(connection: AsyncConnection, number: int, at: datetime | None) -> None:
    """When the chain had paid it; None: it has not, after all."""
    of_transfer = _done.transfer_number == number
    await connection.execute(update(node_contributions).where(of_transfer).values(paid_at=at))


async def confirmed_after(connection: AsyncConnection, block: int) -> list[Row]:
    """Transfers that were paid in blocks above ``block``, in nonce order."""
    paid = (chain_outbox.c.block_number > block) & (chain_outbox.c.status == RowStatus.CONFIRMED.value)
    return await _rows(connection, paid)


async def ended(connection: AsyncConnection) -> list[Row]:
    """All transfers that were paid, or never will be, in nonce order."""
    is_final = chain_outbox.c.status.in_([RowStatus.CONFIRMED.value, RowStatus.FAILED.value])
    return await _rows(connection, is_final)


async def _rows(connection: AsyncConnection, where: ColumnElement[bool]) -> list[Row]:
    columns = [chain_outbox.c[field.name] for field in fields(Row)]
    query = select(*columns).where(where, chain_outbox.c.kind == Kind.TRANSFER.value)
    return [
        Row(**{**row._asdict(), "kind": Kind(row.kind), "status": RowStatus(row.status)})
        for row in await connection.execute(query.order_by(chain_outbox.c.nonce, chain_outbox.c.id))
    ]


# ---- who cannot be paid


async def held(connection: AsyncConnection) -> dict[str, Held]:
    """Everybody who should be paid and cannot be, by wallet."""
    entry = held_payouts.c
    query = select(entry.wallet_address, entry.code, entry.reason)
    return {wallet: Held(code, reason) for wallet, code, reason in await connection.execute(query)}


async def held_of(connection: AsyncConnection, wallet: str) -> Held | None:
    """The same for one wallet."""
    entry = held_payouts.c
    row = (
        await connection.execute(select(entry.code, entry.reason).where(entry.wallet_address == wallet))
    ).one_or_none()
    return None if row is None else Held(*row)


async def note_held(connection: AsyncConnection, found: Mapping[str, Held], free: Collection[str]) -> None:
    """``found`` cannot be paid, and nothing stands in the way of ``free`` any more."""
    wallets = sorted({*found, *free})
    for first in range(0, len(wallets), _CHUNK):
        some = held_payouts.c.wallet_address.in_(wallets[first : first + _CHUNK])
        await connection.execute(delete(held_payouts).where(some))
    rows = [
        {"wallet_address": wallet, "code": one.code[:64], "reason": one.reason[:500], "since": now()}
        for wallet, one in sorted(found.items())
    ]
    if rows:
        await connection.execute(insert(held_payouts), rows)
