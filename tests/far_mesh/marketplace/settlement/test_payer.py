"""Transfers on a real chain: due, signed, sent, hastened, refused, given up, and the books beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from solders.account import Account as Kept
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.node import call_data
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.payments import addresses
from far_mesh.marketplace.payments.provider import Payout, SignedPayouts
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import payer as module
from far_mesh.marketplace.settlement.schemas import RowStatus
from far_mesh.marketplace.settlement.transfers import Rule
from tests.far_mesh.marketplace.house import DEPLOYER, rpc
from tests.far_mesh.marketplace.payments.odd_token import Manner
from tests.far_mesh.marketplace.payments.solana_node import FINAL_AFTER
from tests.far_mesh.marketplace.payments.street import PAYER, TILL, Street, stranger
from tests.far_mesh.marketplace.payments.test_solana import Square
from tests.far_mesh.marketplace.settlement.paying import NEVER, USER, Paying

CONFIRMED, SENT, FAILED = RowStatus.CONFIRMED, RowStatus.SENT, RowStatus.FAILED


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests."""
    for name in ("LOOK_SECONDS", "OFFER_SECONDS", "WATCH_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(module, name, 0)


@pytest.fixture
def ann() -> str:
    return stranger()


@pytest.fixture
def bob() -> str:
    return stranger()


@pytest.fixture
async def paying(sqlite_url: str) -> AsyncIterator[Paying]:
    opened = Database(sqlite_url)
    yield Paying(opened)
    await opened.close()


@pytest.fixture
async def square() -> AsyncIterator[Square]:
    opened = Square()
    await opened.node.start()
    yield opened
    await opened.close()


async def funded(street: Street) -> Street:
    await street.fund()
    return street


async def test_providers_get_exactly_what_they_earned(street: Street, database: Database, ann: str, bob: str) -> None:
    paying = Paying(database)
    await funded(street)
    await paying.served({ann: 400, bob: 30})
    await paying.served({ann: 5})
    await paying.until_paid(await paying.payer(street.provider()), 2)
    assert await street.balance(ann) == units_to_wei(405)
    assert await street.balance(bob) == units_to_wei(30)
    assert await paying.money_of(ann) == {Book.PROVIDER_PAID: 405}
    assert (await paying.paid_lines(ann), await paying.paid_lines(bob)) == ([True, True], [True])
    assert await paying.transfers() == 2
    assert (await ledger_fee(paying)) == 14
    assert await paying.is_sound()


async def ledger_fee(paying: Paying) -> int:
    return (await paying.money_of("platform"))[Book.PLATFORM_FEE]


async def test_the_coin_of_the_chain_is_paid_too(street: Street, paying: Paying, ann: str) -> None:
    await paying.served({ann: 12_345})
    await paying.until_paid(await paying.payer(street.hype()))
    assert int(await rpc(street.url, "eth_getBalance", ann, "latest"), 16) == units_to_wei(12_345)
    assert await paying.money_of(ann) == {Book.PROVIDER_PAID: 12_345}
    assert await paying.is_sound()


async def test_nobody_is_paid_before_it_is_time(street: Street, paying: Paying, ann: str, bob: str) -> None:
    await funded(street)
    await paying.served({ann: 100, bob: 99})
    await (await paying.payer(street.provider(), NEVER)).settle()
    assert await paying.transfers() == 0
    await paying.until_paid(await paying.payer(street.provider(), Rule(10**6, 100)))
    assert (await street.balance(ann), await street.balance(bob)) == (units_to_wei(100), 0)
    assert await paying.money_of(bob) == {Book.PROVIDER_EARNED: 99}


async def test_an_order_pays_all_and_is_done(street: Street, paying: Paying, ann: str, bob: str) -> None:
    await funded(street)
    await paying.served({ann: 1, bob: 2})
    async with paying.database.writing() as connection:
        order = await batches.order(connection)
    payer = await paying.payer(street.provider(), NEVER)
    await paying.until_paid(payer, 2)
    await payer.settle()
    assert (await street.balance(ann), await street.balance(bob)) == (units_to_wei(1), units_to_wei(2))
    async with paying.database.reading() as connection:
        assert await batches.is_done(connection, order)


async def test_who_cannot_be_paid_holds_up_nobody(street: Street, paying: Paying, ann: str) -> None:
    await funded(street)
    await paying.served({TILL: 500})  # the wallet that deposits go to
    await paying.served({ann: 5})
    await paying.until_paid(await paying.payer(street.provider()))
    assert await street.balance(ann) == units_to_wei(5)
    assert await paying.money_of(TILL) == {Book.PROVIDER_EARNED: 500}
    (held,) = (await paying.held()).values()
    assert (held.code, "deposits go to" in held.reason) == ("payout_invalid", True)
    assert await paying.is_sound()


async def test_with_too_little_nothing_is_paid_and_it_is_said(street: Street, paying: Paying, ann: str) -> None:
    await paying.served({ann: 5})
    payer = await paying.payer(street.provider())
    await payer.settle()
    assert {held.code for held in (await paying.held()).values()} == {"payout_funds_short"}
    assert await paying.money_of(ann) == {Book.PROVIDER_EARNED: 5}
    await funded(street)
    await paying.until_paid(payer)
    assert await street.balance(ann) == units_to_wei(5)
    assert await paying.held() == {}


async def test_what_was_taken_back_is_not_paid(street: Street, paying: Paying, ann: str) -> None:
    await funded(street)
    first, second = await paying.served({ann: 100}), await paying.served({ann: 30})
    async with paying.database.writing() as connection:
        await ledger.refund(connection, USER, first, {Account(Book.PROVIDER_EARNED, ann): 100}, "bad work")
    await paying.until_paid(await paying.payer(street.provider()))
    assert await street.balance(ann) == units_to_wei(30)
    assert await paying.paid_lines(ann) == [False, True], second
    assert await paying.is_sound()


async def test_the_chain_refuses_and_it_is_owed_again(street: Street, paying: Paying, ann: str) -> None:
    token = await street.odd_token()
    await street.send(DEPLOYER, token, call_data("transfer(address,uint256)", address_of(PAYER), 10**12 // 2))
    await paying.served({ann: 50_000})
    provider = street.provider(token_address=token)
    payer = await paying.payer(provider)
    await rpc(street.url, "evm_setAutomine", False)
    await payer.settle()
    assert (await paying.row()).status is SENT
    assert await paying.money_of(ann) == {Book.IN_FLIGHT: 50_000}
    # The token changes its mind in the block before ours is taken.
    await overtake(street, token, call_data("behave(uint8)", int(Manner.REVERTS)))
    row = await paying.until_paid(payer)
    assert (row.status, row.error_code) == (FAILED, "reverted")
    assert await paying.money_of(ann) == {Book.PROVIDER_EARNED: 50_000}
    assert await paying.paid_lines(ann) == [False]
    await street.behave(token, Manner.HONEST)
    assert (await paying.until_paid(payer, 2)).status is CONFIRMED
    assert await paying.money_of(ann) == {Book.PROVIDER_PAID: 50_000}
    assert await paying.is_sound()


async def overtake(street: Street, to: str, data: str) -> None:
    """A dearer transaction, and the block in which both are."""
    fees = {"maxFeePerGas": hex(10**12), "maxPriorityFeePerGas": hex(10**11), "gas": hex(100_000)}
    await rpc(street.url, "eth_sendTransaction", {"from": address_of(DEPLOYER), "to": to, "data": data, **fees})
    await street.mine()
    await rpc(street.url, "evm_setAutomine", True)


async def test_what_waits_too_long_is_hastened_and_paid_once(street: Street, paying: Paying, ann: str) -> None:
    await funded(street)
    await paying.served({ann: 50})
    await rpc(street.url, "evm_setAutomine", False)
    payer = await paying.payer(street.provider(), bump_seconds=1e-6)
    for _ in range(3):  # once under one block
        await payer.settle()
    attempts = await paying.attempts()
    assert len(attempts) == 2
    assert len({attempt.nonce for attempt in attempts}) == 1
    await street.mine()
    await rpc(street.url, "evm_setAutomine", True)
    row = await paying.until_paid(payer)
    assert (row.status, row.tx_hash) == (CONFIRMED, attempts[0].tx_hash)
    assert await street.balance(ann) == units_to_wei(50)
    assert await paying.is_sound()


async def test_more_than_the_most_is_not_offered(street: Street, paying: Paying, ann: str) -> None:
    await funded(street)
    await paying.served({ann: 50})
    await rpc(street.url, "evm_setAutomine", False)
    payer = await paying.payer(street.provider(max_fee_gwei=0.000001), bump_seconds=1e-6)
    for _ in range(2):
        await payer.settle()
    assert len(await paying.attempts()) == 1


async def test_a_transfer_of_which_the_block_is_given_up_is_paid_again_by_the_same_bytes(
    street: Street, database: Database, ann: str
) -> None:
    paying = Paying(database)
    await funded(street)
    await street.mine(4)
    await paying.served({ann: 50})
    payer = await paying.payer(street.provider())
    before = await paying.until_paid(payer)
    await rpc(street.url, "evm_setAutomine", False)
    await rpc(street.url, "anvil_reorg", 1, [])
    await rpc(street.url, "anvil_dropAllTransactions")
    await payer.settle()
    assert (await paying.row()).status is SENT
    assert await paying.money_of(ann) == {Book.IN_FLIGHT: 50}
    assert await paying.paid_lines(ann) == [False]
    assert await paying.is_sound()
    await street.mine()
    await rpc(street.url, "evm_setAutomine", True)
    row = await paying.until_paid(payer)
    assert (row.status, row.vanished, row.tx_hash) == (CONFIRMED, 1, before.tx_hash)
    assert row.block_hash != before.block_hash
    assert await street.balance(ann) == units_to_wei(50)
    assert await paying.money_of(ann) == {Book.PROVIDER_PAID: 50}
    assert (await paying.transfers(), await paying.paid_lines(ann)) == (1, [True])
    assert await paying.is_sound()


async def test_a_nonce_that_something_else_has_used_frees_what_was_to_be_paid(
    street: Street, paying: Paying, ann: str, bob: str
) -> None:
    await funded(street)
    await paying.served({ann: 50})
    await rpc(street.url, "evm_setAutomine", False)
    payer = await paying.payer(street.provider())
    await payer.settle()
    await rpc(street.url, "anvil_dropAllTransactions")
    await rpc(street.url, "evm_setAutomine", True)
    await street.pay(3, to=bob, key=PAYER)
    await paying.until_paid(payer, 2)
    assert [(await paying.row(number)).status for number in (1, 2)] == [FAILED, CONFIRMED]
    assert (await paying.row()).error_code == "displaced"
    assert await street.balance(ann) == units_to_wei(50)
    assert await paying.is_sound()


async def test_nothing_is_signed_while_the_wallet_is_busy_with_something_else(
    street: Street, paying: Paying, ann: str, bob: str
) -> None:
    await funded(street)
    await paying.served({ann: 50})
    await rpc(street.url, "evm_setAutomine", False)
    transaction = {"from": address_of(PAYER), "to": bob, "value": "0x1"}
    await rpc(street.url, "eth_sendTransaction", transaction)
    payer = await paying.payer(street.provider())
    await payer.settle()
    assert await paying.transfers() == 0
    await street.mine()
    await rpc(street.url, "evm_setAutomine", True)
    assert (await paying.until_paid(payer)).status is CONFIRMED


async def test_who_slept_past_the_lease_pays_nobody(
    street: Street, paying: Paying, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await funded(street)
    await paying.served({ann: 50})
    slow = street.provider()
    sleeper, other = await paying.payer(slow), await paying.payer(street.provider())
    prepare = slow.prepare

    async def sleepily(payouts: Sequence[Payout]) -> SignedPayouts:
        signed = await prepare(payouts)
        await paying.until_paid(other)
        return signed

    monkeypatch.setattr(slow, "prepare", sleepily)
    assert not await sleeper.settle()
    assert await paying.transfers() == 1
    assert await street.balance(ann) == units_to_wei(50)


# ---- Solana


async def say(paying: Paying, wallet: str, address: str) -> None:
    async with paying.database.writing() as connection:
        at = now()
        await addresses.change(connection, wallet, address, at, at - at)


async def test_on_solana_many_are_paid_at_once_where_they_said(square: Square, paying: Paying) -> None:
    people = [square.node.wallet(0).pubkey() for _ in range(3)]
    square.give(square.payer.pubkey(), 10**12)
    wallets = sorted(stranger() for _ in people)
    for wallet, person in zip(wallets, people, strict=True):
        await say(paying, wallet, str(person))
    silent = stranger()
    await paying.served({wallets[0]: 100, wallets[1]: 20, wallets[2]: 3, silent: 4})
    payer = await paying.payer(square.provider())
    await payer.settle()
    assert (await paying.row()).status is SENT
    square.node.advance(FINAL_AFTER)
    await payer.settle()
    assert [square.held(person) for person in people] == [100, 20, 3]
    assert await paying.transfers() == 1
    assert await paying.money_of(silent) == {Book.PROVIDER_EARNED: 4}
    assert {held.code for held in (await paying.held()).values()} == {"no_payout_address"}
    await say(paying, silent, str(people[0]))
    await payer.settle()
    square.node.advance(FINAL_AFTER)
    await payer.settle()
    assert square.held(people[0]) == 104
    assert await paying.held() == {}
    assert await paying.is_sound()


async def test_on_solana_one_whom_the_chain_refuses_is_found_out(square: Square, paying: Paying) -> None:
    """Everything about the address looks well; only the chain knows that the account is frozen or closed to us."""
    square.give(square.payer.pubkey(), 10**12)
    good, bad = square.node.wallet(0).pubkey(), square.node.wallet(0).pubkey()
    wallets = sorted((stranger(), stranger()))
    for wallet, person in zip(wallets, (good, bad), strict=True):
        await say(paying, wallet, str(person))
    square.give(bad, 1)
    freeze(square, bad)
    await paying.served({wallets[0]: 10, wallets[1]: 20})
    payer = await paying.payer(square.provider())
    await payer.settle()
    square.node.advance(FINAL_AFTER)
    await payer.settle()
    assert (square.held(good), square.held(bad)) == (10, 1)
    assert {wallet: held.code for wallet, held in (await paying.held()).items()} == {wallets[1]: "transaction_reverted"}


def freeze(square: Square, owner: Pubkey) -> None:
    """As the token program keeps it: state 2 in byte 108 of a token account."""

    key = get_associated_token_address(owner, square.mint)
    found = square.node.svm.get_account(key)
    assert found is not None
    data = bytearray(found.data)
    data[108] = 2
    square.node.svm.set_account(key, Kept(found.lamports, bytes(data), found.owner))


async def test_on_solana_what_is_too_old_is_paid_by_another(square: Square, paying: Paying) -> None:
    square.give(square.payer.pubkey(), 10**12)
    wallet, person = stranger(), square.node.wallet(0).pubkey()
    await say(paying, wallet, str(person))
    await paying.served({wallet: 10})
    payer = await paying.payer(square.provider())
    await payer.settle()
    row = await paying.row()
    assert row.tx_hash is not None
    square.node.roll_back(row.tx_hash)
    square.node.advance(200 + FINAL_AFTER)
    for _ in range(2):
        await payer.settle()
    square.node.advance(FINAL_AFTER)
    await payer.settle()
    assert [(await paying.row(number)).status for number in (1, 2)] == [FAILED, CONFIRMED]
    assert square.held(person) == 10
    assert await paying.is_sound()
