"""Which account is in which tier, in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.tables import account_tiers
from far_mesh.marketplace.tiers.names import TierName


@dataclass(frozen=True)
class Membership:
    """An account that is in another tier than standard. ``until`` None: until it is changed."""

    wallet: str
    tier: TierName
    until: datetime | None
    changed_at: datetime

    def counts(self, at: datetime) -> bool:
        """Whether it has not ended by then."""
        return self.until is None or at < self.until


async def find(connection: AsyncConnection, wallet: str) -> Membership | None:
    """That of ``wallet``; one that has ended too."""
    query = select(account_tiers).where(account_tiers.c.wallet_address == wallet)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _membership(row)


async def all_of_them(connection: AsyncConnection) -> list[Membership]:
    """By wallet."""
    rows = await connection.execute(select(account_tiers).order_by(account_tiers.c.wallet_address))
    return [_membership(row) for row in rows]


async def put(connection: AsyncConnection, wallet: str, tier: TierName, until: datetime | None) -> Membership:
    """From now on ``wallet`` is in this tier. Standard is where everybody is who is nowhere else."""
    at = now()
    if tier is TierName.STANDARD:
        await connection.execute(delete(account_tiers).where(account_tiers.c.wallet_address == wallet))
        return Membership(wallet, tier, None, at)
    values = {"tier": tier.value, "until": until, "changed_at": at}
    await connection.execute(insert_if_absent(connection, account_tiers).values(wallet_address=wallet, **values))
    await connection.execute(update(account_tiers).where(account_tiers.c.wallet_address == wallet).values(**values))
    return Membership(wallet, tier, until, at)


def _membership(row: Any) -> Membership:
    return Membership(row.wallet_address, TierName(row.tier), row.until, row.changed_at)
