"""A settler that is killed between any two steps of a batch: nothing is lost, and nothing is paid twice."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator

import pytest

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from tests.far_mesh.marketplace.house import LiveChain, Loop, ledger_of, start_chain
from tests.far_mesh.marketplace.settlement import kill_batches
from tests.far_mesh.marketplace.settlement.kill_batches import STEPS, Job
from tests.far_mesh.marketplace.settlement.netting import Netting
from tests.support.documents import wallet_of


@pytest.fixture(scope="module")
def own_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """One on which nobody else settles batches."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("chain")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.mark.parametrize("step", STEPS)
async def test_killed_on_the_way_and_started_again(own_chain: LiveChain, sqlite_url: str, step: str) -> None:
    database, chain = Database(sqlite_url), own_chain.connect()
    town, nodes = Netting(database, chain), [str(wallet_of(f"{step} {index}")) for index in range(2)]
    fees_before = await chain.fees_accrued_wei()
    ann, bob = await town.user(), await town.user()
    channel_id, key = await town.opens_channel(ann, 5_000)
    await town.promises(channel_id, key, 500)
    names = [
        await town.served(ann.address, {nodes[0]: 400}, channel_id=channel_id),
        await town.served(bob.address, {nodes[0]: 40, nodes[1]: 360}),
    ]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([kill_batches.__name__])
    process = context.Process(target=kill_batches.settle_and_die, args=(Job(sqlite_url, own_chain, step),))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    await kill_batches.settle(database, chain)
    for kind in (Kind.REDEEM, Kind.SETTLE):
        (row,) = await town.rows(kind)
        assert row.status is RowStatus.CONFIRMED
    assert all([await town.is_paid(name) for name in names])
    assert [await chain.credit_of_wei(node) for node in nodes] == [440 * 10**9, 360 * 10**9]
    assert [await chain.deposit_of(user.address) for user in (ann, bob)] == [5_000, 9_500]
    assert (await chain.channel_of(channel_id)).redeemed_units == 500
    books = await ledger_of(database)
    assert books[Account(Book.PLATFORM_PAID, PLATFORM)] == 200
    assert await chain.fees_accrued_wei() - fees_before == 200 * 10**9
    await chain.close()
    await database.close()
