"""The books in SQL. Rows are added and read; nothing here changes or removes one, and triggers see to it.

A balance is the sum of an account's lines. :func:`keep_checkpoints` notes sums from time to time, so that old lines
need not be added up again; a note can be thrown away at any time, and nothing changes but the time a sum takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, Boolean, Text, bindparam, cast, exists, func, literal, select, text, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.ledger.schemas import Account, Book, Posting
from far_mesh.marketplace.tables import UtcDateTime, accounts, balance_checkpoints, entries, postings

PAGE = 1_000

# ---- statements that every request runs are put together once

# Of each kind and each owner, which is more than was named, but SQLite reads all accounts to find pairs.
_NAMED = accounts.c.kind.in_(bindparam("kinds", expanding=True)) & accounts.c.owner.in_(
    bindparam("owners", expanding=True)
)

_ACCOUNTS = (
    select(accounts.c.id, accounts.c.kind, accounts.c.owner)
    .where(_NAMED)
    .order_by(accounts.c.kind, accounts.c.owner)  # as the index has them: in another order SQLite reads all accounts
)

_LINES = (
    select(accounts.c.kind, accounts.c.owner, entries.c.amount_units)
    .join(accounts, accounts.c.id == entries.c.account_id)
    .join(postings, postings.c.id == entries.c.posting_id)
    .where(postings.c.idempotency_key == bindparam("key"))
)
_POSTING = select(postings.c.kind, postings.c.reason, postings.c.request_id).where(
    postings.c.idempotency_key == bindparam("key")
)

_SINCE = (
    select(func.coalesce(func.sum(entries.c.amount_units), 0))
    .where(
        entries.c.account_id == accounts.c.id,
        entries.c.id > func.coalesce(balance_checkpoints.c.through_entry_id, 0),
    )
    .correlate(accounts, balance_checkpoints)
    .scalar_subquery()
)
_BALANCE = cast(func.coalesce(balance_checkpoints.c.balance_units, 0) + _SINCE, BigInteger).label("balance")
_WITH_NOTES = accounts.outerjoin(balance_checkpoints, balance_checkpoints.c.account_id == accounts.c.id)

_BALANCES = (
    select(
        accounts.c.id,
        _BALANCE,
        exists().where(postings.c.idempotency_key == bindparam("key")).label("is_posted"),
    )
    .select_from(_WITH_NOTES)
    .where(accounts.c.id.in_(bindparam("ids", expanding=True)))
)

_BALANCES_BY_NAME = select(accounts.c.kind, accounts.c.owner, _BALANCE).select_from(_WITH_NOTES).where(_NAMED)

_POST = text(
    "SELECT place, have, is_new FROM far_post(:key, :kind, :reason, :request_id, :created_at, :kinds, :owners, :units, "
    ":checked, :lock)"
).bindparams(
    bindparam("created_at", type_=UtcDateTime),
    bindparam("kinds", type_=ARRAY(Text)),
    bindparam("owners", type_=ARRAY(Text)),
    bindparam("units", type_=ARRAY(BigInteger)),
    bindparam("checked", type_=ARRAY(Boolean)),
    bindparam("lock", type_=Boolean),
)


# ---- writing


@dataclass(frozen=True)
class TooLittle:
    """What stands in the way of a posting: there are only ``have`` units in ``account``."""

    account: Account
    have: int


async def write(
    connection: AsyncConnection, posting: Posting, *, lock: bool, checked: Collection[Account]
) -> bool | TooLittle:
    """Write a posting. False: there is one with this key already. Of the accounts in ``checked`` none may end up with
    less than nothing. ``lock``: other spenders from its accounts wait until this transaction ends."""
    if connection.dialect.name == "postgresql":
        return await _write_in_server(connection, posting, lock=lock, checked=checked)
    ids = await _account_ids(connection, posting.lines)
    if checked:
        is_posted, before = await _balances_before(connection, posting.key, [ids[account] for account in checked])
        if is_posted:
            return False
        for account in checked:
            if before[ids[account]] + posting.lines[account] < 0:
                return TooLittle(account, before[ids[account]])
    return await _add(connection, posting, ids)


async def _write_in_server(
    connection: AsyncConnection, posting: Posting, *, lock: bool, checked: Collection[Account]
) -> bool | TooLittle:
    """The same in one question instead of four: ``far_post`` of the migrations does it, statement by statement."""
    lines = sorted(posting.lines.items())
    values = {
        "key": posting.key,
        "kind": posting.kind,
        "reason": posting.reason,
        "request_id": posting.request_id,
        "created_at": now(),
        "kinds": [account.kind.value for account, _ in lines],
        "owners": [account.owner for account, _ in lines],
        "units": [units for _, units in lines],
        "checked": [account in checked for account, _ in lines],
        "lock": lock,
    }
    place, have, is_new = (await connection.execute(_POST, values)).one()
    return bool(is_new) if place is None else TooLittle(lines[place - 1][0], have)


async def _account_ids(connection: AsyncConnection, named: Collection[Account]) -> dict[Account, int]:
    """The rows of accounts, made where they are not there."""
    found = await _rows_of(connection, named)
    if missing := sorted(set(named) - found.keys()):
        rows = [{"kind": account.kind.value, "owner": account.owner} for account in missing]
        await connection.execute(insert_if_absent(connection, accounts), rows)
        found = await _rows_of(connection, named)
    return found


async def _rows_of(connection: AsyncConnection, named: Collection[Account]) -> dict[Account, int]:
    rows = await connection.execute(_ACCOUNTS, _names(named))
    found = ((Account(Book(kind), owner), row) for row, kind, owner in rows)
    return {account: row for account, row in found if account in named}


def _names(named: Collection[Account]) -> dict[str, list[str]]:
    kinds, owners = {account.kind.value for account in named}, {account.owner for account in named}
    return {"kinds": sorted(kinds), "owners": sorted(owners)}


async def _balances_before(connection: AsyncConnection, key: str, ids: Collection[int]) -> tuple[bool, dict[int, int]]:
    """Whether there is a posting with this key, and balances by row."""
    rows = (await connection.execute(_BALANCES, {"key": key, "ids": list(ids)})).all()
    return any(is_posted for _, _, is_posted in rows), {row: balance for row, balance, _ in rows}


async def _add(connection: AsyncConnection, posting: Posting, ids: Mapping[Account, int]) -> bool:
    insert = insert_if_absent(connection, postings).returning(postings.c.id)
    values = {
        "idempotency_key": posting.key,
        "kind": posting.kind,
        "reason": posting.reason,
        "request_id": posting.request_id,
        "created_at": now(),
    }
    posting_id = (await connection.execute(insert, values)).scalar_one_or_none()
    if posting_id is None:
        return False
    rows = [
        {"posting_id": posting_id, "account_id": ids[account], "amount_units": units}
        for account, units in posting.lines.items()
    ]
    if rows:
        await connection.execute(entries.insert(), rows)
    return True


async def keep_checkpoints(connection: AsyncConnection, at_least: int = 1) -> int:
    """Note the balance of every account that has new lines, when there are ``at_least`` so many. How many were noted.

    On PostgreSQL all who write lines are waited for first, and others wait until the notes are made: a line gets its
    number before it is committed, so without that a late one could be left out for ever.
    """
    noted = func.coalesce(func.max(balance_checkpoints.c.through_entry_id), 0)
    floor = (await connection.execute(select(noted))).scalar_one()
    last = (await connection.execute(select(func.coalesce(func.max(entries.c.id), 0)))).scalar_one()
    if last - floor < at_least:
        return 0
    if connection.dialect.name != "sqlite":
        await connection.execute(text("LOCK TABLE entries IN SHARE ROW EXCLUSIVE MODE"))
        last = (await connection.execute(select(func.max(entries.c.id)))).scalar_one()
    moved = select(entries.c.account_id).where(entries.c.id > floor)
    sums = (
        select(accounts.c.id, literal(last), _BALANCE, literal(now(), balance_checkpoints.c.noted_at.type))
        .select_from(_WITH_NOTES)
        .where(accounts.c.id.in_(moved), true())
    )
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    notes = insert(balance_checkpoints).from_select(
        ["account_id", "through_entry_id", "balance_units", "noted_at"], sums
    )
    new = {name: notes.excluded[name] for name in ("through_entry_id", "balance_units", "noted_at")}
    return (await connection.execute(notes.on_conflict_do_update(index_elements=["account_id"], set_=new))).rowcount


# ---- reading


async def posted(connection: AsyncConnection, key: str) -> Posting | None:
    """What was done under ``key``, if anything."""
    row = (await connection.execute(_POSTING, {"key": key})).one_or_none()
    if row is None:
        return None
    return Posting(key, row.kind, row.reason, await lines_of(connection, key), row.request_id)


async def lines_of(connection: AsyncConnection, key: str) -> dict[Account, int]:
    """The lines of the posting with this key; empty when there is none."""
    rows = await connection.execute(_LINES, {"key": key})
    return {Account(Book(kind), owner): units for kind, owner, units in rows}


async def balance(connection: AsyncConnection, account: Account) -> int:
    """What is in ``account``, in units."""
    return (await balances(connection, [account])).get(account, 0)


async def balances(connection: AsyncConnection, named: Collection[Account]) -> dict[Account, int]:
    """What is in each of these accounts that exists, in units."""
    rows = await connection.execute(_BALANCES_BY_NAME, _names(named))
    found = {Account(Book(kind), owner): units for kind, owner, units in rows}
    return {account: units for account, units in found.items() if account in named}


async def balances_of(connection: AsyncConnection, owner: str) -> dict[Book, int]:
    """All accounts of ``owner``, in units."""
    found = await balances(connection, [Account(book, owner) for book in Book])
    return {account.kind: units for account, units in found.items()}


async def totals(connection: AsyncConnection) -> dict[Book, int]:
    """The sum of every kind of account, in units. All of them together are zero."""
    query = (
        select(accounts.c.kind, func.sum(entries.c.amount_units))
        .join(accounts, accounts.c.id == entries.c.account_id)
        .group_by(accounts.c.kind)
    )
    return {Book(kind): int(units) for kind, units in await connection.execute(query)}


async def noted_totals(connection: AsyncConnection) -> dict[Book, int]:
    """The same by the notes: as quick as there are accounts, however long the books are."""
    balances = select(accounts.c.kind, _BALANCE).select_from(_WITH_NOTES).subquery()
    query = select(balances.c.kind, func.sum(balances.c.balance)).group_by(balances.c.kind)
    return {Book(kind): int(units) for kind, units in await connection.execute(query)}


@dataclass(frozen=True)
class Line:
    """One line of the books, with the posting it is of."""

    entry_id: int
    posting_id: int
    created_at: datetime
    idempotency_key: str
    kind: str
    reason: str
    request_id: str | None
    account: str
    owner: str
    amount_units: int


async def all_lines(connection: AsyncConnection, request_id: str | None = None) -> AsyncIterator[Line]:
    """Every line in the order it was written, or those about one request."""
    query = (
        select(
            entries.c.id.label("entry_id"),
            entries.c.posting_id,
            postings.c.created_at,
            postings.c.idempotency_key,
            postings.c.kind,
            postings.c.reason,
            postings.c.request_id,
            accounts.c.kind.label("account"),
            accounts.c.owner,
            entries.c.amount_units,
        )
        .join(postings, postings.c.id == entries.c.posting_id)
        .join(accounts, accounts.c.id == entries.c.account_id)
        .where(entries.c.id > bindparam("after"))
        .order_by(entries.c.id)
        .limit(PAGE)
    )
    if request_id is not None:
        query = query.where(postings.c.request_id == request_id)
    after = 0
    while rows := (await connection.execute(query, {"after": after})).all():
        for row in rows:
            yield Line(**row._mapping)
        after = rows[-1].entry_id
