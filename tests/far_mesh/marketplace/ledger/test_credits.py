"""Missed promises in the books: given once, never more than the platform's fee, and spent by later requests."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from sqlalchemy import text

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.ledger import service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.ledger.verify import verify
from tests.far_mesh.marketplace.house import ledger_of

USER, ANN = "0xUser", "0xAnn"
FEE, CREDITS = Account(Book.PLATFORM_FEE, PLATFORM), Account(Book.CREDITS, PLATFORM)
DEPOSIT, CHANNEL, CREDIT = (Account(book, USER) for book in (Book.USER_DEPOSIT, Book.USER_CHANNEL, Book.USER_CREDIT))


@pytest.fixture
async def books(database: Database) -> Database:
    """Requests r1 to r3 of the user have cost 100 each, of which the platform got 20; r1 was paid out of a channel."""
    async with database.writing() as connection:
        await service.deposit_seen(connection, USER, 1_000, "paid in")
        await service.channel_funded(connection, USER, 300, "opened")
        for name, source in (("r1", Book.USER_CHANNEL), ("r2", Book.USER_DEPOSIT), ("r3", Book.USER_DEPOSIT)):
            await service.hold(connection, USER, name, 100, source)
            await service.capture(connection, USER, name, Settlement(100, ((ANN, 80),), 20, 0))
    return database


async def credit(database: Database, name: str, units: int, *, later: bool = False) -> bool:
    async with database.writing() as connection:
        return await service.service_credit(connection, USER, name, units, later=later)


async def spend(database: Database, name: str, most: int) -> int:
    async with database.writing() as connection:
        return await service.credit_spent(connection, USER, name, most)


async def are(database: Database, *accounts: Account) -> tuple[int, ...]:
    found = await ledger_of(database)
    assert sum(found.values()) == 0
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()
    return tuple(found.get(account, 0) for account in accounts)


async def test_a_credit_comes_back_from_the_fee_to_where_it_was_paid_from(books: Database) -> None:
    assert await credit(books, "r1", 10)
    assert await are(books, CHANNEL, DEPOSIT, FEE) == (210, 500, 50)
    assert not await credit(books, "r1", 10)
    assert await credit(books, "r2", 20)
    assert await are(books, CHANNEL, DEPOSIT, FEE) == (210, 520, 30)


async def test_nobody_is_credited_more_than_the_platform_got(books: Database) -> None:
    for units, later in itertools.product((21, 0, -1), (False, True)):
        with pytest.raises(Conflict):
            await credit(books, "r1", units, later=later)
    with pytest.raises(Conflict):
        await credit(books, "never asked", 1)
    assert await are(books, CHANNEL, DEPOSIT, FEE, CREDIT) == (200, 500, 60, 0)


async def test_a_credit_is_given_once_and_in_one_way(books: Database) -> None:
    await credit(books, "r1", 10)
    with pytest.raises(Conflict):
        await credit(books, "r1", 9)
    with pytest.raises(Conflict):
        await credit(books, "r1", 10, later=True)
    assert await are(books, FEE, CREDIT) == (50, 0)


async def test_what_is_promised_for_later_lowers_the_fees_of_later_requests(books: Database) -> None:
    assert await credit(books, "r1", 15, later=True)
    assert await are(books, FEE, CREDIT, CREDITS) == (60, 15, -15)
    assert await spend(books, "r2", 10) == 10
    assert await are(books, FEE, DEPOSIT, CREDIT, CREDITS) == (50, 510, 5, -5)
    with pytest.raises(Conflict):
        await spend(books, "r2", 5)
    with pytest.raises(Conflict):  # ten of its twenty are left
        await credit(books, "r2", 11)
    assert await spend(books, "r3", 20) == 5
    assert await are(books, FEE, DEPOSIT, CREDIT, CREDITS) == (45, 515, 0, 0)
    assert await spend(books, "r1", 20) == 0
    async with books.reading() as connection:
        assert (await service.balance_of(connection, USER)).credit == 0


async def test_two_requests_that_end_at_once_spend_a_credit_once(books: Database) -> None:
    await credit(books, "r1", 15, later=True)
    assert sorted(await asyncio.gather(spend(books, "r2", 10), spend(books, "r3", 10))) == [5, 10]
    assert await are(books, FEE, CREDIT) == (45, 0)


async def test_a_session_that_says_otherwise_than_the_books_is_found(books: Database) -> None:
    columns = "id, request_id, user_wallet, model_id, tier, status, gateway, incarnation, started_at, prompt_tokens, "
    columns += "token_count, prompt_price_units, completion_price_units, held_units, total_cost_units, fee_units, "
    columns += "refund_units, credit_units, service_level_met"
    values = f"'1', 'r2', '{USER}', 'm', 'premium', 'failed', 'g', 'i', CURRENT_TIMESTAMP, 1, 1, 1, 1, 100, "
    insert = f"INSERT INTO inference_sessions ({columns}) VALUES ({values}"
    await credit(books, "r2", 10)
    for told, met, is_found in ((10, "false", False), (9, "false", True), (10, "true", True), (10, "NULL", True)):
        async with books.writing() as connection:
            await connection.execute(text("DELETE FROM inference_sessions"))
            await connection.execute(text(f"{insert} 90, 10, 10, {told}, {met})"))
        async with books.snapshot() as connection:
            found = [one.about for one in (await verify(connection)).findings if one.kind == "credit"]
        assert found == (["r2"] if is_found else [])
