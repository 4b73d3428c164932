"""``/metrics``: who may read it, and that everything that happens is in it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from far_mesh.marketplace.chain.anvil import dev_key
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import House, sign_in

TOKEN = "a-token-for-prometheus"


def scraped(house: House, **headers: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """All samples by name and the values of their labels, in the order of the labels' names."""
    answer = httpx.get(f"{house.url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_happens_is_counted(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    done = user.generate()
    assert done.status_code == 200, done.text
    assert len(user.events()) > 2
    assert user.generate(max_tokens=0).status_code == 400
    assert user.generate(model_id="nobody's").status_code == 404
    user.settled(done.json()["request_id"])
    completed = "far_mesh_inference_requests_total", (MODEL, "completed", "standard")
    user.wait_for(lambda: scraped(house).get(completed) == 2)  # the reader knows a moment before
    told = scraped(house)
    generate = ("POST", "/api/inference/distributed/generate")
    assert told["far_mesh_http_requests_total", (*generate, "200")] == 2
    assert told["far_mesh_http_requests_total", (*generate, "404")] == 1
    assert told["far_mesh_inference_requests_total", ("other", "refused", "other")] == 1
    assert told["far_mesh_refusals_total", ("model_not_found",)] == 1
    assert told["far_mesh_time_to_first_token_seconds_count", (MODEL, "standard")] == 2
    assert told["far_mesh_tokens_total", ("completion", MODEL)] > 2
    assert told["far_mesh_active_nodes", (MODEL,)] > 0
    assert told["far_mesh_uncovered_blocks", (MODEL,)] == 0
    assert told["far_mesh_deposits_total", ()] == 1
    assert told["far_mesh_database_up", ()] == 1
    assert told["far_mesh_lease_held", ("settler",)] == 1
    assert told["far_mesh_payments_released_total", ("FAR",)] >= 1
    assert told["far_mesh_payments_amount_far_total", ()] > 0
    assert told["far_mesh_ledger_far", ("user_deposit",)] > 0
    assert sum(units for (name, _), units in told.items() if name == "far_mesh_ledger_far") == pytest.approx(0)
    for name in ("inference_requests_total", "inference_latency_seconds_count"):
        mine = {labels: count for (found, labels), count in told.items() if found == f"far_mesh_{name}"}
        theirs = {labels: count for (found, labels), count in told.items() if found == f"hanzo_{name}"}
        assert mine == theirs


def test_numbers_are_for_this_machine_only(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble())
    user = house.user(deposit=0)
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):  # a proxy here that nobody has told us of
        assert httpx.get(f"{house.url}/metrics", headers={name: "127.0.0.1"}).status_code == 401
    for headers in ({"authorization": "Bearer x"}, {"authorization": ""}, {"authorization": f"Basic {TOKEN}"}):
        assert httpx.get(f"{house.url}/metrics", headers=headers).status_code == 401
    assert user.http.get("/metrics").status_code == 403
    assert scraped(house)


def test_a_trusted_proxy_says_who_asks(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(), trusted_proxies=["127.0.0.1/32"])
    for name, who in (("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "?")):
        assert httpx.get(f"{house.url}/metrics", headers={name: who}).status_code == 401


def test_with_a_token_only_who_has_it_may_look(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(), metrics_token=TOKEN)
    assert scraped(house, authorization=f"Bearer {TOKEN}")
    for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": f"Bearer {TOKEN[:-1]}"}):
        answer = httpx.get(f"{house.url}/metrics", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert httpx.get(f"{house.url}/metrics", params={"token": TOKEN}).status_code == 401


def test_an_operator_may_look(open_house: OpenHouse) -> None:
    key = dev_key(5)
    house = open_house(MeshDouble(), metrics_token=TOKEN, operators=[address_of(key)])
    with httpx.Client(base_url=house.url) as http:
        token = sign_in(http, key)["token"]
    assert scraped(house, authorization=f"Bearer {token}")


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="FAR_METRICS_TOKEN"):
        Settings.read(metrics_token="short").metrics_key()


def test_the_other_numbers_are_told_while_the_database_and_the_swarm_are_gone(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    house = open_house(mesh)
    house.loop.do(house.rooms.database.close())

    async def gone() -> Any:
        raise RuntimeError("the swarm is gone")

    mesh.nodes = gone  # type: ignore[method-assign]
    house.rooms.database._engine.sync_engine.pool.dispose()
    told = scraped(house)
    assert ("far_mesh_active_nodes", (MODEL,)) not in told
    assert told["far_mesh_peers_connected", ()] == 0
    assert told["far_mesh_build_info", ("0.1.0",)] == 1
