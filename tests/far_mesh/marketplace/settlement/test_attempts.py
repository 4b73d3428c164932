"""Transactions that the chain does not take at once: raised, forgotten, displaced, behind a gap."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from far_mesh.marketplace.chain.client import Chain, EscrowStatus, address_of
from far_mesh.marketplace.chain.node import max_fee_of
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.service import REBROADCAST_EVERY, Rules
from tests.far_mesh.marketplace.house import SETTLER
from tests.far_mesh.marketplace.settlement.bench import GATEWAY, HELD, Bench

IMPATIENT = Rules(bump_seconds=1e-6)


async def test_what_is_stuck_is_signed_again_with_higher_fees_and_the_same_nonce(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await bench.automine(False)
    await bench.open("raise1")
    await bench.settler.settle()
    first = await bench.row(Kind.LOCK, "raise1")
    assert first.raw_tx is not None
    await bench.anvil("anvil_setNextBlockBaseFeePerGas", hex(2 * max_fee_of(first.raw_tx)))
    await bench.mine()
    assert await bench.escrow("raise1") is EscrowStatus.NONE
    await bench.settler.settle()  # not for so long as to be stuck
    assert len(await bench.attempts(Kind.LOCK, "raise1")) == 1
    await bench.settler_of(GATEWAY, IMPATIENT).settle()
    second, before = await bench.attempts(Kind.LOCK, "raise1")
    assert (before.tx_hash, before.nonce) == (first.tx_hash, second.nonce)
    assert max_fee_of(second.raw_tx) > 2 * max_fee_of(before.raw_tx)
    await bench.mine()
    await bench.settler.drain()
    row = await bench.row(Kind.LOCK, "raise1")
    assert (row.status, row.tx_hash, row.attempts) == (RowStatus.CONFIRMED, second.tx_hash, 2)
    assert row.block_hash == await bench.chain.block_hash(row.block_number or 0)
    assert await bench.escrow("raise1") is EscrowStatus.OPEN


async def test_the_first_attempt_may_be_mined_after_a_second_was_sent(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await bench.automine(False)
    await bench.open("raise2")
    impatient = bench.settler_of(GATEWAY, IMPATIENT)
    await impatient.settle()
    await impatient.settle()
    second, first = await bench.attempts(Kind.LOCK, "raise2")
    await bench.anvil("anvil_dropTransaction", second.tx_hash)
    assert await bench.chain.send_raw(first.raw_tx) is None
    await bench.mine()
    await bench.settler.drain()
    row = await bench.row(Kind.LOCK, "raise2")
    assert (row.status, row.tx_hash, row.raw_tx) == (RowStatus.CONFIRMED, first.tx_hash, first.raw_tx)


async def test_only_the_lowest_nonce_is_raised_and_only_once_under_one_block(bench: Bench) -> None:
    await bench.automine(False)
    for name in ("low", "middle", "high"):
        await bench.open(name)
    impatient = bench.settler_of(GATEWAY, IMPATIENT)
    for _ in range(4):
        await impatient.settle()
    assert [len(await bench.attempts(Kind.LOCK, name)) for name in ("low", "middle", "high")] == [2, 1, 1]
    await bench.mine()
    await impatient.drain()
    assert {await bench.escrow(name) for name in ("low", "middle", "high")} == {EscrowStatus.OPEN}


async def test_no_more_is_offered_than_is_allowed_and_that_is_said_once(bench: Bench) -> None:
    await bench.automine(False)
    most = (await bench.chain.fees())["maxFeePerGas"] - 1
    frugal = bench.settler_of(GATEWAY, Rules(bump_seconds=1e-6, max_fee_wei=most))
    await bench.open("cap")
    with capture_logs() as logs:
        for _ in range(3):
            await frugal.settle()
            await bench.anvil("anvil_setNextBlockBaseFeePerGas", hex(2 * most))
            await bench.mine()
    (only,) = await bench.attempts(Kind.LOCK, "cap")
    assert max_fee_of(only.raw_tx) == most
    assert [line["log_level"] for line in logs if line["event"] == "fee_cap_reached"] == ["error"]
    async with bench.database.reading() as connection:
        assert await repository.count_capped(connection) == 1
        assert (await repository.oldest_unfinished(connection)) is not None
    await bench.anvil("anvil_setNextBlockBaseFeePerGas", "0x1")
    await bench.chain.send_raw(only.raw_tx)
    await bench.mine()
    await frugal.drain()
    row = await bench.row(Kind.LOCK, "cap")
    assert (row.status, row.tx_hash, row.error_code) == (RowStatus.CONFIRMED, only.tx_hash, None)


async def test_what_the_node_has_forgotten_it_gets_again(bench: Bench) -> None:
    await bench.automine(False)
    await bench.open("forgotten")
    await bench.settler.settle()
    (only,) = await bench.attempts(Kind.LOCK, "forgotten")
    await bench.anvil("anvil_dropTransaction", only.tx_hash)
    for _ in range(REBROADCAST_EVERY):
        await bench.settler.settle()
    assert await bench.chain.is_waiting(only.tx_hash)
    await bench.mine()
    await bench.settler.drain()
    row = await bench.row(Kind.LOCK, "forgotten")
    assert (row.status, row.tx_hash, row.attempts) == (RowStatus.CONFIRMED, only.tx_hash, 1)


async def test_a_nonce_that_something_else_left_open_is_filled(bench: Bench) -> None:
    await bench.automine(False)
    settler = address_of(SETTLER)
    call = await bench.chain.prepare(bench.chain.token, "approve", (bench.user, 1), settler)
    other = await bench.chain.sign(call, await bench.chain.transaction_count(settler), SETTLER)
    await bench.chain.send_raw(other.raw)
    await bench.open("gap")
    await bench.settler.settle()
    assert (await bench.row(Kind.LOCK, "gap")).nonce == other.nonce + 1
    await bench.anvil("anvil_dropTransaction", other.tx_hash)
    await bench.mine()
    assert await bench.escrow("gap") is EscrowStatus.NONE
    await bench.settler_of(GATEWAY, IMPATIENT).settle()
    await bench.mine()
    await bench.settler.drain()
    row = await bench.row(Kind.LOCK, "gap")
    assert (row.status, row.nonce) == (RowStatus.CONFIRMED, other.nonce)
    await bench.open("after the gap")
    await bench.automine(True)
    await bench.settler_of(GATEWAY, IMPATIENT).drain()
    assert await bench.escrow("after the gap") is EscrowStatus.OPEN


async def _use_the_nonce_elsewhere(bench: Bench) -> None:
    call = await bench.chain.prepare(bench.chain.token, "approve", (bench.user, 1), address_of(SETTLER))
    await bench.chain.send(call, SETTLER)


async def _lost(_self: Chain, _raw: str) -> None:
    return None


async def test_a_nonce_that_something_else_used_is_noticed_and_the_row_is_signed_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.open("f1")
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "send_raw", _lost)
        await bench.settler.settle()
    first = await bench.row(Kind.LOCK, "f1")
    assert first.status is RowStatus.SENT
    await _use_the_nonce_elsewhere(bench)
    await bench.settler.drain()
    second = await bench.row(Kind.LOCK, "f1")
    assert (second.status, second.attempts) == (RowStatus.CONFIRMED, 2)
    assert second.tx_hash != first.tx_hash
    assert await bench.escrow("f1") is EscrowStatus.OPEN


async def test_a_nonce_counts_as_used_by_something_else_after_its_confirmations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = bench.settler_of(GATEWAY, Rules(confirmations=2))
    await bench.open("f2")
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "send_raw", _lost)
        await patient.settle()
    await _use_the_nonce_elsewhere(bench)
    await patient.settle()
    assert (await bench.row(Kind.LOCK, "f2")).attempts == 1
    await bench.mine(2)
    await patient.settle()
    assert (await bench.row(Kind.LOCK, "f2")).attempts == 2


async def test_what_was_signed_and_lost_is_sent_again_byte_for_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.open("g1")
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "send_raw", _lost)
        await bench.settler.settle()
    before = await bench.row(Kind.LOCK, "g1")
    await bench.settler_of(GATEWAY).drain()
    after = await bench.row(Kind.LOCK, "g1")
    assert (after.status, after.tx_hash, after.attempts) == (RowStatus.CONFIRMED, before.tx_hash, 1)


async def test_a_lock_that_was_signed_is_not_taken_back_but_cancelled(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await bench.automine(False)
    await bench.open("g2")
    await bench.settler.settle()
    async with bench.database.writing() as connection:  # as if its nonce had been used; what was signed is still about
        await repository.mark_pending(connection, await bench.row(Kind.LOCK, "g2"))
    await bench.refund("g2")
    await bench.automine(True)
    await bench.mine()
    assert await bench.escrow("g2") is EscrowStatus.OPEN
    await bench.settler.drain()
    assert await bench.escrow("g2") is EscrowStatus.CANCELLED
    assert await bench.chain.deposit_of(bench.user) == await bench.available() == 10 * HELD
