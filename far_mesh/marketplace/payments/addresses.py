"""Where providers are paid on chains that do not know their wallets, in SQL.

A change counts after a while: whoever steals a session cannot redirect money at once, and the owner has the time to
say again where it belongs. Saying anything takes back what has not counted yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.tables import payout_addresses

_entry = payout_addresses.c


@dataclass(frozen=True)
class Change:
    """An address that will count from ``effective_at`` on."""

    address: str
    effective_at: datetime


async def effective(connection: AsyncConnection, wallet: str, at: datetime) -> str | None:
    """Where ``wallet`` is paid at this time."""
    counts = (_entry.wallet_address == wallet) & _entry.withdrawn_at.is_(None) & (_entry.effective_at <= at)
    query = select(_entry.address).where(counts).order_by(_entry.effective_at.desc(), _entry.id.desc()).limit(1)
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def pending(connection: AsyncConnection, wallet: str, at: datetime) -> Change | None:
    """What will take its place."""
    later = (_entry.wallet_address == wallet) & _entry.withdrawn_at.is_(None) & (_entry.effective_at > at)
    query = select(_entry.address, _entry.effective_at).where(later).order_by(_entry.id.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Change(*row)


async def change(connection: AsyncConnection, wallet: str, address: str, at: datetime, delay: timedelta) -> None:
    """From ``delay`` after ``at`` on ``wallet`` is paid at ``address``, unless that is where it is paid already."""
    before = await pending(connection, wallet, at)
    if before is not None and before.address == address:
        return  # saying it again does not put it off
    later = (_entry.wallet_address == wallet) & _entry.withdrawn_at.is_(None) & (_entry.effective_at > at)
    await connection.execute(update(payout_addresses).where(later).values(withdrawn_at=at))
    if await effective(connection, wallet, at) != address:
        values = {"wallet_address": wallet, "address": address, "asked_at": at, "effective_at": at + delay}
        await connection.execute(insert(payout_addresses).values(**values))
