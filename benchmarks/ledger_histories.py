"""Random lives of the books: every act in any order, twice, with other content, in transactions that fail.

    python -m benchmarks.ledger_histories [--histories 100000] [--database URL]

A tenth of the acts is done once more in a transaction that breaks. What must be so is said in
``tests/support/ledger_histories.py``; the first history that ends otherwise stops the run. Afterwards all sums,
checkpoints and ends are recomputed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
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


async def live(url: str, histories: int, seed: int) -> dict[str, Any]:
    """All of them, and what there is to say of it."""
    await upgrade(url)
    database, tally, started = Database(url), Tally(), time.perf_counter()
    for first in range(0, histories, TOGETHER):
        async with database.writing() as connection:
            await live_through(connection, first, min(TOGETHER, histories - first), seed, tally)
            await repository.keep_checkpoints(connection, CHECKPOINT_EVERY_LINES)
        if (first // TOGETHER) % 50 == 0:
            print(f"{tally.histories:>9} histories, {time.perf_counter() - started:6.0f} s", flush=True)
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
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database; default: SQLite in a fresh folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit = commit()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite+aiosqlite:///{folder}/books.db"
        results = asyncio.run(live(url, given.histories, given.seed))
    command = f"python -m benchmarks.ledger_histories --histories {given.histories} --seed {given.seed}"
    keep(given.out, "ledger_histories", command, of_commit, results)
    print(results)
    if results["findings"] or results["sum_of_all_units"]:
        raise SystemExit("the books disagree")


if __name__ == "__main__":
    main()
