"""Writers who share a commit: each has its own success or failure, and none returns before the disk has it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.tables import gateways


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    opened = Database(sqlite_url)
    yield opened
    await opened.close()


async def add(connection: AsyncConnection, name: str) -> None:
    await connection.execute(gateways.insert().values(name=name, incarnation="i", alive_until=now()))


async def write(database: Database, name: str, fail: bool = False) -> None:
    async with database.writing() as connection:
        await add(connection, name)
        if fail:
            raise RuntimeError(name)


async def names(database: Database) -> set[str]:
    async with database.reading() as connection:
        return set((await connection.execute(select(gateways.c.name))).scalars())


@pytest.mark.parametrize("failing", [{0}, {3}, {9}, {0, 1, 2}, {0, 5, 9}, set(range(10))])
async def test_who_fails_undoes_its_own_work_alone(database: Database, failing: set[int]) -> None:
    acts = [write(database, str(index), index in failing) for index in range(10)]
    done = await asyncio.gather(*acts, return_exceptions=True)
    assert {index for index, one in enumerate(done) if isinstance(one, RuntimeError)} == failing
    assert await names(database) == {str(index) for index in range(10) if index not in failing}


async def test_a_writer_who_is_cancelled_while_it_waits_holds_nobody_up(database: Database) -> None:
    gate, inside = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.writing() as connection:
            await add(connection, "first")
            inside.set()
            await gate.wait()

    running = asyncio.create_task(first())
    await inside.wait()
    waiting = [asyncio.create_task(write(database, str(index))) for index in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[2].cancel()
    gate.set()
    await running
    await waiting[1]
    assert await names(database) == {"first", "1"}


async def test_a_writer_who_is_cancelled_in_its_turn_is_undone(database: Database) -> None:
    inside = asyncio.Event()

    async def stuck() -> None:
        async with database.writing() as connection:
            await add(connection, "stuck")
            inside.set()
            await asyncio.sleep(60)

    running = asyncio.create_task(stuck())
    await inside.wait()
    other = asyncio.create_task(write(database, "other"))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await other
    assert await names(database) == {"other"}


async def test_nobody_returns_before_another_process_can_see_it(database: Database, sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite+aiosqlite:///")

    async def seen(name: str) -> bool:
        await write(database, name)
        with sqlite3.connect(path) as other:
            rows = other.execute("SELECT name FROM gateways WHERE name = ?", (name,)).fetchall()
        return rows == [(name,)]

    assert all(await asyncio.gather(*(seen(str(index)) for index in range(20))))


async def test_when_the_database_undoes_everything_by_itself_everybody_is_told(database: Database) -> None:
    """As it does when the disk is full. Those who had written already must not believe that it is kept."""

    async def ruin() -> None:
        async with database.writing() as connection:
            await connection.execute(text("ROLLBACK"))
            raise RuntimeError

    acts = [write(database, "before"), write(database, "too"), ruin(), write(database, "after")]
    done = await asyncio.gather(*acts, return_exceptions=True)
    assert [type(one) for one in done[:2]] == [DatabaseUnavailable, DatabaseUnavailable]
    assert done[3] is None
    assert await names(database) == {"after"}


async def test_the_writer_of_another_process_is_waited_for_without_stopping_the_loop(
    database: Database, sqlite_url: str
) -> None:
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(write(database, "late"))
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    await writing
    assert await names(database) == {"late"}
