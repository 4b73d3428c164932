"""Batches on a real chain: composed, sent, confirmed, refused, given up, and the books beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from far_mesh.marketplace.chain.amounts import units_to_wei
from far_mesh.marketplace.chain.client import Claim, address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.settlement import batch_acts, composer
from far_mesh.marketplace.settlement import batch_repository as batches
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.batches import Rule
from far_mesh.marketplace.settlement.merkle import payout_leaf, payout_tree
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.settlement.service import Rules
from tests.far_mesh.marketplace.house import SETTLER, LiveChain, Loop, ledger_of, rpc, start_chain
from tests.far_mesh.marketplace.settlement.netting import ALWAYS, ESCROW_OWNER, NEVER, Netting
from tests.support.documents import wallet_of

DAY = 86_400


@dataclass(frozen=True)
class Providers:
    """Wallets that nobody else has paid."""

    name: str

    def __getitem__(self, index: int) -> str:
        return str(wallet_of(f"{self.name} {index}"))


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Providers:
    return Providers(request.node.name)


@pytest.fixture(scope="module")
def own_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """A chain on which days pass and blocks are given up."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("chain")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests."""
    for module, name in (
        (composer, "LOOK_SECONDS"),
        (composer, "PATIENCE_SECONDS"),
        (composer, "REST_FACTOR"),
        (batch_acts, "REST_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0)


async def _town(live: LiveChain, database: Database) -> AsyncIterator[Netting]:
    chain = live.connect()
    before = await rpc(chain.rpc_url, "evm_snapshot")
    yield Netting(database, chain)
    await rpc(chain.rpc_url, "evm_setAutomine", True)
    await rpc(chain.rpc_url, "evm_revert", before)
    await chain.close()


@pytest.fixture
async def town(own_chain: LiveChain, sqlite_url: str) -> AsyncIterator[Netting]:
    database = Database(sqlite_url)
    async for one in _town(own_chain, database):
        yield one
    await database.close()


@pytest.fixture
async def town_of_each(own_chain: LiveChain, database: Database) -> AsyncIterator[Netting]:
    async for one in _town(own_chain, database):
        yield one


# ---- as it should go


async def test_many_requests_of_many_users_are_one_batch_and_chain_and_books_agree_to_the_unit(
    town_of_each: Netting, nodes: Providers
) -> None:
    town = town_of_each
    users = [await town.user() for _ in range(3)]
    names = [await town.served(user.address, {nodes[0]: 401, nodes[1]: 99}) for user in users for _ in range(2)]
    await town.settles(town.settler())
    (row,) = await town.rows(Kind.SETTLE)
    assert row.status is RowStatus.CONFIRMED
    assert [await town.batch_of(name) for name in names] == [1] * 6
    assert all([await town.is_paid(name) for name in names])
    assert await town.chain.credit_of_wei(nodes[0]) == units_to_wei(6 * 401)
    books = await ledger_of(town.database)
    assert books[Account(Book.PLATFORM_PAID, PLATFORM)] == 6 * 125
    assert [await town.chain.deposit_of(user.address) for user in users] == [10_000 - 2 * 625] * 3
    await town.check()
    async with town.database.reading() as connection:
        kept = await batches.find(connection, 1)
    assert await town.chain.details_of_batch(1, 0) == bytes.fromhex(kept.detail_root[2:])
    assert (kept.kind, kept.requests, kept.total_units, kept.fee_units) == ("batch", 6, 3_000, 750)
    assert kept.charges == {user.address: 1_250 for user in users}


async def test_nothing_is_settled_before_it_is_time(town: Netting, nodes: Providers) -> None:
    user = await town.user()
    await town.served(user.address, {nodes[0]: 400})
    settler = town.settler(Rule(3_600, 1_000, 2_000))
    await town.settles(settler)
    assert await town.rows(Kind.SETTLE) == []
    await town.served(user.address, {nodes[0]: 400})  # 1,000 of the 2,000 that the operator lends
    await town.settles(settler)
    assert await town.rows(Kind.SETTLE) == []
    await town.served(user.address, {nodes[0]: 4})
    await town.settles(settler)
    assert len(await town.rows(Kind.SETTLE)) == 1
    await town.check()


# ---- users who cannot be charged


@pytest.mark.parametrize("act", ["withdraw", "consent"])
async def test_a_user_who_cannot_be_charged_is_left_out_until_it_pays_in_again(
    town: Netting, nodes: Providers, act: str
) -> None:
    ann, bob = await town.user(), await town.user()
    unpaid, paid = await town.served(ann.address, {nodes[0]: 400}), await town.served(bob.address, {nodes[0]: 400})
    if act == "withdraw":
        await town.withdraws(ann, 9_501)
    else:
        await ann.allow_spending(499)
    settler = town.settler()
    await town.settles(settler)
    assert (await town.batch_of(unpaid), await town.batch_of(paid)) == (None, 1)
    assert not await town.is_paid(unpaid)
    await town.check()
    if act == "withdraw":
        await town.deposits(ann, 1)
    else:
        await ann.allow_spending(500)
    await town.settles(settler)
    assert await town.batch_of(unpaid) == 2
    await town.check()


async def test_what_is_about_to_be_locked_for_a_single_request_is_not_charged_as_well(
    town: Netting, nodes: Providers
) -> None:
    user = await town.user(1_000)
    name = await town.served(user.address, {nodes[0]: 400})
    async with town.database.writing() as connection:
        await outbox.add(connection, Kind.LOCK, "locked", user.address, {"units": 501, "lock_seconds": 600})
    await town.settles(town.settler())
    assert await town.batch_of(name) is None


async def test_a_batch_whose_user_takes_out_meanwhile_is_given_up_and_composed_anew(
    town_of_each: Netting, nodes: Providers
) -> None:
    town = town_of_each
    ann, bob = await town.user(), await town.user()
    unpaid, paid = await town.served(ann.address, {nodes[0]: 400}), await town.served(bob.address, {nodes[0]: 400})
    call = await town.chain.prepare(town.chain.escrow, "withdrawDeposit", (units_to_wei(10_000),), ann.address)
    signed = await town.chain.sign(call, await town.chain.transaction_count(ann.address), ann.key)
    await rpc(town.chain.rpc_url, "evm_setAutomine", False)
    settler = town.settler()
    await settler.settle()
    (row,) = await town.rows(Kind.SETTLE)
    assert row.status is RowStatus.SENT
    # Ann's transaction comes into a block before ours.
    await rpc(town.chain.rpc_url, "anvil_dropTransaction", row.tx_hash)
    await town.chain.send_raw(signed.raw)
    await rpc(town.chain.rpc_url, "anvil_mine", "0x1")
    await rpc(town.chain.rpc_url, "evm_setAutomine", True)
    assert row.raw_tx is not None
    await town.chain.send_raw(row.raw_tx)
    await town.settles(settler)
    first, second = await town.rows(Kind.SETTLE)
    assert (first.status, second.status) == (RowStatus.FAILED, RowStatus.CONFIRMED)
    assert (await town.batch_of(unpaid), await town.batch_of(paid)) == (None, 2)
    async with town.database.writing() as connection:
        await ledger.withdrawal_seen(connection, ann.address, 10_000, signed.tx_hash)
    assert await town.chain.credit_of_wei(nodes[0]) == units_to_wei(400)
    async with town.database.snapshot() as connection:
        assert await batches.owed(connection, [nodes[0]]) == {nodes[0]: 400, PLATFORM: 100}


# ---- channels


async def test_vouchers_are_redeemed_into_the_pool_and_pay_the_requests_of_their_channel(
    town_of_each: Netting, nodes: Providers
) -> None:
    town = town_of_each
    ann, bob = await town.user(), await town.user()
    channel_id, key = await town.opens_channel(ann, 5_000)
    await town.promises(channel_id, key, 1_200)
    names = [await town.served(ann.address, {nodes[0]: 400}, channel_id=channel_id) for _ in range(2)]
    names.append(await town.served(bob.address, {nodes[0]: 40}))
    settler = town.settler()
    await town.settles(settler)
    ((redeemed,), (settled,)) = await town.rows(Kind.REDEEM), await town.rows(Kind.SETTLE)
    assert (redeemed.status, settled.status) == (RowStatus.CONFIRMED, RowStatus.CONFIRMED)
    assert [await town.batch_of(name) for name in names] == [1, 1, 1]
    state = await town.chain.channel_of(channel_id)
    assert (state.amount_units, state.redeemed_units) == (5_000, 1_000)
    async with town.database.reading() as connection:
        kept = await batches.find(connection, 1)
        assert await channels.to_net(connection, town.domain) == {}
    assert kept.charges == {bob.address: 50}
    await town.check()
    # What is served later is redeemed later, by the same voucher as far as it goes and by a new one.
    name = await town.served(ann.address, {nodes[0]: 400}, channel_id=channel_id)
    await town.settles(settler)
    assert await town.batch_of(name) is None  # 200 of it were promised: for that alone nothing is redeemed
    await town.promises(channel_id, key, 1_500)
    await town.settles(settler)
    assert await town.batch_of(name) == 2
    assert len(await town.rows(Kind.REDEEM)) == 2
    await town.check()


async def test_a_channel_that_is_closing_is_redeemed_at_once(town: Netting, nodes: Providers) -> None:
    user = await town.user()
    ids = [await town.opens_channel(user, 2_000) for _ in range(2)]
    for channel_id, key in ids:
        await town.promises(channel_id, key, 500)
        await town.served(user.address, {nodes[0]: 400}, channel_id=channel_id)
    settler, (closing, _key) = town.settler(NEVER), ids[0]
    await town.settles(settler)
    assert await town.rows(Kind.REDEEM) == []
    async with town.database.writing() as connection:
        await channels.closing(connection, town.domain, closing, now())
    await town.settles(settler)
    (row,) = await town.rows(Kind.REDEEM)
    assert [one["channel_id"] for one in row.payload["claims"]] == [closing]
    assert await town.rows(Kind.SETTLE) == []


async def test_a_user_who_never_pays_does_not_bring_forward_what_others_pay_by_vouchers(
    town: Netting, nodes: Providers
) -> None:
    ann, bob = await town.user(), await town.user()
    channel_id, key = await town.opens_channel(ann, 5_000)
    await town.promises(channel_id, key, 500)
    long_ago = now() - timedelta(hours=2)
    await town.served(bob.address, {nodes[0]: 400}, ended_at=long_ago)
    await town.withdraws(bob, 10_000)
    await town.served(ann.address, {nodes[0]: 400}, channel_id=channel_id)
    settler = town.settler(Rule(3_600, 10**15, 10**15))
    await town.settles(settler)
    assert (await town.rows(Kind.REDEEM), await town.rows(Kind.SETTLE)) == ([], [])


async def test_a_voucher_that_the_escrow_refuses_does_not_hold_up_the_others(town: Netting, nodes: Providers) -> None:
    user = await town.user()
    ids = [await town.opens_channel(user, 2_000) for _ in range(3)]
    names = []
    for channel_id, key in ids:
        await town.promises(channel_id, key, 500)
        names.append(await town.served(user.address, {nodes[0]: 400}, channel_id=channel_id))
    for name in ("startClose", "finishClose"):  # by the user, and then early by the settler: nothing is left of it
        sender, key = (user.address, user.key) if name == "startClose" else (address_of(SETTLER), SETTLER)
        call = await town.chain.prepare(town.chain.escrow, name, (bytes.fromhex(ids[0][0][2:]),), sender)
        await town.chain.send(call, key)
    await redeem_elsewhere(town, *ids[1], 500)
    await town.settles(town.settler())
    assert [await town.batch_of(name) for name in names] == [None, 1, 1]
    (row,) = await town.rows(Kind.REDEEM)
    assert [one["channel_id"] for one in row.payload["claims"]] == [ids[2][0]]


async def redeem_elsewhere(town: Netting, channel_id: str, key: str, units: int) -> None:
    """By a settler of whom the books do not know."""
    async with town.database.reading() as connection:
        found = await channels.find(connection, town.domain, channel_id)
    assert found.signature is not None
    claim = Claim(channel_id, found.promised_units, units, found.signature)
    await town.chain.send(await town.chain.redeem_vouchers(address_of(SETTLER), [claim]), SETTLER)


# ---- payout roots


async def test_more_providers_than_a_batch_takes_get_a_payout_root_and_claim_after_a_day(
    town_of_each: Netting, nodes: Providers
) -> None:
    town = town_of_each
    user = await town.user(200_000)
    everybody = {nodes[index]: 400 + index for index in range(101)}
    names = [await town.served(user.address, everybody) for _ in range(2)]
    settler = town.settler()
    await town.settles(settler)
    (row,) = await town.rows(Kind.COMMIT)
    assert row.status is RowStatus.CONFIRMED
    assert [await town.batch_of(name) for name in names] == [1, 1]
    await town.check(in_credit=dict.fromkeys(everybody, 0))
    await town.served(user.address, everybody)
    await town.settles(settler)
    await rpc(town.chain.rpc_url, "evm_increaseTime", DAY)
    async with town.database.reading() as connection:
        cumulative = await batches.leaves(connection, dict.fromkeys(everybody, 0))
        assert await batches.payout_root(connection, 2) == payout_tree(cumulative).root
    assert cumulative == {wallet: 3 * units for wallet, units in everybody.items()}
    tree = payout_tree(cumulative)  # whoever missed the first root claims once
    for wallet in (nodes[0], nodes[100]):
        proof = tree.proof(payout_leaf(wallet, cumulative[wallet]))
        await ChainWallet(town.chain, SETTLER).claim_payout(2, wallet, cumulative[wallet], proof)
        assert await town.chain.credit_of_wei(wallet) == units_to_wei(cumulative[wallet])


async def test_a_payout_root_that_is_refused_leaves_nothing_behind(town: Netting, nodes: Providers) -> None:
    user = await town.user(200_000)
    await town.served(user.address, {nodes[index]: 400 for index in range(101)})
    settler = town.settler()
    assert await write_batches(town)
    await user.allow_spending(0)
    await town.settles(settler)
    (row,) = await town.rows(Kind.COMMIT)
    assert (row.status, row.error_code) == (RowStatus.FAILED, "EscrowInsufficientAllowance")
    await user.allow_spending(200_000)
    await town.settles(settler)
    async with town.database.reading() as connection:
        assert set((await batches.leaves(connection, {nodes[index]: 0 for index in range(101)})).values()) == {400}
    assert (await town.chain.payout_root_of(1)).total_units == 0
    assert (await town.chain.payout_root_of(2)).total_units == 101 * 400


# ---- numbers, caps, pauses


async def write_batches(town: Netting, rule: Rule = ALWAYS) -> bool:
    """Compose, as if whoever leads were gone before anything is sent."""
    return await town.composer(rule).compose(await town.fence())


async def settle_elsewhere(town: Netting, number: int, details: bytes, user: str, provider: str) -> None:
    """Somebody else who has the key uses a number."""
    call = await town.chain.settle_batch(address_of(SETTLER), number, details, {user: 10}, {provider: 10}, 0)
    await town.chain.send(call, SETTLER)


async def test_a_number_that_something_else_has_used_is_passed_over(town: Netting, nodes: Providers) -> None:
    user, other = await town.user(), await town.user()
    await settle_elsewhere(town, 1, bytes(32), other.address, nodes[1])
    name = await town.served(user.address, {nodes[0]: 400})
    await write_batches(town)
    await settle_elsewhere(town, 2, bytes(32), other.address, nodes[1])
    await town.settles(town.settler())
    rows = {row.payload["number"]: row.status for row in await town.rows(Kind.SETTLE)}
    assert rows == {2: RowStatus.FAILED, 3: RowStatus.CONFIRMED}
    assert await town.batch_of(name) == 3
    assert await town.chain.credit_of_wei(nodes[0]) == units_to_wei(400)


async def test_a_batch_that_was_done_before_a_backup_was_restored_is_recognised_and_not_paid_twice(
    town: Netting, nodes: Providers
) -> None:
    user = await town.user()
    name = await town.served(user.address, {nodes[0]: 400})
    (batch,) = (await town.composer().composition()).batches
    call = await town.chain.settle_batch(
        address_of(SETTLER), 1, batch.detail_root(), batch.charges, batch.payouts, batch.fee_units
    )
    await town.chain.send(call, SETTLER)
    assert await town.chain.deposit_of(user.address) == 9_500  # which could be charged once more
    await town.settles(town.settler())
    (row,) = await town.rows(Kind.SETTLE)
    assert (row.status, row.tx_hash) == (RowStatus.CONFIRMED, None)
    assert await town.is_paid(name)
    await town.check()


async def set_cap(town: Netting, units: int) -> None:
    call = await town.chain.prepare(
        town.chain.escrow, "setReleaseCapPerDay", (units_to_wei(units),), address_of(ESCROW_OWNER)
    )
    await town.chain.send(call, ESCROW_OWNER)


async def test_when_the_cap_of_the_day_is_reached_a_batch_waits_visibly_and_goes_on_the_next_day(
    town: Netting, nodes: Providers
) -> None:
    user = await town.user()
    await set_cap(town, 800)
    first, second = [await town.served(user.address, {nodes[0]: 400}) for _ in range(2)]
    settler = town.settler()
    for _ in range(6):
        await settler.settle()
    paid, waiting = await town.rows(Kind.SETTLE)
    assert (paid.status, waiting.status) == (RowStatus.CONFIRMED, RowStatus.PENDING)
    assert waiting.error == "the escrow refuses for now: EscrowReleaseCapExceeded"
    async with town.database.reading() as connection:
        assert [row.id for row in await outbox.objections(connection)] == [waiting.id]
    assert (await town.is_paid(first), await town.is_paid(second)) == (True, False)
    await rpc(town.chain.rpc_url, "evm_increaseTime", DAY)
    await rpc(town.chain.rpc_url, "anvil_mine", "0x1")
    await town.settles(settler)
    assert await town.is_paid(second)
    await town.check()


async def test_while_the_escrow_is_paused_everything_waits(town: Netting, nodes: Providers) -> None:
    user = await town.user()
    name = await town.served(user.address, {nodes[0]: 400})
    for act in ("pause", "unpause"):
        call = await town.chain.prepare(town.chain.escrow, act, (), address_of(ESCROW_OWNER))
        await town.chain.send(call, ESCROW_OWNER)
        settler = town.settler()
        for _ in range(4):
            await settler.settle()
        assert await town.is_paid(name) is (act == "unpause")
    assert len(await town.rows(Kind.SETTLE)) == 1
    await town.check()


# ---- blocks that are given up


async def test_a_redemption_and_a_batch_whose_blocks_are_given_up_are_done_again_and_counted_once(
    town_of_each: Netting, nodes: Providers
) -> None:
    town = town_of_each
    ann = await town.user()
    channel_id, key = await town.opens_channel(ann, 5_000)
    await town.promises(channel_id, key, 500)
    name = await town.served(ann.address, {nodes[0]: 400}, channel_id=channel_id)
    settler = town.settler(rules=Rules(reorg_blocks=10))
    await town.settles(settler)
    await town.check()
    await rpc(town.chain.rpc_url, "anvil_reorg", 2, [])
    assert await town.chain.credit_of_wei(nodes[0]) == 0
    await settler.settle()
    vanished = [*await town.rows(Kind.REDEEM), *await town.rows(Kind.SETTLE)]
    assert [row.vanished for row in vanished] == [1, 1]
    await town.settles(settler)
    assert await town.is_paid(name)
    assert len(await town.rows(Kind.SETTLE)) == 1
    await town.check()


# ---- who may write


async def test_who_has_lost_the_lease_writes_no_batch(town: Netting, nodes: Providers) -> None:
    user = await town.user()
    await town.served(user.address, {nodes[0]: 400})
    fence = await town.fence()
    await town.settler().settle()  # another life of this gateway takes over, and composes
    await town.served(user.address, {nodes[0]: 400})
    await town.settles(town.settler())
    await town.served(user.address, {nodes[0]: 400})
    with pytest.raises(LeaseLost):
        await town.composer().compose(fence)
    await town.check()
