"""The books in SQL. Rows are added and read; nothing here changes or removes one, and triggers see to it."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.tables import accounts, entries, postings


async def add_posting(
    connection: AsyncConnection, key: str, kind: str, reason: str, request_id: str | None
) -> int | None:
    """The id of a new posting, or None when there is one with this key already."""
    insert = insert_if_absent(connection, postings).values(
        idempotency_key=key, kind=kind, reason=reason, request_id=request_id, created_at=now()
    )
    found: int | None = (await connection.execute(insert.returning(postings.c.id))).scalar_one_or_none()
    return found


async def kind_of_posting(connection: AsyncConnection, key: str) -> str | None:
    """What was done under ``key``, if anything."""
    query = select(postings.c.kind).where(postings.c.idempotency_key == key)
    return (await connection.execute(query)).scalar_one_or_none()


async def add_entries(connection: AsyncConnection, posting_id: int, amounts: Mapping[Account, int]) -> None:
    """Write the lines of a posting. Accounts are opened when they are first named."""
    rows = [
        {
            "posting_id": posting_id,
            "account_id": await account_id(connection, account),
            "amount_units": amounts[account],
        }
        for account in sorted(amounts)  # always in one order, so that two writers cannot wait for each other
    ]
    await connection.execute(entries.insert(), rows)


async def account_id(connection: AsyncConnection, account: Account) -> int:
    """The row of ``account``, made when it is not there."""
    named = (accounts.c.kind == account.kind.value) & (accounts.c.owner == account.owner)
    found: int | None = (await connection.execute(select(accounts.c.id).where(named))).scalar_one_or_none()
    if found is not None:
        return found
    await connection.execute(
        insert_if_absent(connection, accounts).values(kind=account.kind.value, owner=account.owner)
    )
    made: int = (await connection.execute(select(accounts.c.id).where(named))).scalar_one()
    return made


async def lock_account(connection: AsyncConnection, account: Account) -> None:
    """Make other spenders of ``account`` wait until this transaction ends (SQLite has one writer anyway)."""
    row = await account_id(connection, account)
    await connection.execute(select(accounts.c.id).where(accounts.c.id == row).with_for_update())


async def balance(connection: AsyncConnection, account: Account) -> int:
    """The sum of all lines of ``account``, in units."""
    query = (
        select(func.coalesce(func.sum(entries.c.amount_units), 0))
        .join(accounts, accounts.c.id == entries.c.account_id)
        .where(accounts.c.kind == account.kind.value, accounts.c.owner == account.owner)
    )
    return int((await connection.execute(query)).scalar_one())


async def amounts_of_posting(connection: AsyncConnection, key: str) -> dict[Account, int]:
    """The lines of the posting with this key; empty when there is none."""
    query = (
        select(accounts.c.kind, accounts.c.owner, entries.c.amount_units)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .join(postings, postings.c.id == entries.c.posting_id)
        .where(postings.c.idempotency_key == key)
    )
    return {Account(Book(kind), owner): units for kind, owner, units in await connection.execute(query)}


async def totals(connection: AsyncConnection) -> dict[Book, int]:
    """The sum of every kind of account, in units. All of them together are zero."""
    query = (
        select(accounts.c.kind, func.sum(entries.c.amount_units))
        .join(accounts, accounts.c.id == entries.c.account_id)
        .group_by(accounts.c.kind)
    )
    return {Book(kind): int(units) for kind, units in await connection.execute(query)}
