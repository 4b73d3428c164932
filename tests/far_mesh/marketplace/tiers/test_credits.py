"""Missed promises against a real chain: whichever way a request is paid, chain and books agree after the credit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Outcome, Payment
from tests.far_mesh.marketplace.payments.street import Street
from tests.far_mesh.marketplace.settlement.town import DEPOSIT, Town
from tests.support.documents import wallet_of

ANN = wallet_of("ann")
WEI = 10**9
MISSED, KEPT = 201, 200


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.settlement.reconciler.PAUSE_SECONDS", 0.0)


@pytest.fixture
async def town(sqlite_url: str, street: Street) -> AsyncIterator[Town]:
    database = Database(sqlite_url)
    opened = Town(database, street.url, street.deployment)
    await opened.watch()
    yield opened
    await opened.chain.close()
    await database.close()


async def ask(town: Town, user: str, payment: Payment, p95_token_ms: int | None, channel: str | None = None) -> Outcome:
    """A request that was promised 200 ms. It costs 500 units, of which the platform would get 100."""
    name = await town.begin(user, payment, channel, promised_p95_ms=200)
    if channel is not None:
        await town.earn(name, channel)
    if payment is Payment.ESCROW:
        await town.settler.settle()
    outcome = await town.end(name, ANN, payment, p95_token_ms)
    async with town.database.reading() as connection:
        session = await sessions.find(connection, name)
    assert session is not None
    assert (session.p95_token_ms, session.service_level_met) == (p95_token_ms, outcome.service_level_met)
    assert (session.total_cost_units, session.fee_units, session.refund_units, session.credit_units) == (
        outcome.cost_units,
        outcome.fee_units,
        outcome.refund_units,
        outcome.credit_units,
    )
    return outcome


async def settle(town: Town) -> None:
    await town.settle()
    await town.assert_agreed()


def told(outcome: Outcome) -> tuple[bool | None, int, int, int]:
    return outcome.service_level_met, outcome.cost_units, outcome.fee_units, outcome.credit_units


async def test_a_netted_request_is_charged_less(town: Town) -> None:
    user = await town.user()
    assert told(await ask(town, user, Payment.NETTED, KEPT)) == (True, 500, 100, 0)
    assert told(await ask(town, user, Payment.NETTED, MISSED)) == (False, 450, 50, 50)
    assert told(await ask(town, user, Payment.NETTED, None)) == (None, 500, 100, 0)
    await town.assert_agreed()
    await settle(town)
    assert await town.chain.deposit_of(address_of(user)) == DEPOSIT - 1_450
    assert await town.chain.credit_of_wei(ANN) == 1_200 * WEI
    assert await town.chain.fees_accrued_wei() == 250 * WEI


async def test_over_a_channel_less_is_taken_out_of_it(town: Town) -> None:
    user = await town.user()
    channel = await town.open_channel(user, 5_000)
    await town.promise(user, channel, 1_000)
    assert told(await ask(town, user, Payment.CHANNEL, MISSED, channel)) == (False, 450, 50, 50)
    await settle(town)
    assert (await town.chain.channel_of(channel)).redeemed_units == 450
    assert told(await ask(town, user, Payment.CHANNEL, KEPT, channel)) == (True, 500, 100, 0)
    await settle(town)
    assert await town.chain.fees_accrued_wei() == 150 * WEI
    async with town.database.reading() as connection:
        assert (await ledger.balance_of(connection, address_of(user))).in_channels == 5_000 - 950


async def test_the_fee_of_an_escrow_is_the_contracts_so_later_ones_are_lower(town: Town) -> None:
    user = await town.user()
    assert told(await ask(town, user, Payment.ESCROW, MISSED)) == (False, 500, 100, 50)
    assert told(await ask(town, user, Payment.ESCROW, KEPT)) == (True, 500, 100, 0)
    await settle(town)
    assert await town.chain.fees_accrued_wei() == 200 * WEI
    async with town.database.reading() as connection:
        balance = await ledger.balance_of(connection, address_of(user))
    assert (balance.available, balance.credit) == (DEPOSIT - 1_000, 50)
    spending = await ask(town, user, Payment.NETTED, KEPT)
    assert (told(spending), spending.spent_credit_units) == ((True, 450, 50, 0), 50)
    assert (await ask(town, user, Payment.NETTED, KEPT)).spent_credit_units == 0
    await settle(town)
    assert await town.chain.deposit_of(address_of(user)) == DEPOSIT - 1_000 - 950
    assert await town.chain.fees_accrued_wei() == 350 * WEI


async def test_a_missed_promise_and_an_earlier_one_take_no_more_than_the_fee(town: Town) -> None:
    user = await town.user()
    for _ in range(2):
        await ask(town, user, Payment.ESCROW, MISSED)
    outcome = await ask(town, user, Payment.NETTED, MISSED)
    assert (told(outcome), outcome.spent_credit_units) == ((False, 400, 0, 50), 50)
    await settle(town)
    assert await town.chain.credit_of_wei(ANN) == 1_200 * WEI


async def test_what_nobody_can_prove_costs_nothing_and_gives_nothing_back(town: Town) -> None:
    user = await town.user()
    name = await town.begin(user, Payment.NETTED, promised_p95_ms=200)
    await town.refund(name)
    await settle(town)
    assert await town.chain.deposit_of(address_of(user)) == DEPOSIT
