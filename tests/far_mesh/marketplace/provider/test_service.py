"""What a provider sees of its money, on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.engine import make_url

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import NotFound
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.provider.schemas import ClaimState, LineState
from far_mesh.marketplace.provider.service import ProviderService
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.merkle import detail_leaves, is_proven, payout_leaf, payout_tree
from far_mesh.marketplace.settlement.schemas import RowStatus
from far_mesh.marketplace.tables import inference_sessions, metadata
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import LiveChain
from tests.far_mesh.marketplace.provider.works import (
    add_leaves,
    credit_batch,
    end,
    give_money,
    move_back,
    put_in_batch,
    share,
    work,
)
from tests.support.documents import peer_of, wallet_of

ANN: str = wallet_of("provider ann")
BOB: str = wallet_of("provider bob")
TX = "0x" + "ab" * 32


@pytest.fixture
async def service(database: Database, live_chain: LiveChain) -> AsyncIterator[ProviderService]:
    await give_money(database)
    chain = live_chain.connect()
    yield ProviderService(database, chain, {MODEL: MeshDouble()})
    await chain.close()


async def both_work(database: Database, request_id: str, **more: Any) -> None:
    """Ann does three quarters of it, with two nodes; Bob does the rest."""
    shares = [share("a1", ANN, 160), share("a2", ANN, 80), share("b1", BOB, 80)]
    await work(database, request_id, shares, **more)


async def states(service: ProviderService, wallet: str = ANN) -> dict[str, LineState]:
    page = await service.history(wallet, None, 100)
    return {line.done.request_id: line.state for line in page.items}


async def test_history_is_paged_newest_first_and_shows_each_line_once(
    service: ProviderService, database: Database
) -> None:
    for index in range(5):
        await both_work(database, f"r{index}")
    lines, cursor = [], None
    for _ in range(10):
        page = await service.history(ANN, cursor, 3)
        lines += [(line.done.request_id, line.done.node_id) for line in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert lines == [(f"r{index}", peer_of(node)) for index in (4, 3, 2, 1, 0) for node in ("a2", "a1")]
    bobs = await service.history(BOB, None, 100)
    assert {line.done.node_id for line in bobs.items} == {peer_of("b1")}
    assert (await service.history(wallet_of("nobody"), None, 100)).items == []


@pytest.mark.parametrize(
    "cursor", ["", "x", "1-1", "20260101T000000000000", "20269901T000000000000-1", "٢" * 20 + "-1"]
)
async def test_a_cursor_that_was_not_given_out(service: ProviderService, cursor: str) -> None:
    with pytest.raises(InvalidArgument, match="cursor"):
        await service.history(ANN, cursor, 10)


async def test_what_becomes_of_the_money_of_a_contribution(service: ProviderService, database: Database) -> None:
    await both_work(database, "waits")
    await both_work(database, "settled")
    await both_work(database, "free", tokens=0)
    await both_work(database, "alone", payment=Payment.ESCROW)
    await both_work(database, "refused", payment=Payment.ESCROW)
    await end(database, "release:refused", RowStatus.FAILED)
    await put_in_batch(database, 3, {"settled": {ANN: 300, BOB: 100}})
    expected = {
        "waits": LineState.WAITING,
        "settled": LineState.BATCH,
        "free": LineState.FREE,
        "alone": LineState.BATCH,
        "refused": LineState.REFUSED,
    }
    assert await states(service) == expected
    await credit_batch(database, 3, ["settled"], TX)
    assert await states(service) == expected | {"settled": LineState.PAID}
    (line,) = [one for one in (await service.history(BOB, None, 100)).items if one.done.request_id == "settled"]
    assert line.done.batch_number == 3
    assert line.act is not None
    assert line.act.tx_hash == TX


async def test_every_unit_is_waiting_in_flight_or_paid(service: ProviderService, database: Database) -> None:
    for name in ("r1", "r2", "r3"):
        await both_work(database, name)
    await put_in_batch(database, 1, {"r1": {ANN: 300, BOB: 100}})
    await put_in_batch(database, 2, {"r2": {ANN: 300, BOB: 100}})
    await credit_batch(database, 1, ["r1"], TX)
    found = await service.rewards(ANN, 30)
    assert (found.waiting, found.in_flight, found.paid, found.earned) == (300, 300, 300, 900)
    assert found.on_chain is not None
    # this chain never saw the batch, so nothing of it lies there any more
    assert (found.on_chain.credit, found.on_chain.unclaimed, found.withdrawn) == (0, 0, 300)
    assert [(row.node_id, row.requests, row.token_layers, row.units) for row in found.per_node] == [
        (peer_of("a1"), 3, 480, 600),
        (peer_of("a2"), 3, 240, 300),
    ]
    assert (await service.rewards(wallet_of("nobody"), 30)).earned == 0


async def test_days_are_days_of_utc_and_old_ones_are_left_out(service: ProviderService, database: Database) -> None:
    for name, days in (("today", 0), ("last week", 6), ("long ago", 40)):
        await both_work(database, name)
        await move_back(database, name, days)
    today = now()
    per_day = (await service.rewards(ANN, 7)).per_day
    assert {day: (row.requests, row.units) for day, row in per_day.items()} == {
        today.date().isoformat(): (2, 300),
        (today - timedelta(days=6)).date().isoformat(): (2, 300),
    }
    assert (await service.rewards(ANN, 7)).by_node[today.date().isoformat()] == {peer_of("a1"): 200, peer_of("a2"): 100}
    assert len((await service.rewards(ANN, 6)).per_day) == 1
    assert len((await service.rewards(ANN, 366)).per_day) == 3


async def test_a_chain_that_does_not_answer_hides_nothing_that_the_books_know(
    database: Database, live_chain: LiveChain
) -> None:
    nowhere = Chain("http://127.0.0.1:9", 31337, live_chain.deployment.token, live_chain.deployment.escrow)
    await give_money(database)
    await both_work(database, "r1")
    found = await ProviderService(database, nowhere, {}).rewards(ANN, 1)
    assert (found.earned, found.on_chain, found.withdrawn) == (300, None, None)
    await nowhere.close()


async def test_every_line_of_a_batch_is_proven_and_nobody_sees_anothers(
    service: ProviderService, database: Database
) -> None:
    requests = {f"r{index}": {ANN: 300, BOB: 100} for index in range(5)}
    for name in requests:
        await both_work(database, name)
    root = await put_in_batch(database, 7, requests)
    lines, cursor = [], None
    for _ in range(5):
        part = await service.batch(BOB, 7, cursor, 2)
        assert part.payout_units == 500
        lines += part.lines.items
        if (cursor := part.lines.next_cursor) is None:
            break
    assert sorted(line.request_id for line in lines) == sorted(requests)
    for line in lines:
        (leaf,) = detail_leaves(line.request_id, {BOB: line.units}, 0)
        assert is_proven(root, leaf, line.proof)
        (dearer,) = detail_leaves(line.request_id, {BOB: line.units + 1}, 0)
        assert not is_proven(root, dearer, line.proof)
        (anns,) = detail_leaves(line.request_id, {ANN: line.units}, 0)
        assert not is_proven(root, anns, line.proof)


async def test_a_batch_that_is_not_there_or_not_ones_own(service: ProviderService, database: Database) -> None:
    await both_work(database, "r1")
    await put_in_batch(database, 7, {"r1": {ANN: 300, BOB: 100}})
    for wallet, number in ((ANN, 8), (wallet_of("nobody"), 7)):
        with pytest.raises(NotFound, match=f"no batch {number}"):
            await service.batch(wallet, number, None, 10)
    with pytest.raises(InvalidArgument, match="cursor"):
        await service.batch(ANN, 7, "-1", 10)
    await end(database, "settle:batch-7", RowStatus.FAILED)
    with pytest.raises(NotFound):
        await service.batch(ANN, 7, None, 10)


async def test_roots_that_are_not_on_chain_yet_or_not_any_more(service: ProviderService, database: Database) -> None:
    first, second = {ANN: 300, BOB: 100}, {ANN: 700}
    await add_leaves(database, 900_001, first)
    await add_leaves(database, 900_002, second)
    await end(database, "commit:batch-900001", RowStatus.CONFIRMED, TX)  # and a pauser took it back
    claimed, page = await service.claims(ANN, None, 1)
    assert claimed == 0
    _, rest = await service.claims(ANN, page.next_cursor, 1)
    assert rest.next_cursor is None
    newer, older = *page.items, *rest.items
    assert (newer.epoch, newer.state, newer.open_units) == (900_002, ClaimState.PENDING, 700)
    assert (older.epoch, older.state, older.open_units) == (900_001, ClaimState.REVOKED, 0)
    assert older.root == payout_tree(first).root
    assert is_proven(older.root, payout_leaf(ANN, 300), older.proof)
    found = await service.rewards(ANN, 1)
    assert found.on_chain is not None
    assert found.on_chain.unclaimed == 0
    assert (await service.claims(wallet_of("nobody"), None, 10))[1].items == []


async def test_numbers_at_a_glance(service: ProviderService, database: Database) -> None:
    ann = MeshDouble().serving[0].wallet
    await work(database, "r1", [share("n1", ann, 320)])
    await work(database, "r2", [share("n1", ann, 320)])
    doing = {"shares": [{"wallet": ann}, {"wallet": BOB}]}
    async with database.writing() as connection:
        one = inference_sessions.c.request_id == "r2"
        await connection.execute(update(inference_sessions).where(one).values(status="active", checkpoint=doing))
        await ledger.payout_sent(connection, "p", {ann: 300}, 0)
    found = await service.stats(ann)
    assert (found.tokens_served, found.earned_units, found.pending_units) == (80, 800, 800)
    assert (found.active_requests, found.active_nodes, found.average_latency_ms) == (1, 1, 120)
    nobody = await service.stats(wallet_of("nobody"))
    assert (nobody.tokens_served, nobody.active_requests, nobody.active_nodes) == (0, 0, 0)
    assert nobody.average_latency_ms is None


async def test_a_provider_is_answered_along_an_index(sqlite_url: str, live_chain: LiveChain) -> None:
    """SQLite says how it would go about each question: never through a whole table, and never sorting what is paged."""
    database, chain = Database(sqlite_url), live_chain.connect()
    await give_money(database)
    await both_work(database, "r1")
    await both_work(database, "r2")
    await put_in_batch(database, 1, {"r1": {ANN: 300, BOB: 100}})
    await add_leaves(database, 2, {ANN: 300})
    asked: dict[str, Any] = {}

    def note(_connection: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if sql.startswith("SELECT"):
            asked[sql] = parameters

    service = ProviderService(database, chain, {})
    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    page = await service.history(ANN, None, 1)
    await service.history(ANN, page.next_cursor, 1)
    await service.rewards(ANN, 30)
    await service.batch(ANN, 1, None, 10)
    await service.claims(ANN, None, 10)
    await service.stats(ANN)
    file = sqlite3.connect(str(make_url(sqlite_url).database))
    plans = {sql: [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {sql}", asked[sql])] for sql in asked}
    file.close()
    assert len(plans) > 10
    steps = [step for plan in plans.values() for step in plan]
    assert not [step for step in steps if step.startswith("SCAN") and step.split()[1] in metadata.tables]
    paged = [plan for sql, plan in plans.items() if "node_contributions.receipt" in sql]
    assert len(paged) == 2
    assert not [step for plan in paged for step in plan if "TEMP B-TREE" in step]
    await chain.close()
    await database.close()
