"""Requests that channels pay, and payouts that vanish with their block: on both databases, and recomputed each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, InsufficientBalance
from far_mesh.marketplace.ledger import service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.ledger.verify import verify
from tests.far_mesh.marketplace.house import ledger_of

USER, ANN = "0xUser", "0xAnn"
DEPOSIT, CHANNEL, HOLD = (Account(book, USER) for book in (Book.USER_DEPOSIT, Book.USER_CHANNEL, Book.USER_HOLD))
EARNED, FLIGHT, PAID = (Account(book, ANN) for book in (Book.PROVIDER_EARNED, Book.IN_FLIGHT, Book.PROVIDER_PAID))


class Counter:
    """Where acts are done, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def do(self, act: Callable[[AsyncConnection], Awaitable[bool]]) -> bool:
        """Once; whether it changed anything."""
        async with self._database.writing() as connection:
            return await act(connection)

    async def are(self, *accounts: Account) -> tuple[int, ...]:
        """Balances; the books agree with themselves."""
        async with self._database.snapshot() as connection:
            assert (await verify(connection)).findings == ()
        books = await ledger_of(self._database)
        assert sum(books.values()) == 0
        return tuple(books.get(account, 0) for account in accounts)


@pytest.fixture
async def counter(database: Database) -> Counter:
    opened = Counter(database)
    await opened.do(lambda c: service.deposit_seen(c, USER, 1_000, "paid in"))
    await opened.do(lambda c: service.channel_funded(c, USER, 600, "opened"))
    return opened


# ---- channels


async def test_what_is_in_a_channel_pays_for_requests_and_the_rest_comes_back(counter: Counter) -> None:
    assert await counter.are(DEPOSIT, CHANNEL) == (400, 600)
    assert await counter.do(lambda c: service.hold(c, USER, "r1", 500, Book.USER_CHANNEL))
    assert await counter.are(DEPOSIT, CHANNEL, HOLD) == (400, 100, 500)
    divided = Settlement(500, ((ANN, 80),), 20, 400)
    assert await counter.do(lambda c: service.capture(c, USER, "r1", divided))
    assert not await counter.do(lambda c: service.capture(c, USER, "r1", divided))
    assert await counter.are(DEPOSIT, CHANNEL, HOLD, EARNED) == (400, 500, 0, 80)
    assert await counter.do(lambda c: service.hold(c, USER, "r2", 500, Book.USER_CHANNEL))
    assert await counter.do(lambda c: service.release_hold(c, USER, "r2", "nothing came"))
    assert await counter.do(lambda c: service.channel_closed(c, USER, 500, "closed"))
    assert await counter.are(DEPOSIT, CHANNEL, HOLD) == (900, 0, 0)


async def test_a_channel_and_a_deposit_do_not_pay_for_each_other(counter: Counter) -> None:
    with pytest.raises(InsufficientBalance, match=r"601 units .* 600 are available"):
        await counter.do(lambda c: service.hold(c, USER, "r1", 601, Book.USER_CHANNEL))
    with pytest.raises(InsufficientBalance, match=r"401 units .* 400 are available"):
        await counter.do(lambda c: service.hold(c, USER, "r1", 401))
    assert await counter.do(lambda c: service.hold(c, USER, "r1", 300))
    with pytest.raises(Conflict):
        await counter.do(lambda c: service.hold(c, USER, "r1", 300, Book.USER_CHANNEL))
    assert await counter.are(DEPOSIT, CHANNEL, HOLD) == (100, 600, 300)


async def test_what_a_user_puts_in_or_gets_back_has_happened_whatever_is_left(counter: Counter) -> None:
    await counter.do(lambda c: service.hold(c, USER, "r1", 600, Book.USER_CHANNEL))
    assert await counter.do(lambda c: service.channel_closed(c, USER, 600, "closed under the request"))
    assert await counter.are(DEPOSIT, CHANNEL, HOLD) == (1_000, -600, 600)
    assert await counter.do(lambda c: service.channel_funded(c, USER, 1_100, "opened again"))
    assert not await counter.do(lambda c: service.channel_funded(c, USER, 1_100, "opened again"))
    assert await counter.are(DEPOSIT, CHANNEL) == (-100, 500)
    with pytest.raises(InsufficientBalance):
        await counter.do(lambda c: service.hold(c, USER, "r2", 1))


# ---- payouts that vanish


@pytest.fixture
async def paid(counter: Counter) -> Counter:
    """A payout of 80 and a fee of 20 that the chain has done, for one unit more of a fee than was reckoned."""
    await counter.do(lambda c: service.hold(c, USER, "r1", 100))
    await counter.do(lambda c: service.capture(c, USER, "r1", Settlement(100, ((ANN, 80),), 20, 0)))
    await counter.do(lambda c: service.payout_sent(c, "p1", {ANN: 80}, 20))
    await counter.do(lambda c: service.payout_confirmed(c, "p1", 1))
    return counter


async def test_a_payout_that_vanishes_is_in_flight_again_and_ends_again(paid: Counter) -> None:
    platform, rounding = Account(Book.PLATFORM_PAID, PLATFORM), Account(Book.ROUNDING, PLATFORM)
    assert await paid.are(FLIGHT, PAID, platform, rounding) == (0, 80, 21, -1)
    assert await paid.do(lambda c: service.payout_vanished(c, "p1", 1))
    assert not await paid.do(lambda c: service.payout_vanished(c, "p1", 1))
    assert await paid.are(FLIGHT, PAID, platform, rounding) == (80, 0, 0, 0)
    assert not await paid.do(lambda c: service.payout_confirmed(c, "p1", 1))  # that was the first time
    assert await paid.do(lambda c: service.payout_confirmed(c, "p1", 1, vanished=1))
    assert await paid.do(lambda c: service.payout_vanished(c, "p1", 2))
    assert await paid.do(lambda c: service.payout_returned(c, "p1", "refused", vanished=2))
    assert await paid.are(FLIGHT, PAID, EARNED, platform, rounding) == (0, 0, 80, 0, 0)
    assert await paid.do(lambda c: service.payout_sent(c, "p2", {ANN: 80}, 20))


@pytest.mark.parametrize(
    "act",
    [
        lambda c: service.payout_confirmed(c, "p1", 1, vanished=1),
        lambda c: service.payout_returned(c, "p1", "refused", vanished=1),
        lambda c: service.payout_vanished(c, "p1", 2),
        lambda c: service.payout_vanished(c, "p2", 1),
    ],
)
async def test_nothing_ends_or_vanishes_more_often_than_it_was_there(
    paid: Counter, act: Callable[[AsyncConnection], Awaitable[bool]]
) -> None:
    with pytest.raises(Conflict):
        await paid.do(act)
    assert await paid.are(FLIGHT, PAID) == (0, 80)


async def test_what_was_given_back_cannot_vanish(paid: Counter) -> None:
    await paid.do(lambda c: service.payout_vanished(c, "p1", 1))
    await paid.do(lambda c: service.payout_returned(c, "p1", "refused", vanished=1))
    with pytest.raises(Conflict):
        await paid.do(lambda c: service.payout_vanished(c, "p1", 2))
    with pytest.raises(Conflict):
        await paid.do(lambda c: service.payout_confirmed(c, "p1", 1, vanished=1))
    assert await paid.are(FLIGHT, PAID, EARNED) == (0, 0, 80)
