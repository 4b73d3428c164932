"""The books on SQLite and on PostgreSQL: balanced, once, never below zero."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, InsufficientBalance
from far_mesh.marketplace.ledger import repository, service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Balance, Book
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.tables import entries, postings
from tests.far_mesh.marketplace.house import ledger_of

USER, ANN, BOB = "0xUser", "0xAnn", "0xBob"


async def deposit(database: Database, units: int, event: str = "0xabc:1") -> bool:
    async with database.writing() as connection:
        return await service.deposit_seen(connection, USER, units, event)


async def hold(database: Database, request_id: str, units: int) -> bool:
    async with database.writing() as connection:
        return await service.hold(connection, USER, request_id, units)


async def capture(database: Database, request_id: str, held: int, ann: int, bob: int, fee: int) -> bool:
    divided = Settlement(held, ((ANN, ann), (BOB, bob)), fee, held - ann - bob - fee)
    async with database.writing() as connection:
        return await service.capture(connection, USER, request_id, divided)


async def release(database: Database, request_id: str) -> bool:
    async with database.writing() as connection:
        return await service.release_hold(connection, USER, request_id, "nothing came of it")


async def balance(database: Database) -> Balance:
    async with database.reading() as connection:
        return await service.balance_of(connection, USER)


async def test_a_request_from_deposit_to_payout(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "r1", 600)
    assert await balance(database) == Balance(available=400, held=600, deposited=1_000)
    await capture(database, "r1", 600, 240, 160, 100)
    assert await balance(database) == Balance(available=500, held=0, deposited=1_000)
    async with database.writing() as connection:
        assert await service.payout_confirmed(connection, "r1")
    books = await ledger_of(database)
    assert books[Account(Book.PROVIDER_OWED, ANN)] == books[Account(Book.FEES_OWED, PLATFORM)] == 0
    assert books[Account(Book.PROVIDER_CREDITED, ANN)] == 240
    assert books[Account(Book.PROVIDER_CREDITED, BOB)] == 160
    assert books[Account(Book.FEES_CREDITED, PLATFORM)] == 100
    assert sum(books.values()) == 0


async def test_every_act_is_booked_once(database: Database) -> None:
    assert [await deposit(database, 1_000), await deposit(database, 1_000)] == [True, False]
    assert [await hold(database, "r1", 600), await hold(database, "r1", 600)] == [True, False]
    done = [await capture(database, "r1", 600, 1, 2, 3) for _ in range(3)]
    assert done == [True, False, False]
    async with database.writing() as connection:
        assert [await service.payout_confirmed(connection, "r1") for _ in range(2)] == [True, False]
    assert await balance(database) == Balance(available=994, held=0, deposited=1_000)


async def test_a_request_is_captured_or_released_and_never_both(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "captured", 100)
    await hold(database, "released", 100)
    await capture(database, "captured", 100, 50, 30, 20)
    await release(database, "released")
    with pytest.raises(Conflict):
        await release(database, "captured")
    with pytest.raises(Conflict):
        await capture(database, "released", 100, 50, 30, 20)
    assert await balance(database) == Balance(available=900, held=0, deposited=1_000)


async def test_of_many_who_close_at_once_one_does(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "r1", 100)
    acts = [capture(database, "r1", 100, 50, 30, 20) if index % 2 else release(database, "r1") for index in range(20)]
    done = await asyncio.gather(*acts, return_exceptions=True)
    assert [one for one in done if one is True] == [True]
    assert all(one is False or one is True or isinstance(one, Conflict) for one in done)
    books = await ledger_of(database)
    assert books[Account(Book.USER_HELD, USER)] == 0
    assert sum(books.values()) == 0


async def test_a_hundred_holds_at_once_never_hold_more_than_there_is(database: Database) -> None:
    await deposit(database, 1_000)
    done = await asyncio.gather(*(hold(database, f"r{index}", 70) for index in range(100)), return_exceptions=True)
    assert sum(one is True for one in done) == 14
    assert sum(isinstance(one, InsufficientBalance) for one in done) == 86
    assert await balance(database) == Balance(available=20, held=980, deposited=1_000)


async def test_a_withdrawal_on_chain_is_booked_even_below_zero_and_stops_new_holds(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "r1", 900)
    async with database.writing() as connection:
        assert await service.withdrawal_seen(connection, USER, 300, "0xdef:1")
        assert not await service.withdrawal_seen(connection, USER, 300, "0xdef:1")
    assert await balance(database) == Balance(available=-200, held=900, deposited=700)
    with pytest.raises(InsufficientBalance):
        await hold(database, "r2", 1)
    await release(database, "r1")
    assert await hold(database, "r3", 700)


async def test_an_insufficient_balance_tells_both_amounts(database: Database) -> None:
    await deposit(database, 5)
    with pytest.raises(InsufficientBalance, match=r"6 units .* 5 are available") as caught:
        await hold(database, "r1", 6)
    assert (caught.value.status, caught.value.code) == (402, "insufficient_balance")


async def test_nothing_is_captured_or_paid_out_for_a_request_that_never_was(database: Database) -> None:
    with pytest.raises(Conflict):
        await capture(database, "ghost", 100, 50, 30, 20)
    with pytest.raises(Conflict):
        await release(database, "ghost")
    async with database.writing() as connection:
        with pytest.raises(Conflict):
            await service.payout_confirmed(connection, "ghost")


async def test_a_settlement_about_another_amount_is_refused(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "r1", 100)
    with pytest.raises(Conflict):
        await capture(database, "r1", 101, 50, 30, 20)


async def test_every_posting_balances_whatever_happens(database: Database) -> None:
    dice, numbers = random.Random(7), itertools.count()
    await deposit(database, 50_000)
    for _ in range(40):
        held, name = dice.randint(1, 2_000), f"r{next(numbers)}"
        await hold(database, name, held)
        ann = dice.randint(0, held)
        bob = dice.randint(0, held - ann)
        if dice.random() < 0.7:
            await capture(database, name, held, ann, bob, dice.randint(0, held - ann - bob))
        elif dice.random() < 0.5:
            await release(database, name)
    async with database.reading() as connection:
        sums = (await connection.execute(select(func.sum(entries.c.amount_units)).group_by(entries.c.posting_id))).all()
        assert len(sums) > 40
        assert {int(one[0]) for one in sums} == {0}
        assert sum((await repository.totals(connection)).values()) == 0


@pytest.mark.parametrize("table", ["postings", "entries"])
@pytest.mark.parametrize("act", ["UPDATE {} SET id = id", "DELETE FROM {}"])
async def test_the_books_cannot_be_changed_afterwards(database: Database, table: str, act: str) -> None:
    await deposit(database, 1_000)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text(act.format(table)))
    async with database.reading() as connection:
        assert (await connection.execute(select(func.count()).select_from(postings))).scalar_one() == 1


async def test_postgresql_refuses_to_truncate_the_books_too(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text("TRUNCATE entries"))
    await database.close()
