"""What the books have to say when they are compared with the chain, in SQL. It is read from one snapshot, by indexes:
this runs beside requests. Nothing is written but how far was compared, and what was found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, String, and_, case, cast, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.account.repository import DEPOSITS, ChainIdentity
from far_mesh.marketplace.chain.client import EscrowEvent
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.ledger import repository as ledger
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book, Told
from far_mesh.marketplace.payments.tables import payment_channels
from far_mesh.marketplace.sessions.schemas import OPEN, Payment
from far_mesh.marketplace.settlement.merkle import payout_tree
from far_mesh.marketplace.settlement.owed import BATCH
from far_mesh.marketplace.settlement.reconcile import (
    BatchLines,
    Booking,
    Books,
    ChannelRow,
    Request,
    Sent,
    batch_number,
)
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import (
    accounts,
    chain_attempts,
    chain_cursors,
    chain_events,
    chain_outbox,
    entries,
    inference_sessions,
    payout_leaves,
    postings,
    reconciliation_notes,
    reconciliations,
    settlement_batches,
)

AT_ONCE = 400
"""How many names one statement is given; SQLite takes 32,766."""
CURSOR = "reconciliation"
LATE_LINES = 1_000
"""On PostgreSQL a line gets its number before it is committed: so many are looked at once more."""

_OF_REQUESTS = (Kind.LOCK.value, Kind.RELEASE.value, Kind.CANCEL.value)
_OF_USERS = (Book.USER_DEPOSIT, Book.USER_HOLD, Book.USER_CHANNEL)

T = TypeVar("T")


def _chunks(values: Collection[T]) -> Iterator[Sequence[T]]:
    ordered = list(values)
    for first in range(0, len(ordered), AT_ONCE):
        yield ordered[first : first + AT_ONCE]


# ---- how far was compared


@dataclass(frozen=True)
class Notes:
    """What reconciliation knows of the blocks before ``next_block``: what providers (by wallet) and the platform took
    out, in wei. ``entry`` is the last line of the books that was looked at, ``nonce`` the settler's next one."""

    next_block: int
    last_hash: str | None = None
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    fees_withdrawn: int = 0
    entry: int = 0
    nonce: int | None = None
    at: datetime | None = None


@dataclass(frozen=True)
class Result:
    """What came of a comparison. ``findings`` as :meth:`.reconcile.Finding.as_facts`."""

    at: datetime
    block: int
    findings: Sequence[Mapping[str, str]]


async def chain_of_books(connection: AsyncConnection) -> ChainIdentity | None:
    """The chain that this database belongs to; None when it was never used beside one."""
    query = select(chain_cursors).where(chain_cursors.c.name == DEPOSITS)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else ChainIdentity(row.chain_id, row.genesis_hash, row.escrow_address)


async def notes(connection: AsyncConnection) -> Notes | None:
    """How far was compared; None when nothing was."""
    query = select(chain_cursors.c.next_block, chain_cursors.c.last_hash).where(chain_cursors.c.name == CURSOR)
    cursor = (await connection.execute(query)).one_or_none()
    if cursor is None:
        return None
    rows = await connection.execute(select(reconciliation_notes))
    noted = {(kind, owner): int(amount) for kind, owner, amount in rows}
    last = await result(connection)
    return Notes(
        cursor.next_block,
        cursor.last_hash,
        {owner: amount for (kind, owner), amount in noted.items() if kind == "withdrawn"},
        noted.get(("fees", PLATFORM), 0),
        noted.get(("entry", PLATFORM), 0),
        noted.get(("nonce", PLATFORM)),
        None if last is None else last.at,
    )


async def keep(connection: AsyncConnection, before: Notes | None, after: Notes, identity: ChainIdentity) -> bool:
    """Go on from ``after`` next time. False: somebody else has moved the cursor since."""
    values = {"next_block": after.next_block, "last_hash": after.last_hash}
    if before is None:
        absent = insert_if_absent(connection, chain_cursors).values(
            name=CURSOR,
            chain_id=identity.chain_id,
            genesis_hash=identity.genesis_hash,
            escrow_address=identity.escrow_address,
            **values,
        )
        moved = await connection.execute(absent)
    else:
        unmoved = (chain_cursors.c.name == CURSOR) & (chain_cursors.c.next_block == before.next_block)
        moved = await connection.execute(chain_cursors.update().where(unmoved).values(**values))
    if moved.rowcount != 1:
        return False
    rows = [("withdrawn", wallet, amount) for wallet, amount in after.withdrawn.items()]
    rows += [("fees", PLATFORM, after.fees_withdrawn), ("entry", PLATFORM, after.entry)]
    if after.nonce is not None:
        rows.append(("nonce", PLATFORM, after.nonce))
    known = {} if before is None else before.withdrawn
    for kind, owner, amount in rows:
        if kind == "withdrawn" and known.get(owner) == amount:
            continue
        this = (reconciliation_notes.c.kind == kind) & (reconciliation_notes.c.owner == owner)
        await connection.execute(reconciliation_notes.delete().where(this))
        await connection.execute(reconciliation_notes.insert().values(kind=kind, owner=owner, amount=str(amount)))
    return True


async def result(connection: AsyncConnection) -> Result | None:
    """What came of the last comparison, whoever made it."""
    row = (await connection.execute(select(reconciliations))).one_or_none()
    return None if row is None else Result(row.at, row.block_number, row.findings)


async def keep_result(connection: AsyncConnection, found: Result) -> None:
    """For all gateways to see."""
    values = {"at": found.at, "block_number": found.block, "findings": [dict(one) for one in found.findings]}
    await connection.execute(insert_if_absent(connection, reconciliations).values(name=CURSOR, **values))
    await connection.execute(reconciliations.update().values(**values))


# ---- act by act


@dataclass(frozen=True)
class Window:
    """Blocks that are compared, and their events. ``is_last``: what comes after ``last_block`` counts too. ``since``:
    when rows that name no block were looked at the last time. ``escrow_block`` is the first that can tell of us."""

    first_block: int
    last_block: int
    events: Sequence[EscrowEvent]
    is_last: bool
    since: datetime | None
    escrow_block: int


async def read_names(connection: AsyncConnection, events: Sequence[EscrowEvent]) -> Books:
    """Which of these events are by transactions of ours, or about escrows of ours. That never changes."""
    row_of = await _rows_by_transaction(connection, {event.tx_hash for event in events})
    return Books(await _next_block(connection), row_of=row_of, escrows=await _our_escrows(connection, events))


async def read_acts(connection: AsyncConnection, window: Window, named: Books) -> Books:
    """What was written down of these blocks, and of what is under way. ``named`` is :func:`read_names` of them."""
    rows = await _rows(connection, window, set(named.row_of.values()))
    numbers = {batch_number(row.request_id) for row in rows.values() if row.kind in (Kind.SETTLE, Kind.COMMIT)}
    asked_for = {row.request_id for row in rows.values() if row.kind.value in _OF_REQUESTS}
    moving: dict[str, Request] = {}
    if window.is_last:
        under_way = {row.request_id for row in rows.values() if not row.is_done(window.last_block)}
        batches = {batch_number(one) for one in under_way if one.startswith(BATCH)}
        moving = await _in_motion(connection, under_way & asked_for, batches)
    numbers |= {one.batch_number for one in moving.values() if one.batch_number is not None}
    return replace(
        named,
        next_block=await _next_block(connection),
        bookings=await _bookings(connection, window),
        rows=rows,
        requests=await _requests(connection, inference_sessions.c.request_id, asked_for) | moving,
        in_motion=frozenset(moving),
        batches=await _batches(connection, numbers),
    )


async def _next_block(connection: AsyncConnection) -> int:
    query = select(chain_cursors.c.next_block).where(chain_cursors.c.name == DEPOSITS)
    return int((await connection.execute(query)).scalar_one())


async def _rows_by_transaction(connection: AsyncConnection, hashes: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _chunks(hashes):
        query = select(chain_attempts.c.tx_hash, chain_attempts.c.outbox_id)
        rows = await connection.execute(query.where(chain_attempts.c.tx_hash.in_(some)))
        found |= {tx_hash: row for tx_hash, row in rows}
    return found


async def _rows(connection: AsyncConnection, window: Window, ids: Collection[int]) -> dict[int, Sent]:
    table = chain_outbox.c
    here = (table.block_number >= window.first_block) & (table.status == RowStatus.CONFIRMED.value)
    wanted: list[ColumnElement[bool]] = [table.id.in_(some) for some in _chunks(ids)]
    if window.is_last:
        needless = table.error.is_not(None) & table.tx_hash.is_(None)  # there was nothing to ask the chain for
        no_block = table.block_number.is_(None) & (table.status == RowStatus.CONFIRMED.value) & ~needless
        if window.since is not None:
            no_block &= or_(table.finished_at.is_(None), table.finished_at >= window.since)
        unfinished = table.status.in_([RowStatus.PENDING.value, RowStatus.SENT.value])
        given_up = (table.status == RowStatus.FAILED.value) & (table.kind != Kind.LOCK.value)
        wanted += [here, no_block, unfinished, given_up]
    else:
        wanted.append(here & (table.block_number <= window.last_block))
    found = {}
    for where in wanted:
        query = select(table.id, table.kind, table.request_id, table.status, table.block_number, table.payload)
        for row in await connection.execute(query.where(where)):
            kind, status = Kind(row.kind), RowStatus(row.status)
            found[row.id] = Sent(row.id, kind, row.request_id, status, row.block_number, row.payload)
    return found


async def _bookings(connection: AsyncConnection, window: Window) -> list[Booking]:
    table = chain_events.c
    where = table.vanished_at.is_(None) & (table.block_number >= window.first_block)
    if not window.is_last:
        where &= table.block_number <= window.last_block
    columns = (table.kind, table.wallet_address, table.amount_wei, table.tx_hash, table.log_index, table.block_number)
    rows = (await connection.execute(select(*columns, table.booked_as).where(where).order_by(table.id))).all()
    names = {row: row.booked_as or f"{row.tx_hash}:{row.log_index}" for row in rows}
    moved = await _moved(connection, set(names.values()))
    found = []
    for row, name in names.items():
        lines = moved.get(name)
        found.append(
            Booking(
                row.kind,
                row.wallet_address,
                int(row.amount_wei),
                row.tx_hash,
                row.block_number,
                None if lines is None else lines.get(Account(Book.USER_DEPOSIT, row.wallet_address), 0),
                None if lines is None else lines.get(Account(Book.USER_CHANNEL, row.wallet_address), 0),
            )
        )
    return found


async def _moved(connection: AsyncConnection, names: Collection[str]) -> dict[str, dict[Account, int]]:
    """What was posted of events of the chain, by the events' names in the books."""
    found: dict[str, dict[Account, int]] = {}
    keys = {f"{told}:{name}": name for name in names for told in Told}
    for some in _chunks(keys.keys()):
        query = (
            select(postings.c.idempotency_key, accounts.c.kind, accounts.c.owner, entries.c.amount_units)
            .outerjoin(entries, entries.c.posting_id == postings.c.id)
            .outerjoin(accounts, accounts.c.id == entries.c.account_id)
            .where(postings.c.idempotency_key.in_(some))
        )
        for key, kind, owner, units in await connection.execute(query):
            lines = found.setdefault(keys[key], {})
            if kind is not None:
                account = Account(Book(kind), owner)
                lines[account] = lines.get(account, 0) + units
    return found


async def _our_escrows(connection: AsyncConnection, events: Sequence[EscrowEvent]) -> dict[str, str]:
    table = chain_outbox.c
    found: dict[str, str] = {}
    for some in _chunks({event.fields["escrowId"] for event in events if "escrowId" in event.fields}):
        rows = await connection.execute(select(table.escrow_id, table.request_id).where(table.escrow_id.in_(some)))
        found |= {escrow_id: request_id for escrow_id, request_id in rows}
    return found


async def _in_motion(
    connection: AsyncConnection, request_ids: Collection[str], batches: Collection[int]
) -> dict[str, Request]:
    """Requests that the chain may not be through with: open, waiting for a batch, in one that is under way, or with an
    escrow that is."""
    table = inference_sessions.c
    found = await _requests(connection, table.request_id, request_ids)
    found |= await _requests(connection, table.batch_number, batches)
    is_open = table.status.in_([status.value for status in OPEN])
    is_due = table.batch_number.is_(None) & (table.payment == Payment.NETTED.value) & (table.total_cost_units > 0)
    for where in (is_open, is_due):
        found |= await _requests_where(connection, where)
    return found


async def _requests(
    connection: AsyncConnection, column: ColumnElement[Any], values: Collection[Any]
) -> dict[str, Request]:
    found: dict[str, Request] = {}
    for some in _chunks(values):
        found |= await _requests_where(connection, column.in_(some))
    return found


async def _requests_where(connection: AsyncConnection, where: ColumnElement[bool]) -> dict[str, Request]:
    table = inference_sessions.c
    columns = (
        *(table.request_id, table.user_wallet, table.payment, table.held_units, table.total_cost_units),
        *(table.fee_units, table.batch_number, table.status),
    )
    found = {}
    for row in await connection.execute(select(*columns).where(where)):
        found[row.request_id] = Request(
            row.request_id,
            row.user_wallet,
            Payment(row.payment),
            row.held_units,
            None if row.status in OPEN else row.total_cost_units or 0,
            row.fee_units or 0,
            row.batch_number,
        )
    return found


async def _batches(connection: AsyncConnection, numbers: Collection[int]) -> dict[int, BatchLines]:
    table = settlement_batches.c
    columns = (table.number, table.kind, table.detail_root, table.charges, table.payouts, table.fee_units)
    found = {}
    for some in _chunks(numbers):
        for row in (await connection.execute(select(*columns).where(table.number.in_(some)))).all():
            is_root = row.kind == "root"
            root = await _payout_root(connection, row.number) if is_root else row.detail_root
            found[row.number] = BatchLines(row.number, is_root, root, row.charges, row.payouts, row.fee_units)
    return found


async def _payout_root(connection: AsyncConnection, number: int) -> str:
    """The root of a batch's leaves. One that was given up has none, and is on no chain."""
    leaf = payout_leaves.c
    query = select(leaf.wallet_address, leaf.cumulative_units).where(leaf.number == number)
    leaves = {wallet: units for wallet, units in await connection.execute(query)}
    return "0x" + payout_tree(leaves).root.hex() if leaves else ""


# ---- sum by sum


@dataclass(frozen=True)
class Concerned:
    """Whose sums are compared."""

    users: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()

    def __or__(self, other: Concerned) -> Concerned:
        return Concerned(self.users | other.users, self.providers | other.providers, self.channels | other.channels)


async def last_entry(connection: AsyncConnection) -> int:
    """The newest line of the books."""
    return int((await connection.execute(select(func.coalesce(func.max(entries.c.id), 0)))).scalar_one())


async def concerned_since(connection: AsyncConnection, entry: int | None) -> Concerned:
    """Users and providers whose money has moved in the books after a line; without one, all there are."""
    kinds = [book.value for book in (*_OF_USERS, Book.PROVIDER_PAID)]
    query = select(accounts.c.kind, accounts.c.owner).where(accounts.c.kind.in_(kinds))
    if entry is not None:
        moved = entries.c.id > entry - LATE_LINES
        query = query.join(entries, entries.c.account_id == accounts.c.id).where(moved).distinct()
    rows = (await connection.execute(query)).all()
    providers = frozenset(owner for kind, owner in rows if kind == Book.PROVIDER_PAID.value)
    users = frozenset(owner for kind, owner in rows if kind != Book.PROVIDER_PAID.value)
    return Concerned(users, providers)


async def channels_of(connection: AsyncConnection, users: Collection[str], escrow: str) -> set[str]:
    """The channels of these users."""
    found: set[str] = set()
    for some in _chunks(users):
        here = payment_channels.c.user_wallet.in_(some) & (payment_channels.c.escrow_address == escrow)
        found.update((await connection.execute(select(payment_channels.c.channel_id).where(here))).scalars())
    return found


async def read_sums(connection: AsyncConnection, books: Books, concerned: Concerned, escrow: str) -> Books:
    """What the books say of these users, providers and channels, of the platform and of the pool."""
    users = concerned.users
    deposits = await _balances(connection, Book.USER_DEPOSIT, users)
    in_channels = await _balances(connection, Book.USER_CHANNEL, users)
    channels = await _channels(connection, concerned.channels)
    payers = in_channels.keys() | {row.user for row in channels.values()}
    return replace(
        books,
        deposits=deposits,
        in_channels={wallet: in_channels.get(wallet, 0) for wallet in payers},
        spent_in_channels=await _spent_in_channels(connection, payers),
        odd=await _odd(connection, users),
        channels=channels,
        paid=await _balances(connection, Book.PROVIDER_PAID, concerned.providers),
        by_roots=await _by_roots(connection, concerned.providers),
        platform_paid=await ledger.balance(connection, Account(Book.PLATFORM_PAID, PLATFORM)),
        pool=await _pool(connection, escrow),
    )


async def _balances(connection: AsyncConnection, book: Book, owners: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _chunks(owners):
        balances = await ledger.balances(connection, [Account(book, owner) for owner in some])
        found |= {account.owner: units for account, units in balances.items()}
    return found


async def _spent_in_channels(connection: AsyncConnection, users: Collection[str]) -> dict[str, int]:
    table = inference_sessions.c
    spent = case(
        (table.status.in_([status.value for status in OPEN]), table.held_units),
        else_=func.coalesce(table.total_cost_units, 0),
    )
    found: dict[str, int] = {}
    for some in _chunks(users):
        query = (
            select(table.user_wallet, func.sum(spent))
            .where(table.user_wallet.in_(some), table.payment == Payment.CHANNEL.value)
            .group_by(table.user_wallet)
        )
        found |= {wallet: int(units) for wallet, units in await connection.execute(query)}
    return found


async def _odd(connection: AsyncConnection, users: Collection[str]) -> dict[str, int]:
    table = chain_events.c
    is_odd = and_(table.vanished_at.is_(None), table.amount_wei != "0", table.amount_wei.not_like("%000000000"))
    found: dict[str, int] = {}
    for some in _chunks(users):
        query = select(table.wallet_address, func.count()).where(table.wallet_address.in_(some), is_odd)
        found |= {wallet: count for wallet, count in await connection.execute(query.group_by(table.wallet_address))}
    return found


async def _channels(connection: AsyncConnection, ids: Collection[str]) -> dict[str, ChannelRow]:
    table = payment_channels.c
    found = {}
    for some in _chunks(ids):
        query = select(table.channel_id, table.user_wallet, table.deposit_units, table.redeemed_units)
        for channel_id, user, deposited, redeemed in await connection.execute(query.where(table.channel_id.in_(some))):
            found[channel_id] = ChannelRow(user, deposited, redeemed)
    return found


async def _by_roots(connection: AsyncConnection, providers: Collection[str]) -> dict[str, int]:
    is_committed = and_(
        chain_outbox.c.idempotency_key == literal(f"{Kind.COMMIT}:{BATCH}") + cast(payout_leaves.c.number, String),
        chain_outbox.c.status == RowStatus.CONFIRMED.value,
    )
    found: dict[str, int] = {}
    for some in _chunks(providers):
        query = (
            select(payout_leaves.c.wallet_address, func.max(payout_leaves.c.cumulative_units))
            .join(chain_outbox, is_committed)
            .where(payout_leaves.c.wallet_address.in_(some))
            .group_by(payout_leaves.c.wallet_address)
        )
        found |= {wallet: units for wallet, units in await connection.execute(query)}
    return found


async def _pool(connection: AsyncConnection, escrow: str) -> int:
    waiting = func.sum(payment_channels.c.redeemed_units - payment_channels.c.netted_units)
    here = payment_channels.c.escrow_address == escrow
    return int((await connection.execute(select(func.coalesce(waiting, 0)).where(here))).scalar_one())


# ---- the settler's nonces


async def newest_signed(connection: AsyncConnection) -> str | None:
    """What the settler has signed last."""
    query = select(chain_attempts.c.raw_tx).order_by(chain_attempts.c.id.desc()).limit(1)
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def transactions_by_nonce(connection: AsyncConnection, first: int | None, end: int) -> dict[int, list[str]]:
    """What was signed with the nonces from ``first`` (or the lowest that was ever signed with) to before ``end``."""
    table = chain_attempts.c
    if first is None:
        lowest: int | None = (await connection.execute(select(func.min(table.nonce)))).scalar_one()
        first = end if lowest is None else lowest
    query = select(table.nonce, table.tx_hash).where(table.nonce >= first, table.nonce < end)
    found: dict[int, list[str]] = {nonce: [] for nonce in range(first, end)}
    for nonce, tx_hash in await connection.execute(query):
        found[nonce].append(tx_hash)
    return found


def new_result(block: int, findings: Sequence[Mapping[str, str]]) -> Result:
    """Now."""
    return Result(now(), block, findings)
