"""Transactions, migrations and what the tables do not have."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.tables import APPEND_ONLY, gateways, metadata


async def add(connection: AsyncConnection, name: str) -> None:
    await connection.execute(gateways.insert().values(name=name, incarnation="i", alive_until=now()))


async def test_migrations_lead_to_the_tables_that_the_code_knows(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_upgrading_again_changes_nothing(database_url: str) -> None:
    await upgrade(database_url)
    await upgrade(database_url)
    database = Database(database_url)
    await database.check()
    await database.close()


async def test_there_is_no_column_for_what_was_said(database: Database) -> None:
    async with database.reading() as connection:
        names = await connection.run_sync(
            lambda c: {column["name"] for table in metadata.tables for column in inspect(c).get_columns(table)}
        )
    assert {"held_units", "receipt"} <= names
    assert not [name for name in names if name in {"prompt", "completion", "text", "message", "messages", "answer"}]


async def test_an_exception_undoes_the_whole_transaction(database: Database) -> None:
    async def write_and_fail() -> None:
        async with database.writing() as connection:
            await add(connection, "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await write_and_fail()
    async with database.reading() as connection:
        assert (await connection.execute(select(gateways))).all() == []


async def test_many_writers_wait_for_each_other(database: Database) -> None:
    async def write(name: str) -> None:
        async with database.writing() as connection:
            await connection.execute(select(gateways))
            await add(connection, name)

    await asyncio.gather(*(write(str(index)) for index in range(50)))
    async with database.reading() as connection:
        assert len((await connection.execute(select(gateways))).all()) == 50


async def test_two_processes_may_write_one_sqlite_file(sqlite_url: str) -> None:
    one, other = Database(sqlite_url), Database(sqlite_url)

    async def write(database: Database, name: str) -> None:
        async with database.writing() as connection:
            await connection.execute(select(gateways))
            await add(connection, name)

    await asyncio.gather(*(write((one, other)[index % 2], str(index)) for index in range(30)))
    async with one.reading() as connection:
        assert len((await connection.execute(select(gateways))).all()) == 30
        pragmas = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]
    await one.close()
    await other.close()


async def test_a_database_that_is_not_there_is_a_clear_error() -> None:
    database = Database("sqlite+aiosqlite:////nowhere/at/all.db")
    with pytest.raises(DatabaseUnavailable):
        await database.check()
    await database.close()
    await asyncio.sleep(0.05)  # the driver's thread tells the loop once more that it could not open the file


@pytest.mark.parametrize("sqlstate", ["57P03", "53300", "08004"])
async def test_a_server_that_takes_nobody_is_a_clear_error(sqlstate: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        said = f"SFATAL\0VFATAL\0C{sqlstate}\0Mnot now\0\0".encode()
        writer.write(b"E" + (len(said) + 4).to_bytes(4, "big") + said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        database = Database(f"postgresql+asyncpg://far@127.0.0.1:{port}/far?ssl=disable")
        with pytest.raises(DatabaseUnavailable):
            await database.check()
        await database.close()


async def test_a_connection_that_is_cut_in_the_middle_of_a_statement_is_a_clear_error(postgresql_url: str) -> None:
    database = Database(postgresql_url)

    async def wait() -> None:
        async with database.reading() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    waiting = asyncio.create_task(wait())
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'")
    async with asyncio.timeout(30):
        while not waiting.done():
            async with database.reading() as connection:
                await connection.execute(cut)
            await asyncio.sleep(0.05)
    with pytest.raises(DatabaseUnavailable):
        await waiting
    await database.check()
    await database.close()


def test_the_books_are_what_is_append_only() -> None:
    assert APPEND_ONLY == ("accounts", "postings", "entries")
