"""Random lives of the books: every act in any order, twice, with other content, in transactions that fail.

    python -m benchmarks.ledger_histories [--histories 100000] [--seed 1] [--processes 2] [--database URL]

Each process has a part of the histories and a database of its own; which part does not change what a history does. A
tenth of the acts is done once more in a transaction that breaks. What must be so is said in
``tests/support/ledger_histories.py``; the first history that ends otherwise stops the run. Afterwards all sums,
checkpoints and ends are recomputed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import repository
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.migrations import upgrade
from tests.support.ledger_histories import Tally, live_through

TOGETHER = 100
CHECKPOINT_EVERY_LINES = 20_000


async def live(url: str, numbers: range, seed: int) -> dict[str, Any]:
    """These histories, and what there is to say of them."""
    await upgrade(url)
    database, tally, started = Database(url), Tally(), time.perf_counter()
    for first in range(numbers.start, numbers.stop, TOGETHER):
        async with database.writing() as connection:
            await live_through(connection, first, min(TOGETHER, numbers.stop - first), seed, tally)
            await repository.keep_checkpoints(connection, CHECKPOINT_EVERY_LINES)
        if tally.histories % (10 * TOGETHER) == 0:
            seconds = time.perf_counter() - started
            print(f"from {numbers.start}: {tally.histories:>9} of {len(numbers)} in {seconds:6.0f} s", flush=True)
    async with database.snapshot() as connection:
        report = await verify(connection)
        totals = await repository.totals(connection)
    await database.close()
    return {
        "histories": tally.histories,
        "acts": tally.acts,
        "outcomes": dict(tally.outcomes.most_common()),
        "postings": report.postings,
        "lines": report.lines,
        "checkpoints": report.checkpoints,
        "findings": [finding.as_facts() for finding in report.findings],
        "sum_of_all_units": sum(totals.values()),
    }


def live_alone(numbers: range, seed: int, url: str | None) -> dict[str, Any]:
    """:func:`live` in a process of its own; without a URL in a fresh SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(live(url or f"sqlite+aiosqlite:///{folder}/books.db", numbers, seed))


def divided(histories: int, parts: int) -> list[range]:
    """So many histories in parts of nearly the same size."""
    edges = [histories * part // parts for part in range(parts + 1)]
    return [range(first, end) for first, end in pairwise(edges)]


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The results of all processes as those of one."""
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes.update(part["outcomes"])
    names = ("histories", "acts", "postings", "lines", "checkpoints", "sum_of_all_units")
    sums = {name: sum(part[name] for part in parts) for name in names}
    findings = [finding for part in parts for finding in part["findings"]]
    return {**sums, "outcomes": dict(outcomes.most_common()), "findings": findings, "processes": len(parts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database, for one process; default: SQLite")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit, started = commit(), time.perf_counter()
    parts = divided(given.histories, 1 if given.database else given.processes)
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
        lives = [pool.submit(live_alone, numbers, given.seed, given.database) for numbers in parts]
        results = together([one.result() for one in lives])
    results["seconds"] = round(time.perf_counter() - started, 1)
    command = (
        f"python -m benchmarks.ledger_histories --histories {given.histories} --seed {given.seed} "
        f"--processes {len(parts)}"
    )
    keep(given.out, "ledger_histories", command, of_commit, results)
    print(results)
    if results["findings"] or results["sum_of_all_units"]:
        raise SystemExit("the books disagree")


if __name__ == "__main__":
    main()
