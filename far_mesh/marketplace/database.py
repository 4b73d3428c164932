"""The database: who opens it, who closes it, and the ways to speak with it.

``reading()`` changes nothing, ``snapshot()`` is a reading whose statements all see one moment, ``writing()`` is a
transaction that is committed when the block ends and undone when it raises. Nobody else commits.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, DateTime, Engine, Interval, Table, event, func, literal, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.sqlite import SharedCommit, direct_connection
from far_mesh.marketplace.tables import UtcDateTime

try:
    from asyncpg import PostgresError as _PostgresError  # type: ignore[import-untyped]
except ModuleNotFoundError:  # it comes with far-mesh[postgres]; without it there is nobody to say anything

    class _PostgresError(Exception):  # type: ignore[no-redef]
        """Never raised."""


BUSY_TIMEOUT_MS = 15_000
POSTGRESQL_CONNECTIONS = 16
REST_SECONDS = 5.0
POOL_SECONDS = 10.0
_WRITING = "far_writing"
_AWAY = ("08", "53", "57P")  # https://www.postgresql.org/docs/current/errcodes-appendix.html


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    # We begin transactions ourselves (below); the driver's own habit of beginning late would read before it locks.
    raw.isolation_level = None
    cursor = raw.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns into a writer half-way can fail at once; a writer takes the lock first.
    writing = connection.get_execution_options().get(_WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _ping_after_a_rest(engine: Engine) -> None:
    """A connection that was not used for a while may have been cut: it is asked first. Those in use are not, as the
    question costs as much as a statement."""

    @event.listens_for(engine, "checkin")
    def returned(_raw: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def taken(raw: Any, record: Any, _proxy: Any) -> None:
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at < REST_SECONDS:
            return
        try:
            engine.dialect.do_ping(raw)
        except Exception as error:  # whatever the driver says: the pool opens another one
            raise DisconnectionError("the connection was cut") from error


def create_engine(url: str) -> AsyncEngine:
    """An engine for SQLite (aiosqlite) or PostgreSQL (asyncpg). Errors never show the values of a statement."""
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_async_engine(
            url, hide_parameters=True, pool_size=POSTGRESQL_CONNECTIONS, max_overflow=0, pool_timeout=POOL_SECONDS
        )
        _ping_after_a_rest(engine.sync_engine)
        return engine
    direct = {"async_creator_fn": direct_connection}
    engine = create_async_engine(url, hide_parameters=True, pool_size=8, max_overflow=0, connect_args=direct)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors of reachability become ours; broken constraints and mistakes in SQL stay what they are."""
    try:
        yield
    except (OperationalError, PoolTimeout, OSError) as error:
        raise DatabaseUnavailable("the database does not answer; try again in a moment", retry_after=1.0) from error
    except DBAPIError as error:
        if not error.connection_invalidated and not _is_away(error.orig):
            raise
        raise DatabaseUnavailable("the connection to the database was lost; try again", retry_after=1.0) from error
    except _PostgresError as error:  # what the driver says while it connects is wrapped by nobody
        if not _is_away(error):
            raise
        raise DatabaseUnavailable("the database takes nobody now; try again", retry_after=1.0) from error


def _is_away(error: BaseException | None) -> bool:
    """Whether PostgreSQL says that it cannot be reached, is full, starts or stops."""
    return str(getattr(error, "sqlstate", None) or "").startswith(_AWAY)


def insert_if_absent(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """``INSERT … ON CONFLICT DO NOTHING`` in the words of the connection's database."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def moment(connection: AsyncConnection, after: timedelta = timedelta(0)) -> ColumnElement[datetime]:
    """The present by the database's clock, which all gateways share, or ``after`` later."""
    if connection.dialect.name == "sqlite":
        return literal(now() + after, UtcDateTime)
    # The moment of asking, not that in which the transaction began: it may have waited for a lock since.
    return func.clock_timestamp(type_=DateTime(timezone=True)) + literal(after, Interval)


class Database:
    """Owner of the engine."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        # SQLite lets one writer in at a time and makes the others poll; inside a process a queue is fairer and faster.
        self._shared = SharedCommit(self._write) if self.is_sqlite else None

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that changes nothing.

        Raises:
            DatabaseUnavailable: it does not answer in time.
        """
        with _translated():
            async with self._engine.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Like :meth:`reading`, and what others commit meanwhile is not seen.

        Raises:
            DatabaseUnavailable: it does not answer in time.
        """
        with _translated():
            async with self._engine.connect() as connection:
                if not self.is_sqlite:  # where every transaction is one already
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                async with connection.begin():
                    yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that is committed at the end of the block.

        Raises:
            DatabaseUnavailable: it does not answer in time.
        """
        with _translated():
            async with self._shared.turn() if self._shared else self._write() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            await connection.execution_options(**{_WRITING: True})
            async with connection.begin():
                yield connection

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many there may be."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.size()

    async def check(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: no answer.
        """
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))
