"""The books against a real chain: clean at any moment of an honest life, and every kind of damage is found by name."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from far_mesh.cli import app
from far_mesh.marketplace.chain.client import address_of, escrow_id_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch, DatabaseUnavailable
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.payments.vouchers import channel_id_of
from far_mesh.marketplace.sessions.schemas import Gateway, Payment
from far_mesh.marketplace.settlement import reconcile_books
from far_mesh.marketplace.settlement.reconcile import ADVICE
from far_mesh.marketplace.settlement.reconciler import Reconciler
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, mined
from tests.far_mesh.marketplace.payments.street import Street
from tests.far_mesh.marketplace.settlement.town import DAY, Town
from tests.support.documents import wallet_of

ANN, BERT = wallet_of("ann"), wallet_of("bert")
WEI = 10**9


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.settlement.reconciler.PAUSE_SECONDS", 0.0)


@pytest.fixture
async def town(database: Database, street: Street) -> AsyncIterator[Town]:
    """On each kind of database in turn."""
    async for one in _town(database, street):
        yield one


@pytest.fixture
async def village(sqlite_url: str, street: Street) -> AsyncIterator[Town]:
    """On SQLite."""
    database = Database(sqlite_url)
    async for one in _town(database, street):
        yield one
    await database.close()


async def _town(database: Database, street: Street) -> AsyncIterator[Town]:
    opened = Town(database, street.url, street.deployment)
    await opened.watch()
    yield opened
    await opened.chain.close()


# ---- an honest life


async def test_after_a_life_of_all_ways_to_pay_everything_agrees(town: Town) -> None:
    alice, bob = await town.user(), await town.user()
    await town.assert_agreed()
    await town.serve(alice, Payment.ESCROW)
    cancelled = await town.begin(alice, Payment.ESCROW)
    await town.settler.settle()
    await town.refund(cancelled)
    await town.serve(bob, Payment.NETTED, BERT)
    channel = await town.open_channel(bob, 5_000)
    await town.promise(bob, channel, 1_000)
    await town.serve_by_channel(bob, channel)
    await town.settle()
    await town.assert_agreed()
    assert await town.chain.credit_of_wei(ANN) == 800 * WEI  # of an escrow and of the pool
    assert await town.chain.credit_of_wei(BERT) == 400 * WEI
    await town.send(alice, "withdrawDeposit", 7 * WEI + 1)
    await town.send(alice, "createEscrow", bytes(32), 3 * WEI + 5)  # without us
    await town.send(bob, "topUp", bytes.fromhex(channel[2:]), 2 * WEI + 3)
    await town.send(bob, "startClose", bytes.fromhex(channel[2:]))
    await town.watch()
    await town.assert_agreed()
    await town.anvil("evm_increaseTime", DAY)
    await town.send(alice, "cancel", bytes.fromhex(channel_id_of(address_of(alice), bytes(32))[2:]))
    await town.send(bob, "finishClose", bytes.fromhex(channel[2:]))
    await town.watch()
    await town.serve(alice, Payment.NETTED)
    await town.settle()
    await town.assert_agreed()


async def test_what_is_on_its_way_is_no_disagreement_at_any_step(village: Town) -> None:
    """Compared after the newest block, and after one that is three blocks old while the books know of the newest."""
    alice, bob = await village.user(), await village.user()
    late = Reconciler(village.database, village.chain, first_block=0, confirmations=3, reorg_blocks=8)

    async def agree() -> None:
        assert (await village.reconciler.compare(full=True)).findings == []
        assert (await late.compare(full=True)).findings == []

    await ChainWallet(village.chain, bob).withdraw_deposit(1_000)  # and nobody has looked yet
    await agree()
    channel = await village.open_channel(bob, 5_000)
    await agree()
    await village.promise(bob, channel, 2_000)
    await village.anvil("evm_setAutomine", False)
    locked = await village.begin(alice, Payment.ESCROW)
    netted, by_channel = await village.begin(alice, Payment.NETTED), await village.begin(bob, Payment.CHANNEL, channel)
    await agree()
    await village.settler.settle()  # the lock is sent
    await agree()
    await village.anvil("anvil_mine", "0x1")  # and in a block, of which the books know nothing
    await agree()
    await village.settler.settle()
    await village.end(locked, ANN, Payment.ESCROW)
    await village.end(netted, BERT)
    await village.refund(by_channel)
    await village.serve_by_channel(bob, channel, BERT)
    await agree()
    await village.settler.settle()  # the release is sent, and a redemption or a batch
    await agree()
    for _ in range(4):
        await village.anvil("anvil_mine", "0x1")
        await agree()
        await village.settler.settle()
        await agree()
    await village.watch()
    await agree()
    assert await village.chain.credit_of_wei(BERT) == 800 * WEI


async def test_a_release_that_was_refused_leaves_its_escrow_explained(village: Town) -> None:
    alice = await village.user()
    name = await village.begin(alice, Payment.ESCROW)
    await village.settler.settle()
    await village.anvil("evm_increaseTime", DAY)  # after its deadline nothing can be released
    await village.anvil("anvil_mine", "0x1")
    await village.end(name, ANN, Payment.ESCROW)
    await village.settler.drain()
    await village.assert_agreed()
    await village.send(alice, "cancel", escrow_id_of(address_of(alice), name))
    await village.watch()
    await village.assert_agreed()


async def test_under_load_every_look_is_clean(village: Town) -> None:
    """The first look of each comparison, not what is left after the second.

    At the last block but one: of the newest anvil may answer with the state of the one that it is just making.
    """
    reconciler = Reconciler(village.database, village.chain, first_block=0, confirmations=1, reorg_blocks=8)
    users = [await village.user() for _ in range(3)]
    working = [asyncio.create_task(village.settler.run()), asyncio.create_task(village.watcher.run())]
    looks: list[Any] = []

    async def live(key: str) -> None:
        for index in range(3):
            name = await village.serve(key, Payment.NETTED, wallet_of(f"node {index}"))
            locked = await village.begin(key, Payment.ESCROW)
            await village.room.locked(address_of(key), locked)
            await village.end(locked, ANN, Payment.ESCROW)
            await ChainWallet(village.chain, key).withdraw_deposit(10)
            assert name

    async def look(lives: asyncio.Future[Any]) -> None:
        while not lives.done():
            looks.append(await reconciler._look(full=True, on_progress=lambda *_: None))

    lives = asyncio.gather(*(live(key) for key in users))
    await look(lives)
    await lives
    for task in working:
        task.cancel()
    assert len(looks) > 3
    assert [one.findings for one in looks] == [[]] * len(looks)
    await village.settle()
    await village.assert_agreed()


async def test_what_was_taken_out_is_remembered_and_blocks_are_read_once(
    village: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("far_mesh.marketplace.settlement.reconciler.LOG_BLOCKS", 20)
    alice, node = await village.user(), await village.user(1)
    await village.serve(alice, Payment.NETTED, address_of(node))
    await village.settle()
    await village.send(node, "withdraw", address_of(node))
    await village.send(DEPLOYER, "withdrawFees", address_of(DEPLOYER), 60 * WEI)
    await village.anvil("anvil_mine", "0x20")
    await village.watch()
    assert await village.found() == {}
    async with village.database.reading() as connection:
        notes = await reconcile_books.notes(connection)
    assert notes is not None
    assert (notes.withdrawn, notes.fees_withdrawn) == ({address_of(node): 400 * WEI}, 60 * WEI)
    assert notes.next_block == await village.chain.block_number() + 1 - 8
    blocks: list[int] = []
    await village.serve(alice, Payment.NETTED, address_of(node))
    await village.settle()
    await village.reconciler.compare(on_progress=lambda block, _newest: blocks.append(block))
    assert len(blocks) == 1
    assert village.reconciler.last is not None
    assert village.reconciler.last.findings == []
    await village.reconciler.compare(full=True, on_progress=lambda block, _newest: blocks.append(block))
    assert len(blocks) > 2
    await village.assert_agreed()


# ---- damage


async def adjust(town: Town, **units: int) -> None:
    """An adjustment, by kind and owner of accounts."""
    owners = {"platform": PLATFORM, "ann": ANN, "bert": BERT}
    amounts = {}
    for name, amount in units.items():
        book, _, owner = name.partition("__")
        amounts[Account(Book(book), owners.get(owner, owner))] = amount
    async with town.database.writing() as connection:
        await ledger.adjustment(connection, str(uuid.uuid4()), amounts, "a test")


async def test_an_adjustment_that_the_chain_knows_nothing_of_is_found(town: Town) -> None:
    alice, bob = address_of(await town.user()), address_of(await town.user())
    await adjust(town, **{f"user_deposit__{alice}": -5, f"user_deposit__{bob}": 5})
    found = await town.found()
    assert {kind: set(about) for kind, about in found.items()} == {"user_deposit": {alice, bob}}
    message = next(one for one in (await town.compare()).findings if one["about"] == alice)["message"]
    assert "100,000 units lie on chain" in message
    assert "explain 99,995 units: 5 units between them" in message
    await adjust(town, **{f"user_deposit__{alice}": 5, f"user_deposit__{bob}": -5})
    await town.assert_agreed()


async def test_what_was_written_into_the_books_and_tables_by_hand_is_found(village: Town) -> None:
    alice, bob = await village.user(), await village.user()
    user = address_of(alice)
    locked = await village.serve(alice, Payment.ESCROW)
    await village.serve(bob, Payment.NETTED, BERT)
    channel = await village.open_channel(bob, 5_000)
    await village.promise(bob, channel, 1_000)
    await village.serve_by_channel(bob, channel)
    await village.settle()
    waiting = await village.begin(alice, Payment.ESCROW)
    await village.assert_agreed()
    number = "SELECT max(number) FROM settlement_batches"
    rows: tuple[tuple[str, str, str, Mapping[str, set[str]]], ...] = (
        (
            "UPDATE chain_outbox SET status = 'confirmed' WHERE kind = 'lock' AND request_id = :one",
            "UPDATE chain_outbox SET status = 'pending' WHERE kind = 'lock' AND request_id = :one",
            waiting,
            {"confirmed_not_on_chain": {waiting}},
        ),
        (
            "UPDATE chain_outbox SET status = 'failed' WHERE kind = 'release' AND request_id = :one",
            "UPDATE chain_outbox SET status = 'confirmed' WHERE kind = 'release' AND request_id = :one",
            locked,
            {"failed_but_on_chain": {locked}, "provider_credit": {ANN}, "platform_fees": {"platform"}},
        ),
        (
            "UPDATE inference_sessions SET fee_units = 101 WHERE request_id = :one",
            "UPDATE inference_sessions SET fee_units = 100 WHERE request_id = :one",
            locked,
            {"amounts_differ": {locked}},
        ),
        (
            f"UPDATE settlement_batches SET charges = replace(charges, '500', :one) WHERE number = ({number})",
            f"UPDATE settlement_batches SET charges = replace(charges, :one, '500') WHERE number = ({number})",
            "501",
            {"amounts_differ": {"batch-1"}},
        ),
        (
            "UPDATE payment_channels SET deposit_units = deposit_units + 1 WHERE channel_id = :one",
            "UPDATE payment_channels SET deposit_units = deposit_units - 1 WHERE channel_id = :one",
            channel,
            {"channel": {channel}},
        ),
        (
            "UPDATE payment_channels SET netted_units = netted_units + 1 WHERE channel_id = :one",
            "UPDATE payment_channels SET netted_units = netted_units - 1 WHERE channel_id = :one",
            channel,
            {"pool": {"pool"}},
        ),
    )
    for damage, mend, one, expected in rows:
        await village.write(damage, one=one)
        found = await village.found(full=True)
        assert {kind: set(about) for kind, about in found.items()} == expected, damage
        await village.write(mend, one=one)
        assert await village.found(full=True) == {}, mend
    adjustments: tuple[tuple[dict[str, int], Mapping[str, set[str]]], ...] = (
        ({f"user_deposit__{user}": -7, f"user_channel__{user}": 7}, {"user_deposit": {user}, "user_channel": {user}}),
        ({f"chain__{user}": -7, "provider_paid__ann": 7}, {"provider_credit": {ANN}}),
        ({f"chain__{user}": -7, "platform_paid__platform": 7}, {"platform_fees": {"platform"}}),
    )
    for amounts, expected in adjustments:
        await adjust(village, **amounts)
        found = await village.found()
        assert {kind: set(about) for kind, about in found.items()} == expected, amounts
        await adjust(village, **{name: -units for name, units in amounts.items()})
    await village.assert_agreed()


async def test_an_event_that_the_watcher_missed_is_found(village: Town) -> None:
    key = await village.user()
    tx_hash = await village.send(key, "withdrawDeposit", 300 * WEI)
    await village.write(
        "UPDATE chain_cursors SET next_block = next_block + 1, last_hash = NULL WHERE name = 'deposits'"
    )
    assert await village.found() == {"event_not_booked": [tx_hash], "user_deposit": [address_of(key)]}
    # and set right with another amount
    values = {"tx": tx_hash, "wallet": address_of(key), "block": await village.chain.block_number()}
    await village.write(EVENT.format(kind="DepositWithdrawn", wei=-300 * WEI), **values)
    async with village.database.writing() as connection:
        await ledger.withdrawal_seen(connection, address_of(key), 299, "by hand")
    assert await village.found() == {"booked_otherwise": [tx_hash], "user_deposit": [address_of(key)]}


EVENT = (
    "INSERT INTO chain_events (tx_hash, log_index, block_number, kind, wallet_address, amount_wei, seen_at, booked_as) "
    "VALUES (:tx, 0, :block, '{kind}', :wallet, '{wei}', '2026-01-01 00:00:00', 'by hand')"
)


async def test_a_deposit_that_was_made_up_is_found(village: Town) -> None:
    key = await village.user()
    values = {"tx": "0x" + "ab" * 32, "wallet": address_of(key), "block": await village.chain.block_number()}
    await village.write(EVENT.format(kind="Deposited", wei=10**6 * WEI), **values)
    async with village.database.writing() as connection:
        await ledger.deposit_seen(connection, address_of(key), 10**6, "by hand")
    assert await village.found() == {"booking_without_event": [values["tx"]], "user_deposit": [address_of(key)]}


async def test_what_a_thief_does_with_the_settlers_key_is_found(town: Town) -> None:
    alice = await town.user()
    await town.serve(alice, Payment.ESCROW)
    await town.settle()
    await town.assert_agreed()
    user, thief = address_of(alice), wallet_of("thief")
    charged, nonce = ([user], [500 * WEI]), await town.chain.transaction_count(address_of(SETTLER))
    settled = await town.send(SETTLER, "settleBatch", 77, bytes(32), charged, [thief], [500 * WEI], 0)
    locked = await town.send(SETTLER, "createEscrowWithAllowance", user, bytes(32), 900 * WEI, 600)
    coins = await town.chain.call(address_of(SETTLER), thief, value=1)
    await town.chain.send(coins, SETTLER)
    root = await town.send(SETTLER, "commitPayoutRoot", 78, b"x" * 32, 9 * WEI, 0, ([user], [9 * WEI]))
    await town.send(DEPLOYER, "revokePayoutRoot", 78)
    await town.watch()
    found = await town.found()
    assert found["unknown_batch"] == [settled, root]
    assert found["unknown_transaction"] == [locked, *(f"nonce {nonce + index}" for index in (0, 1, 2, 3))]
    assert found["root_revoked"] == ["batch-78"]
    assert found["user_deposit"] == [user]
    assert found["pool"] == ["pool"]
    assert (await town.found()).keys() == found.keys()  # it does not go away by looking
    await town.anvil("anvil_mine", "0x10")
    await town.reconciler.compare(accept=True)
    assert "unknown_transaction" not in await town.found()
    assert (await town.found(full=True)).keys() >= {"unknown_transaction", "unknown_batch", "root_revoked"}


async def test_a_chain_that_was_set_back_is_found(village: Town) -> None:
    key = await village.user()
    await village.assert_agreed()
    before = await village.anvil("evm_snapshot")
    tx_hash = await village.send(key, "withdrawDeposit", 300 * WEI)
    await village.serve(key, Payment.ESCROW)
    await village.settler.drain()
    await village.watch()
    await village.assert_agreed()
    await village.anvil("evm_revert", before)
    found = await village.found()
    assert found["chain_is_behind"] == [str(await village.chain.block_number())]
    assert found["booking_without_event"] == [tx_hash]
    assert found["confirmed_not_on_chain"] == ["request 0"] * 2
    await village.anvil("anvil_mine", "0x10")  # another chain came in its place, and the watcher and the settler see it
    await village.watch()
    for _ in range(3):
        await village.settler.settle()
        await village.settler.drain()
    assert await village.found(full=True) == {}


async def test_an_escrow_that_owes_more_than_it_has_is_found(village: Town) -> None:
    await village.user()
    escrow, tokens = village.chain.escrow_address, village.chain.token
    await village.anvil("anvil_setBalance", escrow, hex(10**18))
    await village.anvil("anvil_impersonateAccount", escrow)
    data = tokens.encode_abi("transfer", args=[wallet_of("thief"), 1])
    receipt = await mined(village.url, {"from": escrow, "to": tokens.address, "data": data})
    assert receipt["status"] == "0x1"
    assert await village.found() == {"insolvent": ["escrow"]}


def test_every_finding_says_what_to_do() -> None:
    with open(__file__, encoding="utf-8") as file:
        tests = file.read()
    assert [kind for kind in ADVICE if f'"{kind}"' not in tests] == []


# ---- on a clock, and by hand


async def test_one_gateway_compares_and_the_others_tell_what_it_found(village: Town) -> None:
    other = Reconciler(village.database, village.chain, first_block=0, confirmations=0, reorg_blocks=8)
    running = [
        asyncio.create_task(reconciler.run(Gateway(name, name), 0.05))
        for name, reconciler in (("one", village.reconciler), ("other", other))
    ]
    while village.reconciler.last is None or other.last is None:
        await asyncio.sleep(0.01)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert other.last.findings == village.reconciler.last.findings == []


def test_health_tells_how_many_things_disagree(open_house: OpenHouse) -> None:
    house = open_house(reconcile_seconds=0.1)
    user = house.user()
    user.wait_for(lambda: "reconciliation" in user.http.get("/health").json())
    told = user.http.get("/health").json()["reconciliation"]
    assert told.keys() == {"at", "block", "findings"}
    assert user.wallet not in json.dumps(told)


async def test_books_of_another_chain_are_not_compared(village: Town) -> None:
    await village.write("UPDATE chain_cursors SET genesis_hash = '0x1'")
    with pytest.raises(ChainMismatch, match="another chain"):
        await village.compare()
    await village.write("DELETE FROM chain_cursors")
    with pytest.raises(DatabaseUnavailable, match="never seen a chain"):
        await village.compare()


def reconcile(town: Town, url: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    settings = town.settings
    values = {
        "DATABASE_URL": url,
        "CHAIN_RPC_URL": settings.chain_rpc_url,
        "TOKEN_ADDRESS": settings.token_address,
        "ESCROW_ADDRESS": settings.escrow_address,
    }
    for name, value in values.items():
        monkeypatch.setenv(f"FAR_{name}", value)
    return CliRunner().invoke(app, ["reconcile", *words])


async def test_by_hand_it_lists_what_disagrees(village: Town, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await village.user()

    async def told(*words: str) -> Result:
        return await asyncio.to_thread(reconcile, village, sqlite_url, monkeypatch, *words)

    clean = await told()
    assert (clean.exit_code, "the books and the chain agree" in clean.stdout) == (0, True), clean.output
    await village.write("UPDATE chain_cursors SET next_block = 1, last_hash = NULL WHERE name = 'deposits'")
    assert (await told("--full")).exit_code == 0  # what was not looked at is no disagreement
    await adjust(village, **{f"user_deposit__{address_of(key)}": -5, "platform_fee__platform": 5})
    result = await told("--full", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert {one["event"] for one in events} == {"progress", "finding", "reconciled"}
    finding = next(one for one in events if one["event"] == "finding")
    assert (finding["kind"], finding["about"]) == ("user_deposit", address_of(key))
    assert finding["advice"] == ADVICE["user_deposit"]
    assert ADVICE["user_deposit"] in (await told()).stdout


async def test_by_hand_what_is_missing_is_said(village: Town, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = f"sqlite+aiosqlite:///{tmp_path / 'none.db'}"
    result = await asyncio.to_thread(reconcile, village, absent, monkeypatch)
    assert (result.exit_code, "there is no database at" in result.stderr) == (1, True)
    monkeypatch.delenv("FAR_ESCROW_ADDRESS")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["reconcile"])
    assert (result.exit_code, "FAR_ESCROW_ADDRESS is not set" in result.stderr) == (1, True)
