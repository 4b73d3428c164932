"""What operators see, and what they are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.cluster.endpoints import cluster_status
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Status
from far_mesh.marketplace.tables import leases
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, MeshDouble, Node
from tests.far_mesh.marketplace.house import House, sign_in
from tests.far_mesh.marketplace.nodes.owners import owner_of, registration, send, wallet_key
from tests.far_mesh.marketplace.test_http import error
from tests.support.documents import peer_of, wallet_of

ANN, BOB, CID = NODES
OPERATOR = wallet_key("operator")
URL = "https://pod-8003.example.com/control"


@contextmanager
def signed_in(house: House, key: str = OPERATOR) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=20) as http:
        http.headers["authorization"] = f"Bearer {sign_in(http, key)['token']}"
        yield http


def asked(http: httpx.Client, path: str, **query: Any) -> Any:
    answer = http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def worker(name: str, **changes: Any) -> dict[str, Any]:
    body = {"worker_id": peer_of(name), "worker_type": "serverless", "endpoint_url": URL, "vram_mb": 24_000}
    return body | {"payment_address": wallet_of(name)} | changes


@pytest.fixture(scope="module")
def swarm() -> MeshDouble:
    return MeshDouble()


@pytest.fixture(scope="module")
def house(
    request: pytest.FixtureRequest, swarm: MeshDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('cluster') / 'm.db'}"
    settings = live.settings(database_url=url, operators=(owner_of("operator"),))
    with House(loop, live, settings, swarm) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(house: House) -> Iterator[httpx.Client]:
    with signed_in(house) as client:
        yield client


@pytest.fixture
def mesh(swarm: MeshDouble) -> MeshDouble:
    """The swarm behind all these tests, as it is at first."""
    swarm.serving = NODES
    return swarm


# ---- the whole at a glance


def test_everything_at_once(open_house: OpenHouse, database_url: str) -> None:
    mesh = MeshDouble(serving=(*NODES, Node("dan", (0, 3))))
    house = open_house(mesh, database_url=database_url, operators=(owner_of("operator"),), gateway_name="here")

    async def write() -> None:
        async with house.rooms.database.writing() as connection:
            for number, status in enumerate((Status.PENDING, Status.ACTIVE, Status.ACTIVE)):
                asked_for = NewSession(str(number), f"r{number}", wallet_of("u"), MODEL, "standard", 1, 0, 1, 0, 0, 1)
                await sessions.add(connection, asked_for, Gateway("there", "gone"), status)
            lost = {"name": "old", "gateway": "there", "incarnation": "gone", "expires_at": now(), "token": 3}
            await connection.execute(leases.insert().values(**lost))

    house.loop.do(write())
    with signed_in(house) as http:
        found = asked(http, "/api/cluster/status")
    assert (found["status"], found["reasons"]) == ("ready", [])
    [model] = found["models"]
    assert (model["model_id"], model["block_count"], model["active_nodes"], model["available"]) == (MODEL, 8, 4, True)
    assert model["coverage"] == [
        {"first_block": 0, "end_block": 3, "replicas": 2},
        {"first_block": 3, "end_block": 8, "replicas": 1},
    ]
    assert model["thin"] == [{"first_block": 3, "end_block": 8, "replicas": 1}]
    assert (model["queue"]["waiting"], model["queue"]["in_use"]) == (0, 0)
    assert {node["node_id"]: (node["blocks"], node["wallet_address"]) for node in found["nodes"]} == {
        node.peer_id: (list(node.blocks), node.wallet) for node in mesh.serving
    }
    assert found["sessions"] == [{"gateway": "there", "pending": 1, "active": 2}]
    assert found["settlement"]["pending"] == 0
    assert {lease["name"]: lease["held"] for lease in found["leases"]}["old"] is False
    assert [(one["name"], one["alive"], one["this"]) for one in found["gateways"]] == [("here", True, True)]


def test_a_model_with_a_hole_says_why_it_is_not_available(http: httpx.Client, mesh: MeshDouble) -> None:
    mesh.serving = (ANN, CID)
    found = asked(http, "/api/cluster/status")
    assert (found["status"], found["models"][0]["available"]) == ("unready", False)
    assert "3:6" in found["models"][0]["reason"]


def test_a_database_that_is_gone_is_one_of_the_things_to_be_seen(
    house: House, mesh: MeshDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def gone(_: Database) -> AsyncIterator[None]:
        raise DatabaseUnavailable("the database does not answer")
        yield

    for name in ("reading", "snapshot", "writing"):
        monkeypatch.setattr(Database, name, gone)
    found = cluster_status(house.loop.do(house.rooms.cluster.picture()))
    assert (found.status, found.sessions, found.gateways) == ("unready", [], [])
    assert {node.node_id for node in found.nodes} == {node.peer_id for node in NODES}
    assert [(one.first_block, one.end_block, one.replicas) for one in found.models[0].coverage] == [(0, 8, 1)]


# ---- advice


def test_advice_says_who_would_do_more_good_where_and_how_its_owner_would_do_it(open_house: OpenHouse) -> None:
    mesh = MeshDouble(serving=(Node("ann", (0, 4)), Node("bob", (0, 4))))
    house = open_house(mesh, operators=(owner_of("operator"),))
    with signed_in(house) as http:
        answer = http.post("/api/cluster/rebalance", json={"replicas": 1})
        again = http.post("/api/cluster/rebalance", json={"replicas": 1, "model_id": MODEL})
        usual = http.post("/api/cluster/rebalance")
    found = answer.json()
    assert again.json() == found
    assert found["applied"] is False
    [model] = found["models"]
    assert model["thin"] == [{"first_block": 4, "end_block": 8, "replicas": 0}]
    [move] = model["moves"]
    assert (move["blocks"], move["to"]) == ([0, 4], [4, 8])
    assert move["command"] == f"far-node swap {MODEL} {MODEL} --blocks 4:8"
    assert model["lacking"] == []
    assert usual.json()["models"][0]["lacking"] == [{"first_block": 0, "end_block": 8, "replicas": 1}]


@pytest.mark.parametrize("body", [{"replicas": 0}, {"replicas": 17}, {"apply": True}, {"model_id": 5}], ids=str)
def test_advice_that_cannot_be_given(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post("/api/cluster/rebalance", json=body).status_code == 400


def test_there_is_no_advice_for_a_model_that_is_not_on_sale(http: httpx.Client) -> None:
    error(http.post("/api/cluster/rebalance", json={"model_id": "other"}), 404, "model_not_found")


@pytest.mark.parametrize(
    ("act", "command"), [("load", "far-node load"), ("unload", "far-node unload"), ("hot-swap", "far-node swap")]
)
def test_nobody_commands_nodes_and_the_answer_says_who_does(http: httpx.Client, act: str, command: str) -> None:
    for body in (None, {"model_id": "llama-7b", "total_layers": 32}):
        refused = error(http.post(f"/api/models/{act}", json=body), 409, "no_remote_control")
        assert command in refused["message"]


# ---- workers


def test_nodes_in_the_words_of_a_scheduler(http: httpx.Client, mesh: MeshDouble) -> None:
    sleeping = http.post("/workers", json=worker("sleeper"))
    assert sleeping.status_code == 201, sleeping.text
    assert send(http, "/api/nodes/register", registration("dan"), signer="dan").status_code == 200
    found = {one["worker_id"]: one for one in asked(http, "/workers")["workers"]}
    assert {peer_of(name) for name in ("sleeper", "dan", "ann", "bob", "cid")} <= found.keys()
    assert sorted(found) == [one["worker_id"] for one in asked(http, "/workers")["workers"]]
    ann, dan, sleeper = (found[peer_of(name)] for name in ("ann", "dan", "sleeper"))
    assert sleeper == sleeping.json()
    assert (sleeper["worker_type"], sleeper["state"], sleeper["endpoint_url"]) == ("serverless", "registered", URL)
    assert (sleeper["vram_mb"], sleeper["payment_address"]) == (24_000, wallet_of("sleeper"))
    assert (ann["worker_type"], ann["state"], ann["payment_address"]) == ("persistent", "announced", ANN.wallet)
    assert ann["models"] == [{"model_id": MODEL, "blocks": [0, 3]}]
    assert (dan["worker_type"], dan["state"], dan["payment_address"]) == ("persistent", "registered", owner_of("dan"))


def test_workers_page_by_page(http: httpx.Client, mesh: MeshDouble) -> None:
    for number in range(4):
        http.post("/workers", json=worker(f"page {number}"))
    everybody = [one["worker_id"] for one in asked(http, "/workers")["workers"]]
    read: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = asked(http, "/workers", **query)
        read += [one["worker_id"] for one in page["workers"]]
        if page["next_after"] is None:
            break
        query["after"] = page["next_after"]
    assert read == everybody


def test_what_an_operator_forgets_is_gone_and_who_announces_itself_is_not(http: httpx.Client, mesh: MeshDouble) -> None:
    http.post("/workers", json=worker("forgotten"))
    http.post("/workers", json=worker("bob"))
    for name in ("forgotten", "bob"):
        assert http.delete(f"/workers/{peer_of(name)}").status_code == 204
        error(http.delete(f"/workers/{peer_of(name)}"), 404, "node_not_found")
    found = {one["worker_id"]: one for one in asked(http, "/workers")["workers"]}
    assert peer_of("forgotten") not in found
    assert (found[peer_of("bob")]["state"], found[peer_of("bob")]["worker_type"]) == ("announced", "persistent")


def test_a_worker_is_told_anew(http: httpx.Client) -> None:
    http.post("/workers", json=worker("anew"))
    later = http.post("/workers", json=worker("anew", endpoint_url=f"{URL}/2", vram_mb=None)).json()
    assert (later["endpoint_url"], later["vram_mb"]) == (f"{URL}/2", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"worker_id": "Worker_abc123"},
        {"worker_type": "persistent"},
        {"endpoint_url": "ftp://example.com"},
        {"endpoint_url": "https://user:secret@example.com/"},
        {"endpoint_url": "https://example.com/?token=secret"},
        {"endpoint_url": "https://example.com/\u0000"},
        {"endpoint_url": "https://example.com/" + "x" * 255},
        {"vram_mb": -1},
        {"vram_mb": 2**63},
        {"payment_address": "0x12"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_worker_that_means_nothing_is_refused(http: httpx.Client, changes: dict[str, Any]) -> None:
    assert http.post("/workers", json=worker("nobody", **changes)).status_code == 400


def test_a_worker_of_a_model_that_is_not_on_sale(http: httpx.Client) -> None:
    error(http.post("/workers", json=worker("other", model_id="other")), 404, "model_not_found")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"after": "\0"}, {"after": "x" * 65}], ids=str)
def test_a_page_that_cannot_be(http: httpx.Client, query: dict[str, Any]) -> None:
    assert http.get("/workers", params=query).status_code == 400


def test_who_is_no_operator_sees_and_changes_nothing(house: House) -> None:
    with signed_in(house, wallet_key("user")) as http:
        for method, path in (
            ("GET", "/api/cluster/status"),
            ("POST", "/api/cluster/rebalance"),
            ("POST", "/api/models/load"),
            ("GET", "/workers"),
            ("POST", "/workers"),
            ("DELETE", f"/workers/{peer_of('ann')}"),
        ):
            error(http.request(method, path), 403, "forbidden")
