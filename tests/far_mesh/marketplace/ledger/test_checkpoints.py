"""Checkpoints: a note of a sum, and never the truth."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import delete, event, select, text

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import repository, service
from far_mesh.marketplace.ledger.notes import Notes
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.tables import balance_checkpoints, entries
from tests.far_mesh.marketplace.house import ledger_of

USER = "0xUser"


async def deposit(database: Database, units: int, event: str, wallet: str = USER) -> None:
    async with database.writing() as connection:
        await service.deposit_seen(connection, wallet, units, event)


async def note(database: Database, at_least: int = 1) -> int:
    return await Notes(database, at_least).look()


async def available(database: Database, wallet: str = USER) -> int:
    async with database.reading() as connection:
        return (await service.balance_of(connection, wallet)).available


async def findings(database: Database) -> list[str]:
    async with database.snapshot() as connection:
        return [finding.kind for finding in (await verify(connection)).findings]


async def test_a_balance_is_the_note_and_what_came_after(database: Database) -> None:
    await deposit(database, 100, "a")
    assert await note(database) == 2  # the deposit and its other side
    await deposit(database, 10, "b")
    assert await available(database) == 110
    assert await note(database) == 2
    assert await note(database) == 0  # nothing is new
    assert await available(database) == 110
    assert await findings(database) == []


async def test_notes_are_made_when_there_are_enough_new_lines(database: Database) -> None:
    await deposit(database, 100, "a")
    assert await note(database, at_least=3) == 0
    await deposit(database, 100, "b")
    assert await note(database, at_least=3) == 2


async def test_without_the_notes_nothing_changes(database: Database) -> None:
    for name in "abc":
        await deposit(database, 7, name, wallet=f"0x{name}")
        await note(database)
    before = await ledger_of(database)
    async with database.writing() as connection:
        await connection.execute(delete(balance_checkpoints))
    assert await ledger_of(database) == before
    await deposit(database, 1, "d", wallet="0xd")
    await note(database)
    assert await ledger_of(database) == before | {
        account: units for account, units in (await ledger_of(database)).items() if account.owner == "0xd"
    }
    assert await findings(database) == []


async def test_one_note_that_is_gone_is_made_anew_from_the_beginning(database: Database) -> None:
    await deposit(database, 100, "a")
    await deposit(database, 50, "b", wallet="0xOther")
    await note(database)
    async with database.writing() as connection:
        row = (await connection.execute(select(balance_checkpoints.c.account_id).limit(1))).scalar_one()
        await connection.execute(delete(balance_checkpoints).where(balance_checkpoints.c.account_id == row))
    await deposit(database, 1, "c")
    await note(database)
    assert await available(database) == 101
    assert await findings(database) == []


async def test_a_wrong_note_is_found(database: Database) -> None:
    await deposit(database, 100, "a")
    await note(database)
    async with database.writing() as connection:
        await connection.execute(text("UPDATE balance_checkpoints SET balance_units = balance_units + 1"))
    assert await findings(database) == ["wrong_checkpoint", "wrong_checkpoint"]
    async with database.writing() as connection:
        await connection.execute(delete(balance_checkpoints))
    assert await findings(database) == []


async def test_a_note_of_lines_that_are_not_there_is_found(database: Database) -> None:
    await deposit(database, 100, "a")
    await note(database)
    async with database.writing() as connection:
        await connection.execute(text("UPDATE balance_checkpoints SET through_entry_id = 999"))
    assert await findings(database) == ["wrong_checkpoint", "wrong_checkpoint"]


async def test_on_postgresql_a_line_that_is_committed_late_is_not_left_out(postgresql_url: str) -> None:
    """The first of two writers gets the lower number and commits after the other: notes wait for it."""
    database, late = Database(postgresql_url), asyncio.Event()

    async def slow() -> None:
        async with database.writing() as connection:
            await service.deposit_seen(connection, USER, 100, "slow")
            begun.set()
            await late.wait()

    begun = asyncio.Event()
    writer = asyncio.create_task(slow())
    await begun.wait()
    await deposit(database, 10, "quick", wallet="0xOther")
    noting = asyncio.create_task(note(database))
    await asyncio.sleep(0.2)
    assert not noting.done()
    late.set()
    await writer
    assert await noting == 4
    assert await available(database) == 100
    async with database.reading() as connection:
        through = (await connection.execute(select(balance_checkpoints.c.through_entry_id).distinct())).scalars().all()
        newest = (await connection.execute(select(entries.c.id).order_by(entries.c.id.desc()).limit(1))).scalar_one()
    assert through == [newest]
    assert await findings(database) == []
    await database.close()


async def test_no_act_reads_all_accounts_or_all_lines(sqlite_url: str) -> None:
    """SQLite says how it would go about each statement: what is asked for a request is found by an index."""
    database = Database(sqlite_url)
    plans: list[str] = []

    def explain(raw: Any, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if sql.startswith(("SELECT", "INSERT")):
            first = parameters[0] if isinstance(parameters, list) else parameters
            rows = raw.driver_connection.raw.execute(f"EXPLAIN QUERY PLAN {sql}", first).fetchall()
            plans.extend(row[3] for row in rows)

    async with database.writing() as connection:
        raw = await connection.get_raw_connection()
        event.listen(connection.sync_connection, "before_cursor_execute", lambda _c, *rest: explain(raw, *rest))
        await service.deposit_seen(connection, USER, 100, "a")
        await service.hold(connection, USER, "r1", 50)
        await service.capture(connection, USER, "r1", Settlement(50, (("0xAnn", 30),), 10, 10))
        await service.payout_sent(connection, "p1", {"0xAnn": 30}, 10)
        await repository.keep_checkpoints(connection)
        await service.balance_of(connection, USER)
    assert len(plans) > 20
    assert not [plan for plan in plans if plan.startswith("SCAN")]
    await database.close()


async def test_notes_are_made_while_others_write(database: Database) -> None:
    writers = [deposit(database, 1, str(index)) for index in range(40)]
    await asyncio.gather(*writers, *(note(database) for _ in range(10)))
    assert await available(database) == 40
    assert await findings(database) == []
    async with database.reading() as connection:
        assert sum((await repository.totals(connection)).values()) == 0
