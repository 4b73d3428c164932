"""The settler on a real chain, when things go as they should and when they do not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.client import Chain, EscrowStatus, address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import AllowanceTooLow, Conflict, InsufficientBalance, SettlementDelayed
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.lead import LEASE
from far_mesh.marketplace.settlement.recovery import recover
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.service import Caretaker, Rules, Settlement
from tests.far_mesh.marketplace.house import SETTLER, LiveChain, ledger_of, new_user, rpc
from tests.far_mesh.marketplace.settlement.bench import GATEWAY, HELD, Bench
from tests.support.documents import wallet_of


async def test_a_request_is_locked_and_released(bench_of_each: Bench) -> None:
    bench, provider = bench_of_each, wallet_of("alone")
    before = await bench.chain.credit_of_wei(provider)
    await bench.open("a1")
    assert await bench.settler.settle()
    assert await bench.escrow("a1") is EscrowStatus.OPEN
    await bench.close("a1", provider)
    await bench.settler.drain()  # until the books have seen what the chain has done
    assert await bench.escrow("a1") is EscrowStatus.RELEASED
    assert await bench.chain.credit_of_wei(provider) - before == 400 * 10**9
    books = await ledger_of(bench.database)
    assert books[Account(Book.PROVIDER_PAID, provider)] == 400
    assert await bench.chain.deposit_of(bench.user) == books[Account(Book.USER_DEPOSIT, bench.user)] == 9_500


async def test_a_request_that_ends_before_its_lock_is_signed_never_reaches_the_chain(bench: Bench) -> None:
    await bench.open("b1")
    await bench.refund("b1")
    await bench.settler.settle()
    assert await bench.escrow("b1") is EscrowStatus.NONE
    assert (await bench.row(Kind.LOCK, "b1")).error_code == "abandoned"
    async with bench.database.reading() as connection:
        assert set(await repository.of_request(connection, "b1")) == {Kind.LOCK}
        assert (await repository.counts(connection))["failed"] == 0


async def test_a_cancel_waits_for_its_lock(bench: Bench) -> None:
    await rpc(bench.chain.rpc_url, "evm_setAutomine", False)
    await bench.open("c1")
    await bench.settler.settle()
    await bench.refund("c1")
    await bench.settler.settle()
    assert (await bench.row(Kind.CANCEL, "c1")).status is RowStatus.PENDING
    await rpc(bench.chain.rpc_url, "evm_setAutomine", True)
    await rpc(bench.chain.rpc_url, "anvil_mine", "0x1")
    await bench.settler.drain()
    assert await bench.escrow("c1") is EscrowStatus.CANCELLED
    assert await bench.chain.deposit_of(bench.user) == 10 * HELD


async def test_many_transactions_are_on_their_way_at_once(bench: Bench) -> None:
    await rpc(bench.chain.rpc_url, "evm_setAutomine", False)
    for index in range(5):
        await bench.open(f"d{index}")
    await bench.settler.settle()
    rows = [await bench.row(Kind.LOCK, f"d{index}") for index in range(5)]
    assert {row.status for row in rows} == {RowStatus.SENT}
    nonces = [row.nonce or 0 for row in rows]
    assert nonces == list(range(nonces[0], nonces[0] + 5))
    await rpc(bench.chain.rpc_url, "evm_setAutomine", True)
    await rpc(bench.chain.rpc_url, "anvil_mine", "0x1")
    await bench.settler.drain()
    assert {await bench.escrow(f"d{index}") for index in range(5)} == {EscrowStatus.OPEN}


async def test_a_transaction_counts_after_its_confirmations(bench: Bench) -> None:
    settler = bench.settler_of(GATEWAY, Rules(confirmations=2))
    await bench.open("e1")
    await settler.settle()
    assert await bench.escrow("e1") is EscrowStatus.OPEN
    assert (await bench.row(Kind.LOCK, "e1")).status is RowStatus.SENT
    await rpc(bench.chain.rpc_url, "anvil_mine", "0x2")
    await settler.settle()
    assert (await bench.row(Kind.LOCK, "e1")).status is RowStatus.CONFIRMED


async def test_a_lock_that_exists_already_is_recognised_and_not_sent(bench: Bench) -> None:
    settler = address_of(SETTLER)
    await bench.chain.send(await bench.chain.lock(settler, bench.user, "h1", HELD, 1800), SETTLER)
    await bench.open("h1")
    await bench.settler.settle()
    row = await bench.row(Kind.LOCK, "h1")
    assert (row.status, row.tx_hash) == (RowStatus.CONFIRMED, None)
    assert await bench.chain.deposit_of(bench.user) == 9 * HELD


async def test_a_release_that_has_happened_already_is_recognised_and_not_sent(bench: Bench) -> None:
    provider, settler = wallet_of("h2 provider"), address_of(SETTLER)
    await bench.open("h2")
    await bench.settler.settle()
    await bench.close("h2", provider)
    await bench.chain.send(await bench.chain.release(settler, bench.user, "h2", [(provider, 400)]), SETTLER)
    await bench.settler.settle()
    row = await bench.row(Kind.RELEASE, "h2")
    assert (row.status, row.tx_hash) == (RowStatus.CONFIRMED, None)
    assert await bench.chain.credit_of_wei(provider) == 400 * 10**9


@pytest.mark.parametrize(
    ("act", "error"), [("allow_spending", AllowanceTooLow), ("withdraw_deposit", InsufficientBalance)]
)
async def test_a_lock_that_the_user_does_not_cover_fails_with_its_reason(
    bench: Bench, act: str, error: type[Exception]
) -> None:
    await getattr(ChainWallet(bench.chain, bench.key), act)(HELD - 1 if act == "allow_spending" else 9 * HELD + 1)
    await bench.open("i1")
    await bench.settler.settle()
    with pytest.raises(error) as caught:
        await bench.room.locked(bench.user, "i1")
    assert getattr(caught.value, "status", None) == 402
    assert (await bench.row(Kind.LOCK, "i1")).status is RowStatus.FAILED


async def test_a_lock_waits_for_what_its_user_gets_back_from_an_earlier_request(bench: Bench) -> None:
    await bench.open("j1", 10 * HELD)
    await bench.settler.settle()
    await rpc(bench.chain.rpc_url, "evm_setAutomine", False)
    await bench.refund("j1")
    await bench.open("j2", 10 * HELD)
    await bench.settler.settle()
    assert (await bench.row(Kind.LOCK, "j2")).status in (RowStatus.PENDING, RowStatus.SENT)
    await rpc(bench.chain.rpc_url, "evm_setAutomine", True)
    await rpc(bench.chain.rpc_url, "anvil_mine", "0x1")
    await bench.settler.drain()
    assert await bench.escrow("j2") is EscrowStatus.OPEN


async def test_a_release_that_the_escrow_refuses_is_visible_and_the_money_stays_accounted_for(bench: Bench) -> None:
    await bench.open("k1")
    await bench.settler.settle()
    await bench.close("k1", "0x0000000000000000000000000000000000000000")
    await bench.settler.settle()
    row = await bench.row(Kind.RELEASE, "k1")
    assert (row.status, row.error_code) == (RowStatus.FAILED, "EscrowInvalidAddress")
    async with bench.database.reading() as connection:
        assert [one.request_id for one in await repository.failures(connection)] == ["k1"]
    books = await ledger_of(bench.database)
    assert books[Account(Book.PROVIDER_EARNED, "0x0000000000000000000000000000000000000000")] == 400
    assert sum(books.values()) == 0


async def test_a_lock_that_does_not_come_is_not_waited_for_for_ever(bench: Bench) -> None:
    await bench.open("l1")
    room = Settlement(bench.database, bench.chain, 0.05)
    with pytest.raises(SettlementDelayed):
        await room.locked(bench.user, "l1")


async def test_of_two_gateways_one_settles(bench_of_each: Bench) -> None:
    bench = bench_of_each
    first, second = bench.settler_of(Gateway("a", "1")), bench.settler_of(Gateway("b", "2"))
    assert [await first.settle(), await second.settle(), await first.settle()] == [True, False, True]
    async with bench.database.writing() as connection:
        await repository.drop_leases(connection, Gateway("a", "1"))
    assert [await second.settle(), await first.settle()] == [True, False]


async def test_a_gateway_that_starts_again_takes_its_own_lease_at_once(bench: Bench) -> None:
    assert await bench.settler_of(Gateway("a", "1")).settle()
    assert await bench.settler_of(Gateway("a", "2")).settle()


async def test_only_the_requests_of_dead_gateways_are_recovered(bench_of_each: Bench) -> None:
    bench = bench_of_each
    alive = Caretaker(bench.database, GATEWAY, bench.room)
    await alive.tend()
    await bench.open("n1")
    await Caretaker(bench.database, Gateway("there", "x"), bench.room).tend()
    assert await recover(bench.database) == 0
    async with bench.database.writing() as connection:
        await sessions.beat(connection, GATEWAY, timedelta(seconds=-1))
    assert await recover(bench.database) == 1
    assert await recover(bench.database) == 0
    assert (await ledger_of(bench.database))[Account(Book.USER_DEPOSIT, bench.user)] == 10 * HELD


async def test_a_gateway_that_leaves_politely_is_followed_at_once(bench: Bench) -> None:
    caretaker = Caretaker(bench.database, GATEWAY, bench.room)
    await caretaker.tend()
    assert await bench.settler.settle()
    await caretaker.leave()
    async with bench.database.writing() as connection:
        assert await repository.take_lease(connection, LEASE, Gateway("there", "x"), timedelta(seconds=9))


async def test_a_run_that_was_given_up_for_dead_cannot_capture_afterwards(bench: Bench) -> None:
    await bench.open("o1")
    await bench.settler.settle()
    await recover(bench.database)
    with pytest.raises(Conflict):
        await bench.close("o1")


async def test_the_settler_goes_on_when_the_chain_comes_back(bench: Bench) -> None:
    nowhere = Chain("http://127.0.0.1:9", 31337, bench.chain.token_address, bench.chain.escrow_address)
    lost = bench.settler_of(GATEWAY, Rules(), nowhere)
    await bench.open("p1")
    task = asyncio.create_task(lost.run())
    await asyncio.sleep(0.2)
    assert not task.done()
    task.cancel()
    await nowhere.close()
    await bench.settler.drain()
    assert await bench.escrow("p1") is EscrowStatus.OPEN


async def test_watching_and_settling_agree_on_the_deposit(bench: Bench) -> None:
    watching = DepositWatcher(bench.database, bench.chain, confirmations=0, first_block=0, poll_seconds=1)
    await watching.open()
    other = await new_user(bench.chain, 500)
    while await watching.look():
        pass
    async with bench.database.reading() as connection:
        assert (await ledger.balance_of(connection, address_of(other))).available == 500


def test_the_settlers_key_is_not_in_its_description(live_chain: LiveChain, sqlite_url: str) -> None:
    async def describe() -> str:
        chain, database = live_chain.connect(), Database(sqlite_url)
        described = repr(Bench(database, chain, SETTLER).settler)
        await chain.close()
        await database.close()
        return described

    assert SETTLER[2:] not in asyncio.run(describe())
