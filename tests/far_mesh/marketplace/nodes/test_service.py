"""The registry of nodes, in both databases: who was seen when, and what counts how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.verify import verify
from far_mesh.marketplace.nodes import repository, service
from far_mesh.marketplace.nodes.schemas import Hardware
from far_mesh.marketplace.nodes.service import NodeService
from far_mesh.marketplace.tables import node_registry
from tests.far_mesh.marketplace.doubles import MODEL, NODES, MeshDouble, Node
from tests.far_mesh.marketplace.provider.works import give_money, share, work
from tests.support.documents import peer_of, wallet_of

ANN, BOB, _ = NODES


def census_of(database: Database, mesh: MeshDouble) -> NodeService:
    return NodeService(database, {MODEL: mesh}, auth=None, audience="")  # type: ignore[arg-type]  # who signs nothing


async def registry(database: Database) -> dict[str, tuple[str, bool]]:
    async with database.reading() as connection:
        found = node_registry.c
        rows = await connection.execute(select(found.node_id, found.wallet_address, found.is_active))
        return {node_id: (wallet, active) for node_id, wallet, active in rows}


async def back_in_time(database: Database, **ago: timedelta) -> None:
    async with database.writing() as connection:
        await connection.execute(update(node_registry).values({name: now() - long for name, long in ago.items()}))


async def register(database: Database, name: str, seconds: int = 0) -> bool:
    async with database.writing() as connection:
        at = now()
        proven_at = at + timedelta(seconds=seconds)
        wallet = wallet_of(name)
        return await repository.register(connection, peer_of(name), wallet, MODEL, Hardware("GPU", 8), proven_at, at)


async def test_a_census_notes_who_is_there_and_since_when(database: Database) -> None:
    mesh = MeshDouble()
    census = census_of(database, mesh)
    await census.census()
    assert await registry(database) == {node.peer_id: (node.wallet, True) for node in NODES}
    before = (await census.node(ANN.peer_id)).row
    await census.census()
    after = (await census.node(ANN.peer_id)).row
    assert before is not None
    assert after is not None
    assert after.registered_at == before.registered_at
    assert after.last_seen is not None
    assert before.last_seen is not None
    assert after.last_seen > before.last_seen
    assert not after.is_registered


async def test_who_was_not_seen_for_a_while_is_gone_and_comes_back(database: Database) -> None:
    mesh = MeshDouble()
    census = census_of(database, mesh)
    await census.census()
    await back_in_time(database, last_seen=service.GONE_AFTER + timedelta(seconds=1))
    mesh.serving = (ANN,)
    await census.census()
    assert {node_id: active for node_id, (_, active) in (await registry(database)).items()} == {
        node.peer_id: node == ANN for node in NODES
    }
    mesh.serving = (ANN, BOB)
    await census.census()
    assert (await registry(database))[BOB.peer_id][1]


async def test_who_never_served_is_forgotten_after_a_month_and_who_did_never(database: Database) -> None:
    await give_money(database)
    await work(database, "r", [share("ann", wallet_of("ann"), 80)])
    mesh = MeshDouble()
    census = census_of(database, mesh)
    await census.census()
    await back_in_time(database, last_seen=timedelta(days=31))
    mesh.serving = ()
    await census.census()
    assert set(await registry(database)) == {peer_of("ann")}
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()


async def test_strangers_cannot_fill_the_registry(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_IDLE_NODES", 5)
    mesh = MeshDouble(serving=tuple(Node(f"sybil {number}", (0, 1)) for number in range(20)))
    await census_of(database, mesh).census()
    assert len(await registry(database)) == 5
    mesh.serving = NODES
    await census_of(database, mesh).census()
    assert len(await registry(database)) == 5


async def test_the_census_of_several_gateways_and_requests_that_end_do_not_stand_in_each_others_way(
    database: Database,
) -> None:
    await give_money(database, 1_000_000)
    mesh = MeshDouble(serving=tuple(Node(name, (0, 8)) for name in "abcdefgh"))
    gateways = [census_of(database, mesh) for _ in range(3)]
    shares = [share(name, wallet_of(name), 80) for name in "hgfedcba"]
    censuses = [gateway.census() for gateway in gateways for _ in range(3)]
    await asyncio.gather(*censuses, *(work(database, f"r{number}", shares) for number in range(6)))
    assert len(await registry(database)) == 8
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()


async def test_of_many_equal_registrations_one_counts(database: Database) -> None:
    at, hardware = now(), Hardware("GPU", 8)

    async def once() -> bool:
        async with database.writing() as connection:
            return await repository.register(connection, peer_of("dan"), wallet_of("dan"), MODEL, hardware, at, now())

    assert sorted(await asyncio.gather(*(once() for _ in range(10)))) == [False] * 9 + [True]


async def test_of_many_equal_heartbeats_one_counts(database: Database) -> None:
    await register(database, "dan")
    at = now()

    async def once() -> bool:
        async with database.writing() as connection:
            return await repository.heard(connection, peer_of("dan"), {"is_healthy": True}, at, now())

    assert sorted(await asyncio.gather(*(once() for _ in range(10)))) == [False] * 9 + [True]


async def test_a_registration_takes_nothing_from_what_was_served(database: Database) -> None:
    await give_money(database)
    await work(database, "r", [share("dan", wallet_of("dan"), 80)])
    assert await register(database, "dan")
    async with database.snapshot() as connection:
        row = await repository.find(connection, peer_of("dan"))
        assert (await verify(connection)).findings == ()
    assert row is not None
    assert row.is_registered
    assert row.hardware.gpu_model == "GPU"


async def test_what_was_removed_stays_in_the_books_if_it_served(database: Database) -> None:
    await give_money(database)
    await work(database, "r", [share("dan", wallet_of("dan"), 80)])
    await register(database, "dan")
    await register(database, "eve")
    async with database.writing() as connection:
        assert await repository.remove(connection, peer_of("dan"))
        assert await repository.remove(connection, peer_of("eve"))
        assert not await repository.remove(connection, peer_of("dan"))
        assert not await repository.remove(connection, peer_of("nobody"))
    assert set(await registry(database)) == {peer_of("dan")}
    async with database.snapshot() as connection:
        assert (await verify(connection)).findings == ()
