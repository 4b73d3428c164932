"""What outlives the process: who was seen when, who has registered, and what the DHT would not tell again.

SQLite, or PostgreSQL for several of us behind one address. Nothing here is money, so SQLite need not wait for the disk
at each commit (``synchronous=NORMAL`` loses the last writes with the power, and never the file).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Table,
    bindparam,
    case,
    delete,
    event,
    func,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from discovery.probe.history import HOUR, KEEP_HOURS, KEY, SUMS, Hour
from discovery.probe.observation import KEEP_REPORT_SECONDS, SignedReport
from discovery.service.errors import MirrorFull
from discovery.service.migrations import upgrade
from discovery.service.mirror import Entry
from discovery.service.tables import kept, nodes, probed, probers, reports
from discovery.web.errors import DatabaseUnavailable, InvalidSetting
from discovery.web.registration import RegistrationRequest

BUSY_TIMEOUT_MS = 15_000
CHUNK = 500
KEEP_SECONDS, KEEP_IDLE_SECONDS = 30 * 24 * 3600, 24 * 3600
"""After that a node that was not seen is forgotten; one that has registered and was never active."""
MOST_SEEN = 100_000
"""Nodes of which a note is kept; ids cost nothing."""
MOST_REPORTS = 1024
"""Of each prober, of 16 KiB each at most."""
_WRITING = "far_writing"
_UPGRADE = 0x6661722D64697363

_HARDWARE = ("model_id", "gpu_model", "vram_gb", "location", "public_addr")


@dataclass(frozen=True)
class NodeRow:
    """What is kept of a node. Times are seconds since 1970.

    Attributes:
        seen_seconds: for how long it was active since ``first_seen``, in all.
        proven_at: the time that node and wallet have signed; None: it is not registered.
        heard_at: the time of the last heartbeat, by the node's clock; ``claims`` is what it said.
    """

    peer_id: str
    wallet: str
    first_seen: int
    last_seen: int
    seen_seconds: int
    changed_at: int
    model_id: str | None
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    public_addr: str | None
    proven_at: float | None
    heard_at: float | None
    claims: Mapping[str, Any] | None

    @property
    def is_registered(self) -> bool:
        """Whether node and wallet have signed, and it was not only seen."""
        return self.proven_at is not None

    def says_it_is_ill(self, now: float, expiry_seconds: float) -> bool:
        """Whether its last heartbeat, if that was lately, said that it is not healthy."""
        if self.claims is None or self.heard_at is None or now - self.heard_at > expiry_seconds:
            return False
        return self.claims.get("is_healthy") is False


class Store:
    """Owner of the database. Use :meth:`open`, and :meth:`close` at the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> Store:
        """Open the database at a SQLAlchemy URL with an async driver, and bring its tables up to date.

        Raises:
            InvalidSetting: the URL is none.
            DatabaseUnavailable: it does not answer.
        """
        store = cls(_create_engine(url))
        try:
            async with store._writing() as connection:
                if connection.dialect.name == "postgresql":  # several of us may begin at once
                    await connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE)))
                await connection.run_sync(upgrade)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def check(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: no answer.
        """
        async with self._reading() as connection:
            await connection.execute(text("SELECT 1"))

    # ---- registrations

    async def register(self, said: RegistrationRequest, wallet: str, at: float) -> bool:
        """What a node and its wallet have signed counts from now on. False: something as new counts already.

        Raises:
            MirrorFull: there are as many nodes as may be, and this is another one.
        """
        proven_at = said.issued_at.timestamp()
        values = {name: getattr(said, name) for name in _HARDWARE}
        values |= {"wallet": wallet, "proven_at": proven_at, "changed_at": int(at)}
        async with self._writing() as connection:
            one = select(nodes.c.peer_id).where(nodes.c.peer_id == said.node_id)
            if (await connection.execute(one)).one_or_none() is None and await _count(connection) >= MOST_SEEN:
                raise MirrorFull(f"{MOST_SEEN} nodes are known already, and there is no room for more")
            await connection.execute(_insert(connection, nodes), [_blank(said.node_id, wallet, int(at))])
            older = or_(nodes.c.proven_at.is_(None), nodes.c.proven_at < proven_at)
            changed = update(nodes).where(nodes.c.peer_id == said.node_id, older).values(**values)
            return (await connection.execute(changed)).rowcount == 1

    async def heard(self, peer_id: str, claims: Mapping[str, Any], heard_at: float, at: float) -> bool:
        """A registered node said how it is. False: it is not registered, or said something as new already."""
        newer = or_(nodes.c.heard_at.is_(None), nodes.c.heard_at < heard_at)
        changed = update(nodes).where(nodes.c.peer_id == peer_id, nodes.c.proven_at.is_not(None), newer)
        values = {"claims": dict(claims), "heard_at": heard_at, "changed_at": int(at)}
        async with self._writing() as connection:
            return (await connection.execute(changed.values(**values))).rowcount == 1

    async def count_registered(self, wallet: str, without: str) -> int:
        """How many nodes of a wallet are registered, not counting one."""
        mine = (nodes.c.wallet == wallet) & nodes.c.proven_at.is_not(None) & (nodes.c.peer_id != without)
        async with self._reading() as connection:
            return int((await connection.execute(select(func.count()).where(mine))).scalar_one())

    async def find(self, peer_id: str) -> NodeRow | None:
        """What is kept of a node."""
        async with self._reading() as connection:
            row = (await connection.execute(select(nodes).where(nodes.c.peer_id == peer_id))).one_or_none()
        return None if row is None else NodeRow(**row._mapping)

    async def registered_since(self, changed_at: float) -> list[NodeRow]:
        """Registered nodes whose registration or heartbeat was written since."""
        new = select(nodes).where(nodes.c.proven_at.is_not(None), nodes.c.changed_at >= int(changed_at))
        async with self._reading() as connection:
            return [NodeRow(**row._mapping) for row in await connection.execute(new)]

    # ---- who was seen when

    async def saw(self, wallets: Mapping[str, str], since: float, until: float) -> int:
        """These nodes, each with the wallet that it announces, were active from ``since`` to ``until``; those that are
        new are since now. What others beside us have written down is not counted twice. How many there was no room for.
        """
        first, last = int(since), int(until)
        left_out = 0
        async with self._writing() as connection:
            there = {
                peer_id
                for some in _chunks(sorted(wallets))
                for (peer_id,) in await connection.execute(select(nodes.c.peer_id).where(nodes.c.peer_id.in_(some)))
            }
            new = sorted(wallets.keys() - there)
            if new:
                welcome = new[: max(0, MOST_SEEN - await _count(connection))]
                left_out = len(new) - len(welcome)
                blanks = [_blank(peer_id, wallets[peer_id], last) for peer_id in welcome]
                for some in _chunks(blanks):
                    await connection.execute(_insert(connection, nodes), list(some))
            seen = nodes.c.seen_seconds + case(
                (nodes.c.last_seen >= last, literal(0, BigInteger)),
                (nodes.c.last_seen > first, last - nodes.c.last_seen),
                else_=literal(last - first, BigInteger),
            )
            later = case((nodes.c.last_seen > last, nodes.c.last_seen), else_=literal(last, BigInteger))
            mark = update(nodes).where(nodes.c.peer_id == bindparam("one")).values(seen_seconds=seen, last_seen=later)
            for some in _chunks([{"one": peer_id} for peer_id in sorted(wallets)]):
                await connection.execute(mark, list(some))
        return left_out

    async def forget(self, now: float) -> None:
        """Forget nodes that nobody has seen or heard for a month, and those that were never active sooner; what
        probers have seen more than a week ago, and what they signed more than a day ago."""
        async with self._writing() as connection:
            await connection.execute(delete(probed).where(probed.c.hour < int(now) - KEEP_HOURS * HOUR))
            await connection.execute(delete(reports).where(reports.c.issued_at < int(now) - int(KEEP_REPORT_SECONDS)))
            for seconds, which in ((KEEP_SECONDS, true()), (KEEP_IDLE_SECONDS, nodes.c.seen_seconds == 0)):
                before = int(now) - seconds
                old = (nodes.c.last_seen < before) & (func.coalesce(nodes.c.heard_at, nodes.c.proven_at, 0) < before)
                await connection.execute(delete(nodes).where(which, old))

    # ---- announcements

    async def keep(self, entries: Sequence[Entry], forget_before: float) -> None:
        """Keep these, each instead of the one before it, and forget those that were issued before a time."""
        values = [
            {
                "peer_id": one.peer_id,
                "model_digest": one.announcement.model_digest,
                "issued_at": one.announcement.issued_at,
                "source": one.source.value,
                "document": one.signed.to_bytes(),
            }
            for one in sorted(entries, key=lambda one: (one.peer_id, one.announcement.model_digest))
        ]
        async with self._writing() as connection:
            await connection.execute(delete(kept).where(kept.c.issued_at < int(forget_before)))
            insert = _insert_into(connection, kept)
            replace = insert.on_conflict_do_update(
                index_elements=[kept.c.peer_id, kept.c.model_digest],
                set_={name: insert.excluded[name] for name in ("issued_at", "source", "document")},
                where=insert.excluded.issued_at > kept.c.issued_at,
            )
            for some in _chunks(values):
                await connection.execute(replace, list(some))

    async def kept(self) -> list[tuple[str, bytes]]:
        """The sources and documents of the announcements that are kept."""
        async with self._reading() as connection:
            rows = await connection.execute(select(kept.c.source, kept.c.document).order_by(kept.c.issued_at))
            return [(row.source, bytes(row.document)) for row in rows]

    # ---- what probers have seen

    async def add_probes(self, signed: SignedReport, hours: Sequence[Hour]) -> bool:
        """Keep a report, and add what counts of it. False: its prober has sent one with this number, or a later one,
        already."""
        prober, sequence = signed.document.signer, signed.report.sequence
        async with self._writing() as connection:
            await connection.execute(_insert(connection, probers), [{"prober": prober, "sequence": 0}])
            earlier = (probers.c.prober == prober) & (probers.c.sequence < sequence)
            if (await connection.execute(update(probers).where(earlier).values(sequence=sequence))).rowcount != 1:
                return False
            await self._keep_report(connection, signed)
            insert = _insert_into(connection, probed)
            new, old = insert.excluded, probed.c
            shorter = or_(old.round_trip_ms.is_(None), new.round_trip_ms < old.round_trip_ms)
            later = new.last_at > old.last_at
            add = insert.on_conflict_do_update(
                index_elements=list(KEY),
                set_={name: old[name] + new[name] for name in SUMS}
                | {
                    "round_trip_ms": case((shorter, new.round_trip_ms), else_=old.round_trip_ms),
                    "last_at": case((later, new.last_at), else_=old.last_at),
                },
            )
            values = [asdict(one) for one in sorted(hours, key=lambda one: one.key)]
            for some in _chunks(values):
                await connection.execute(add, list(some))
        return True

    async def probes_of(self, peer_id: str, since: float) -> list[Hour]:
        """What probers have seen of a node in the hours that began since, the newest first."""
        newest = (probed.c.hour.desc(), probed.c.model_digest, probed.c.prober)
        those = select(probed).where(probed.c.peer_id == peer_id, probed.c.hour >= int(since)).order_by(*newest)
        async with self._reading() as connection:
            return [Hour(**row._mapping) for row in await connection.execute(those)]

    async def reports_of(self, prober: str, after: int, limit: int) -> list[bytes]:
        """The documents of a prober's reports with numbers above ``after``, in their order."""
        later = (reports.c.prober == prober) & (reports.c.sequence > after)
        those = select(reports.c.document).where(later).order_by(reports.c.sequence).limit(limit)
        async with self._reading() as connection:
            return [bytes(document) for document in (await connection.execute(those)).scalars()]

    async def _keep_report(self, connection: AsyncConnection, signed: SignedReport) -> None:
        report, mine = signed.report, reports.c.prober == signed.document.signer
        values = {"prober": report.peer_id, "sequence": report.sequence, "issued_at": report.issued_at}
        await connection.execute(_insert(connection, reports), [values | {"document": signed.document.to_bytes()}])
        newest = select(reports.c.sequence).where(mine).order_by(reports.c.sequence.desc())
        too_many = newest.offset(MOST_REPORTS).limit(1).scalar_subquery()
        await connection.execute(delete(reports).where(mine, reports.c.sequence <= too_many))

    # ---- inside

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with _Translated():
            async with self._engine.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        with _Translated():
            async with self._engine.connect() as connection:
                await connection.execution_options(**{_WRITING: True})
                async with connection.begin():
                    yield connection


class _Translated:
    """Errors of reachability become ours; mistakes in SQL stay what they are."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        is_cut = isinstance(error, DBAPIError) and error.connection_invalidated
        if is_cut or isinstance(error, OperationalError | PoolTimeout | OSError):
            raise DatabaseUnavailable("the database does not answer; try again in a moment", retry_after=1.0) from error


def _create_engine(url: str) -> AsyncEngine:
    try:
        kind = make_url(url).get_backend_name()
        if kind != "sqlite":
            return create_async_engine(url, hide_parameters=True, pool_size=8, max_overflow=0, pool_pre_ping=True)
        engine = create_async_engine(url, hide_parameters=True, pool_size=4, max_overflow=0)
    except (ArgumentError, ImportError):
        raise InvalidSetting(
            "the database's URL is none: it looks like sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME"
        ) from None
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    # We begin transactions ourselves (below); the driver's own habit of beginning late would read before it locks.
    raw.isolation_level = None
    cursor = raw.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a writer half-way can fail at once; a writer takes the lock first.
    writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _insert_into(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    return _insert_into(connection, table).on_conflict_do_nothing()


async def _count(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(func.count()).select_from(nodes))).scalar_one())


def _blank(peer_id: str, wallet: str, at: int) -> dict[str, Any]:
    seen = {"first_seen": at, "last_seen": at, "seen_seconds": 0, "changed_at": at}
    return {"peer_id": peer_id, "wallet": wallet, **seen}


def _chunks(values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
