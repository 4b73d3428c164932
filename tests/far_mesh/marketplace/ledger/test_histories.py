"""Random lives of the books. ``benchmarks/ledger_histories.py`` makes a hundred thousand of them."""

from __future__ import annotations

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import repository
from far_mesh.marketplace.ledger.verify import verify
from tests.support.ledger_histories import Tally, live_through


async def live(url: str, histories: int, together: int) -> Tally:
    """Histories, ``together`` of them in each transaction, and checkpoints in between."""
    database, tally = Database(url), Tally()
    for first in range(0, histories, together):
        async with database.writing() as connection:
            await live_through(connection, first, together, seed=1, tally=tally)
            await repository.keep_checkpoints(connection, at_least=500)
    async with database.snapshot() as connection:
        report = await verify(connection)
        assert sum((await repository.totals(connection)).values()) == 0
    await database.close()
    assert report.findings == ()
    assert report.checkpoints > 0
    return tally


async def test_two_thousand_histories_end_right(sqlite_url: str) -> None:
    tally = await live(sqlite_url, 2_000, together=50)
    assert tally.histories == 2_000
    assert set(tally.outcomes) == {"done", "again", "conflict", "too little", "undone"}
    assert min(tally.outcomes.values()) > 200


async def test_histories_end_right_on_postgresql_too(postgresql_url: str) -> None:
    tally = await live(postgresql_url, 100, together=25)
    assert set(tally.outcomes) == {"done", "again", "conflict", "too little", "undone"}
