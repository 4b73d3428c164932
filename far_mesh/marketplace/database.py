"""The database: who opens it, who closes it, and the two ways to speak with it.

``reading()`` is a snapshot, ``writing()`` is a transaction that is committed when the block ends and undone when it
raises. Nobody else commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from far_mesh.marketplace.errors import DatabaseUnavailable

BUSY_TIMEOUT_MS = 15_000
_WRITING = "far_writing"


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


def create_engine(url: str) -> AsyncEngine:
    """An engine for SQLite (aiosqlite) or PostgreSQL (asyncpg). Errors never show the values of a statement."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(url, hide_parameters=True, pool_pre_ping=True)
    engine = create_async_engine(url, hide_parameters=True, pool_size=8, max_overflow=0)
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
        if not error.connection_invalidated:
            raise
        raise DatabaseUnavailable("the connection to the database was lost; try again", retry_after=1.0) from error


def insert_if_absent(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """``INSERT … ON CONFLICT DO NOTHING`` in the words of the connection's database."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


class Database:
    """Owner of the engine."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        # SQLite lets one writer in at a time and makes the others poll; inside a process a queue is fairer and faster.
        self._one_writer = asyncio.Lock() if self.is_sqlite else None

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
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that is committed at the end of the block.

        Raises:
            DatabaseUnavailable: it does not answer in time.
        """
        async with AsyncExitStack() as stack:
            if self._one_writer is not None:
                await stack.enter_async_context(self._one_writer)
            stack.enter_context(_translated())
            connection = await stack.enter_async_context(self._engine.connect())
            await connection.execution_options(**{_WRITING: True})
            await stack.enter_async_context(connection.begin())
            yield connection

    async def check(self) -> None:
        """One round trip.

        Raises:
            DatabaseUnavailable: no answer.
        """
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))
