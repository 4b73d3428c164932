"""A settler killed between any two steps of sending, raising, confirming and taking back, and another after it: one
payment on chain, the same in the books."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest

from far_mesh.marketplace.chain.client import EscrowStatus, address_of
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from tests.far_mesh.marketplace.house import SETTLER
from tests.far_mesh.marketplace.settlement import kill
from tests.far_mesh.marketplace.settlement.bench import HELD, PAID, Bench

InAProcess = Callable[[Callable[[kill.Round], None], kill.Round], int | None]

NAME = "once"
DEARER = [step for step in kill.ROUND_STEPS if step.startswith("dearer")]
TAKEN_BACK = ["seen to be given up and not written down", "inside the transaction that takes back"]
TAKEN_BACK += ["taken back and not offered"]
FIRST = [step for step in kill.ROUND_STEPS if step not in (*DEARER, *TAKEN_BACK)]


def on_both(steps: list[str]) -> pytest.MarkDecorator:
    """All steps on SQLite; on PostgreSQL the last, as what differs there is what one transaction is."""
    cases = [*(("sqlite", step) for step in steps), ("postgresql", steps[-1])]
    return pytest.mark.parametrize(("database_url", "step"), cases, indirect=["database_url"])


@pytest.fixture
def job(bench_of_each: Bench, database_url: str) -> kill.Round:
    """What a settler in another process needs to know."""
    chain = bench_of_each.chain
    return kill.Round(database_url, chain.rpc_url, chain.token_address, chain.escrow_address)


async def earned(bench: Bench, name: str) -> None:
    """A request of which nothing but the release is left to do, all before it deep below."""
    await bench.open(name)
    await bench.settler.drain()
    await bench.mine(4)
    await bench.close(name)


async def check(bench: Bench, name: str, *, vanished: int = 0) -> None:
    """Paid once."""
    row = await bench.row(Kind.RELEASE, name)
    assert (row.status, row.vanished) == (RowStatus.CONFIRMED, vanished)
    assert row.block_hash == await bench.chain.block_hash(row.block_number or 0)
    assert row.tx_hash in {attempt.tx_hash for attempt in await bench.attempts(Kind.RELEASE, name)}
    assert await bench.escrow(name) is EscrowStatus.RELEASED
    assert await bench.earned(name) == {Book.PROVIDER_PAID: PAID}
    assert await bench.credit(name) == PAID
    assert await bench.chain.deposit_of(bench.user) == await bench.available() == 10 * HELD - PAID - 100
    assert await bench.is_paid(name)
    assert await bench.findings() == ()


@on_both(FIRST)
async def test_killed_while_it_settles(
    bench_of_each: Bench, job: kill.Round, in_a_process: InAProcess, step: str
) -> None:
    bench = bench_of_each
    await earned(bench, NAME)
    nonce = await bench.chain.transaction_count(address_of(SETTLER))
    assert in_a_process(kill.settle, replace(job, die=step)) == -signal.SIGKILL
    assert in_a_process(kill.settle, job) == 0
    await check(bench, NAME)
    assert await bench.chain.transaction_count(address_of(SETTLER)) == nonce + 1


@on_both(DEARER)
async def test_killed_while_it_raises_a_fee(
    bench_of_each: Bench, job: kill.Round, in_a_process: InAProcess, step: str
) -> None:
    bench = bench_of_each
    await earned(bench, NAME)
    nonce = await bench.chain.transaction_count(address_of(SETTLER))
    await bench.automine(False)
    await bench.settler.settle()
    assert in_a_process(kill.settle, replace(job, die=step)) == -signal.SIGKILL
    await bench.automine(True)
    await bench.mine()
    assert in_a_process(kill.settle, job) == 0
    await check(bench, NAME)
    assert await bench.chain.transaction_count(address_of(SETTLER)) == nonce + 1


@on_both(TAKEN_BACK)
async def test_killed_while_it_takes_back_what_the_chain_gave_up(
    bench_of_each: Bench, job: kill.Round, in_a_process: InAProcess, step: str
) -> None:
    bench = bench_of_each
    await earned(bench, NAME)
    await bench.settler.drain()
    await bench.mine(2)
    await bench.give_up(3)
    assert in_a_process(kill.settle, replace(job, die=step)) == -signal.SIGKILL
    assert in_a_process(kill.settle, job) == 0
    await check(bench, NAME, vanished=1)
