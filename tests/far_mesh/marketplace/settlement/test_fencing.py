"""A settler that slept past its lease does nothing, wherever it fell asleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from far_mesh.marketplace.chain.client import EscrowStatus, address_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import LeaseLost
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settlement import repository
from far_mesh.marketplace.settlement.acts import escrow_acts
from far_mesh.marketplace.settlement.lead import LEASE
from far_mesh.marketplace.settlement.schemas import Fence, Kind, RowStatus
from far_mesh.marketplace.settlement.service import Rules, Settler
from far_mesh.marketplace.tables import chain_attempts, chain_outbox, leases, postings
from tests.far_mesh.marketplace.house import SETTLER
from tests.far_mesh.marketplace.settlement.bench import PAID, Bench

SLEEPER, SUCCESSOR = Gateway("a", "1"), Gateway("b", "1")
LIFETIME = timedelta(seconds=15)


async def lapse(database: Database) -> None:
    """The lease is over."""
    async with database.writing() as connection:
        await connection.execute(update(leases).values(expires_at=now() - timedelta(seconds=1)))


async def everything(database: Database) -> list[Any]:
    """All that a settler writes."""
    async with database.reading() as connection:
        tables = (chain_outbox, chain_attempts, postings)
        return [list(await connection.execute(select(table).order_by(table.c.id))) for table in tables]


class Sleeper:
    """A settler that falls asleep where it is about to call something, and what it has sent."""

    def __init__(self, bench: Bench, settler: Settler, sent: list[str]) -> None:
        self._bench, self.settler, self.sent = bench, settler, sent
        self._asleep, self._awake = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def asleep(self, owner: Any, name: str, *, before: bool = True) -> AsyncIterator[None]:
        """Somewhere in its round, until the end of the block; by then the round ends, and does nothing more."""
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def patched(*arguments: Any, **more: Any) -> Any:
            result = None if before else await original(*arguments, **more)
            if not self._asleep.is_set():
                self._asleep.set()
                await self._awake.wait()
            return await original(*arguments, **more) if before else result

        setattr(owner, name, patched)
        task = asyncio.create_task(self._settle())
        await asyncio.wait_for(self._asleep.wait(), 30)
        await lapse(self._bench.database)
        yield
        before_it_woke, sent = await everything(self._bench.database), len(self.sent)
        self._awake.set()
        assert await asyncio.wait_for(task, 30) is False
        assert await everything(self._bench.database) == before_it_woke
        assert len(self.sent) == sent

    async def _settle(self) -> bool:
        """Rounds, until it fell asleep in one: on a busy machine what was sent is in a block a moment later."""
        while True:
            leads = await self.settler.settle()
            if self._asleep.is_set():
                return leads
            await asyncio.sleep(0.02)


@pytest.fixture
async def sleeper(bench_of_each: Bench) -> AsyncIterator[Sleeper]:
    bench = bench_of_each
    chain = type(bench.chain)(
        bench.chain.rpc_url, bench.chain.chain_id, bench.chain.token_address, bench.chain.escrow_address
    )
    sent: list[str] = []
    send = chain.send_raw

    async def recorded(raw: str) -> str | None:
        sent.append(raw)
        return await send(raw)

    chain.send_raw = recorded  # type: ignore[method-assign]
    yield Sleeper(bench, bench.settler_of(SLEEPER, Rules(bump_seconds=1e-6), chain), sent)
    await chain.close()


async def test_asleep_between_signing_and_writing_it_down(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench, settler = bench_of_each, address_of(SETTLER)
    await bench.open("s1")
    nonce = await bench.chain.transaction_count(settler)
    async with sleeper.asleep(sleeper.settler._chain, "sign", before=False):
        await bench.settler_of(SUCCESSOR).drain()
        assert await bench.escrow("s1") is EscrowStatus.OPEN
    assert await bench.chain.transaction_count(settler) == nonce + 1
    assert len(await bench.attempts(Kind.LOCK, "s1")) == 1
    assert sleeper.sent == []


async def test_asleep_between_writing_it_down_and_sending_it(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench = bench_of_each
    await bench.open("s2")
    async with sleeper.asleep(sleeper.settler, "_offer"):
        assert (await bench.row(Kind.LOCK, "s2")).status is RowStatus.SENT
        await bench.settler_of(SUCCESSOR).drain()
        row = await bench.row(Kind.LOCK, "s2")
        assert (row.status, row.attempts) == (RowStatus.CONFIRMED, 1)
    assert sleeper.sent == []


async def test_asleep_while_it_raises_a_fee(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench = bench_of_each
    await bench.automine(False)
    await bench.open("s3")
    await bench.settler_of(SUCCESSOR).settle()
    await lapse(bench.database)
    async with sleeper.asleep(sleeper.settler._chain, "sign_dearer", before=False):
        await bench.mine()
        await bench.settler_of(SUCCESSOR).drain()
        assert (await bench.row(Kind.LOCK, "s3")).status is RowStatus.CONFIRMED
    assert len(await bench.attempts(Kind.LOCK, "s3")) == 1


async def test_asleep_when_it_has_seen_the_receipt(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench = bench_of_each
    await bench.open("s4")
    await bench.settler_of(SUCCESSOR).drain()
    await bench.close("s4")
    await lapse(bench.database)
    async with sleeper.asleep(sleeper.settler, "_confirm"):
        await bench.settler_of(SUCCESSOR).drain()
        assert await bench.earned("s4") == {Book.PROVIDER_PAID: PAID}
    assert await bench.earned("s4") == {Book.PROVIDER_PAID: PAID}
    assert await bench.findings() == ()


async def test_asleep_when_it_has_seen_that_a_block_was_given_up(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench, successor = bench_of_each, bench_of_each.settler_of(SUCCESSOR)
    await bench.open("s5")
    await successor.drain()
    await bench.mine(4)
    await bench.close("s5")
    await successor.drain()
    await bench.mine(2)
    await bench.give_up(3)
    await lapse(bench.database)
    async with sleeper.asleep(sleeper.settler, "_vanish"):
        await successor.drain()
        assert (await bench.row(Kind.RELEASE, "s5")).vanished == 1
        assert await bench.credit("s5") == PAID
    assert await bench.earned("s5") == {Book.PROVIDER_PAID: PAID}
    assert await bench.findings() == ()


async def test_who_slept_and_was_not_replaced_goes_on_as_before(bench_of_each: Bench, sleeper: Sleeper) -> None:
    bench = bench_of_each
    await bench.open("s6")
    async with sleeper.asleep(sleeper.settler._chain, "sign", before=False):
        pass
    assert (await bench.row(Kind.LOCK, "s6")).status is RowStatus.PENDING
    await sleeper.settler.drain()
    assert (await bench.row(Kind.LOCK, "s6")).status is RowStatus.CONFIRMED


async def test_a_round_that_takes_longer_than_a_lease_keeps_it(
    bench_of_each: Bench, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, sign = bench_of_each, sleeper.settler._chain.sign

    async def slowly(*arguments: Any) -> Any:
        async with bench.database.writing() as connection:
            (expires,) = (await connection.execute(select(leases.c.expires_at))).one()
            await connection.execute(update(leases).values(expires_at=expires - timedelta(seconds=4)))
        return await sign(*arguments)

    monkeypatch.setattr(sleeper.settler._chain, "sign", slowly)
    names = [f"slow {index}" for index in range(6)]
    for name in names:
        await bench.open(name)
    assert await sleeper.settler.settle()
    assert len(sleeper.sent) == len(names)


async def test_what_is_composed_is_composed_by_the_one_who_leads(bench_of_each: Bench) -> None:
    bench, asked = bench_of_each, []

    class Slow:
        async def compose(self, fence: Fence) -> bool:
            asked.append(fence)
            await lapse(bench.database)
            async with bench.database.writing() as connection:
                await repository.hold_fence(connection, fence)
            return True

    settler = Settler(
        bench.database,
        bench.chain,
        SETTLER,
        SLEEPER,
        bench.room,
        escrow_acts(bench.database, bench.chain, address_of(SETTLER)),
        Rules(),
        Slow(),
    )
    assert await settler.settle() is False
    assert [fence.name for fence in asked] == [LEASE]


# ---- leases


async def take(database: Database, gateway: Gateway) -> Fence | None:
    async with database.writing() as connection:
        return await repository.take_lease(connection, "one", gateway, LIFETIME)


async def is_held(database: Database, fence: Fence) -> bool:
    try:
        async with database.writing() as connection:
            await repository.hold_fence(connection, fence)
    except LeaseLost:
        return False
    return True


async def test_each_holder_has_a_token_of_its_own(database: Database) -> None:
    first = await take(database, SLEEPER)
    assert first is not None
    assert await take(database, SLEEPER) == first
    assert await take(database, SUCCESSOR) is None
    again = await take(database, Gateway("a", "another life"))
    assert again is not None
    assert (again.token > first.token, await is_held(database, first), await is_held(database, again)) == (
        True,
        False,
        True,
    )
    await lapse(database)
    assert await is_held(database, again) is False
    successor = await take(database, SUCCESSOR)
    assert successor is not None
    assert successor.token > again.token


async def test_a_lease_says_for_how_long_and_whose_it_is(database: Database) -> None:
    fence = await take(database, SLEEPER)
    assert fence is not None
    async with database.reading() as connection:
        assert timedelta(0) < await repository.lease_left(connection, fence) <= LIFETIME
        assert await repository.lease_left(connection, Fence("one", fence.token + 1)) == timedelta(0)
        assert await repository.holder(connection, "one") == "a"
    await lapse(database)
    async with database.reading() as connection:
        assert await repository.lease_left(connection, fence) < timedelta(0)
        assert await repository.holder(connection, "one") is None


async def test_nobody_takes_a_lease_while_its_holder_writes(database: Database) -> None:
    fence = await take(database, SLEEPER)
    assert fence is not None
    async with database.writing() as connection:
        await repository.hold_fence(connection, fence)
        await connection.execute(update(leases).values(expires_at=now() - timedelta(seconds=1)))
        taking = asyncio.create_task(take(database, SUCCESSOR))
        await asyncio.sleep(0.1)
        assert not taking.done()
    assert await taking is not None
