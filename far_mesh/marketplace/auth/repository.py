"""Nonces in SQL."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.auth.siwe import SignIn
from far_mesh.marketplace.tables import login_nonces

KEEP_EXPIRED = timedelta(hours=1)


async def add(connection: AsyncConnection, offer: SignIn) -> None:
    """Remember what was offered, and forget what has long expired."""
    await connection.execute(delete(login_nonces).where(login_nonces.c.expires_at < offer.issued_at - KEEP_EXPIRED))
    await connection.execute(
        login_nonces.insert().values(
            nonce=offer.nonce,
            wallet_address=offer.address,
            domain=offer.domain,
            uri=offer.uri,
            chain_id=offer.chain_id,
            issued_at=offer.issued_at,
            expires_at=offer.expiration_time,
        )
    )


async def find(connection: AsyncConnection, nonce: str) -> tuple[SignIn, bool] | None:
    """What was offered under ``nonce``, and whether it was used."""
    row = (await connection.execute(select(login_nonces).where(login_nonces.c.nonce == nonce))).one_or_none()
    if row is None:
        return None
    offer = SignIn(row.domain, row.wallet_address, row.uri, row.chain_id, row.nonce, row.issued_at, row.expires_at)
    return offer, row.used_at is not None


async def use(connection: AsyncConnection, nonce: str, at: datetime) -> bool:
    """Use a nonce up. Of any number of callers exactly one gets True."""
    unused = (login_nonces.c.nonce == nonce) & login_nonces.c.used_at.is_(None)
    return (await connection.execute(update(login_nonces).where(unused).values(used_at=at))).rowcount == 1
