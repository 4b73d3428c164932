"""What somebody is told who wants to serve: peers, memory, and what the models have paid."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.hints import bootstrap_peers
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.configuration.check import check_peers
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.nodes import join
from far_mesh.marketplace.nodes.join import WeekOfWork, source_of, work_since
from far_mesh.marketplace.settings import ModelOffer
from far_mesh.marketplace.tables import inference_sessions
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import BLOCK_BYTES, BLOCKS, MODEL
from tests.far_mesh.marketplace.provider.works import FEE, PAID, give_money, share, work
from tests.support.documents import wallet_of

PEER = "/ip4/198.51.100.4/tcp/31337/p2p/12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB"
OTHER = PEER.replace("198.51.100.4", "10.0.0.4")


def asked(url: str, path: str = "/api/provider/join") -> httpx.Response:
    return httpx.get(url + path, timeout=20)


def test_whoever_wants_to_serve_is_told_what_it_takes(open_house: OpenHouse) -> None:
    house = open_house(initial_peers=[OTHER], public_peers=[PEER])
    found = asked(house.url).json()
    assert (found["gateway"], found["prefix"], found["is_private"]) == ("https://far.test", "far", False)
    assert found["initial_peers"] == [PEER]
    (model,) = found["models"]
    assert (model["model_id"], model["source"]) == (MODEL, MODEL)
    assert {(one["device"], one["quantization"]): one["block_bytes"] for one in model["weights"]} == {
        (device, kind): [size] * BLOCKS for device in ("cuda", "cpu") for kind, size in BLOCK_BYTES.items()
    }
    assert model["last_week"] == {"requests": 0, "tokens": 0, "node_units": 0, "since": None}


def test_a_node_takes_the_gateway_for_a_discovery_service(open_house: OpenHouse) -> None:
    house = open_house(initial_peers=[PEER])
    assert asked(house.url, "/bootstrap").json() == {"prefix": "far", "initial_peers": [PEER]}
    assert asyncio.run(bootstrap_peers(house.url)) == (PEER,)


def test_the_peers_of_a_private_swarm_are_told_to_nobody(open_house: OpenHouse, tmp_path: Path) -> None:
    house = open_house(initial_peers=[PEER], swarm=tmp_path / "swarm.json")
    found = asked(house.url).json()
    assert (found["is_private"], found["initial_peers"]) == (True, [])
    assert asked(house.url, "/bootstrap").json()["initial_peers"] == []


def test_however_many_ask_the_sums_of_a_week_are_read_once(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    async def noted(connection: AsyncConnection, since: datetime) -> dict[str, WeekOfWork]:
        read.append(since)
        return await work_since(connection, since)

    monkeypatch.setattr(join, "work_since", noted)
    house = open_house()
    assert len({asked(house.url).text for _ in range(5)}) == 1
    assert len(read) == 1


async def test_a_week_of_work_is_what_nodes_earned_in_it(database: Database) -> None:
    await give_money(database)
    for name in ("today", "last week", "long ago"):
        await work(database, name, [share("ann", wallet_of("ann"), 80)])
    days = {"last week": 6, "long ago": 8}
    async with database.writing() as connection:
        for name, ago in days.items():
            this = inference_sessions.c.request_id == name
            await connection.execute(
                update(inference_sessions).where(this).values(completed_at=now() - timedelta(days=ago))
            )
    async with database.reading() as connection:
        ((_, found),) = (await work_since(connection, now() - timedelta(days=7))).items()
    assert (found.requests, found.node_units) == (2, 2 * PAID)
    assert found.node_units != 2 * (PAID + FEE)
    assert found.tokens >= 100
    assert found.since is not None
    assert found.since < now() - timedelta(days=5)


def test_a_path_of_the_gateway_is_nobody_elses_business(tmp_path: Path) -> None:
    assert source_of(ModelOffer(model="owner/name", completion_price_units=1)) == "owner/name"
    assert source_of(ModelOffer(model=str(tmp_path), completion_price_units=1)) is None


def test_peers_that_are_none_are_refused_before_anybody_is_told_of_them() -> None:
    check_peers("FAR_PUBLIC_PEERS", [PEER])
    with pytest.raises(InvalidSetting, match="FAR_PUBLIC_PEERS"):
        check_peers("FAR_PUBLIC_PEERS", ["198.51.100.4:31337"])
