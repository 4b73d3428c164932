"""``far-mesh ledger`` and ``far-mesh prices``."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner, Result

from far_mesh.cli import app
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import repository, service
from far_mesh.marketplace.ledger.split import Settlement

USER = "0xUser"


def far_mesh(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def facts(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def write(url: str, act: Callable[[AsyncConnection], Awaitable[object]]) -> None:
    async def main() -> None:
        database = Database(url)
        async with database.writing() as connection:
            await act(connection)
        await database.close()

    asyncio.run(main())


@pytest.fixture
def books(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A deposit and a request, and a checkpoint."""

    async def act(connection: AsyncConnection) -> None:
        await service.deposit_seen(connection, USER, 1_000, "0xabc:1")
        await service.hold(connection, USER, "req_1", 100)
        await service.capture(connection, USER, "req_1", Settlement(100, (("0xAnn", 50),), 12, 38))
        await repository.keep_checkpoints(connection)

    write(database_url, act)
    monkeypatch.setenv("FAR_DATABASE_URL", database_url)
    return database_url


def test_show_tells_totals_and_the_balances_of_one(books: str) -> None:
    totals = {one["account"]: one["units"] for one in facts(far_mesh("ledger", "show", "--json"))}
    assert totals == {
        "chain": -1_000, "platform_fee": 12, "provider_earned": 50, "user_deposit": 938, "user_hold": 0
    }  # fmt: skip
    mine = {one["account"]: one["units"] for one in facts(far_mesh("ledger", "show", USER, "--json"))}
    assert mine == {"chain": -1_000, "user_deposit": 938, "user_hold": 0}
    assert "938" in far_mesh("ledger", "show", USER).stdout
    assert "nothing in the books of 0xNobody" in far_mesh("ledger", "show", "0xNobody").stdout


def test_show_tells_the_lines_of_a_request(books: str) -> None:
    lines = facts(far_mesh("ledger", "show", "--request", "req_1", "--json"))
    assert [(one["kind"], one["account"], one["amount_units"]) for one in lines if one["kind"] == "hold"] == [
        ("hold", "user_deposit", -100),
        ("hold", "user_hold", 100),
    ]
    assert len(lines) == 6


def test_verify_says_that_all_agrees(books: str) -> None:
    result = far_mesh("ledger", "verify", "--json")
    assert result.exit_code == 0
    assert facts(result) == [
        {"event": "verified", "postings": 3, "lines": 8, "accounts": 5, "checkpoints": 5, "findings": 0}
    ]
    assert "all of it agrees" in far_mesh("ledger", "verify").stdout


def ruin(url: str, *statements: str) -> None:
    """What no act does: the triggers are put aside first."""

    async def act(connection: AsyncConnection) -> None:
        if connection.dialect.name == "sqlite":
            triggers = await connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for (name,) in triggers.all():
                await connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await connection.execute(text(statement))

    write(url, act)


SESSION = (
    "INSERT INTO inference_sessions (id, request_id, user_wallet, model_id, tier, status, gateway, incarnation, "
    "started_at, prompt_tokens, token_count, prompt_price_units, completion_price_units, held_units, total_cost_units, "
    "fee_units, refund_units) VALUES ('s1', 'req_1', '0xUser', 'tiny', 'standard', '{status}', 'g', 'i', "
    "'2026-01-01 00:00:00', 1, 1, 1, 1, 100, {cost}, 12, 38)"
)
CONTRIBUTION = (
    "INSERT INTO node_contributions (session_id, node_id, wallet_address, first_block, end_block, quantization, "
    "tokens_contributed, token_layers, payment_units, receipt, earned_at) "
    "VALUES ('s1', 'n1', '{wallet}', 0, 8, 'none', 9, 72, {units}, 'receipt', '2026-01-01 00:00:00')"
)
NODE = (
    "INSERT INTO node_registry (node_id, wallet_address, model_id, registered_at, is_active, total_tokens_served, "
    "total_earned_units) VALUES ('n1', '0xAnn', 'tiny', '2026-01-01 00:00:00', true, {tokens}, {units})"
)
OF_DEPOSIT = "account_id = (SELECT id FROM accounts WHERE kind = 'user_deposit')"
GOOD = (
    SESSION.format(status="completed", cost=62),
    CONTRIBUTION.format(wallet="0xAnn", units=50),
    NODE.format(tokens=9, units=50),
)


@pytest.mark.parametrize(
    ("statements", "kinds"),
    [
        (GOOD, set()),
        (
            ("UPDATE entries SET amount_units = amount_units + 1 WHERE id = 2",),
            {"unbalanced_posting", "wrong_checkpoint"},
        ),
        ((f"DELETE FROM entries WHERE posting_id = 3 AND {OF_DEPOSIT}",), {"unbalanced_posting", "wrong_checkpoint"}),
        (("UPDATE entries SET account_id = 1 WHERE id = 4",), {"wrong_checkpoint", "negative_account", "open_amount"}),
        (("UPDATE balance_checkpoints SET balance_units = 7 WHERE account_id = 2",), {"wrong_checkpoint"}),
        ((SESSION.format(status="completed", cost=63), *GOOD[1:]), {"session"}),
        ((SESSION.format(status="active", cost=62),), {"session", "contribution"}),
        ((GOOD[0], CONTRIBUTION.format(wallet="0xAnn", units=49), NODE.format(tokens=9, units=49)), {"contribution"}),
        ((GOOD[0], CONTRIBUTION.format(wallet="0xBob", units=50), NODE.format(tokens=9, units=50)), {"contribution"}),
        ((*GOOD[:2], NODE.format(tokens=9, units=51)), {"registry"}),
        ((*GOOD[:2], NODE.format(tokens=8, units=50)), {"registry"}),
    ],
)
def test_verify_finds_what_does_not_agree(books: str, statements: tuple[str, ...], kinds: set[str]) -> None:
    ruin(books, *statements)
    result = far_mesh("ledger", "verify", "--json")
    *found, last = facts(result)
    assert {one["kind"] for one in found} == kinds
    assert last["findings"] == len(found)
    assert result.exit_code == (1 if kinds else 0)
    if kinds:
        assert min(kinds) in far_mesh("ledger", "verify").stdout


def test_export_gives_every_line_as_csv_and_as_json(books: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(far_mesh("ledger", "export").stdout)))
    out = tmp_path / "books.jsonl"
    assert far_mesh("ledger", "export", "--json", "--out", str(out)).exit_code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{name: "" if value is None else str(value) for name, value in line.items()} for line in lines] == rows
    assert sum(line["amount_units"] for line in lines) == 0
    assert len(lines) == 8


def test_where_there_is_no_database_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_DATA_DIR", str(tmp_path / "none"))
    for command in ("show", "verify", "export"):
        result = far_mesh("ledger", command)
        assert result.exit_code == 1
        assert "there is no database at" in result.stderr
    assert not (tmp_path / "none").exists()


def test_tables_of_another_version_are_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marketplace.db").touch()
    monkeypatch.setenv("FAR_DATA_DIR", str(tmp_path))
    result = far_mesh("ledger", "verify")
    assert (result.exit_code, "not those of this version" in result.stderr) == (1, True)


def test_an_export_that_cannot_be_written_is_a_clear_error(books: str, tmp_path: Path) -> None:
    result = far_mesh("ledger", "export", "--out", str(tmp_path / "no" / "such" / "folder"))
    assert (result.exit_code, "cannot write" in result.stderr) == (1, True)


def test_prices_are_set_listed_and_cleared(books: str) -> None:
    assert far_mesh("prices", "set", "tiny", "--prompt", "1", "--completion", "5", "--json").exit_code == 0
    far_mesh("prices", "set", "tiny", "--prompt", "2", "--completion", "9", "--tier", "premium")
    listed = facts(far_mesh("prices", "list", "--json"))
    assert [(one["tier"], one["prompt_price_units"], one["completion_price_units"]) for one in listed] == [
        ("premium", 2, 9),
        ("standard", 1, 5),
    ]
    assert facts(far_mesh("prices", "clear", "tiny", "--json"))[0]["was_there"] is True
    assert "as they did" in far_mesh("prices", "clear", "tiny").stdout


@pytest.mark.parametrize(("prompt", "completion"), [("-1", "5"), ("1", "0"), ("1", str(2**53))])
def test_prices_that_mean_nothing_are_refused(books: str, prompt: str, completion: str) -> None:
    assert far_mesh("prices", "set", "tiny", "--prompt", prompt, "--completion", completion).exit_code == 2
    assert far_mesh("prices", "list", "--json").stdout == ""
