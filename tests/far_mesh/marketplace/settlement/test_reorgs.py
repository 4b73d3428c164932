"""The chain gives up blocks in which something had been confirmed: books and chain agree again, to the unit."""

from __future__ import annotations

import pytest

from far_mesh.marketplace.chain.client import Chain, EscrowStatus, address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.service import Rules
from tests.far_mesh.marketplace.house import SETTLER
from tests.far_mesh.marketplace.settlement.bench import GATEWAY, HELD, PAID, Bench

COST = 500


async def locked(bench: Bench, request_id: str) -> None:
    """A request whose lock is in a block of its own, and everything before it deep below."""
    await bench.mine(4)
    await bench.open(request_id)
    await bench.settler.drain()
    await bench.activate(request_id)


async def released(bench: Bench, request_id: str) -> None:
    """The same, long ago; and the release in a block with two more above."""
    await locked(bench, request_id)
    await bench.mine(4)
    await bench.capture(request_id)
    await bench.settler.drain()
    await bench.mine(2)
    assert await bench.credit(request_id) == PAID
    assert await bench.is_paid(request_id)


async def agrees(bench: Bench, request_id: str) -> None:
    """Books and chain say the same of user and provider."""
    assert await bench.findings() == ()
    assert await bench.chain.deposit_of(bench.user) == await bench.available()
    assert await bench.credit(request_id) == (await bench.earned(request_id)).get(Book.PROVIDER_PAID, 0)


async def test_a_release_that_vanishes_is_in_flight_and_comes_back_byte_for_byte(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await released(bench, "r1")
    before = await bench.row(Kind.RELEASE, "r1")
    await bench.give_up(3)
    await bench.automine(False)
    await bench.settler.settle()
    row = await bench.row(Kind.RELEASE, "r1")
    assert (row.status, row.vanished, row.tx_hash, row.block_hash) == (RowStatus.SENT, 1, before.tx_hash, None)
    assert await bench.earned("r1") == {Book.IN_FLIGHT: PAID}
    assert not await bench.is_paid("r1")
    assert await bench.findings() == ()
    await bench.mine()
    await bench.settler.drain()
    after = await bench.row(Kind.RELEASE, "r1")
    assert (after.status, after.tx_hash, after.attempts) == (RowStatus.CONFIRMED, before.tx_hash, 1)
    assert after.block_hash != before.block_hash
    assert await bench.earned("r1") == {Book.PROVIDER_PAID: PAID}
    assert await bench.is_paid("r1")
    assert await bench.available() == 10 * HELD - COST
    await agrees(bench, "r1")


async def test_what_vanishes_twice_is_paid_once(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await released(bench, "r2")
    for times in (1, 2):
        await bench.give_up(3)
        await bench.settler.drain()
        await bench.mine(2)
        assert (await bench.row(Kind.RELEASE, "r2")).vanished == times
        await agrees(bench, "r2")
    assert await bench.credit("r2") == PAID


async def test_lock_and_release_vanish_together_and_come_back_in_their_order(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await locked(bench, "r3")
    await bench.capture("r3")
    await bench.settler.drain()
    await bench.mine()
    await bench.give_up(3)
    assert await bench.escrow("r3") is EscrowStatus.NONE
    await bench.settler.drain()
    rows = [await bench.row(kind, "r3") for kind in (Kind.LOCK, Kind.RELEASE)]
    assert [(row.status, row.vanished, row.attempts) for row in rows] == [(RowStatus.CONFIRMED, 1, 1)] * 2
    assert await bench.escrow("r3") is EscrowStatus.RELEASED
    await agrees(bench, "r3")


async def test_a_release_that_comes_back_before_its_lock_is_signed_anew_after_it(bench_of_each: Bench) -> None:
    bench, settler = bench_of_each, address_of(SETTLER)
    await locked(bench, "r10")
    await bench.capture("r10")
    await bench.settler.drain()
    await bench.mine()
    await bench.give_up(3)
    # Something else takes the nonce that the lock had.
    await bench.chain.send(await bench.chain.prepare(bench.chain.token, "approve", (bench.user, 1), settler), SETTLER)
    await bench.settler.drain()
    rows = [await bench.row(kind, "r10") for kind in (Kind.LOCK, Kind.RELEASE)]
    assert [(row.status, row.vanished, row.attempts) for row in rows] == [(RowStatus.CONFIRMED, 1, 2)] * 2
    assert await bench.earned("r10") == {Book.PROVIDER_PAID: PAID}
    await agrees(bench, "r10")


async def test_what_is_in_another_block_now_is_noted_and_nothing_is_booked(bench: Bench) -> None:
    await released(bench, "r4")
    before = await bench.row(Kind.RELEASE, "r4")
    await bench.anvil("anvil_reorg", 3, [[before.raw_tx, 1]])
    await bench.settler.settle()
    after = await bench.row(Kind.RELEASE, "r4")
    assert (after.status, after.vanished) == (RowStatus.CONFIRMED, 0)
    assert after.block_hash == await bench.chain.block_hash(after.block_number or 0) != before.block_hash
    assert await bench.earned("r4") == {Book.PROVIDER_PAID: PAID}
    await agrees(bench, "r4")


async def test_a_new_settler_notices_what_vanished_before_its_time(bench: Bench) -> None:
    await released(bench, "r5")
    await bench.give_up(3)
    await bench.settler_of(GATEWAY).drain()
    assert (await bench.row(Kind.RELEASE, "r5")).vanished == 1
    await agrees(bench, "r5")


async def test_a_release_that_cannot_come_back_is_owed_and_left_to_the_next_batch(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await released(bench, "r6")
    await bench.give_up(3)
    cancel = await bench.chain.cancel(address_of(SETTLER), bench.user, "r6")  # by hand, with the settler's key
    await bench.chain.send(cancel, SETTLER)
    await bench.settler.drain()
    row = await bench.row(Kind.RELEASE, "r6")
    assert (row.status, row.vanished) == (RowStatus.FAILED, 1)
    assert (await bench.row(Kind.CANCEL, "r6")).status is RowStatus.CONFIRMED
    session = await bench.session("r6")
    assert (session.payment, session.batch_number, session.total_cost_units) == (Payment.NETTED, None, COST)
    assert await bench.earned("r6") == {Book.PROVIDER_EARNED: PAID}
    assert not await bench.is_paid("r6")
    assert await bench.findings() == ()
    assert await bench.chain.deposit_of(bench.user) == await bench.available() + COST  # until the batch charges it


async def lock_gone(bench: Bench) -> None:
    """The newest blocks are given up, and the user takes the deposit out before the lock can come back."""
    await bench.give_up(3)
    await ChainWallet(bench.chain, bench.key).withdraw_deposit(10 * HELD)
    await bench.settler.drain()


async def test_a_request_whose_lock_cannot_come_back_goes_on_and_is_left_to_the_next_batch(
    bench_of_each: Bench,
) -> None:
    bench = bench_of_each
    await locked(bench, "r7")
    await bench.mine(2)
    await lock_gone(bench)
    row = await bench.row(Kind.LOCK, "r7")
    assert (row.status, row.vanished) == (RowStatus.FAILED, 1)
    await bench.capture("r7")
    await bench.settler.drain()
    assert (await bench.session("r7")).payment is Payment.NETTED
    assert await bench.earned("r7") == {Book.PROVIDER_EARNED: PAID}
    assert await bench.findings() == ()


async def test_a_release_whose_lock_cannot_come_back_is_left_to_the_next_batch(bench_of_each: Bench) -> None:
    bench = bench_of_each
    await locked(bench, "r8")
    await bench.mine()
    await bench.capture("r8")
    await bench.settler.drain()
    await lock_gone(bench)
    assert [(await bench.row(kind, "r8")).status for kind in (Kind.LOCK, Kind.RELEASE)] == [RowStatus.FAILED] * 2
    cancel = await bench.row(Kind.CANCEL, "r8")
    assert (cancel.status, cancel.error) == (RowStatus.CONFIRMED, "nothing was locked")
    assert (await bench.session("r8")).payment is Payment.NETTED
    assert await bench.earned("r8") == {Book.PROVIDER_EARNED: PAID}
    assert await bench.findings() == ()


async def test_a_refund_whose_lock_cannot_come_back_has_nothing_to_cancel(bench: Bench) -> None:
    await locked(bench, "r9")
    await bench.refund("r9")
    await bench.settler.drain()
    await bench.mine()
    await lock_gone(bench)
    cancel = await bench.row(Kind.CANCEL, "r9")
    assert (cancel.status, cancel.error) == (RowStatus.CONFIRMED, "nothing was locked")
    assert await bench.available() == 10 * HELD
    assert await bench.findings() == ()


async def test_the_chain_is_asked_little_and_only_about_young_blocks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("block_number", "head", "block_hash", "mined"):
        original = getattr(Chain, name)

        async def counted(chain: Chain, *arguments: int, _name: str = name, _original: object = original) -> object:
            asked.append(_name)
            return await _original(chain, *arguments)  # type: ignore[operator]

        monkeypatch.setattr(Chain, name, counted)
    settler = bench.settler_of(GATEWAY, Rules(reorg_blocks=3))

    async def questions() -> list[str]:
        asked.clear()
        await settler.settle()
        return list(asked)

    assert [await questions(), await questions()] == [["block_number"], []]
    for index in range(3):
        await bench.open(f"young {index}")
        await settler.drain()
    await bench.mine()
    await questions()
    assert await questions() == ["head"]
    await bench.mine()
    assert await questions() == ["head", "block_hash"]  # whether the chain has only grown
    await bench.mine(3)
    await questions()
    assert await questions() == []
