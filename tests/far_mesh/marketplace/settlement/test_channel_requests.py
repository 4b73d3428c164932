"""Requests over a channel in both databases: counted before they are served, never captured beyond what is promised,
and nothing stays counted for a request that has ended, however it ended."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from far_mesh.marketplace.channels.meter import LOT_TOKENS, Meter, VoucherNotice
from far_mesh.marketplace.channels.service import ChannelService
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, InsufficientBalance
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Account, Book
from far_mesh.marketplace.payments import channels
from far_mesh.marketplace.payments.errors import VoucherNeeded
from far_mesh.marketplace.payments.vouchers import Channel, new_channel
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Outcome, Payment, Share, Status, Work
from far_mesh.marketplace.settlement.recovery import recover
from far_mesh.marketplace.settlement.requests import Measured, close_request, open_request, refund_request
from tests.far_mesh.marketplace.house import ledger_of
from tests.support.vouchers import Bench, bench, good

GATEWAY = Gateway("gateway", "one")
DEPOSIT, STEP, PROMPT, PRICE, TOKENS = 100_000, 1_000, 10, 100, 20
PROMPT_UNITS, HELD = PROMPT * 10, PROMPT * 10 + TOKENS * PRICE


@pytest.fixture
def on() -> Bench:
    """The keys of a channel."""
    return bench(random.Random(17))


def session(on: Bench, name: str = "a") -> NewSession:
    channel_id, request_id = on.channel.channel_id, f"req_{name}"
    prices = (10, PRICE, 10, 0)
    return NewSession(
        request_id,
        request_id,
        on.channel.user,
        "tiny",
        "standard",
        PROMPT,
        *prices,
        HELD,
        payment=Payment.CHANNEL,
        channel_id=channel_id,
    )


def work(tokens: int) -> Work:
    return Work(PROMPT, tokens, (Share("0x" + "11" * 20, "node", 0, 1, "none", tokens, 100, "receipt"),), 100)


class Counter:
    """A channel, and one request after the other over it."""

    def __init__(self, database: Database, on: Bench) -> None:
        self.database, self.on = database, on
        self.service = ChannelService(database, on.domain, self._look, STEP)

    async def _look(self) -> bool:
        return False

    async def open_channel(self) -> None:
        channel, user = self.on.channel, self.on.channel.user
        async with self.database.writing() as connection:
            await ledger.deposit_seen(connection, user, DEPOSIT, "deposit")
            await ledger.channel_funded(connection, user, DEPOSIT, "channel")
            fresh = new_channel(channel.channel_id, user, channel.signer, DEPOSIT)
            await channels.opened(connection, self.on.domain, fresh)

    async def begin(self, name: str = "a", patience: float = 0.05) -> Meter:
        return await self.open(session(self.on, name), patience)

    async def open(self, request: NewSession, patience: float) -> Meter:
        meter = Meter(self.database, self.service, request, TOKENS, patience)
        async with self.database.writing() as connection:
            await open_request(connection, request, GATEWAY, 1800)
            await meter.begin(connection)
        return meter

    async def promise(self, units: int) -> None:
        await self.service.accept(self.on.channel.user, self.on.channel.channel_id, good(self.on, units))

    async def count(self, meter: Meter, tokens: int) -> list[str | None]:
        return [await meter.token(ignore, never) for _ in range(tokens)]

    async def close(self, tokens: int, name: str = "a") -> Outcome:
        async with self.database.writing() as connection:
            return await close_request(connection, f"req_{name}", work(tokens), Measured("stop"))

    async def channel(self) -> Channel:
        return await self.service.one(self.on.channel.user, self.on.channel.channel_id)

    async def books(self) -> tuple[int, int]:
        """What is left in channels, and what is held."""
        found, user = await ledger_of(self.database), self.on.channel.user
        assert sum(found.values()) == 0
        return found[Account(Book.USER_CHANNEL, user)], found.get(Account(Book.USER_HOLD, user), 0)


async def ignore(notice: VoucherNotice) -> None:
    """Nobody listens."""


def never() -> bool:
    """Nobody has stopped it."""
    return False


@pytest.fixture
async def at(database: Database, on: Bench) -> Counter:
    counter = Counter(database, on)
    await counter.open_channel()
    return counter


async def test_what_is_promised_is_captured_and_the_rest_of_the_hold_goes_back_to_the_channel(at: Counter) -> None:
    await at.promise(5_000)
    meter = await at.begin()
    assert await at.books() == (DEPOSIT - HELD, HELD)
    assert await at.count(meter, 5) == [None] * 5
    assert (await at.channel()).earned_units == PROMPT_UNITS + LOT_TOKENS * PRICE
    outcome = await at.close(5)
    cost = PROMPT_UNITS + 5 * PRICE
    assert (outcome.cost_units, outcome.held_units, outcome.refund_units) == (cost, HELD, HELD - cost)
    channel = await at.channel()
    assert (channel.earned_units, channel.captured_units) == (cost, cost)
    assert await at.books() == (DEPOSIT - cost, 0)


async def test_no_more_is_captured_than_was_promised(at: Counter) -> None:
    await at.promise(300)
    meter = await at.begin()
    served = await at.count(meter, TOKENS)
    tokens = (300 + STEP - PROMPT_UNITS) // PRICE
    assert served[: tokens + 1] == [None] * tokens + ["voucher_needed"]
    outcome = await at.close(tokens)
    assert outcome.cost_units == 300
    channel = await at.channel()
    assert (channel.promised_units, channel.earned_units, channel.captured_units) == (300, 300, 300)
    assert await at.books() == (DEPOSIT - 300, 0)
    with pytest.raises(Conflict):
        await at.close(tokens)


async def test_a_failure_uncounts_everything(at: Counter) -> None:
    meter = await at.begin()
    await at.count(meter, 3)
    async with at.database.writing() as connection:
        assert await refund_request(connection, "req_a", "test")
    channel = await at.channel()
    assert (channel.earned_units, channel.captured_units) == (0, 0)
    assert await at.books() == (DEPOSIT, 0)
    with pytest.raises(Conflict, match="has ended"):  # and nothing is counted for it any more
        await at.count(meter, LOT_TOKENS)
    assert (await at.channel()).earned_units == 0


async def test_after_a_crash_before_a_checkpoint_nothing_stays_counted(at: Counter) -> None:
    await at.promise(5_000)
    await at.count(await at.begin(), 5)
    assert await recover(at.database) == 1
    assert (await at.channel()).earned_units == 0
    assert await at.books() == (DEPOSIT, 0)


async def test_a_gateway_too_slow_to_say_that_it_lives_does_not_end_its_own_requests(at: Counter) -> None:
    await at.promise(5_000)
    meter = await at.begin()
    assert await recover(at.database, GATEWAY) == 0
    assert await at.count(meter, 1) == [None]
    assert await recover(at.database, Gateway(GATEWAY.name, "its next life")) == 1


@pytest.mark.parametrize("promised", [250, 5_000])
async def test_after_a_crash_the_checkpoint_is_paid_as_far_as_it_is_promised(at: Counter, promised: int) -> None:
    await at.promise(promised)
    await at.count(await at.begin(), 8)
    async with at.database.writing() as connection:
        await sessions.keep_checkpoint(connection, "req_a", work(8))
    assert await recover(at.database) == 1
    cost = min(promised, PROMPT_UNITS + 8 * PRICE)
    channel = await at.channel()
    assert (channel.earned_units, channel.captured_units) == (cost, cost)
    async with at.database.reading() as connection:
        ended = await sessions.find(connection, "req_a")
    assert ended is not None
    assert (ended.status, ended.total_cost_units) == (Status.COMPLETED, cost)
    assert await at.books() == (DEPOSIT - cost, 0)


async def test_answers_that_share_a_channel_do_not_take_the_same_promise_twice(at: Counter) -> None:
    await at.promise(1_500)
    meters = [await at.begin(name) for name in "ab"]
    for meter in meters:
        await at.count(meter, 10)
    costs = [(await at.close(10, name)).cost_units for name in "ab"]
    assert costs == [1_100, 400]
    channel = await at.channel()
    assert channel.earned_units == channel.captured_units == channel.promised_units == 1_500


async def test_a_prompt_dearer_than_half_a_step_is_promised_first_and_leaves_nothing_behind(at: Counter) -> None:
    request = replace(session(at.on), prompt_tokens=STEP // 20 + 1)
    units = request.prompt_tokens * request.prompt_price_units
    with pytest.raises(VoucherNeeded) as caught:
        await at.open(request, patience=0.05)
    assert caught.value.facts["promise_units"] == units > STEP / 2
    assert caught.value.facts["channel_id"] == at.on.channel.channel_id
    assert await at.books() == (DEPOSIT, 0)
    assert (await at.channel()).earned_units == 0
    async with at.database.reading() as connection:
        assert await sessions.find(connection, "req_a") is None
    await at.promise(units)
    await at.open(request, patience=0.05)
    assert (await at.channel()).earned_units == units


async def test_a_hold_never_exceeds_what_is_in_the_users_channels(at: Counter) -> None:
    async with at.database.writing() as connection:
        await ledger.channel_closed(connection, at.on.channel.user, DEPOSIT - HELD, "partly")
    await at.begin("a")
    with pytest.raises(InsufficientBalance):
        await at.begin("b")
    assert await at.books() == (0, HELD)


async def test_the_one_who_waits_goes_on_when_the_voucher_comes(at: Counter) -> None:
    meter = await at.begin(patience=20)
    told: list[VoucherNotice] = []

    async def tell(notice: VoucherNotice) -> None:
        told.append(notice)
        await at.promise(notice.promise_units)

    for _ in range(TOKENS):
        assert await meter.token(tell, never) is None
    assert [notice.promise_units for notice in told] == sorted({notice.promise_units for notice in told})
    assert all(notice.promise_units <= DEPOSIT for notice in told)
    assert len(told) <= 2


async def test_of_two_that_wait_the_slower_one_is_told_again(at: Counter) -> None:
    slow, quick = await at.begin("a", patience=20), await at.begin("b", patience=0.05)
    told: list[int] = []

    async def tell(notice: VoucherNotice) -> None:
        told.append(notice.promise_units)
        await at.promise(notice.promise_units)
        if len(told) == 1:  # the other one takes all that this voucher covers
            while await quick.token(ignore, never) is None:
                pass

    assert {await slow.token(tell, never) for _ in range(TOKENS)} == {None}
    assert len(told) > 1
    assert told == sorted(set(told))


async def test_who_is_stopped_while_waiting_ends_at_once(at: Counter) -> None:
    meter = await at.begin(patience=60)
    stopped = [False]

    async def tell(notice: VoucherNotice) -> None:
        stopped[0] = True

    ends = [await meter.token(tell, lambda: stopped[0]) for _ in range(TOKENS)]
    assert ends[-1] == "stopped"


async def test_who_has_read_everything_is_given_time_to_sign_for_the_last_step(at: Counter) -> None:
    await at.promise(300)
    meter = await at.begin(patience=20)
    await at.count(meter, 10)
    told: list[int] = []

    async def tell(notice: VoucherNotice) -> None:
        told.append(notice.promise_units)
        await at.promise(notice.promise_units)

    await meter.paid(PROMPT_UNITS + 10 * PRICE, tell, never)
    assert told == [PROMPT_UNITS + 10 * PRICE]
    assert (await at.close(10)).cost_units == PROMPT_UNITS + 10 * PRICE


async def test_what_to_sign_next_is_told_when_half_a_step_is_left(at: Counter) -> None:
    assert at.service.due(await at.channel()) == STEP
    await at.promise(STEP // 2 + 1)
    assert at.service.due(await at.channel()) is None
    await at.count(await at.begin(), 1)
    assert at.service.due(await at.channel()) == PROMPT_UNITS + LOT_TOKENS * PRICE + STEP
