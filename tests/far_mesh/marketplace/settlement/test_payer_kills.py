"""A payer killed between any two steps, and another after it: one payment on chain, the same in the books."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

import pytest

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.settlement.schemas import RowStatus
from tests.far_mesh.marketplace.house import rpc
from tests.far_mesh.marketplace.payments.street import PAYER, TILL, Street, stranger
from tests.far_mesh.marketplace.settlement import kill_payers
from tests.far_mesh.marketplace.settlement.kill_payers import DEARER, STEPS, TAKEN_BACK, Job
from tests.far_mesh.marketplace.settlement.paying import Paying

InAProcess = Callable[[Callable[[Job], None], Job], int | None]

EARNED = 50


def on_both(steps: Iterable[str]) -> pytest.MarkDecorator:
    """All steps on SQLite; on PostgreSQL the last, as what differs there is what one transaction is."""
    named = list(steps)
    cases = [*(("sqlite", step) for step in named), ("postgresql", named[-1])]
    return pytest.mark.parametrize(("database_url", "step"), cases, indirect=["database_url"])


@pytest.fixture
async def paying(database_url: str) -> AsyncIterator[Paying]:
    """Somebody has earned something."""
    opened = Database(database_url)
    yield Paying(opened)
    await opened.close()


@pytest.fixture
async def job(street: Street, database_url: str) -> Job:
    """What a payer in another process needs to know; its wallet has the money."""
    await street.fund()
    await street.mine(3)
    settings = {
        "chain_rpc_url": street.url,
        "token_address": street.deployment.token,
        "settler_private_key": PAYER,
        "deposit_address": TILL,
    }
    return Job(database_url, settings)


async def check(street: Street, paying: Paying, ann: str, nonce: int, *, vanished: int = 0) -> None:
    """Paid once."""
    row = await paying.row(await paying.transfers())
    assert (row.status, row.vanished) == (RowStatus.CONFIRMED, vanished)
    assert await street.balance(ann) == units_to_wei(EARNED)
    assert await street.node.transaction_count(address_of(PAYER)) == nonce + 1
    assert await paying.money_of(ann) == {Book.PROVIDER_PAID: EARNED}
    assert await paying.paid_lines(ann) == [True]
    assert await paying.is_sound()


@on_both(STEPS)
async def test_killed_while_it_pays(
    street: Street, paying: Paying, job: Job, in_a_process: InAProcess, step: str
) -> None:
    ann, nonce = stranger(), await street.node.transaction_count(address_of(PAYER))
    await paying.served({ann: EARNED})
    assert in_a_process(kill_payers.pay, replace(job, die=step)) == -signal.SIGKILL
    assert in_a_process(kill_payers.pay, job) == 0
    await check(street, paying, ann, nonce)


@on_both(DEARER)
async def test_killed_while_it_offers_more(
    street: Street, paying: Paying, job: Job, in_a_process: InAProcess, step: str
) -> None:
    ann, nonce = stranger(), await street.node.transaction_count(address_of(PAYER))
    await paying.served({ann: EARNED})
    await rpc(street.url, "evm_setAutomine", False)
    hasty = replace(job, bump_seconds=1e-6)
    assert in_a_process(kill_payers.pay, replace(hasty, die=step)) == -signal.SIGKILL
    await street.mine()
    await rpc(street.url, "evm_setAutomine", True)
    assert in_a_process(kill_payers.pay, job) == 0
    await check(street, paying, ann, nonce)


@on_both(TAKEN_BACK)
async def test_killed_while_it_takes_back_what_the_chain_gave_up(
    street: Street, paying: Paying, job: Job, in_a_process: InAProcess, step: str
) -> None:
    ann, nonce = stranger(), await street.node.transaction_count(address_of(PAYER))
    await paying.served({ann: EARNED})
    assert in_a_process(kill_payers.pay, job) == 0
    await rpc(street.url, "evm_setAutomine", False)
    await rpc(street.url, "anvil_reorg", 1, [])
    await rpc(street.url, "anvil_dropAllTransactions")
    assert in_a_process(kill_payers.pay, replace(job, die=step)) == -signal.SIGKILL
    await rpc(street.url, "evm_setAutomine", True)
    assert in_a_process(kill_payers.pay, job) == 0
    await check(street, paying, ann, nonce, vanished=1)
