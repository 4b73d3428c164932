"""Blocks that are given up under what users did: the books end as the chain ends."""

from __future__ import annotations

import asyncio

import pytest

from far_mesh.marketplace.account import events, repository
from far_mesh.marketplace.account.deposits import Claim
from far_mesh.marketplace.errors import InsufficientBalance
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Balance
from far_mesh.marketplace.ledger.verify import verify
from tests.far_mesh.marketplace.account.bench import USER, Bench
from tests.far_mesh.marketplace.house import rpc


async def deposited(bench: Bench, units: int) -> tuple[str, str]:
    """A deposit with two blocks on top that was booked: its hash, and its bytes."""
    tx_hash = await bench.wallet.deposit(units)
    raw = await bench.raw(tx_hash)
    await bench.street.mine(2)
    await bench.look()
    assert await bench.available() == units
    return tx_hash, raw


async def test_a_deposit_that_moves_to_another_block_counts_once_and_under_another_name(bench: Bench) -> None:
    tx_hash, raw = await deposited(bench, 1_000)
    await bench.reorganise(3)
    await bench.look()
    assert await bench.balance() == Balance(available=0, held=0, deposited=0)
    await bench.street.node.send_raw(raw)
    await bench.street.mine()
    await bench.look()
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    before, after = await bench.history()
    assert before.vanished_at is not None
    assert after.vanished_at is None
    assert {before.tx_hash, after.tx_hash} == {tx_hash}
    assert before.booked_as != after.booked_as
    assert await bench.is_sound()


async def test_a_deposit_that_moves_between_two_looks_counts_once(bench: Bench) -> None:
    _, raw = await deposited(bench, 1_000)
    await bench.reorganise(3)
    await bench.street.node.send_raw(raw)
    await bench.street.mine(2)
    await bench.look()
    assert [row.vanished_at is None for row in await bench.history()] == [False, True]
    assert await bench.is_sound()


async def test_a_deposit_that_disappears_is_taken_back(bench: Bench) -> None:
    await deposited(bench, 1_000)
    await bench.reorganise(3)
    await bench.street.mine(5)
    await bench.look()
    assert await bench.balance() == Balance(available=0, held=0, deposited=0)
    assert await bench.is_sound()


async def test_a_deposit_that_was_spent_and_disappears_leaves_a_debt_and_nothing_more_is_served(bench: Bench) -> None:
    await deposited(bench, 1_000)
    async with bench.database.writing() as connection:
        await ledger.hold(connection, USER, "r1", 600)
    await bench.reorganise(3)
    await bench.look()
    assert await bench.balance() == Balance(available=-600, held=600, deposited=0)
    with pytest.raises(InsufficientBalance):
        async with bench.database.writing() as connection:
            await ledger.hold(connection, USER, "r2", 1)
    async with bench.database.snapshot() as connection:
        assert (await verify(connection)).findings == ()
    await bench.wallet.deposit(601)
    await bench.look()
    async with bench.database.writing() as connection:
        assert await ledger.hold(connection, USER, "r2", 1)


async def test_a_withdrawal_that_disappears_is_given_back(bench: Bench) -> None:
    await deposited(bench, 1_000)
    await bench.wallet.withdraw_deposit(400)
    await bench.look()
    assert await bench.available() == 600
    await bench.reorganise(1)
    await bench.look()
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await bench.is_sound()


async def test_what_is_older_than_the_blocks_that_were_given_up_stays_as_it_is(bench: Bench) -> None:
    await deposited(bench, 1_000)
    (before,) = await bench.history()
    await bench.wallet.deposit(50)
    await bench.look()
    await bench.reorganise(1)
    await bench.look()
    old, new = await bench.history()
    assert old == before
    assert new.vanished_at is not None
    assert await bench.is_sound()


async def test_only_so_many_blocks_are_looked_at_again(bench: Bench) -> None:
    await deposited(bench, 1_000)
    forgetful = bench.another_watcher(reorg_blocks=1)
    await bench.reorganise(3)
    await bench.look(forgetful)
    assert await bench.available() == 1_000


async def test_several_gateways_watch_a_reorganisation_at_once(bench: Bench) -> None:
    _, raw = await deposited(bench, 1_000)
    await bench.wallet.withdraw_deposit(100)
    watchers = [bench.watcher, *(bench.another_watcher() for _ in range(3))]
    await asyncio.gather(*(bench.look(one) for one in watchers))
    await bench.reorganise(4)
    await asyncio.gather(*(bench.look(one) for one in watchers))
    assert await bench.available() == 0
    await bench.street.node.send_raw(raw)
    await bench.street.mine()
    await asyncio.gather(*(bench.look(one) for one in watchers))
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await bench.is_sound()


async def test_a_chain_that_is_shorter_for_a_moment_is_waited_for(bench: Bench) -> None:
    await bench.look()
    before = await rpc(bench.street.url, "evm_snapshot")
    await deposited(bench, 1_000)
    await rpc(bench.street.url, "evm_revert", before)
    await bench.look()
    assert await bench.available() == 1_000
    await bench.street.mine(5)
    await bench.look()
    assert await bench.available() == 0
    assert await bench.is_sound()


async def test_a_deposit_that_was_named_and_never_seen_by_the_watcher_is_taken_back_too(bench: Bench) -> None:
    await bench.look()
    tx_hash = await bench.wallet.deposit(1_000)
    await bench.desk().credit(Claim(USER, tx_hash))
    assert await bench.available() == 1_000
    await bench.reorganise(1)
    await bench.look()
    assert await bench.available() == 0
    assert await bench.is_sound()


async def test_a_deposit_that_has_moved_and_is_named_before_the_watcher_looks_counts_once(bench: Bench) -> None:
    tx_hash, raw = await deposited(bench, 1_000)
    await bench.reorganise(3)
    await bench.street.node.send_raw(raw)
    await bench.street.mine()
    (seen,) = await bench.street.chain.escrow_events_of(["Deposited"], tx_hash)
    async with bench.database.writing() as connection:
        assert await events.book(connection, bench.domain, seen)
        assert not await events.book(connection, bench.domain, seen)
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    await bench.look()
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await bench.is_sound()


async def test_a_block_that_comes_back_counts_again(bench: Bench) -> None:
    tx_hash, _ = await deposited(bench, 1_000)
    (seen,) = await bench.street.chain.escrow_events_of(["Deposited"], tx_hash)
    for _ in range(3):
        async with bench.database.writing() as connection:
            for row in await repository.live_of(connection, tx_hash):
                await events.take_back(connection, bench.domain, row)
        assert await bench.available() == 0
        async with bench.database.writing() as connection:
            assert await events.book(connection, bench.domain, seen)
        assert await bench.available() == 1_000
    assert len({row.booked_as for row in await bench.history()}) == 4
    assert await bench.is_sound()
