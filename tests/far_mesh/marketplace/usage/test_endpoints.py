"""``/api/account/usage`` through the door."""

from __future__ import annotations

import csv
from typing import Any

import httpx
import pytest

from far_mesh.marketplace.clock import now
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import User
from tests.far_mesh.marketplace.test_http import error

PATH = "/api/account/usage"


def with_key(user: User, name: str) -> tuple[str, httpx.Client]:
    made = user.http.post("/api/account/keys", json={"name": name, "scopes": ["inference", "account:read"]}).json()
    return made["id"], httpx.Client(
        base_url=user.house.url, timeout=20, headers={"authorization": f"Bearer {made['key']}"}
    )


def test_what_was_asked_with_a_key_and_without(open_house: OpenHouse) -> None:
    user = open_house().user()
    own = user.generate().json()
    key_id, keyed = with_key(user, "=website")
    body = {"model_id": MODEL, "prompt": "Tell me", "max_tokens": 4, "stream": False}
    with keyed:
        by_key = keyed.post("/api/inference/distributed/generate", json=body).json()
        found = keyed.get(PATH).json()
    lines = {line["api_key_id"]: line for line in found["usage"]}
    assert set(lines) == {None, key_id}
    assert lines[key_id]["api_key_name"] == "=website"
    for line, answer in ((lines[None], own), (lines[key_id], by_key)):
        assert (line["date"], line["model_id"], line["requests"]) == (now().date().isoformat(), MODEL, 1)
        assert line["prompt_tokens"] == answer["prompt_tokens"]
        assert line["completion_tokens"] == answer["completion_tokens"]
        assert line["cost_units"] == answer["cost_units"]
        assert line["cost_far"] == f"{answer['cost_units'] / 10**9:.9f}"
    assert found["total"]["requests"] == 2
    assert found["total"]["cost_units"] == own["cost_units"] + by_key["cost_units"]
    only = user.http.get(PATH, params={"api_key_id": "none"}).json()
    assert [line["api_key_id"] for line in only["usage"]] == [None]
    assert user.http.get(PATH, params={"api_key_id": key_id, "model_id": "other"}).json()["usage"] == []
    for asked in ({"params": {"format": "csv"}}, {"headers": {"accept": "text/csv, application/json;q=0.5"}}):
        answer = user.http.get(PATH, **asked)  # type: ignore[arg-type]
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer.headers["content-disposition"]
        table = list(csv.DictReader(answer.text.splitlines()))
        assert {row["api_key_name"] for row in table} == {"", "'=website"}
        assert sum(int(row["cost_units"]) for row in table) == found["total"]["cost_units"]
    stranger = user.house.user(deposit=0)
    assert stranger.http.get(PATH).json()["usage"] == []

    pages: list[list[Any]] = []
    cursor = None
    while not pages or cursor is not None:
        page = user.http.get(PATH, params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
        pages.append(page["usage"])
        cursor = page["next_cursor"]
    assert [page[0] for page in pages] == found["usage"]

    refused: list[tuple[dict[str, Any], str]] = [
        ({"from": "2026-02-30"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "from"),
        ({"from": "0001-01-01"}, "to"),
        ({"to": "9999-12-31", "from": "9999-12-31"}, "to"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "x" * 1025}, "cursor"),
        ({"cursor": "nobody's"}, "cursor"),
        ({"format": "xml"}, "format"),
        ({"model_id": "a\0b"}, "model_id"),
        ({"api_key_id": "a\0b"}, "api_key_id"),
    ]
    for query, param in refused:
        assert error(user.http.get(PATH, params=query), 400, "invalid_argument")["param"] == param
    assert user.http.get(PATH, params={"from": "0001-01-01", "to": "0001-01-02"}).json()["usage"] == []


@pytest.mark.parametrize("first_day", ["0001-01-01", "9999-12-30"])
def test_the_ends_of_time_on_postgresql(open_house: OpenHouse, postgresql_url: str, first_day: str) -> None:
    user = open_house(database_url=postgresql_url).user(deposit=0)
    found = user.http.get(PATH, params={"from": first_day, "to": first_day})
    assert (found.status_code, found.json()["usage"]) == (200, [])
