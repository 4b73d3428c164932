"""Benches: a settler, a user who can pay, a chain and a database."""

from __future__ import annotations

import multiprocessing
from collections.abc import AsyncIterator, Callable
from multiprocessing.context import ForkServerContext
from typing import Any

import pytest

from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from tests.far_mesh.marketplace.house import LiveChain, new_user
from tests.far_mesh.marketplace.settlement import kill
from tests.far_mesh.marketplace.settlement.bench import HELD, Bench


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Processes that share nothing with this one, and begin in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([kill.__name__])
    return context


@pytest.fixture
def in_a_process(processes: ForkServerContext) -> Callable[[Callable[[Any], None], Any], int | None]:
    """Do a job of ``kill`` in a process of its own. Its exit code."""

    def run(target: Callable[[Any], None], job: Any) -> int | None:
        process = processes.Process(target=target, args=(job,))
        process.start()
        process.join(30)
        return process.exitcode

    return run


@pytest.fixture
async def bench(live_chain: LiveChain, sqlite_url: str) -> AsyncIterator[Bench]:
    """On SQLite."""
    async for one in _bench(live_chain, sqlite_url):
        yield one


@pytest.fixture
async def bench_of_each(live_chain: LiveChain, database_url: str) -> AsyncIterator[Bench]:
    """On each kind of database in turn."""
    async for one in _bench(live_chain, database_url):
        yield one


async def _bench(live_chain: LiveChain, url: str) -> AsyncIterator[Bench]:
    chain, database = live_chain.connect(), Database(url)
    key = await new_user(chain, 10 * HELD)
    async with database.writing() as connection:
        await ledger.deposit_seen(connection, address_of(key), 10 * HELD, "0x1:1")
    bench = Bench(database, chain, key)
    yield bench
    await bench.automine(True)
    await bench.mine()  # nothing of this test waits for those that follow
    await chain.close()
    await database.close()
