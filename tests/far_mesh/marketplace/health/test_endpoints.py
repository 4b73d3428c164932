"""Alive is not ready, and unready says why."""

from __future__ import annotations

from typing import Any

import httpx

from far_mesh.marketplace.chain.client import Chain
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import NODES, MeshDouble
from tests.far_mesh.marketplace.house import User


def test_ready_when_everything_answers(open_house: OpenHouse) -> None:
    house = open_house()
    assert httpx.get(house.url + "/health").json() == {
        "status": "alive",
        "payments": {
            "provider": "evm",
            "escrow": True,
            "chain_id": house.rooms.pay_in.chain_id,
            "chain": f"eip155:{house.rooms.pay_in.chain_id}",
            "token_address": house.rooms.pay_in.token_address,
            "escrow_address": house.rooms.pay_in.escrow_address,
        },
    }
    answer = httpx.get(house.url + "/ready")
    body = answer.json()
    assert (answer.status_code, body["status"], body["reasons"]) == (200, "ready", [])
    assert body["models"]["tiny"] == {"ok": True, "reason": None, "active_nodes": 3, "uncovered": []}
    assert body["settlement"]["failed"] == 0


def test_ready_says_who_settles_and_what_waits(open_house: OpenHouse) -> None:
    house = open_house(gateway_name="the one")

    def settlement() -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(house.url + "/ready").json()["settlement"]
        return found

    User.wait_for(lambda: settlement()["settler"] == "the one")
    found = settlement()
    assert (found["pending"], found["sent"], found["oldest_seconds"], found["at_fee_cap"]) == (0, 0, None, 0)


def test_unready_names_the_blocks_that_nobody_serves(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(serving=(NODES[0], NODES[2])))
    answer = httpx.get(house.url + "/ready")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["no node serves blocks 3:6 of tiny"]
    assert answer.json()["models"]["tiny"]["uncovered"] == [[3, 6]]
    assert httpx.get(house.url + "/health").status_code == 200


def test_unready_when_the_chain_is_gone(open_house: OpenHouse) -> None:
    house = open_house()
    chain = house.rooms.chain
    nowhere = Chain("http://127.0.0.1:9", chain.chain_id, chain.token_address, chain.escrow_address)
    house.rooms.health._chain_answers = nowhere.block_number
    answer = httpx.get(house.url + "/ready")
    assert (answer.status_code, answer.json()["chain"]["ok"]) == (503, False)
    assert "chain does not answer" in answer.json()["reasons"][0]
    house.loop.do(nowhere.close())


def test_a_release_that_failed_is_shown(open_house: OpenHouse) -> None:
    house = open_house()
    user = house.user()
    house.rooms.inference._settlement.unpayable = frozenset()

    class Escrow(type(NODES[0])):  # type: ignore[misc]
        wallet = house.rooms.chain.escrow_address

    house.mesh.serving = (Escrow("escrow", (0, 8)),)  # type: ignore[attr-defined]
    answer = user.generate().json()
    assert user.settled(answer["request_id"])["settlement"]["status"] == "failed"
    failures = httpx.get(house.url + "/ready").json()["settlement"]["failures"]
    assert [(one["kind"], one["request_id"]) for one in failures] == [("release", answer["request_id"])]
    assert "EscrowInvalidAddress" in failures[0]["reason"]
