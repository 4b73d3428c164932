"""What the books tell, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import repository as ledger
from far_mesh.marketplace.ledger.repository import keep_checkpoints, noted_totals, totals
from far_mesh.marketplace.ledger.schemas import Account, Book, Posting
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.reconcile_books import Result, keep_result
from far_mesh.marketplace.settlement.schemas import Kind
from far_mesh.marketplace.tables import balance_checkpoints
from far_mesh.marketplace.telemetry.books import BookFacts, families, read

WALLETS = [f"0x{number:040x}" for number in range(5)]


def posting(number: int) -> Posting:
    wallet = WALLETS[number % len(WALLETS)]
    lines = {Account(Book.CHAIN, wallet): -number, Account(Book.USER_DEPOSIT, wallet): number}
    return Posting(f"test:{number}", "deposit", "test", lines)


async def post(database: Database, *numbers: int) -> None:
    async with database.writing() as connection:
        for number in numbers:
            await ledger.write(connection, posting(number), lock=False, checked=[])


async def test_sums_by_the_notes_are_the_sums(database: Database) -> None:
    async with database.reading() as connection:
        assert await noted_totals(connection) == {}
    await post(database, *range(1, 20))
    async with database.writing() as connection:
        await keep_checkpoints(connection)
    await post(database, *range(20, 30))
    async with database.writing() as connection:
        assert await noted_totals(connection) == await totals(connection) == {Book.CHAIN: -435, Book.USER_DEPOSIT: 435}
        await connection.execute(delete(balance_checkpoints))
        assert await noted_totals(connection) == await totals(connection)


async def test_books_without_anything_in_them_say_so(database: Database) -> None:
    async with database.reading() as connection:
        assert await read(connection) == BookFacts()


async def test_what_waits_for_the_chain_and_what_disagreed_is_told(database: Database) -> None:
    findings = [{"kind": "sum", "about": WALLETS[0], "message": "it is less"}]
    async with database.writing() as connection:
        await outbox.add(connection, Kind.SETTLE, "batch:1", WALLETS[0], {})
        await outbox.add(connection, Kind.RELEASE, "req_1", WALLETS[0], {})
        row = await outbox.find(connection, Kind.RELEASE, "req_1")
        assert row is not None
        await outbox.mark_confirmed(connection, row, None, None)
        await keep_result(connection, Result(now(), 7, findings))
    async with database.reading() as connection:
        facts = await read(connection)
    assert facts.rows == {("settle", "pending"): 1, ("release", "confirmed"): 1}
    assert (facts.payments, facts.findings) == (1, 1)
    assert facts.oldest_seconds is not None
    assert facts.compared_seconds is not None


@pytest.mark.parametrize("facts", [None, BookFacts()])
def test_every_family_is_there_whatever_is_known(facts: BookFacts | None) -> None:
    told = {family.name: family for family in families(facts, "here")}
    assert "far_mesh_reconciliation_findings" in told
    assert told["far_mesh_database_up"].samples[0].value == (facts is not None)
    assert bool(told["far_mesh_ledger_far"].samples) is (facts is not None)


def test_a_lease_is_held_here_or_elsewhere_or_by_nobody() -> None:
    def told(holders: dict[str, str]) -> tuple[float, float]:
        found = {family.name: family for family in families(BookFacts(holders=holders), "here")}
        values = [
            sample.value
            for name in ("far_mesh_lease_held", "far_mesh_lease_holders")
            for sample in found[name].samples
            if sample.labels == {"lease": "settler"}
        ]
        return values[0], values[1]

    assert [told({"settler": "here"}), told({"settler": "there"}), told({})] == [(1, 1), (0, 1), (0, 0)]
