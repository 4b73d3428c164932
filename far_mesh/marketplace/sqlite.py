"""What makes SQLite quick enough for money, without giving up that a commit is on the disk when it returns.

:func:`direct_connection`
    The driver speaks with a thread of its own three or four times for each statement, which costs more than the
    statement, and far more where others want the processor too. Here statements run where they are asked for; what may
    wait (opening, taking the write lock, committing) is left to the thread.
:class:`SharedCommit`
    SQLite has one writer, and waits for the disk at each commit. Writers that wait for their turn anyway share one
    transaction: each has a savepoint, and none returns before all of it is committed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.errors import DatabaseUnavailable

MAY_WAIT = ("BEGIN IMMEDIATE", "PRAGMA")


class _Cursor:
    """A cursor that works in the caller's thread, and has fetched all its rows when ``execute`` returns."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._raw: sqlite3.Cursor | None = None
        self._rows: list[Any] = []
        self.arraysize = 1

    async def __aenter__(self) -> _Cursor:
        return self

    @property
    def description(self) -> Any:
        """Columns of the last statement."""
        return self._raw.description if self._raw else None

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""
        return self._raw.rowcount if self._raw else -1

    @property
    def lastrowid(self) -> int | None:
        """The last row that was inserted."""
        return self._raw.lastrowid if self._raw else None

    async def execute(self, sql: str, parameters: Any = ()) -> None:
        """Execute and fetch."""
        if sql.startswith(MAY_WAIT):
            await self._connection.in_thread(self._execute, sql, parameters)
        else:
            self._execute(sql, parameters)

    def _execute(self, sql: str, parameters: Any) -> None:
        self._raw = self._connection.raw.execute(sql, parameters)
        self._rows = self._raw.fetchall()

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> None:
        """Execute for each."""
        self._raw = self._connection.raw.executemany(sql, parameters)

    async def fetchall(self) -> list[Any]:
        """What was fetched."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is left open."""


class _Connection(aiosqlite.Connection):
    """The driver's connection with :class:`_Cursor`: its thread does what may wait for a lock or for the disk."""

    @property
    def raw(self) -> sqlite3.Connection:
        """What the driver wraps."""
        return self._conn

    async def in_thread(self, act: Callable[..., None], *arguments: Any) -> None:
        """Let the driver's thread do it."""
        await self._execute(act, *arguments)  # type: ignore[no-untyped-call]

    def cursor(self) -> Any:
        """A cursor, without asking the thread."""
        return _Cursor(self)


def direct_connection(path: str, **options: Any) -> aiosqlite.Connection:
    """What the engine opens in place of ``aiosqlite.connect``."""
    connection = _Connection(
        lambda: sqlite3.connect(path, **{**options, "check_same_thread": False}), iter_chunk_size=64
    )
    connection._thread.daemon = True  # as SQLAlchemy has it: a connection that was forgotten keeps no process alive
    return connection


class _Round:
    """A transaction that several writers share."""

    def __init__(self, connection: AsyncConnection, opened: AsyncExitStack) -> None:
        self.connection = connection
        self._opened = opened
        self.is_empty = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def commit(self) -> None:
        """End it; those who wait get to know how."""
        try:
            await self._opened.aclose()
        except BaseException as error:
            self.ended.set_exception(error)
            self.ended.exception()  # who wrote may have been cancelled: then nobody else asks for it
            if not isinstance(error, Exception):
                raise
        else:
            self.ended.set_result(None)

    async def undo(self, error: BaseException) -> None:
        """Undo it; those who have written get to know."""
        self.ended.set_exception(
            DatabaseUnavailable("the database could not write this; try again in a moment", retry_after=1.0)
        )
        self.ended.exception()
        await self._opened.__aexit__(type(error), error, error.__traceback__)

    async def is_lost(self) -> bool:
        """Whether the database has undone all of it by itself, as it does when the disk is full."""
        if self.connection.invalidated:
            return True
        raw = await self.connection.get_raw_connection()
        driver: aiosqlite.Connection | None = raw.driver_connection
        return driver is None or not driver.in_transaction


class SharedCommit:
    """Gives writers their turns, in the order they came. Those who wait when a round begins are in it."""

    def __init__(self, write: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._write = write
        self._turns = asyncio.Lock()
        self._round: _Round | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """A connection; what was written is on the disk at the end of the block. An exception undoes this block alone.

        Raises:
            DatabaseUnavailable: another one's failure has taken the whole round with it.
        """
        async with self._turns:
            shared = self._round or await self._begin()
            try:
                if shared.is_empty:
                    yield shared.connection
                else:
                    async with shared.connection.begin_nested():
                        yield shared.connection
            except BaseException as error:
                if shared.is_empty or await shared.is_lost():
                    self._round = None
                    await shared.undo(error)
                raise
            shared.is_empty = False
        await asyncio.shield(shared.ended)

    async def _begin(self) -> _Round:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._write())
            self._round = _Round(connection, stack.pop_all())
        # It waits for its turn like a writer, so everybody who is in the queue now comes before it.
        task = asyncio.create_task(self._end(self._round))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return self._round

    async def _end(self, shared: _Round) -> None:
        async with self._turns:
            if self._round is shared:
                self._round = None
                await shared.commit()
