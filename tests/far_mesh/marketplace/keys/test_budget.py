"""What a key may spend in a day is counted to the unit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from far_mesh.marketplace.auth.principal import Scope
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import KeyLimitReached
from far_mesh.marketplace.keys import budget, repository
from far_mesh.marketplace.keys.schemas import NewKey
from far_mesh.marketplace.keys.text import hash_of, new_key
from far_mesh.marketplace.tables import api_key_days
from tests.support.documents import wallet_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 100


@pytest.fixture
async def key(database: Database) -> str:
    wanted, text = NewKey("k", frozenset({Scope.INFERENCE}), None, LIMIT), new_key()
    async with database.writing() as connection:
        made = await repository.add(connection, wallet_of("ann"), wanted, hash_of(text), text[:12], now())
    return made.id


async def reserve(database: Database, key: str, units: int, at: datetime = NOON) -> None:
    async with database.writing() as connection:
        await budget.reserve(connection, key, units, at)


async def counted(database: Database) -> list[int]:
    async with database.reading() as connection:
        return list((await connection.execute(select(api_key_days.c.units).order_by(api_key_days.c.day))).scalars())


async def test_up_to_the_limit_and_not_one_more(database: Database, key: str) -> None:
    await reserve(database, key, 60)
    with pytest.raises(KeyLimitReached) as caught:
        await reserve(database, key, 41)
    assert caught.value.retry_after == 12 * 3600
    await reserve(database, key, 40)
    with pytest.raises(KeyLimitReached):
        await reserve(database, key, 1)
    assert await counted(database) == [100]


async def test_what_was_not_needed_can_be_spent_again(database: Database, key: str) -> None:
    await reserve(database, key, 100)
    async with database.writing() as connection:
        await budget.give_back(connection, key, 30, NOON)
    await reserve(database, key, 30)
    with pytest.raises(KeyLimitReached):
        await reserve(database, key, 1)


async def test_a_day_ends_at_midnight_utc(database: Database, key: str) -> None:
    await reserve(database, key, 100, NOON)
    await reserve(database, key, 90, NOON + timedelta(hours=12))
    # What began before midnight is given back to the day that it was taken from.
    async with database.writing() as connection:
        await budget.give_back(connection, key, 50, NOON)
    assert await counted(database) == [50, 90]


async def test_more_is_never_given_back_than_was_taken(database: Database, key: str) -> None:
    await reserve(database, key, 10)
    async with database.writing() as connection:
        await budget.give_back(connection, key, 50, NOON)
        await budget.give_back(connection, key, 50, NOON + timedelta(days=1))
    assert await counted(database) == [0]


async def test_what_is_undone_is_not_counted(database: Database, key: str) -> None:
    async def hold_and_fail() -> None:
        async with database.writing() as connection:
            await budget.reserve(connection, key, 100, NOON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await hold_and_fail()
    await reserve(database, key, 100)


async def test_of_many_at_once_as_many_succeed_as_fit(database: Database, key: str) -> None:
    done = await asyncio.gather(*(reserve(database, key, 7) for _ in range(40)), return_exceptions=True)
    assert sum(one is None for one in done) == 14
    assert sum(isinstance(one, KeyLimitReached) for one in done) == 26
    assert await counted(database) == [98]


async def test_a_key_without_a_limit_is_not_counted(database: Database) -> None:
    wanted, text = NewKey("k", frozenset({Scope.INFERENCE}), None, None), new_key()
    async with database.writing() as connection:
        free = await repository.add(connection, wallet_of("ann"), wanted, hash_of(text), text[:12], now())
    await reserve(database, free.id, 10**12)
    async with database.writing() as connection:
        await budget.give_back(connection, free.id, 10**12, NOON)
    assert await counted(database) == []
