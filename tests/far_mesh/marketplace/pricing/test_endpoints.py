"""List prices over HTTP: what operators see and change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, sign_in
from tests.far_mesh.marketplace.nodes.owners import owner_of, wallet_key
from tests.far_mesh.marketplace.test_http import error

PATH = "/api/operator/prices"


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('prices') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url, operators=(owner_of("operator"),)), MeshDouble()) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=20) as client:
        client.headers["authorization"] = f"Bearer {sign_in(client, wallet_key('operator'))['token']}"
        yield client


def listed(http: httpx.Client) -> dict[str, Any]:
    answer = http.get(PATH)
    assert answer.status_code == 200, answer.text
    assert {one["model_id"] for one in answer.json()["prices"]} == {MODEL}
    return {one["tier"]: (one["source"], one["price"]) for one in answer.json()["prices"]}


def put(http: httpx.Client, price: Any, tier: str = "standard", model: str = MODEL) -> httpx.Response:
    return http.put(PATH, json={"model_id": model, "tier": tier, "price": price})


def units(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_price_units": prompt, "completion_price_units": completion}


def test_who_says_each_price_and_that_a_change_counts_at_once(house: House, http: httpx.Client) -> None:
    settings = {
        "standard": ("settings", units(PROMPT_PRICE, COMPLETION_PRICE)),
        "premium": ("tier", units(10 * PROMPT_PRICE, 10 * COMPLETION_PRICE)),
        "enterprise": (None, None),
    }
    assert listed(http) == settings
    changed = put(http, units(3, 5))
    assert changed.status_code == 200, changed.text
    assert changed.json() == {"model_id": MODEL, "tier": "standard", "price": units(3, 5), "source": "database"}
    assert put(http, units(0, 9), "enterprise").json()["source"] == "database"
    assert listed(http) == {
        "standard": ("database", units(3, 5)),
        "premium": ("tier", units(30, 50)),
        "enterprise": ("database", units(0, 9)),
    }
    [model] = http.get("/api/inference/models").json()["models"]
    assert (model["prompt_price_units"], model["completion_price_units"]) == (3, 5)
    assert put(http, None).json()["source"] == "settings"
    assert put(http, None, "enterprise").json() == {
        "model_id": MODEL,
        "tier": "enterprise",
        "price": None,
        "source": None,
    }
    assert put(http, None).status_code == 200, "what the settings decide already may be left to them again"
    assert listed(http) == settings


@pytest.mark.parametrize(
    "price",
    [units(-1, 5), units(3, 0), units(3, 2**53), {"prompt_price_units": 3}, units(3, 5) | {"more": 1}, "3", 3],
    ids=str,
)
def test_a_price_that_means_nothing_changes_nothing(http: httpx.Client, price: Any) -> None:
    before = listed(http)
    assert put(http, price).status_code == 400
    assert listed(http) == before


def test_a_price_is_not_taken_away_because_it_was_forgotten(http: httpx.Client) -> None:
    error(http.put(PATH, json={"model_id": MODEL, "tier": "standard"}), 400, "invalid_argument")


def test_what_is_not_on_sale_has_no_price(http: httpx.Client) -> None:
    refused = error(put(http, units(3, 5), model="org/other"), 404, "model_not_found")
    assert MODEL in refused["message"]
    error(put(http, units(3, 5), "imperial"), 400, "invalid_argument")
