"""The books on SQLite and on PostgreSQL: balanced, once, never below zero."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, InsufficientBalance, InsufficientFunds
from far_mesh.marketplace.ledger import repository, service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Balance, Book, Told
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.tables import APPEND_ONLY, entries, postings
from tests.far_mesh.marketplace.house import ledger_of

FEE = Account(Book.PLATFORM_FEE, PLATFORM)
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


async def send(database: Database, payout_id: str, amounts: dict[str, int], fee: int) -> bool:
    async with database.writing() as connection:
        return await service.payout_sent(connection, payout_id, amounts, fee)


async def balance(database: Database) -> Balance:
    async with database.reading() as connection:
        return await service.balance_of(connection, USER)


async def test_a_request_from_deposit_to_payout(database: Database) -> None:
    await deposit(database, 1_000)
    await hold(database, "r1", 600)
    assert await balance(database) == Balance(available=400, held=600, deposited=1_000)
    await capture(database, "r1", 600, 240, 160, 100)
    assert await balance(database) == Balance(available=500, held=0, deposited=1_000)
    assert await send(database, "r1", {ANN: 240, BOB: 160}, 100)
    books = await ledger_of(database)
    assert books[Account(Book.IN_FLIGHT, ANN)] == 240
    assert books[Account(Book.IN_FLIGHT, PLATFORM)] == 100
    async with database.writing() as connection:
        assert await service.payout_confirmed(connection, "r1")
    books = await ledger_of(database)
    assert books[Account(Book.PROVIDER_EARNED, ANN)] == books[Account(Book.PLATFORM_FEE, PLATFORM)] == 0
    assert books[Account(Book.IN_FLIGHT, ANN)] == books[Account(Book.IN_FLIGHT, PLATFORM)] == 0
    assert books[Account(Book.PROVIDER_PAID, ANN)] == 240
    assert books[Account(Book.PROVIDER_PAID, BOB)] == 160
    assert books[Account(Book.PLATFORM_PAID, PLATFORM)] == 100
    assert sum(books.values()) == 0


async def test_every_act_is_booked_once(database: Database) -> None:
    assert [await deposit(database, 1_000), await deposit(database, 1_000)] == [True, False]
    assert [await hold(database, "r1", 600), await hold(database, "r1", 600)] == [True, False]
    done = [await capture(database, "r1", 600, 1, 2, 3) for _ in range(3)]
    assert done == [True, False, False]
    assert [await send(database, "r1", {ANN: 1, BOB: 2}, 3) for _ in range(2)] == [True, False]
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
    assert books[Account(Book.USER_HOLD, USER)] == 0
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


# ---- the same key with other content


@dataclass(frozen=True)
class Other:
    """An act, and one under the same key that is not the same."""

    first: Callable[[AsyncConnection], Awaitable[bool]]
    second: Callable[[AsyncConnection], Awaitable[bool]]


REFUND = {Account(Book.PROVIDER_EARNED, ANN): 10}
OTHERS = {
    "deposit": Other(
        lambda c: service.deposit_seen(c, USER, 7, "tx"), lambda c: service.deposit_seen(c, USER, 8, "tx")
    ),
    "deposit of another": Other(
        lambda c: service.deposit_seen(c, USER, 7, "tx"), lambda c: service.deposit_seen(c, ANN, 7, "tx")
    ),
    "withdrawal": Other(
        lambda c: service.withdrawal_seen(c, USER, 7, "tx"), lambda c: service.withdrawal_seen(c, USER, 8, "tx")
    ),
    "hold": Other(lambda c: service.hold(c, USER, "new", 7), lambda c: service.hold(c, USER, "new", 8)),
    "hold of another": Other(lambda c: service.hold(c, USER, "new", 7), lambda c: service.hold(c, ANN, "new", 7)),
    "release": Other(
        lambda c: service.release_hold(c, USER, "held", "one reason"),
        lambda c: service.release_hold(c, USER, "held", "another"),
    ),
    "capture": Other(
        lambda c: service.capture(c, USER, "held", Settlement(100, ((ANN, 50),), 10, 40)),
        lambda c: service.capture(c, USER, "held", Settlement(100, ((ANN, 51),), 10, 39)),
    ),
    "capture for another": Other(
        lambda c: service.capture(c, USER, "held", Settlement(100, ((ANN, 50),), 10, 40)),
        lambda c: service.capture(c, USER, "held", Settlement(100, ((BOB, 50),), 10, 40)),
    ),
    "refund": Other(
        lambda c: service.refund(c, USER, "done", REFUND, "bad"),
        lambda c: service.refund(c, USER, "done", REFUND, "worse"),
    ),
    "payout": Other(
        lambda c: service.payout_sent(c, "p1", {ANN: 10}, 0), lambda c: service.payout_sent(c, "p1", {ANN: 11}, 0)
    ),
    "end of a payout": Other(
        lambda c: service.payout_confirmed(c, "sent"), lambda c: service.payout_returned(c, "sent", "too late")
    ),
    "rounding of a payout": Other(
        lambda c: service.payout_confirmed(c, "sent"), lambda c: service.payout_confirmed(c, "sent", rounding=1)
    ),
    "slash": Other(
        lambda c: service.slash(c, ANN, 10, "deed", {USER: 10}), lambda c: service.slash(c, ANN, 10, "deed", {USER: 9})
    ),
    "adjustment": Other(
        lambda c: service.adjustment(c, "a1", {FEE: -1, Account(Book.USER_DEPOSIT, USER): 1}, "goodwill"),
        lambda c: service.adjustment(c, "a1", {FEE: -1, Account(Book.USER_DEPOSIT, USER): 1}, "another reason"),
    ),
}


@pytest.fixture
async def busy(database: Database) -> Database:
    """Books in which every act has something to act on."""
    await deposit(database, 1_000)
    await hold(database, "held", 100)
    await hold(database, "done", 200)
    await capture(database, "done", 200, 100, 50, 20)
    await send(database, "sent", {ANN: 20, BOB: 5}, 2)
    return database


@pytest.mark.parametrize("name", OTHERS)
async def test_the_same_key_with_other_content_is_a_conflict_and_changes_nothing(busy: Database, name: str) -> None:
    async with busy.writing() as connection:
        assert await OTHERS[name].first(connection)
    before = await ledger_of(busy)
    with pytest.raises(Conflict):
        async with busy.writing() as connection:
            await OTHERS[name].second(connection)
    async with busy.writing() as connection:
        assert not await OTHERS[name].first(connection)
    assert await ledger_of(busy) == before


# ---- what comes after a capture


async def test_a_payout_that_the_chain_refuses_is_owed_again(busy: Database) -> None:
    async with busy.writing() as connection:
        assert await service.payout_returned(connection, "sent", "the escrow is paused")
    books = await ledger_of(busy)
    assert books[Account(Book.PROVIDER_EARNED, ANN)] == 100
    assert books[FEE] == 20
    assert books[Account(Book.IN_FLIGHT, ANN)] == books[Account(Book.IN_FLIGHT, PLATFORM)] == 0
    assert await send(busy, "again", {ANN: 100, BOB: 50}, 20)


async def test_nobody_is_sent_more_than_was_earned(busy: Database) -> None:
    with pytest.raises(InsufficientFunds, match=r"81 units and there are 80") as caught:
        await send(busy, "p1", {ANN: 81}, 0)
    assert caught.value.status == 409
    assert await send(busy, "p1", {ANN: 80}, 18)


async def test_a_fee_that_the_chain_rounds_otherwise_goes_to_rounding(busy: Database) -> None:
    async with busy.writing() as connection:
        await service.payout_confirmed(connection, "sent", rounding=1)
    books = await ledger_of(busy)
    assert books[Account(Book.PLATFORM_PAID, PLATFORM)] == 3
    assert books[Account(Book.ROUNDING, PLATFORM)] == -1


async def test_a_refund_comes_from_those_who_got_the_money(busy: Database) -> None:
    async with busy.writing() as connection:
        amounts = {Account(Book.PROVIDER_EARNED, ANN): 80, FEE: 18}
        assert await service.refund(connection, USER, "done", amounts, "it was nonsense")
    assert (await balance(busy)).available == 1_000 - 100 - 170 + 98


@pytest.mark.parametrize(
    ("request_id", "amounts", "error"),
    [
        ("done", {Account(Book.PROVIDER_EARNED, ANN): 101}, Conflict),
        ("done", {Account(Book.PROVIDER_EARNED, "0xCid"): 1}, Conflict),
        ("done", {Account(Book.USER_HOLD, USER): 1}, Conflict),
        ("done", {Account(Book.PROVIDER_EARNED, ANN): -1}, Conflict),
        ("held", {Account(Book.PROVIDER_EARNED, ANN): 1}, Conflict),
        ("ghost", {Account(Book.PROVIDER_EARNED, ANN): 1}, Conflict),
        ("done", {Account(Book.PROVIDER_EARNED, ANN): 100}, InsufficientFunds),
    ],
)
async def test_a_refund_is_never_more_than_was_got_and_is_there(
    busy: Database, request_id: str, amounts: dict[Account, int], error: type[Conflict]
) -> None:
    before = await ledger_of(busy)
    with pytest.raises(error):
        async with busy.writing() as connection:
            await service.refund(connection, USER, request_id, amounts, "no")
    assert await ledger_of(busy) == before


async def test_a_slash_takes_what_is_left_and_gives_it_to_whom_was_harmed(busy: Database) -> None:
    async with busy.writing() as connection:
        assert await service.slash(connection, ANN, 80, "0xevidence", {USER: 50})
        with pytest.raises(InsufficientFunds):
            await service.slash(connection, ANN, 1, "0xother", {})
    books = await ledger_of(busy)
    assert books[Account(Book.PROVIDER_EARNED, ANN)] == 0
    assert books[FEE] == 18 + 30
    assert (await balance(busy)).available == 1_000 - 100 - 170 + 50


async def test_a_deposit_that_the_chain_takes_back_is_taken_back_once(busy: Database) -> None:
    async with busy.writing() as connection:
        with pytest.raises(Conflict):
            await service.event_vanished(connection, Told.DEPOSIT, "0xabc:2")
        assert await service.event_vanished(connection, Told.DEPOSIT, "0xabc:1")
        assert not await service.event_vanished(connection, Told.DEPOSIT, "0xabc:1")
    assert await balance(busy) == Balance(available=-270, held=100, deposited=0)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (service.deposit_seen, Told.DEPOSIT),
        (service.withdrawal_seen, Told.WITHDRAWAL),
        (service.channel_funded, Told.CHANNEL_FUNDED),
        (service.channel_closed, Told.CHANNEL_CLOSED),
        (service.escrow_locked, Told.ESCROW_LOCKED),
        (service.escrow_returned, Told.ESCROW_RETURNED),
    ],
)
async def test_whatever_the_chain_tells_can_be_taken_back_even_below_zero(
    database: Database, act: Callable[[AsyncConnection, str, int, str], Awaitable[bool]], told: Told
) -> None:
    async with database.writing() as connection:
        assert await act(connection, USER, 40, "0xabc:1@0xblock")
        assert await act(connection, USER, 0, "0xabc:2@0xblock")
        assert await service.event_vanished(connection, told, "0xabc:1@0xblock")
        assert not await service.event_vanished(connection, told, "0xabc:1@0xblock")
        assert await service.event_vanished(connection, told, "0xabc:2@0xblock")
    assert set((await ledger_of(database)).values()) == {0}
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()


@pytest.mark.parametrize(
    "act",
    [
        lambda c: service.deposit_seen(c, USER, -1, "tx"),
        lambda c: service.withdrawal_seen(c, USER, -1, "tx"),
        lambda c: service.hold(c, USER, "r9", -1),
        lambda c: service.payout_sent(c, "p9", {ANN: -1}, 0),
        lambda c: service.payout_sent(c, "p9", {ANN: 1}, -1),
        lambda c: service.slash(c, ANN, 5, "e", {USER: 6}),
        lambda c: service.slash(c, ANN, 5, "e", {USER: -1}),
        lambda c: service.adjustment(c, "a", {FEE: 1}, "does not balance"),
        lambda c: service.adjustment(c, "a", {FEE: -1, Account(Book.USER_DEPOSIT, USER): 1}, "  "),
    ],
)
async def test_what_would_move_less_than_nothing_is_a_mistake_of_the_caller(
    busy: Database, act: Callable[[AsyncConnection], Awaitable[bool]]
) -> None:
    before = await ledger_of(busy)
    with pytest.raises(ValueError, match=r"less than nothing|does not balance|needs a reason"):
        async with busy.writing() as connection:
            await act(connection)
    assert await ledger_of(busy) == before


async def test_an_adjustment_takes_no_account_below_zero(busy: Database) -> None:
    lines = {FEE: -19, Account(Book.USER_DEPOSIT, USER): 19}
    with pytest.raises(InsufficientFunds):
        async with busy.writing() as connection:
            await service.adjustment(connection, "a1", lines, "too generous")


# ---- many at once


async def test_of_many_requests_with_one_key_one_is_charged(database: Database) -> None:
    await deposit(database, 10_000)
    done = await asyncio.gather(*(hold(database, "r1", 70) for _ in range(100)))
    assert sorted(done) == [False] * 99 + [True]
    done = await asyncio.gather(*(capture(database, "r1", 70, 30, 20, 10) for _ in range(100)))
    assert sorted(done) == [False] * 99 + [True]
    assert await balance(database) == Balance(available=9_940, held=0, deposited=10_000)


async def test_many_who_spend_the_same_earnings_at_once_spend_them_once(busy: Database) -> None:
    sends = [send(busy, f"many{index}", {ANN: 9, BOB: 1}, 1) for index in range(20)]
    slashes = [slash(busy, f"deed{index}", 9) for index in range(20)]
    done = await asyncio.gather(*sends, *slashes, return_exceptions=True)
    assert all(one is True or isinstance(one, InsufficientFunds) for one in done)
    assert sum(one is True for one in done) == 8
    assert (await ledger_of(busy))[Account(Book.PROVIDER_EARNED, ANN)] == 8


async def slash(database: Database, evidence: str, units: int) -> bool:
    async with database.writing() as connection:
        return await service.slash(connection, ANN, units, evidence, {})


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


@pytest.mark.parametrize("table", APPEND_ONLY)
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
