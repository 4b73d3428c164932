"""``/api/nodes`` and ``/api/discovery`` through the door."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from discovery.placement import advise
from discovery.protocol.registration import HEADER
from far_mesh.costs import Known
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.nodes import service
from far_mesh.marketplace.tables import node_registry
from far_mesh.marketplace.tiers.reliability import weight
from tests.far_mesh.marketplace.doubles import MODEL, NODES, MeshDouble, Node
from tests.far_mesh.marketplace.house import House
from tests.far_mesh.marketplace.nodes.owners import heartbeat, owner_of, registration, send
from tests.far_mesh.marketplace.test_http import error
from tests.support.documents import peer_of

REGISTER = "/api/nodes/register-distributed"
HEARTBEAT = "/api/nodes/heartbeat"
ACTIVE = f"/api/discovery/nodes/active/{MODEL}"
ANN, BOB, CID = NODES


@pytest.fixture(scope="module")
def swarm() -> MeshDouble:
    return MeshDouble()


@pytest.fixture(scope="module")
def house(
    request: pytest.FixtureRequest, swarm: MeshDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('nodes') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), swarm) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=20) as client:
        yield client


@pytest.fixture
def mesh(swarm: MeshDouble) -> MeshDouble:
    """The swarm behind all these tests, as it is at first."""
    swarm.serving, swarm.knows = NODES, Known()
    return swarm


@pytest.fixture
def dan(request: pytest.FixtureRequest) -> str:
    """The name of a node that no other test knows."""
    return f"dan in {request.node.name}"


def asked(http: httpx.Client, path: str, **query: Any) -> Any:
    answer = http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(found: Any) -> list[str]:
    return [node["node_id"] for node in found["nodes"]]


# ---- who serves


def test_the_nodes_that_announce_a_model(http: httpx.Client, mesh: MeshDouble) -> None:
    mesh.knows = Known(round_trips={ANN.peer_id: 12.34})
    found = asked(http, ACTIVE)
    assert (found["model_id"], found["total_nodes"], found["count"]) == (MODEL, 3, 3)
    assert ids(found) == sorted(node.peer_id for node in NODES)
    by_id = {node["node_id"]: node for node in found["nodes"]}
    ann, bob = by_id[ANN.peer_id], by_id[BOB.peer_id]
    assert (ann["wallet_address"], ann["layers_served"], ann["state"]) == (ANN.wallet, [0, 1, 2], "announced")
    assert (ann["reliability_score"], ann["avg_latency_ms"]) == (None, 12.3)
    assert (bob["avg_latency_ms"], bob["quantization"]) == (None, "int8")
    assert (ann["gpu_model"], ann["vram_gb"], ann["location"], ann["registered"]) == (None, None, None, False)
    for alias in (f"/api/nodes/active/{MODEL}", f"/nodes/active/{MODEL}"):
        assert ids(asked(http, alias)) == ids(found)


def test_how_reliable_a_node_is_says_what_gateways_have_seen(house: House, mesh: MeshDouble, dan: str) -> None:
    mesh.serving = (Node(dan, (0, 8), owner=owner_of(dan)),)

    async def seen() -> None:
        await house.rooms.nodes.census()
        async with house.rooms.database.writing() as connection:
            this = node_registry.c.node_id == peer_of(dan)
            was = {"seen_completed": 97 * weight(now()), "seen_failed": weight(now())}
            long_ago = now() - timedelta(days=100)
            await connection.execute(update(node_registry).where(this).values(registered_at=long_ago, **was))

    house.loop.do(seen())
    with httpx.Client(base_url=house.url, timeout=20) as http:
        assert [node["reliability_score"] for node in asked(http, ACTIVE)["nodes"]] == [0.98]
        found = asked(http, f"/api/nodes/{peer_of(dan)}")
        assert found["reliability_score"] == found["score"]["value"] == 0.98
        assert (found["score"]["dependability"], found["score"]["honesty"], found["score"]["standing"]) == (0.98, 1, 1)
        assert (found["score"]["completed"], found["score"]["failed"], found["score"]["probes_wrong"]) == (97, 1, 0)


def test_page_by_page(http: httpx.Client, mesh: MeshDouble) -> None:
    pages = [asked(http, ACTIVE, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [(page["total_nodes"], page["count"]) for page in pages] == [(3, 2), (3, 1), (3, 0)]
    assert [one for page in pages for one in ids(page)] == sorted(node.peer_id for node in NODES)


def test_who_is_near_a_point_the_nearest_first(http: httpx.Client, mesh: MeshDouble) -> None:
    berlin, paris = (52.52, 13.4), (48.86, 2.35)
    mesh.knows = Known(points={ANN.peer_id: berlin, BOB.peer_id: paris})
    near_paris = asked(http, ACTIVE, location="48.9,2.3")
    assert ids(near_paris) == [BOB.peer_id, ANN.peer_id]
    assert near_paris["nodes"][0]["distance_km"] < 10 < 800 < near_paris["nodes"][1]["distance_km"] < 1000
    assert ids(asked(http, ACTIVE, location="48.9,2.3", max_distance_km=100)) == [BOB.peer_id]
    assert asked(http, ACTIVE, location="0,0", max_distance_km=100)["total_nodes"] == 0


def test_where_nodes_are_for_a_map_in_whole_degrees_and_unknown_where_nobody_knows(
    http: httpx.Client, mesh: MeshDouble
) -> None:
    mesh.serving = (replace(ANN, region="us-east"), BOB, CID)
    mesh.knows = Known(points={BOB.peer_id: (-33.87, 151.21)})
    found = {node["node_id"]: (node["coordinates"], node["part"]) for node in asked(http, ACTIVE)["nodes"]}
    assert found == {ANN.peer_id: (None, "na"), BOB.peer_id: ([-34, 151], "oc"), CID.peer_id: (None, None)}


def test_who_is_in_a_region(http: httpx.Client, mesh: MeshDouble) -> None:
    mesh.serving = (replace(ANN, region="us-east"), replace(BOB, region="eu-west"), CID)
    assert ids(asked(http, ACTIVE, location="US")) == [ANN.peer_id]
    assert ids(asked(http, ACTIVE, location="eu-west")) == [BOB.peer_id]
    assert asked(http, ACTIVE, location="us-west")["total_nodes"] == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"location": "nowhere at all"}, "location"),
        ({"location": "91,0"}, "location"),
        ({"location": "nan,nan"}, "location"),
        ({"location": "x" * 65}, "location"),
        ({"max_distance_km": 5}, "max_distance_km"),
        ({"location": "eu", "max_distance_km": 5}, "max_distance_km"),
        ({"location": "1,1", "max_distance_km": -1}, "max_distance_km"),
        ({"location": "1,1", "max_distance_km": "nan"}, "max_distance_km"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 10**30}, "offset"),
    ],
)
def test_what_means_nothing_is_named(http: httpx.Client, query: dict[str, Any], param: str) -> None:
    found = error(http.get(ACTIVE, params=query), 400, "invalid_argument")
    assert found["param"] == param


def test_a_model_that_is_not_on_sale_has_no_nodes(http: httpx.Client, mesh: MeshDouble) -> None:
    for name in ("other", "a/b", "..", "%00", "x" * 200):
        assert http.get(f"/api/discovery/nodes/active/{name}").status_code == 404


def test_a_node_and_what_is_known_of_it(http: httpx.Client, mesh: MeshDouble) -> None:
    found = asked(http, f"/api/nodes/{ANN.peer_id}")
    assert (found["state"], found["wallet_address"], found["registered"]) == ("announced", ANN.wallet, False)
    assert [(model["blocks"], model["block_count"]) for model in found["models"]] == [([0, 3], 8)]
    assert (found["first_seen"], found["claims"]) == (None, None)
    assert [model["reached"] for model in found["models"]] == [None], "it does not say"
    assert "earned" not in str(found)


def test_how_others_get_through_to_a_node_is_told_as_it_says(http: httpx.Client, mesh: MeshDouble) -> None:
    mesh.serving = (replace(ANN, reached="relay"), replace(BOB, reached="none"), CID)
    for node, way in ((ANN, "relay"), (BOB, "none")):
        assert [model["reached"] for model in asked(http, f"/api/nodes/{node.peer_id}")["models"]] == [way]


def test_who_is_leaving_serves_nobody_new(http: httpx.Client, mesh: MeshDouble) -> None:
    mesh.serving = (ANN, replace(BOB, state="leaving"), CID)
    assert BOB.peer_id not in ids(asked(http, ACTIVE))
    found = asked(http, f"/api/nodes/{BOB.peer_id}")
    assert (found["state"], [model["state"] for model in found["models"]]) == ("leaving", ["leaving"])


@pytest.mark.parametrize("node_id", ["0", "a" * 64, "node_abc123", "%2e%2e", "' OR 1=1", "é", "12D3KooW"])
def test_what_is_no_id_of_a_node_is_refused(http: httpx.Client, node_id: str) -> None:
    assert http.get(f"/api/nodes/{node_id}").status_code in (400, 404)


def test_nobody_has_heard_of_a_stranger(http: httpx.Client, mesh: MeshDouble) -> None:
    error(http.get(f"/api/nodes/{peer_of('nobody')}"), 404, "node_not_found")


# ---- registrations


def test_a_registered_node_says_what_it_is_and_gets_no_requests_for_it(http: httpx.Client, dan: str) -> None:
    answer = send(http, REGISTER, registration(dan), signer=dan)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "node_id": peer_of(dan),
        "status": "registered",
        "discovery_url": "https://far.test/api/discovery",
        "heartbeat_interval_sec": 30,
        "announced": False,
    }
    assert peer_of(dan) not in ids(asked(http, ACTIVE))
    found = asked(http, f"/api/nodes/{peer_of(dan)}")
    assert (found["state"], found["wallet_address"]) == ("registered", owner_of(dan))
    assert (found["gpu_model"], found["vram_gb"], found["location"]) == ("NVIDIA RTX 4090", 24, "us-east")
    assert found["models"] == []


def test_the_registration_of_an_announced_node_stands_beside_its_announcement(
    http: httpx.Client, mesh: MeshDouble, dan: str
) -> None:
    mesh.serving = (Node(dan, (0, 3), owner=owner_of(dan)), BOB, CID)
    assert send(http, "/nodes/register", registration(dan), signer=dan).json()["announced"] is True
    found = next(node for node in asked(http, ACTIVE)["nodes"] if node["node_id"] == peer_of(dan))
    facts = [found[name] for name in ("gpu_model", "vram_gb", "location", "registered")]
    assert facts == ["NVIDIA RTX 4090", 24, "us-east", True]
    assert ids(asked(http, ACTIVE, location="us")) == [peer_of(dan)]


def test_a_node_that_says_otherwise_in_the_swarm_is_not_registered(
    http: httpx.Client, mesh: MeshDouble, dan: str
) -> None:
    mesh.serving = (Node(dan, (0, 8)),)
    refused = error(send(http, REGISTER, registration(dan), signer=dan), 409, "announced_for_another_wallet")
    assert mesh.serving[0].wallet in refused["message"]


def test_who_signs_it_must_be_the_node_and_the_wallet_and_for_this_gateway(http: httpx.Client, dan: str) -> None:
    forged = [
        send(http, REGISTER, registration(dan), signer="eve"),
        send(http, REGISTER, registration(dan, signer="eve"), signer=dan),
        send(http, REGISTER, registration(dan, wallet_address=owner_of("rich")), signer=dan),
        send(http, REGISTER, registration(dan, audience="https://elsewhere.test"), signer=dan),
        send(http, REGISTER, registration(dan), signer=dan, audience="https://elsewhere.test"),
        send(http, REGISTER, registration(dan), signer=dan, domain="far-mesh/heartbeat/v1"),
        http.post(REGISTER, json=registration(dan)),
        http.post(REGISTER, json=registration(dan), headers={HEADER.encode(): "not base64 ☹".encode()}),
        send(http, REGISTER, registration(dan, signature="0x"), signer=dan),
    ]
    for answer in forged:
        error(answer, 401, "bad_signature")
    error(http.get(f"/api/nodes/{peer_of(dan)}"), 404, "node_not_found")


def test_a_body_that_was_changed_after_it_was_signed_is_refused(http: httpx.Client, dan: str) -> None:
    signed = send(http, REGISTER, registration(dan), signer=dan).request
    again = registration(dan) | {"vram_gb": 80}
    answer = http.post(REGISTER, json=again, headers={HEADER: signed.headers[HEADER]})
    error(answer, 401, "bad_signature")


def test_a_registration_counts_once_and_an_older_one_not_any_more(http: httpx.Client, dan: str) -> None:
    first, later = registration(dan), registration(dan, at=now() + timedelta(seconds=1), vram_gb=48)
    assert send(http, REGISTER, first, signer=dan).status_code == 200
    error(send(http, REGISTER, first, signer=dan), 409, "proof_stale")
    assert send(http, REGISTER, later, signer=dan).status_code == 200
    error(send(http, REGISTER, first, signer=dan), 409, "proof_stale")
    assert asked(http, f"/api/nodes/{peer_of(dan)}")["vram_gb"] == 48


@pytest.mark.parametrize("seconds", [-301, 301, 10**9])
def test_a_registration_of_another_time_is_refused(http: httpx.Client, dan: str, seconds: int) -> None:
    at = now() + timedelta(seconds=seconds)
    error(send(http, REGISTER, registration(dan, at=at), signer=dan), 409, "proof_stale")
    error(send(http, HEARTBEAT, heartbeat(dan, at=at), signer=dan), 409, "proof_stale")


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": "node_abc123"},
        {"node_id": "12D3KooW" + "1" * 44},
        {"wallet_address": "0x12"},
        {"wallet_address": "0x" + "Aa" * 20},
        {"model_id": ""},
        {"gpu_model": "a\nb"},
        {"gpu_model": "x" * 101},
        {"vram_gb": -1},
        {"vram_gb": 2**63},
        {"public_addr": "not an address"},
        {"public_addr": "javascript:alert(1)"},
        {"location": "over the rainbow"},
        {"issued_at": "2026-03-01T12:00:00"},
        {"issued_at": "yesterday"},
        {"signature": 5},
        {"more": True},
    ],
    ids=str,
)
def test_a_registration_that_means_nothing_is_refused(http: httpx.Client, dan: str, changes: dict[str, Any]) -> None:
    body = registration(dan) | changes
    assert send(http, REGISTER, body, signer=dan).status_code == 400


def test_a_wallet_has_only_so_many(http: httpx.Client, dan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_NODES_PER_WALLET", 1)
    other, wallet = f"another {dan}", owner_of(dan)
    assert send(http, REGISTER, registration(dan), signer=dan).status_code == 200
    more = registration(other, signer=dan, wallet_address=wallet)
    error(send(http, REGISTER, more, signer=other), 409, "too_many_nodes")
    later = registration(dan, at=now() + timedelta(seconds=1))
    assert send(http, REGISTER, later, signer=dan).status_code == 200


def test_a_model_that_is_not_on_sale_has_no_registrations(http: httpx.Client, dan: str) -> None:
    error(send(http, REGISTER, registration(dan, model_id="other"), signer=dan), 404, "model_not_found")


# ---- heartbeats


def test_a_heartbeat_is_kept_as_the_nodes_own_word(http: httpx.Client, dan: str) -> None:
    error(send(http, HEARTBEAT, heartbeat(dan), signer=dan), 404, "node_not_found")
    send(http, REGISTER, registration(dan), signer=dan)
    said = heartbeat(dan, gpu_utilization_percent=71.5, vram_used_gb=12)
    answer = send(http, HEARTBEAT, said, signer=dan)
    assert answer.json() == {"status": "ok", "should_rebalance": False, "suggested_blocks": None, "announced": False}
    found = asked(http, f"/api/nodes/{peer_of(dan)}")
    assert found["claims"] == {
        "is_healthy": True,
        "latency_ms": 45,
        "throughput_tokens_per_sec": 12.5,
        "current_requests": 3,
        "gpu_utilization_percent": 71.5,
        "vram_used_gb": 12,
    }
    assert (found["avg_latency_ms"], found["reliability_score"]) == (None, None)
    assert found["last_seen"] is not None


def test_a_heartbeat_counts_once_and_only_if_the_node_signed_it(http: httpx.Client, dan: str) -> None:
    send(http, REGISTER, registration(dan), signer=dan)
    first = heartbeat(dan)
    error(send(http, HEARTBEAT, first, signer="eve"), 401, "bad_signature")
    error(http.post(HEARTBEAT, json=first), 401, "bad_signature")
    error(send(http, HEARTBEAT, first, signer=dan, audience="https://elsewhere.test"), 401, "bad_signature")
    assert send(http, HEARTBEAT, first, signer=dan).status_code == 200
    error(send(http, HEARTBEAT, first, signer=dan), 409, "proof_stale")
    older = heartbeat(dan, at=now() - timedelta(seconds=60))
    error(send(http, HEARTBEAT, older, signer=dan), 409, "proof_stale")
    assert send(http, "/nodes/heartbeat", heartbeat(dan), signer=dan).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"is_healthy": "maybe"},
        {"latency_ms": -1},
        {"latency_ms": "NaN"},
        {"throughput_tokens_per_sec": 1e300},
        {"current_requests": -1},
        {"gpu_utilization_percent": 101},
        {"more": 1},
    ],
    ids=str,
)
def test_a_heartbeat_that_means_nothing_is_refused(http: httpx.Client, dan: str, changes: dict[str, Any]) -> None:
    assert send(http, HEARTBEAT, heartbeat(dan, **changes), signer=dan).status_code == 400


def test_a_node_that_is_not_needed_hears_where_it_is(http: httpx.Client, mesh: MeshDouble, dan: str) -> None:
    names = [dan, f"friend of {dan}"]
    mesh.serving = tuple(Node(name, (0, 4), owner=owner_of(name)) for name in names)
    [move] = advise([node.announcement().announcement for node in mesh.serving], mesh.block_count).moves
    for name in names:
        send(http, REGISTER, registration(name), signer=name)
        answer = send(http, HEARTBEAT, heartbeat(name), signer=name).json()
        moves = move.peer_id == peer_of(name)
        assert answer["announced"] is True
        assert (answer["should_rebalance"], answer["suggested_blocks"]) == (moves, [4, 8] if moves else None)
