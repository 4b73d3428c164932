"""What operators see of settling: what waits, what was settled, what disagrees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement import batch_repository, reconcile_books
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.batch_repository import Unpaid
from far_mesh.marketplace.settlement.overview import Overview
from far_mesh.marketplace.settlement.reconcile import Finding
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import settlement_batches
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.house import House, sign_in
from tests.far_mesh.marketplace.nodes.owners import owner_of, wallet_key
from tests.far_mesh.marketplace.provider.works import FEE, PAID, add_leaves, end, give_money, put_in_batch, share, work
from tests.support.documents import wallet_of

ANN, BOB = wallet_of("ann"), wallet_of("bob")
TX = "0x" + "ab" * 32


async def works(database: Database, *names: str) -> None:
    await give_money(database)
    for name in names:
        await work(database, name, [share("ann", ANN, 240), share("bob", BOB, 80)])


async def test_what_waits_is_what_ended_and_is_in_no_batch(database: Database) -> None:
    async with database.reading() as connection:
        assert await batch_repository.unpaid(connection) == Unpaid(0, 0, None)
    began = now()
    await works(database, "r1", "r2", "r3")
    await put_in_batch(database, 1, {"r1": {ANN: 300, BOB: 100}})
    async with database.reading() as connection:
        found = await batch_repository.unpaid(connection)
        assert (found.requests, found.units) == (2, 2 * PAID)
        assert await batch_repository.count_left(connection) == found.requests
    assert found.oldest is not None
    assert began <= found.oldest <= now()


async def test_an_order_to_settle_stands_until_it_is_done(database: Database) -> None:
    overview = Overview(database, Settings.read(settle_seconds=7.0, settle_threshold_units=8))
    assert (overview.seconds, overview.threshold_units) == (7.0, 8)
    async with database.writing() as connection:
        await batch_repository.order(connection)
    assert (await overview.look(None, 1)).is_ordered
    async with database.writing() as connection:
        await batch_repository.finish_orders(connection)
    assert not (await overview.look(None, 1)).is_ordered


async def test_batches_come_newest_first_with_what_became_of_them(database: Database) -> None:
    await works(database, "r1", "r2")
    await put_in_batch(database, 1, {"r1": {ANN: 300, BOB: 100}})
    await end(database, "settle:batch-1", RowStatus.CONFIRMED, TX)
    await put_in_batch(database, 2, {"r2": {ANN: 300, BOB: 100}})
    await add_leaves(database, 3, {ANN: 7})
    async with database.writing() as connection:
        row = await outbox.find(connection, Kind.COMMIT, "batch-3")
        assert row is not None
        await outbox.mark_failed(connection, row, "reverted", "the cap of today is reached")
    async with database.reading() as connection:
        root, second, first = await batch_repository.newest(connection, None, 10)
        assert await batch_repository.newest(connection, None, 2) == [root, second]
        assert await batch_repository.newest(connection, 2, 2) == [first]
    assert (first.number, first.kind, first.requests, first.users, first.providers) == (1, "batch", 1, 1, 2)
    assert (first.total_units, first.fee_units) == (PAID, FEE)
    assert (root.number, root.kind, root.users, root.providers, root.total_units) == (3, "root", 0, 1, 7)
    acts = [one.act for one in (first, second, root)]
    assert [act and (act.status, act.tx_hash, act.block_number, act.error) for act in acts] == [
        (RowStatus.CONFIRMED, TX, 7, None),
        (RowStatus.PENDING, None, None, None),
        (RowStatus.FAILED, None, None, "the cap of today is reached"),
    ]


@pytest.fixture
def house(open_house: OpenHouse) -> House:
    return open_house(operators=(owner_of("operator"),), settle_seconds=86_400, reconcile_seconds=0)


@pytest.fixture
def http(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=20) as client:
        client.headers["authorization"] = f"Bearer {sign_in(client, wallet_key('operator'))['token']}"
        yield client


def transfer(number: int) -> dict[str, Any]:
    sums = {"requests": 1, "total_units": 7, "fee_units": 0, "charges": {}, "payouts": {ANN: 7}}
    return {"number": number, "kind": "transfer", "detail_root": "0x" + "00" * 32, "created_at": now(), **sums}


def asked(http: httpx.Client, **query: Any) -> Any:
    answer = http.get("/api/operator/settlement", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_operator_sees_all_of_it_page_by_page(house: House, http: httpx.Client) -> None:
    found = asked(http)
    assert (found["batches"], found["next_before"], found["reconciliation"]) == ([], None, None)
    assert found["waiting"] == {
        "requests": 0,
        "units": 0,
        "oldest_at": None,
        "settle_seconds": 86_400,
        "threshold_units": house.settings.settle_threshold_units,
        "ordered": False,
    }
    database = house.rooms.database
    finding = Finding("insolvent", "the escrow", "it owes more than it has").as_facts()

    async def write() -> None:
        rows = [transfer(number) for number in (1, 2, 3)]
        async with database.writing() as connection:
            await connection.execute(settlement_batches.insert(), rows)
            await reconcile_books.keep_result(connection, reconcile_books.new_result(12, [finding]))

    house.loop.do(works(database, "r1"))
    house.loop.do(write())
    page = asked(http, limit=2)
    assert [one["number"] for one in page["batches"]] == [3, 2]
    assert (page["batches"][0]["kind"], page["batches"][0]["status"], page["next_before"]) == ("transfer", None, 2)
    assert (page["waiting"]["requests"], page["waiting"]["units"]) == (1, PAID)
    rest = asked(http, limit=2, before=page["next_before"])
    assert ([one["number"] for one in rest["batches"]], rest["next_before"]) == ([1], None)
    assert (page["reconciliation"]["block"], page["reconciliation"]["findings"]) == (12, [finding])
    assert finding["advice"].startswith("The escrow owes more")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 201}, {"before": 0}, {"before": 2**53}, {"before": "x"}])
def test_pages_that_there_are_not(http: httpx.Client, query: dict[str, Any]) -> None:
    assert http.get("/api/operator/settlement", params=query).status_code == 400
