"""Nonces, and who signed out, in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.siwe import SignIn
from far_mesh.marketplace.auth.tokens import Claims
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.tables import login_nonces, node_registry, revoked_tokens, wallet_generations

KEEP_EXPIRED = timedelta(hours=1)


@dataclass(frozen=True)
class Standing:
    """What has become of a token's wallet: signed out of it, how often signed out everywhere, named by nodes."""

    signed_out: bool
    generation: int
    serves: bool


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


def serves(wallet: ColumnElement[str] | Wallet) -> ColumnElement[bool]:
    """Whether nodes name this wallet as the one they earn for."""
    return exists().where(node_registry.c.wallet_address == wallet)


def _generation(wallet: Wallet) -> ColumnElement[int]:
    found = select(wallet_generations.c.generation).where(wallet_generations.c.wallet_address == wallet)
    return func.coalesce(found.scalar_subquery(), 0)


async def generation(connection: AsyncConnection, wallet: Wallet) -> int:
    """How often ``wallet`` was signed out everywhere."""
    return (await connection.execute(select(_generation(wallet)))).scalar_one()


async def standing(connection: AsyncConnection, claims: Claims) -> Standing:
    """Whether a token still counts, in one question."""
    signed_out = exists().where(revoked_tokens.c.token_id == claims.token_id)
    row = (await connection.execute(select(signed_out, _generation(claims.wallet), serves(claims.wallet)))).one()
    return Standing(bool(row[0]), row[1], bool(row[2]))


async def sign_out(connection: AsyncConnection, wallet: Wallet, token_id: str, expires_at: datetime) -> None:
    """Refuse a token from now on."""
    row = {"token_id": token_id, "wallet_address": wallet, "expires_at": expires_at}
    await connection.execute(insert_if_absent(connection, revoked_tokens).values(**row))


async def forget_expired(connection: AsyncConnection, at: datetime) -> None:
    """Tokens that expired long ago need not be refused by name."""
    await connection.execute(delete(revoked_tokens).where(revoked_tokens.c.expires_at < at - KEEP_EXPIRED))


async def sign_out_everywhere(connection: AsyncConnection, wallet: Wallet, at: datetime) -> None:
    """Refuse all tokens that ``wallet`` has."""
    first = {"wallet_address": wallet, "generation": 0, "changed_at": at}
    await connection.execute(insert_if_absent(connection, wallet_generations).values(**first))
    one = wallet_generations.c.wallet_address == wallet
    later = {"generation": wallet_generations.c.generation + 1, "changed_at": at}
    await connection.execute(update(wallet_generations).where(one).values(**later))
