"""Deposits that are named by their transaction: credited once, to whom they belong, whoever names them."""

from __future__ import annotations

import asyncio

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.account.deposits import Claim, Credited, TransferDeposits, claim_text
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch, Conflict
from far_mesh.marketplace.ledger.schemas import Balance
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.payments.errors import (
    DepositNotYours,
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PaymentsOff,
)
from far_mesh.marketplace.payments.none import NoPayments
from far_mesh.marketplace.payments.provider import PaymentProvider
from tests.far_mesh.marketplace.account.bench import USER, Bench
from tests.far_mesh.marketplace.house import rpc
from tests.far_mesh.marketplace.payments.solana_node import FINAL_AFTER
from tests.far_mesh.marketplace.payments.street import DEPLOYER, FAR, PAYER, Street, stranger
from tests.far_mesh.marketplace.payments.test_solana import Square

PLACE = "far.test"
ELSE = stranger()


def booked(credited: Credited) -> list[tuple[str, int]]:
    """Whose, and how much."""
    return [(row.wallet_address, row.amount) for row in credited.events]


# ---- into the escrow


async def test_a_deposit_is_credited_when_it_is_named_and_the_watcher_adds_nothing(bench: Bench) -> None:
    tx_hash = await bench.wallet.deposit(1_000)
    first = await bench.desk().credit(Claim(USER, tx_hash))
    assert not first.was_booked
    assert booked(first) == [(USER, 1_000 * FAR)]
    assert await bench.available() == 1_000
    await bench.look()
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await bench.is_sound()


async def test_a_deposit_that_the_watcher_has_seen_is_credited_no_more_and_tells_the_same(bench: Bench) -> None:
    tx_hash = await bench.wallet.deposit(1_000)
    await bench.look()
    desk = bench.desk()
    answers = [await desk.credit(Claim(USER, name)) for name in (tx_hash, tx_hash.upper().replace("0X", "0x"))]
    assert [answer.was_booked for answer in answers] == [True, True]
    assert {tuple(booked(answer)) for answer in answers} == {((USER, 1_000 * FAR),)}
    assert await bench.is_sound()


async def test_two_hundred_who_name_one_deposit_while_two_watch_credit_it_once(bench: Bench) -> None:
    desks = [bench.desk() for _ in range(4)]
    tx_hash = await bench.wallet.deposit(1_000)
    names = (desks[index % 4].credit(Claim(USER, tx_hash)) for index in range(200))
    answers, _, _ = await asyncio.gather(asyncio.gather(*names), bench.look(), bench.look(bench.another_watcher()))
    assert sum(not answer.was_booked for answer in answers) <= 1
    assert {tuple(booked(answer)) for answer in answers} == {((USER, 1_000 * FAR),)}
    assert await bench.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await bench.is_sound()


async def test_somebody_elses_deposit_is_credited_to_whom_the_escrow_says(bench: Bench) -> None:
    tx_hash = await bench.wallet.deposit(1_000)
    answer = await bench.desk().credit(Claim(ELSE, tx_hash))
    assert booked(answer) == [(USER, 1_000 * FAR)]


async def test_two_deposits_of_one_block_are_told_apart(bench: Bench) -> None:
    chain = bench.street.chain
    await bench.wallet.deposit(1)
    approve = await chain.prepare(chain.token, "approve", (bench.street.deployment.escrow, 10 * FAR), USER)
    await chain.send(approve, DEPLOYER)
    await rpc(bench.street.url, "evm_setAutomine", False)
    deposit = await chain.prepare(chain.escrow, "deposit", (2 * FAR,), USER)
    nonce = await chain.transaction_count(USER)
    signed = [await chain.sign(deposit, nonce + place, DEPLOYER) for place in range(2)]
    for one in signed:
        assert await chain.send_raw(one.raw) is None
    await bench.street.mine()
    answers = [await bench.desk().credit(Claim(USER, one.tx_hash)) for one in signed]
    assert [booked(answer) for answer in answers] == [[(USER, 2 * FAR)]] * 2
    await bench.look()
    assert await bench.available() == 5
    assert await bench.is_sound()


async def test_what_is_no_deposit_is_refused_and_nothing_changes(bench: Bench) -> None:
    desk = bench.desk()
    foreign = await bench.street.pay(5 * FAR)
    for tx_hash, error in (
        ("", InvalidArgument),
        ("0x" + "g" * 64, InvalidArgument),
        ("0x" + "0" * 63, InvalidArgument),
        ("0x" + "0" * 64, DepositUnknown),
        (foreign, DepositRefused),
    ):
        with pytest.raises(error):
            await desk.credit(Claim(USER, tx_hash))
    assert await bench.history() == []


async def test_a_deposit_counts_when_it_has_its_confirmations_for_whoever_names_it(
    database: Database, street: Street
) -> None:
    bench = Bench(database, street, confirmations=2)
    await bench.watcher.open()
    desk, tx_hash = bench.desk(), await bench.wallet.deposit(1_000)
    for on_top in (0, 1):
        with pytest.raises(DepositPending) as caught:
            await desk.credit(Claim(USER, tx_hash))
        assert (caught.value.facts["confirmations"], caught.value.facts["needed"]) == (on_top, 2)
        await street.mine()
    assert not (await desk.credit(Claim(USER, tx_hash))).was_booked


async def test_a_deposit_from_before_the_books_begin_is_not_credited(bench: Bench) -> None:
    tx_hash = await bench.wallet.deposit(1_000)
    begin = await bench.street.node.block_number() + 1
    with pytest.raises(DepositRefused, match=f"before block {begin}"):
        await bench.desk(first_block=begin).credit(Claim(USER, tx_hash))


# ---- by transfer


async def by_transfer(database: Database, provider: PaymentProvider, reorg_blocks: int = 64) -> TransferDeposits:
    opened = TransferDeposits(database, provider, 0, PLACE, reorg_blocks)
    await opened.open()
    return opened


async def is_sound(database: Database) -> bool:
    async with database.snapshot() as connection:
        return (await verify(connection)).findings == ()


async def test_a_transfer_is_credited_to_its_payer_once(database: Database, street: Street) -> None:
    bench, desk = Bench(database, street), await by_transfer(database, street.provider())
    tx_hash = await street.pay(7 * FAR)
    first, *others = await asyncio.gather(*(desk.credit(Claim(USER, tx_hash)) for _ in range(50)))
    again = await desk.credit(Claim(USER, tx_hash.upper().replace("0X", "0x")))
    assert [first.was_booked, *{other.was_booked for other in others}, again.was_booked] == [False, True, True]
    assert await bench.balance() == Balance(available=7 * FAR, held=0, deposited=7 * FAR)
    assert await is_sound(database)


async def test_a_transfer_of_somebody_else_is_refused_until_the_payer_signs_for_it(
    database: Database, street: Street
) -> None:
    desk, tx_hash = await by_transfer(database, street.provider()), await street.pay(7 * FAR)
    text = claim_text(PLACE, tx_hash, ELSE)

    def signed(said: str, key: str = DEPLOYER) -> str:
        return str(Account.sign_message(encode_defunct(text=said), key).signature.to_0x_hex())

    for signature in (None, "", "0x00", signed(text, PAYER), signed(claim_text(PLACE, tx_hash, USER))):
        with pytest.raises(DepositNotYours, match="alone may claim it") as caught:
            await desk.credit(Claim(ELSE, tx_hash, signature))
        assert caught.value.facts["payer"] == USER
    assert booked(await desk.credit(Claim(ELSE, tx_hash, signed(text)))) == [(ELSE, 7 * 10**18)]
    with pytest.raises(Conflict, match=ELSE):
        await desk.credit(Claim(USER, tx_hash))


async def test_a_transfer_that_disappears_is_taken_back_and_credited_again_when_it_returns(
    database: Database, street: Street
) -> None:
    bench, desk = Bench(database, street), await by_transfer(database, street.provider())
    tx_hash = await street.pay(7 * FAR)
    raw = await bench.raw(tx_hash)
    await desk.credit(Claim(USER, tx_hash))
    await desk.look()
    assert await bench.available() == 7 * FAR
    await bench.reorganise(1)
    await desk.look()
    await desk.look()
    assert await bench.balance() == Balance(available=0, held=0, deposited=0)
    await street.node.send_raw(raw)
    await street.mine()
    await desk.look()
    await desk.look()
    assert (await desk.credit(Claim(USER, tx_hash))).was_booked
    assert await bench.balance() == Balance(available=7 * FAR, held=0, deposited=7 * FAR)
    assert [row.vanished_at is None for row in await bench.history()] == [False, True]
    assert await is_sound(database)


async def test_a_transfer_that_moves_to_another_block_stays_credited(database: Database, street: Street) -> None:
    bench, desk = Bench(database, street), await by_transfer(database, street.provider())
    tx_hash = await street.pay(7 * FAR)
    raw = await bench.raw(tx_hash)
    await street.mine(2)
    await desk.credit(Claim(USER, tx_hash))
    await bench.reorganise(3)
    await street.node.send_raw(raw)
    await street.mine()
    await desk.look()
    (row,) = await bench.history()
    assert row.block_hash == await street.node.block_hash(row.block_number)
    assert await bench.available() == 7 * FAR


async def test_an_old_transfer_is_not_verified_again(database: Database, street: Street) -> None:
    bench, desk = Bench(database, street), await by_transfer(database, street.provider(), reorg_blocks=2)
    await desk.credit(Claim(USER, await street.pay(7 * FAR)))
    await bench.reorganise(1)
    await street.mine(3)
    await desk.look()
    assert await bench.available() == 7 * FAR


async def test_a_deposit_on_solana_is_claimed_with_the_key_that_paid(database: Database) -> None:
    square = Square()
    await square.node.start()
    try:
        desk = await by_transfer(database, square.provider())
        tx_id = square.pay(500)
        with pytest.raises(DepositPending):
            await desk.credit(Claim(USER, tx_id))
        square.node.advance(FINAL_AFTER)
        text = claim_text(PLACE, tx_id, USER).encode()
        forged = str(square.node.wallet().sign_message(text))
        for signature in (None, "", "not base58 0OIl", forged, str(square.ann.sign_message(text + b" "))):
            with pytest.raises(DepositNotYours, match=str(square.ann.pubkey())):
                await desk.credit(Claim(USER, tx_id, signature))
        claim = Claim(USER, tx_id, str(square.ann.sign_message(text)))
        assert booked(await desk.credit(claim)) == [(USER, 500)]
        assert (await desk.credit(claim)).was_booked
        await desk.look()  # what is finalized stays
        assert await is_sound(database)
    finally:
        await square.close()


async def test_without_payments_nothing_is_credited(database: Database) -> None:
    with pytest.raises(PaymentsOff):
        await (await by_transfer(database, NoPayments())).credit(Claim(USER, "0x" + "0" * 64))


async def test_books_belong_to_one_coin(database: Database, street: Street) -> None:
    await by_transfer(database, street.provider())
    await by_transfer(database, street.provider())
    for other in (NoPayments(), street.hype()):
        with pytest.raises(ChainMismatch):
            await by_transfer(database, other)
    with pytest.raises(ChainMismatch):
        await Bench(database, street).watcher.open()
