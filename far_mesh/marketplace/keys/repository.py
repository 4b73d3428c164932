"""API keys in SQL."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.principal import Scope
from far_mesh.marketplace.auth.repository import serves
from far_mesh.marketplace.keys.schemas import ApiKey, NewKey
from far_mesh.marketplace.tables import api_keys

KEEP_REVOKED = timedelta(days=30)
USE_IS_TRUE_TO = timedelta(minutes=1)


@dataclass(frozen=True)
class Found:
    """A key, and whether nodes name its wallet."""

    key: ApiKey
    serves: bool


async def add(
    connection: AsyncConnection, wallet: Wallet, wanted: NewKey, key_hash: str, prefix: str, at: datetime
) -> ApiKey:
    """A key is there from now on."""
    values = {
        "id": f"key_{secrets.token_hex(12)}",
        "key_hash": key_hash,
        "prefix": prefix,
        "wallet_address": wallet,
        "name": wanted.name,
        "scopes": sorted(wanted.scopes),
        "units_per_day": wanted.units_per_day,
        "requests_per_minute": wanted.requests_per_minute,
        "created_at": at,
        "expires_at": wanted.expires_at,
    }
    return _key((await connection.execute(insert(api_keys).values(**values).returning(api_keys))).one())


async def count(connection: AsyncConnection, wallet: Wallet) -> int:
    """How many keys a wallet has, revoked ones included."""
    query = select(func.count()).where(api_keys.c.wallet_address == wallet)
    return (await connection.execute(query)).scalar_one()


async def forget_revoked(connection: AsyncConnection, wallet: Wallet, at: datetime) -> None:
    """Keys of a wallet that were revoked long ago, and what was spent with them day by day."""
    old = (api_keys.c.wallet_address == wallet) & (api_keys.c.revoked_at < at - KEEP_REVOKED)
    await connection.execute(delete(api_keys).where(old))


async def of_wallet(connection: AsyncConnection, wallet: Wallet) -> list[ApiKey]:
    """The keys of a wallet, the newest first."""
    query = select(api_keys).where(api_keys.c.wallet_address == wallet).order_by(api_keys.c.created_at.desc())
    return [_key(row) for row in await connection.execute(query)]


async def find(connection: AsyncConnection, key_hash: str) -> Found | None:
    """The key with this hash."""
    query = select(api_keys, serves(api_keys.c.wallet_address).label("serves")).where(api_keys.c.key_hash == key_hash)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Found(_key(row), bool(row.serves))


async def requests_per_minute(connection: AsyncConnection, key_id: str) -> int | None:
    """How many requests a key may make in a minute; None: as many as its account."""
    query = select(api_keys.c.requests_per_minute).where(api_keys.c.id == key_id)
    return (await connection.execute(query)).scalar_one_or_none()


async def revoke(connection: AsyncConnection, wallet: Wallet, key_id: str, at: datetime) -> bool:
    """A key of ``wallet`` counts no more; doing it again changes nothing. False: it has none of that id."""
    mine = (api_keys.c.wallet_address == wallet) & (api_keys.c.id == key_id)
    once = func.coalesce(api_keys.c.revoked_at, at)
    return (await connection.execute(update(api_keys).where(mine).values(revoked_at=once))).rowcount == 1


async def revoke_all(connection: AsyncConnection, wallet: Wallet, at: datetime) -> None:
    """No key of ``wallet`` counts any more."""
    alive = (api_keys.c.wallet_address == wallet) & api_keys.c.revoked_at.is_(None)
    await connection.execute(update(api_keys).where(alive).values(revoked_at=at))


async def used(connection: AsyncConnection, key_id: str, at: datetime) -> None:
    """A key was used. Written once a minute at most, whichever gateway notes it."""
    last = api_keys.c.last_used_at
    due = (api_keys.c.id == key_id) & or_(last.is_(None), last <= at - USE_IS_TRUE_TO)
    await connection.execute(update(api_keys).where(due).values(last_used_at=at))


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        prefix=row.prefix,
        wallet=Wallet(row.wallet_address),
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        units_per_day=row.units_per_day,
        requests_per_minute=row.requests_per_minute,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
