"""A minute is always the last one, to the microsecond, in memory and in Redis."""

from __future__ import annotations

import asyncio
import random

import pytest
import structlog.testing

from discovery.web.windows import PERIOD_US, Memory, Share, Standing, Store, Verdict
from far_mesh.marketplace.limits.shared import CONNECTIONS, Shared
from tests.far_mesh.marketplace.limits.conftest import Clock
from tests.support.redis_server import RedisServer

SECOND = 1_000_000


async def take(store: Store, entry: str, limit: int, amount: int = 1, window: str = "w") -> Verdict:
    return await store.take(entry, [Share(window, limit, amount)])


async def test_the_limit_can_be_taken_and_no_more(store: Store) -> None:
    for left in (2, 1, 0):
        verdict = await take(store, f"e{left}", 3)
        assert (verdict.wait_us, verdict.standings[0].remaining) == (0, left)
    verdict = await take(store, "e", 3)
    assert verdict == Verdict(PERIOD_US, (Standing(3, 3, PERIOD_US),))


async def test_who_waits_as_long_as_is_said_is_served_and_who_comes_a_microsecond_early_is_not(
    store: Store, clock: Clock
) -> None:
    for entry in "abc":
        await take(store, entry, 3)
        clock.at += 7 * SECOND + 1
    wait = (await take(store, "early", 3)).wait_us
    assert wait == PERIOD_US - 3 * (7 * SECOND + 1)
    clock.at += wait - 1
    assert (await take(store, "d", 3)).wait_us == 1
    clock.at += 1
    assert (await take(store, "d", 3)).wait_us == 0


async def test_an_amount_waits_until_enough_of_the_oldest_is_a_minute_old(store: Store, clock: Clock) -> None:
    for entry, amount in (("a", 10), ("b", 50), ("c", 40)):
        await take(store, entry, 100, amount)
        clock.at += SECOND
    for amount, seconds in ((1, 57), (10, 57), (11, 58), (60, 58), (61, 59), (100, 59)):
        assert (await take(store, "d", 100, amount)).wait_us == seconds * SECOND, amount
    clock.at += 58 * SECOND
    assert (await take(store, "d", 100, 61)).wait_us == SECOND
    assert (await take(store, "d", 100, 60)) == Verdict(0, (Standing(100, 100, PERIOD_US),))


async def test_an_act_counts_in_all_its_windows_or_in_none(store: Store, clock: Clock) -> None:
    await take(store, "a", 1, window="narrow")
    clock.at += SECOND
    verdict = await store.take("b", [Share("wide", 5), Share("narrow", 1)])
    assert verdict.wait_us == PERIOD_US - SECOND
    assert [standing.used for standing in verdict.standings] == [0, 1]
    clock.at += verdict.wait_us
    verdict = await store.take("c", [Share("wide", 5), Share("narrow", 1)])
    assert [standing.used for standing in verdict.standings] == [1, 1]


async def test_of_several_windows_the_longest_wait_counts(store: Store, clock: Clock) -> None:
    await take(store, "a", 1, window="one")
    clock.at += SECOND
    await take(store, "b", 1, window="two")
    wait = (await store.take("c", [Share("two", 1), Share("one", 1)])).wait_us
    assert wait == PERIOD_US
    clock.at += wait
    assert (await store.take("c", [Share("two", 1), Share("one", 1)])).wait_us == 0


async def test_what_an_entry_did_not_need_can_be_taken_by_others(store: Store, clock: Clock) -> None:
    await take(store, "a", 100, 80)
    clock.at += SECOND
    await take(store, "b", 100, 20)
    await store.put_right("a", "w", 30)
    assert (await take(store, "c", 100, 51)).wait_us == PERIOD_US - SECOND
    assert (await take(store, "c", 100, 50)).standings[0].used == 100
    await store.put_right("b", "w", 0)
    assert (await take(store, "d", 100, 20)).standings[0].used == 100
    clock.at += PERIOD_US - SECOND
    assert (await take(store, "e", 100, 1)).standings[0].used == 71


async def test_what_counts_no_more_cannot_be_put_right(store: Store, clock: Clock) -> None:
    await take(store, "a", 100, 80)
    clock.at += PERIOD_US
    await take(store, "b", 100, 10)
    await store.put_right("a", "w", 30)
    await store.put_right("nobody", "w", 30)
    await store.put_right("b", "nowhere", 30)
    assert (await take(store, "c", 100, 1)).standings[0].used == 11


async def test_a_limit_that_was_lowered_holds_at_once(store: Store, clock: Clock) -> None:
    for entry in "abcd":
        await take(store, entry, 4)
        clock.at += SECOND
    verdict = await take(store, "e", 2)
    assert (verdict.wait_us, verdict.standings[0].remaining) == (PERIOD_US - 2 * SECOND, 0)
    clock.at += verdict.wait_us
    assert (await take(store, "e", 2)).wait_us == 0


async def test_of_200_at_once_as_many_come_through_as_are_allowed(store: Store) -> None:
    verdicts = await asyncio.gather(*(take(store, f"e{number}", 37) for number in range(200)))
    assert sum(verdict.wait_us == 0 for verdict in verdicts) == 37


async def test_memory_and_redis_say_the_same_of_any_history(redis_url: str, clock: Clock) -> None:
    shared, memory, dice = Shared(redis_url, clock), Memory(clock), random.Random(5)
    entries: list[str] = []
    for number in range(400):
        clock.at += dice.choice((0, 1, 100_000, 5 * SECOND, 20 * SECOND))
        if entries and dice.random() < 0.3:
            entry, window, amount = dice.choice(entries), dice.choice("xy"), dice.randrange(0, 4)
            await shared.put_right(entry, window, amount)
            await memory.put_right(entry, window, amount)
            continue
        entries.append(f"e{number}")
        shares = [Share(window, 9, dice.randrange(1, 6)) for window in dice.choice(("x", "y", "xy"))]
        said = await shared.take(entries[-1], shares), await memory.take(entries[-1], shares)
        assert said[0] == said[1], number
    await shared.close()


async def test_memory_forgets_who_has_not_asked_for_a_minute(clock: Clock) -> None:
    memory = Memory(clock)
    for number in range(100):
        await take(memory, "e", 5, window=f"w{number}")
    await memory.put_right("e", "w7", 0)
    assert len(memory) == 100
    clock.at += PERIOD_US
    await take(memory, "e", 5, window="last")
    assert len(memory) == 1


async def test_memory_is_bounded_however_many_ask(clock: Clock) -> None:
    memory = Memory(clock, most=10)
    for number in range(100):
        await take(memory, "e", 1, window=f"w{number}")
    assert len(memory) == 10
    assert (await take(memory, "f", 1, window="w99")).wait_us == PERIOD_US, "the newest are those that are kept"


# ---- Redis comes and goes


async def test_two_gateways_count_as_one(redis_url: str) -> None:
    first, second = Shared(redis_url), Shared(redis_url)
    asked = [take((first, second)[number % 2], f"e{number}", 37) for number in range(200)]
    verdicts = await asyncio.gather(*asked)
    assert sum(verdict.wait_us == 0 for verdict in verdicts) == 37
    assert all(0 <= verdict.wait_us <= PERIOD_US for verdict in verdicts)
    await first.close()
    await second.close()


async def test_nothing_is_left_in_redis_for_longer_than_a_minute(redis_url: str) -> None:
    shared = Shared(redis_url)
    await take(shared, "e", 5)
    keys = await shared._redis.keys()
    assert len(keys) == 2
    assert all([0 < await shared._redis.pttl(key) <= 60_000 for key in keys])
    await shared.close()


async def test_a_redis_that_lost_one_of_its_keys_refuses_for_a_minute_at_most(redis_url: str, clock: Clock) -> None:
    shared = Shared(redis_url, clock)
    for entry in "ab":
        await take(shared, entry, 2)
    await shared._redis.delete("far:limit:w")
    assert (await take(shared, "c", 2)).wait_us == PERIOD_US
    await shared._redis.delete("far:limit:w:amounts")
    assert (await take(shared, "c", 2)).wait_us == 0
    await shared._redis.delete("far:limit:w:amounts")
    assert (await take(shared, "d", 2)).wait_us == 0
    await shared.close()


async def test_without_redis_a_gateway_counts_by_itself_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.limits.shared.AWAY_SECONDS", 0.05)
    with RedisServer() as server, structlog.testing.capture_logs() as logs:
        shared = Shared(server.url)
        await take(shared, "a", 2)
        server.stop()
        for entry, waits in (("b", False), ("c", False), ("d", True)):
            assert bool((await take(shared, entry, 2)).wait_us) == waits
        await shared.put_right("c", "w", 0)
        assert (await take(shared, "e", 2)).wait_us == 0
        await asyncio.sleep(0.06)
        assert (await take(shared, "f", 2)).wait_us, "still away"
        server.start()
        await asyncio.sleep(0.06)
        for entry, waits in (("g", False), ("h", False), ("i", True)):
            assert bool((await take(shared, entry, 2)).wait_us) == waits, "what Redis has counts again"
        await shared.close()
    assert [entry["event"] for entry in logs] == ["limits_not_shared", "limits_shared_again"]
    assert logs[0]["log_level"] == "warning"


async def test_a_redis_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.limits.shared.TIMEOUT_SECONDS", 0.05)

    asked = 0

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(30)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    shared = Shared(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with structlog.testing.capture_logs() as logs:
        verdicts = await asyncio.gather(*(take(shared, f"e{number}", 37) for number in range(200)))
    assert sum(verdict.wait_us == 0 for verdict in verdicts) == 37
    assert [entry["event"] for entry in logs] == ["limits_not_shared"]
    assert 0 < asked <= CONNECTIONS, "the others did not even try"
    await shared.close()
    server.close()
