"""Sums of what was used, in both databases."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.dialects import postgresql, sqlite

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.principal import Scope
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.keys import repository as keys
from far_mesh.marketplace.keys.schemas import NewKey
from far_mesh.marketplace.tables import inference_sessions
from far_mesh.marketplace.usage import repository, service
from far_mesh.marketplace.usage.schemas import Filter, Line, Period, Sums
from far_mesh.marketplace.usage.service import UsageService, far_text, period
from tests.support.documents import wallet_of

ANN, BOB = wallet_of("ann"), wallet_of("bob")
MARCH = Period(date(2026, 3, 1), date(2026, 3, 31))


def asked(number: int, at: datetime, **changes: Any) -> dict[str, Any]:
    """A request that ended, as the table has it."""
    return {
        "id": f"s{number}",
        "request_id": f"r{number}",
        "user_wallet": ANN,
        "model_id": "tiny",
        "tier": "standard",
        "status": "completed",
        "gateway": "g",
        "incarnation": "i",
        "started_at": at,
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "token_count": 3,
        "prompt_price_units": 1,
        "completion_price_units": 2,
        "held_units": 100,
        "total_cost_units": 16,
        "api_key_id": None,
    } | changes


async def write(database: Database, *rows: dict[str, Any]) -> None:
    async with database.writing() as connection:
        await connection.execute(insert(inference_sessions), list(rows))


def day(number: int, hour: int = 12) -> datetime:
    return datetime(2026, 3, number, hour, tzinfo=UTC)


async def pages(usage: UsageService, wanted: Filter, limit: int) -> list[list[Line]]:
    found, cursor = [], None
    while True:
        page = await usage.used(wanted, cursor, limit)
        found.append(page.lines)
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_what_was_used_per_day_model_and_key(database: Database) -> None:
    await write(
        database,
        asked(1, day(1)),
        asked(2, day(1), total_cost_units=4),
        asked(3, day(1), model_id="other"),
        asked(4, day(2), api_key_id="key_a"),
        asked(5, day(2), status="failed", total_cost_units=0, token_count=0),
        asked(6, day(2), status="active", total_cost_units=None),
        asked(7, day(2), user_wallet=BOB),
    )
    usage, wanted = UsageService(database), Filter(ANN, MARCH)
    used = await usage.used(wanted, None, 100)
    assert used.lines == [
        Line("2026-03-02", "tiny", "", Sums(2, 1, 20, 8, 3, 0)),
        Line("2026-03-02", "tiny", "key_a", Sums(1, 0, 10, 4, 3, 16)),
        Line("2026-03-01", "other", "", Sums(1, 0, 10, 4, 3, 16)),
        Line("2026-03-01", "tiny", "", Sums(2, 0, 20, 8, 6, 20)),
    ]
    assert used.total == Sums(6, 1, 60, 24, 15, 52)
    assert used.next_cursor is None
    for limit in (1, 2, 3, 4):
        read = await pages(usage, wanted, limit)
        assert sum(read, []) == used.lines  # noqa: RUF017
        assert max(map(len, read)) <= limit


async def test_of_one_model_or_one_key_alone(database: Database) -> None:
    await write(database, asked(1, day(1)), asked(2, day(1), model_id="other", api_key_id="key_a"))
    usage = UsageService(database)
    wanted = {
        "tiny": Filter(ANN, MARCH, "tiny"),
        "other": Filter(ANN, MARCH, None, "key_a"),
        "none": Filter(ANN, MARCH, None, ""),
        "nothing": Filter(ANN, MARCH, "tiny", "key_a"),
    }
    found = {name: (await usage.used(one, None, 9)) for name, one in wanted.items()}
    assert {name: [line.model_id for line in used.lines] for name, used in found.items()} == {
        "tiny": ["tiny"],
        "other": ["other"],
        "none": ["tiny"],
        "nothing": [],
    }
    assert found["nothing"].total == Sums(0, 0, 0, 0, 0, 0)


async def test_a_day_is_one_of_utc_and_both_ends_count(database: Database) -> None:
    edge = datetime(2026, 3, 2, tzinfo=UTC)
    moments = [edge - timedelta(microseconds=1), edge, edge + timedelta(days=1, microseconds=-1), edge + timedelta(1)]
    await write(database, *(asked(number, at) for number, at in enumerate(moments)))
    only = Period(date(2026, 3, 2), date(2026, 3, 2))
    used = await UsageService(database).used(Filter(ANN, only), None, 9)
    assert [(line.day, line.sums.requests) for line in used.lines] == [("2026-03-02", 2)]


async def test_a_table_of_everything_with_the_names_of_keys(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CSV_PAGE", 2)
    wanted = NewKey('=HYPERLINK("x"), "y"', frozenset({Scope.INFERENCE}), None, None)
    async with database.writing() as connection:
        key = await keys.add(connection, ANN, wanted, "hash", "sk-far-1", now())
    rows = [asked(number, day(number), api_key_id=key.id if number == 1 else None) for number in range(1, 6)]
    await write(database, *rows, asked(9, day(9), model_id="+1"))
    told = "".join([piece async for piece in UsageService(database).table(Filter(ANN, MARCH))])
    table = list(csv.DictReader(told.splitlines()))
    assert [row["date"][-2:] for row in table] == ["09", "05", "04", "03", "02", "01"]
    assert table[0]["model_id"] == "'+1"
    assert (table[-1]["api_key_id"], table[-1]["api_key_name"]) == (key.id, "'" + wanted.name)
    assert (table[-1]["cost_units"], table[-1]["cost_far"]) == ("16", "0.000000016")


async def test_a_table_of_nothing_has_its_head(database: Database) -> None:
    told = [piece async for piece in UsageService(database).table(Filter(ANN, MARCH))]
    assert [row.strip() for row in told] == [",".join(service.COLUMNS)]


NUL_IN_IT = "WyIyMDI2LTAzLTAxIiwgIlx1MDAwMCIsICIiXQ"
HALF_A_CHARACTER = "WyIyMDI2LTAzLTAxIiwgIlx1ZDgwMCIsICIiXQ"


@pytest.mark.parametrize(
    "cursor", ["", "x", "W10", "WzEsMiwzXQ", "WyJhIiwiYiIsImMiXQ", "W1tbW1tb" * 50, NUL_IN_IT, HALF_A_CHARACTER]
)
async def test_a_cursor_of_nobody_is_refused(sqlite_url: str, cursor: str) -> None:
    database = Database(sqlite_url)
    try:
        with pytest.raises(InvalidArgument):
            await UsageService(database).used(Filter(ANN, MARCH), cursor, 9)
    finally:
        await database.close()


def test_the_last_thirty_days_are_meant_where_nobody_says_which() -> None:
    asked_for = period(None, None)
    assert asked_for.last == now().date()
    assert (asked_for.last - asked_for.first).days == 29
    assert period(None, date(2026, 3, 30)).first == date(2026, 3, 1)
    assert period(None, date(1, 1, 2)).first == date(1, 1, 1)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date(2026, 1, 2), date(2026, 1, 1)),
        (date(2025, 1, 1), date(2026, 1, 2)),
        (date(9999, 12, 31), date(9999, 12, 31)),
    ],
)
def test_days_that_cannot_be_asked_about(first: date, last: date) -> None:
    with pytest.raises(InvalidArgument):
        period(first, last)


def test_amounts_are_exact_as_text() -> None:
    assert far_text(0) == "0.000000000"
    assert far_text(123_456_789_012) == "123.456789012"


async def test_a_users_days_are_found_by_their_index(database: Database) -> None:
    recent = Filter(Wallet("0x" + "11" * 20), MARCH)
    dialect: Any = sqlite.dialect() if database.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    query = repository.lines_query(dialect.name, recent, ("2026-03-09", "m", "k"), 100)
    await write(database, asked(0, day(1)))
    async with database.writing() as connection:
        if database.is_sqlite:
            raw = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            rows = (await connection.execute(text(f"EXPLAIN QUERY PLAN {raw}"))).all()
        else:
            columns = ", ".join(one.name for one in inference_sessions.c if one.name not in ("id", "request_id"))
            copies = f"SELECT n, n, {columns} FROM inference_sessions, generate_series(1, 2000) AS n"
            await connection.execute(text(f"INSERT INTO inference_sessions (id, request_id, {columns}) {copies}"))
            await connection.execute(text("UPDATE inference_sessions SET user_wallet = id"))
            await connection.execute(text("ANALYZE inference_sessions"))
            raw = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
            rows = (await connection.execute(text(f"EXPLAIN {raw}".replace(":", "\\:")))).all()
    assert "ix_inference_sessions_user_wallet_started_at" in " ".join(str(row) for row in rows)
