"""The books against a real chain: clean at any moment of an honest life, and every kind of damage is found by name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.sessions.schemas import Payment
from tests.far_mesh.marketplace.payments.street import Street
from tests.far_mesh.marketplace.settlement.town import Town
from tests.support.documents import wallet_of


@pytest.fixture
async def town(database: Database, street: Street) -> AsyncIterator[Town]:
    opened = Town(database, street.url, street.deployment)
    await opened.watch()
    yield opened
    await opened.chain.close()


@pytest.fixture
async def village(sqlite_url: str, street: Street) -> AsyncIterator[Town]:
    """A town on SQLite alone."""
    database = Database(sqlite_url)
    opened = Town(database, street.url, street.deployment)
    await opened.watch()
    yield opened
    await opened.chain.close()
    await database.close()


async def test_after_a_life_of_all_ways_to_pay_everything_agrees(town: Town) -> None:
    alice, bob = await town.user(), await town.user()
    await town.assert_agreed()
    await town.serve(alice, Payment.ESCROW)
    cancelled = await town.begin(alice, Payment.ESCROW)
    await town.settler.settle()
    await town.refund(cancelled)
    await town.serve(bob, Payment.NETTED, wallet_of("bert"))
    channel = await town.open_channel(bob, 5_000)
    await town.promise(bob, channel, 1_000)
    await town.serve_by_channel(bob, channel)
    await town.settle()
    await town.assert_agreed()
    await town.send(alice, "withdrawDeposit", 7 * 10**9 + 1)
    await town.send(bob, "startClose", channel)
    await town.watch()
    await town.serve(alice, Payment.NETTED)
    await town.settle()
    await town.assert_agreed()
