"""What a user owes: everything that the deposit will yet have to pay, found without reading the user's past."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.dialects import postgresql, sqlite

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.inference.payment import Means, Way, choose
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Payment, Status
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.owed import Owed, batch_row, owed
from far_mesh.marketplace.settlement.requests import open_request, refund_request
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import chain_outbox, inference_sessions, settlement_batches
from tests.support.documents import wallet_of

GATEWAY = Gateway("gateway", "one")
USER, OTHER = wallet_of("user"), wallet_of("other")


def session(name: str, held: int = 100, payment: Payment = Payment.NETTED, user: str = USER) -> NewSession:
    request_id = f"req_{name}"
    return NewSession(request_id, request_id, user, "tiny", "standard", 1, 1, 1, 1, 2000, held, payment=payment)


async def begin(database: Database, *requests: NewSession) -> None:
    async with database.writing() as connection:
        for user in (USER, OTHER):
            await ledger.deposit_seen(connection, user, 10**6, f"of {user}")
        for request in requests:
            await open_request(connection, request, GATEWAY, 1800)


async def change(database: Database, name: str, **values: Any) -> None:
    async with database.writing() as connection:
        await sessions.change(connection, f"req_{name}", **values)


async def found(database: Database, user: str = USER) -> Owed:
    async with database.reading() as connection:
        return await owed(connection, user)


async def test_nobody_owes_anything_at_first(database: Database) -> None:
    assert await found(database) == Owed(0, 0)


async def test_a_request_under_way_counts_with_what_it_holds_and_then_with_what_it_did_cost(database: Database) -> None:
    await begin(database, session("a"), session("b"), session("theirs", 999, user=OTHER))
    assert await found(database) == Owed(200)
    await change(database, "a", status=Status.COMPLETED.value, total_cost_units=30)
    assert await found(database) == Owed(130)
    async with database.writing() as connection:
        assert await refund_request(connection, "req_b", "test")
    assert await found(database) == Owed(30)


async def test_a_lock_that_the_chain_may_not_have_yet_counts_apart(database: Database) -> None:
    await begin(database, session("a", 70, Payment.ESCROW), session("theirs", 5, Payment.ESCROW, OTHER))
    assert await found(database) == Owed(0, 70)
    async with database.writing() as connection:
        row = await outbox.find(connection, Kind.LOCK, "req_a")
        assert row is not None
        await outbox.abandon_lock(connection, "req_a")
    assert await found(database) == Owed()


async def test_what_is_in_a_batch_is_owed_until_the_chain_has_charged_it(database: Database) -> None:
    await begin(database, session("a"), session("b"))
    for name, cost in (("a", 30), ("b", 40)):
        await change(database, name, status=Status.COMPLETED.value, total_cost_units=cost)
    await change(database, "a", batch_number=7)
    async with database.writing() as connection:
        values = {"kind": "batch", "detail_root": "0x", "requests": 1, "total_units": 35, "fee_units": 5}
        batch = {"number": 7, "charges": {USER: 30, OTHER: 5}, "payouts": {}, "created_at": now()}
        await connection.execute(insert(settlement_batches).values(**values, **batch))
        await outbox.add(connection, Kind.SETTLE, "batch-7", wallet_of("settler"), {"number": 7})
    assert await found(database) == Owed(70)
    assert await found(database, OTHER) == Owed(5)
    for status, units in ((RowStatus.SENT, 70), (RowStatus.CONFIRMED, 40)):
        async with database.writing() as connection:
            await connection.execute(chain_outbox.update().values(status=status.value))
        assert await found(database) == Owed(units)
    async with database.reading() as connection:
        row = await batch_row(connection, 7)
        assert row is not None
        assert row.kind is Kind.SETTLE
        assert await batch_row(connection, 8) is None
        assert await batch_row(connection, None) is None


async def test_of_many_requests_at_once_no_more_are_netted_than_the_limit_allows(database: Database) -> None:
    await begin(database)
    means = Means(chargeable_units=10**6, limit_units=450)

    async def one(index: int) -> Payment:
        async with database.writing() as connection:
            request = session(str(index))
            begun = await open_request(
                connection, request, GATEWAY, 1800, choose=lambda debt: choose(Way.AUTO, means, 100, debt)
            )
            return begun.payment

    payments = await asyncio.gather(*(one(index) for index in range(12)))
    assert (payments.count(Payment.NETTED), payments.count(Payment.ESCROW)) == (4, 8)
    assert await found(database) == Owed(400, 800)


async def test_what_is_owed_is_found_by_its_index_and_not_by_reading_all_requests(database: Database) -> None:
    dialect = sqlite.dialect() if database.is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    query = str(sessions.unsettled(USER).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    async with database.writing() as connection:
        if database.is_sqlite:
            rows = (await connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))).all()
        else:
            await begin(database, session("one"))
            columns = ", ".join(
                column.name for column in inference_sessions.c if column.name not in ("id", "request_id")
            )
            copies = f"SELECT n, n, {columns} FROM inference_sessions, generate_series(1, 2000) AS n"
            await connection.execute(text(f"INSERT INTO inference_sessions (id, request_id, {columns}) {copies}"))
            await connection.execute(text("UPDATE inference_sessions SET user_wallet = id WHERE id <> 'req_one'"))
            await connection.execute(text("ANALYZE inference_sessions"))  # or the planner knows of no rows
            rows = (await connection.execute(text(f"EXPLAIN {query}"))).all()
    assert "ix_inference_sessions_unsettled" in " ".join(str(row) for row in rows)
