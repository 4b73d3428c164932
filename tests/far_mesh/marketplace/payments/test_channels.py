"""Channels in both databases: nothing is taken twice, and of two gateways that race on one channel nobody loses."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from contextlib import suppress
from datetime import timedelta
from multiprocessing.synchronize import Barrier

import pytest

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.errors import (
    ChannelClosing,
    ChannelUnknown,
    VoucherNeeded,
    VoucherStale,
    VoucherTooHigh,
)
from far_mesh.marketplace.payments.vouchers import Channel, Domain, Voucher, new_channel, parse, sign
from tests.support.vouchers import Bench, bench, good

DEPOSIT, STEP = 1_000_000, 1_000


@pytest.fixture
def on() -> Bench:
    """The keys of a channel."""
    return bench(random.Random(7))


def fresh(on: Bench, deposit: int = DEPOSIT) -> Channel:
    return new_channel(on.channel.channel_id, on.channel.user, on.channel.signer, deposit)


async def opened(database: Database, on: Bench, deposit: int = DEPOSIT) -> bool:
    async with database.writing() as connection:
        return await channels.opened(connection, on.domain, fresh(on, deposit))


async def accept(database: Database, on: Bench, voucher: Voucher) -> int:
    async with database.writing() as connection:
        return await channels.accept(connection, on.domain, voucher)


async def earn(database: Database, on: Bench, units: int) -> Channel:
    async with database.writing() as connection:
        return await channels.earn(connection, on.domain, on.channel.channel_id, units, step_units=STEP)


async def known(database: Database, on: Bench) -> Channel:
    async with database.reading() as connection:
        return await channels.find(connection, on.domain, on.channel.channel_id)


def promise(on: Bench, units: int) -> Voucher:
    return parse(good(on, units))


async def test_a_channel_from_opening_to_closing(database: Database, on: Bench) -> None:
    assert [await opened(database, on), await opened(database, on)] == [True, False]
    assert await accept(database, on, promise(on, 500)) == 500
    assert (await earn(database, on, 400)).earned_units == 400
    assert await accept(database, on, promise(on, 900)) == 400
    async with database.writing() as connection:
        assert await channels.redeemable(connection, on.domain, 10) == []
        channel_id = on.channel.channel_id
        await channels.captured(connection, channel_id, 400, 400)
        ((due, units),) = await channels.redeemable(connection, on.domain, 10)
        assert (units, due.signature) == (400, promise(on, 900).signature)
        done = [await channels.redeemed(connection, on.domain, channel_id, 400) for _ in range(2)]
        assert done == [True, False]
        assert await channels.redeemable(connection, on.domain, 10) == []
        assert await channels.to_net(connection, on.domain) == {channel_id: 400}
        await channels.net(connection, on.domain, channel_id, 300)
        assert await channels.to_net(connection, on.domain) == {channel_id: 100}
        await channels.unredeemed(connection, on.domain, channel_id, 399, 0)  # something else was taken out since
        assert await channels.to_net(connection, on.domain) == {channel_id: 100}
        await channels.unredeemed(connection, on.domain, channel_id, 400, 0)
        assert await channels.to_net(connection, on.domain) == {}
        assert [units for _, units in await channels.redeemable(connection, on.domain, 10)] == [400]
        ends = now() + timedelta(hours=1)
        assert [await channels.closing(connection, on.domain, channel_id, ends) for _ in range(2)] == [True, False]
    with pytest.raises(ChannelClosing):
        await accept(database, on, promise(on, 1_000))
    with pytest.raises(ChannelClosing):
        await earn(database, on, 1)
    assert (await known(database, on)).closes_at == ends


async def test_a_voucher_counts_once_and_only_upwards(database: Database, on: Bench) -> None:
    await opened(database, on)
    assert await accept(database, on, promise(on, 500)) == 500
    for units in (500, 499):
        with pytest.raises(VoucherStale) as caught:
            await accept(database, on, promise(on, units))
        assert caught.value.facts["promised_units"] == 500
    with pytest.raises(VoucherTooHigh):
        await accept(database, on, promise(on, DEPOSIT + 1))
    async with database.writing() as connection:
        assert await channels.topped_up(connection, on.domain, on.channel.channel_id, DEPOSIT + 1)
        assert not await channels.topped_up(connection, on.domain, on.channel.channel_id, DEPOSIT)
    assert await accept(database, on, promise(on, DEPOSIT + 1)) == DEPOSIT + 1 - 500


async def test_channels_of_other_escrows_and_strangers_are_unknown(database: Database, on: Bench) -> None:
    with pytest.raises(ChannelUnknown):
        await accept(database, on, promise(on, 1))
    await opened(database, on)
    elsewhere = Domain(56, on.domain.escrow)
    async with database.writing() as connection:
        with pytest.raises(ChannelUnknown):
            await channels.accept(connection, elsewhere, sign(elsewhere, on.channel.channel_id, 5, on.key))
        with pytest.raises(Conflict):
            await channels.opened(connection, elsewhere, fresh(on))
        other = new_channel(on.channel.channel_id, on.channel.user, on.channel.user, 5)
        with pytest.raises(Conflict):
            await channels.opened(connection, on.domain, other)
    assert (await known(database, on)).promised_units == 0


async def test_nothing_is_served_further_than_one_step_ahead_of_the_vouchers(database: Database, on: Bench) -> None:
    await opened(database, on, 5_000)
    await earn(database, on, STEP)
    with pytest.raises(VoucherNeeded) as caught:
        await earn(database, on, 1)
    assert caught.value.facts["promise_units"] == STEP + 1
    await accept(database, on, promise(on, 5_000))
    await earn(database, on, 4_000)
    with pytest.raises(VoucherNeeded, match="top it up"):
        await earn(database, on, 1)


async def test_what_was_not_served_after_all_is_uncounted_but_not_what_was_redeemed(
    database: Database, on: Bench
) -> None:
    await opened(database, on)
    await accept(database, on, promise(on, 1_000))
    await earn(database, on, 600)
    async with database.writing() as connection:
        channel_id = on.channel.channel_id
        assert await channels.uncaptured(connection, channel_id) == 1_000
        await channels.captured(connection, channel_id, 400, 500)
        assert await channels.uncaptured(connection, channel_id) == 600
        await channels.redeemed(connection, on.domain, channel_id, 450)
        await channels.captured(connection, channel_id, 0, 100)
    found = await known(database, on)
    assert (found.earned_units, found.captured_units) == (450, 400)


async def test_books_that_lost_a_voucher_learn_of_it_from_the_chain(database: Database, on: Bench) -> None:
    await opened(database, on)
    async with database.writing() as connection:
        assert await channels.redeemed(connection, on.domain, on.channel.channel_id, 700)
    found = await known(database, on)
    assert (found.promised_units, found.earned_units, found.redeemed_units) == (700, 700, 700)
    with pytest.raises(VoucherStale):
        await accept(database, on, promise(on, 700))


async def test_closing_channels_are_redeemed_first(database: Database) -> None:
    benches = [bench(random.Random(seed)) for seed in range(3)]
    domain = benches[0].domain
    async with database.writing() as connection:
        for index, one in enumerate(benches):
            channel_id = one.channel.channel_id
            await channels.opened(connection, domain, fresh(one))
            await channels.accept(connection, domain, sign(domain, channel_id, 900, one.key))
            units = 100 * (index + 1)
            await channels.earn(connection, domain, channel_id, units, step_units=STEP)
            await channels.captured(connection, channel_id, units, units)
        await channels.closing(connection, domain, benches[0].channel.channel_id, now())
        due = await channels.redeemable(connection, domain, 10)
        urgent = await channels.redeemable(connection, domain, 10, closing_only=True)
    assert [units for _, units in due] == [100, 300, 200]
    assert [units for _, units in urgent] == [100]


# ---- two gateways

AMOUNTS = range(10, 410, 10)


def _gateway(url: str, seed: int, both_are_here: Barrier, result: multiprocessing.Queue[tuple[int, int]]) -> None:
    """One process: it takes every voucher in an order of its own, and serves as far as it may."""

    async def work() -> tuple[int, int]:
        on, database, taken, served = bench(random.Random(7)), Database(url), 0, 0
        both_are_here.wait(120)
        amounts = list(AMOUNTS)
        random.Random(seed).shuffle(amounts)
        amounts.sort(key=lambda units: units // 50)  # roughly upwards, so that many are taken
        for units in amounts:
            with suppress(VoucherStale):
                taken += await accept(database, on, promise(on, units))
            with suppress(VoucherNeeded):
                await earn(database, on, 25)
                served += 25
        await database.close()
        return taken, served

    result.put(asyncio.run(work()))


def test_two_gateways_that_race_on_one_channel_lose_nothing(database_url: str, on: Bench) -> None:
    async def prepare() -> None:
        database = Database(database_url)
        await opened(database, on)
        await database.close()

    async def look() -> Channel:
        database = Database(database_url)
        found = await known(database, on)
        await database.close()
        return found

    asyncio.run(prepare())
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    both_are_here = context.Barrier(2)
    gateways = [context.Process(target=_gateway, args=(database_url, seed, both_are_here, results)) for seed in (1, 2)]
    for gateway in gateways:
        gateway.start()
    answers = [results.get(timeout=120) for _ in gateways]
    for gateway in gateways:
        gateway.join()
    found = asyncio.run(look())
    assert sum(taken for taken, _ in answers) == found.promised_units == max(AMOUNTS)
    assert sum(served for _, served in answers) == found.earned_units <= found.promised_units + STEP
    assert found.signature == promise(on, max(AMOUNTS)).signature
