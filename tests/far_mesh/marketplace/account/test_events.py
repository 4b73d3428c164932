"""What users do with their deposits on chain without us, and what becomes of it when blocks are given up."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from sqlalchemy import select, update

from far_mesh.marketplace.chain.client import address_of, request_key
from far_mesh.marketplace.ledger.schemas import Balance
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.tables import payment_channels
from far_mesh.marketplace.payments.vouchers import Channel, channel_id_of, sign
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import chain_outbox
from tests.far_mesh.marketplace.account.bench import USER, Bench
from tests.far_mesh.marketplace.payments.street import DEPLOYER, SETTLER, stranger

UNIT = 10**9
HOUR = 3_600
SALT = b"\3" * 32
CHANNEL = channel_id_of(USER, SALT)
KEY = str(Account.create().key.to_0x_hex())
OPEN = "openChannel(bytes32,address,uint256,uint32)"
TOP_UP = "topUp(bytes32,uint256)"
REDEEM = "redeemVouchers((bytes32,uint128,uint128,bytes)[])"
START_CLOSE, FINISH_CLOSE = "startClose(bytes32)", "finishClose(bytes32)"
CHANNEL_BYTES = bytes.fromhex(CHANNEL[2:])


async def open_channel(bench: Bench, units: int = 400, dust: int = 0, key: str = KEY) -> None:
    await bench.call(DEPLOYER, OPEN, SALT, address_of(key), units * UNIT + dust, HOUR)
    await bench.look()


async def redeem(bench: Bench, units: int) -> None:
    voucher = sign(bench.domain, CHANNEL, units, KEY)
    claim = (CHANNEL_BYTES, units * UNIT, units * UNIT, bytes.fromhex(voucher.signature[2:]))
    await bench.call(SETTLER, REDEEM, [claim])
    await bench.look()


async def channel(bench: Bench) -> Channel:
    async with bench.database.reading() as connection:
        return await channels.find(connection, bench.domain, CHANNEL)


async def column(bench: Bench, name: str) -> Any:
    async with bench.database.reading() as connection:
        return (await connection.execute(select(payment_channels.c[name]))).scalar_one_or_none()


@pytest.fixture
async def rich(bench: Bench) -> Bench:
    """A user with 1,000 units on chain."""
    await bench.wallet.deposit(1_000)
    await bench.look()
    return bench


# ---- channels


async def test_a_channel_from_its_beginning_to_its_end(rich: Bench) -> None:
    await open_channel(rich)
    assert await rich.balance() == Balance(available=600, held=0, deposited=1_000, in_channels=400)
    assert await channel(rich) == Channel(CHANNEL, USER, address_of(KEY), 400)
    await rich.call(DEPLOYER, TOP_UP, CHANNEL_BYTES, 100 * UNIT)
    await redeem(rich, 150)
    found = await channel(rich)
    assert (found.deposit_units, found.redeemed_units) == (500, 150)
    assert await rich.balance() == Balance(available=500, held=0, deposited=1_000, in_channels=500)
    await rich.call(DEPLOYER, START_CLOSE, CHANNEL_BYTES)
    await rich.look()
    closes_at = (await channel(rich)).closes_at
    assert closes_at is not None
    state = await rich.street.chain.channel_of(CHANNEL)
    assert closes_at.timestamp() == state.closes_at
    await rich.later(HOUR + 1)
    await rich.call(DEPLOYER, FINISH_CLOSE, CHANNEL_BYTES)
    await rich.look()
    # What was redeemed has not come back: the requests that it pays take it out of the channel in the books.
    assert await rich.balance() == Balance(available=850, held=0, deposited=1_000, in_channels=150)
    assert await column(rich, "closed_at") is not None
    assert await rich.is_sound()


async def test_everything_about_a_channel_can_vanish_and_come_back(rich: Bench) -> None:
    await rich.look()
    states = []
    steps = (
        (DEPLOYER, OPEN, SALT, address_of(KEY), 400 * UNIT, HOUR),
        (DEPLOYER, TOP_UP, CHANNEL_BYTES, 100 * UNIT),
        (DEPLOYER, START_CLOSE, CHANNEL_BYTES),
        (SETTLER, FINISH_CLOSE, CHANNEL_BYTES),
    )
    for step in steps:
        states.append(await state_of(rich))
        await rich.call(*step)
        await rich.look()
        after = await state_of(rich)
        assert after != states[-1]
        await rich.reorganise(1)
        await rich.look()
        assert await state_of(rich) == states[-1], step
        assert await rich.is_sound()
        await rich.call(*step)
        await rich.look()
        assert (await state_of(rich))[0] == after[0]
    assert await rich.available() == 1_000
    await rich.reorganise(2 * len(steps) - 1)  # an empty block lies between each two of them
    await rich.look()
    assert await rich.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await column(rich, "channel_id") is None
    assert await rich.is_sound()


async def state_of(bench: Bench) -> tuple[Balance, Any]:
    async with bench.database.reading() as connection:
        table = payment_channels.c
        row = (await connection.execute(select(table.deposit_units, table.closes_at, table.closed_at))).first()
    return await bench.balance(), row and tuple(row)


async def test_a_redemption_that_vanishes_can_be_made_again(rich: Bench) -> None:
    await open_channel(rich)
    await redeem(rich, 100)
    await redeem(rich, 150)
    await rich.reorganise(1)
    await rich.look()
    assert (await channel(rich)).redeemed_units == 100
    await redeem(rich, 170)
    assert (await channel(rich)).redeemed_units == 170
    assert await rich.is_sound()


async def test_what_was_promised_over_a_channel_that_vanishes_stays_promised_and_nothing_more_is_taken(
    rich: Bench,
) -> None:
    await open_channel(rich)
    async with rich.database.writing() as connection:
        await channels.accept(connection, rich.domain, sign(rich.domain, CHANNEL, 300, KEY))
        await channels.earn(connection, rich.domain, CHANNEL, 120, step_units=50)
    await rich.reorganise(1)
    await rich.look()
    found = await channel(rich)
    assert (found.deposit_units, found.promised_units, found.earned_units) == (300, 300, 120)
    assert await rich.balance() == Balance(available=1_000, held=0, deposited=1_000, in_channels=0)
    await open_channel(rich)
    assert (await channel(rich)).deposit_units == 400


async def test_a_channel_that_comes_back_with_another_key_stops_nobody(rich: Bench) -> None:
    await open_channel(rich)
    async with rich.database.writing() as connection:
        await channels.accept(connection, rich.domain, sign(rich.domain, CHANNEL, 300, KEY))
    await rich.reorganise(1)
    await open_channel(rich, key=str(Account.create().key.to_0x_hex()))
    await rich.wallet.deposit(5)
    await rich.look()
    found = await channel(rich)
    assert found.signer == address_of(KEY)
    assert found.closes_at is not None  # no voucher of that key can be redeemed any more
    assert await rich.balance() == Balance(available=605, held=0, deposited=1_005, in_channels=400)


async def test_dust_in_a_channel_is_never_made_into_money(rich: Bench) -> None:
    await open_channel(rich, dust=1)
    assert await rich.balance() == Balance(available=599, held=0, deposited=999, in_channels=400)
    assert await rich.is_sound()
    await rich.call(DEPLOYER, START_CLOSE, CHANNEL_BYTES)
    await rich.call(SETTLER, FINISH_CLOSE, CHANNEL_BYTES)
    await rich.look()
    assert await rich.balance() == Balance(available=999, held=0, deposited=999)
    await rich.reorganise(3)
    await rich.look()
    assert await rich.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert await rich.is_sound()


# ---- escrows


async def test_an_escrow_of_the_users_own_leaves_the_deposit_and_comes_back(rich: Bench) -> None:
    await rich.call(DEPLOYER, "createEscrow(bytes32,uint256)", b"\5" * 32, 300 * UNIT + 1)
    await rich.look()
    assert await rich.balance() == Balance(available=699, held=0, deposited=699)
    escrow_id = await rich.street.node.ask(
        rich.street.deployment.escrow, "escrowIdOf(address,bytes32)", (USER, b"\5" * 32), "bytes32"
    )
    await rich.later(HOUR)
    await rich.call(DEPLOYER, "cancel(bytes32)", escrow_id)
    await rich.look()
    assert await rich.balance() == Balance(available=999, held=0, deposited=999)
    await rich.reorganise(1)
    await rich.look()
    assert await rich.available() == 699
    assert await rich.is_sound()


async def test_what_is_left_of_an_own_escrow_that_is_released_comes_back(rich: Bench) -> None:
    await rich.call(DEPLOYER, "createEscrow(bytes32,uint256)", request_key("mine"), 300 * UNIT)
    release = await rich.street.chain.release(address_of(SETTLER), USER, "mine", [(stranger(), 80)])
    await rich.street.node.send(release, SETTLER)
    await rich.look()
    assert await rich.available() == 900  # 80, and 20 of a fee, are gone
    assert await rich.is_sound()


async def test_an_escrow_of_a_request_of_ours_is_in_the_books_as_its_hold_alone(rich: Bench) -> None:
    chain = rich.street.chain
    await rich.wallet.allow_spending(1_000)
    async with rich.database.writing() as connection:
        await outbox.add(connection, Kind.LOCK, "r1", USER, {"units": 300, "lock_seconds": HOUR})
    lock = await chain.lock(address_of(SETTLER), USER, "r1", 300, HOUR)
    await rich.street.node.send(lock, SETTLER)
    await rich.look()
    assert await rich.balance() == Balance(available=1_000, held=0, deposited=1_000)
    cancel = await chain.cancel(address_of(SETTLER), USER, "r1")
    await rich.street.node.send(cancel, SETTLER)
    await rich.look()
    assert await rich.balance() == Balance(available=1_000, held=0, deposited=1_000)
    assert [row.kind for row in await rich.history()] == ["Deposited"]


async def test_an_escrow_that_we_gave_up_and_the_user_made_is_the_users(rich: Bench) -> None:
    async with rich.database.writing() as connection:
        await outbox.add(connection, Kind.LOCK, "r1", USER, {"units": 300, "lock_seconds": HOUR})
        await connection.execute(update(chain_outbox).values(status=RowStatus.FAILED.value))
    await rich.call(DEPLOYER, "createEscrow(bytes32,uint256)", request_key("r1"), 300 * UNIT)
    await rich.look()
    assert await rich.available() == 700
    assert await rich.is_sound()
