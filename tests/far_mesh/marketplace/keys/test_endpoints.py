"""API keys over HTTP, and the clients that bring them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest

from far_mesh.marketplace.clock import now
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import House, User
from tests.far_mesh.marketplace.test_http import error

KEYS = "/api/account/keys"


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('keys') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), MeshDouble()) as house:
        yield house.user()


def made(user: User, **changes: Any) -> dict[str, Any]:
    answer = user.http.post(KEYS, json={"name": "for the build"} | changes)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def by(key: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['key']}"}


def test_a_key_is_shown_once(user: User) -> None:
    key = made(user, scopes=["account:read", "inference"])
    assert key["key"].startswith(key["prefix"])
    (listed,) = [one for one in user.http.get(KEYS).json()["keys"] if one["id"] == key["id"]]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    assert listed["scopes"] == ["inference", "account:read"]
    assert (listed["last_used_at"], listed["expires_at"], listed["revoked_at"]) == (None, None, None)
    assert key["key"] not in user.http.get(KEYS).text


def test_a_key_that_says_nothing_of_scopes_may_infer(user: User) -> None:
    assert made(user)["scopes"] == ["inference"]


def test_the_openai_client_streams_with_a_key(user: User) -> None:
    key = made(user)
    client = openai.OpenAI(base_url=user.house.url + "/v1", api_key=key["key"], max_retries=0)
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell me a story"}], max_tokens=20, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "".join(STORY)
    assert [model.id for model in client.models.list()] == [MODEL]
    (used,) = [one for one in user.http.get(KEYS).json()["keys"] if one["id"] == key["id"]]
    assert used["last_used_at"] is not None
    assert user.http.delete(f"{KEYS}/{key['id']}").status_code == 204
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])


def test_a_key_does_what_its_scopes_say(user: User) -> None:
    reads, infers = made(user, scopes=["account:read"]), made(user, scopes=["inference"])
    body = {"model_id": MODEL, "prompt": "hi", "max_tokens": 2, "stream": False}
    with httpx.Client(base_url=user.house.url, timeout=20) as client:
        assert client.get("/api/account/balance", headers=by(reads)).status_code == 200
        refused = error(client.get("/api/account/balance", headers=by(infers)), 403, "forbidden")
        assert refused["type"] == "permission_error"
        assert "account:read" in refused["message"]
        assert client.post("/api/inference/distributed/generate", headers=by(infers), json=body).status_code == 200
        error(client.post("/api/inference/distributed/generate", headers=by(reads), json=body), 403, "forbidden")


def test_no_key_makes_keys_or_signs_out(user: User) -> None:
    key = made(user, scopes=["inference", "account:read", "account:write", "provider"])
    with httpx.Client(base_url=user.house.url) as client:
        for path in (KEYS, "/api/auth/logout", "/api/auth/logout/everywhere"):
            answer = client.post(path, headers=by(key), json={"name": "another"} if path == KEYS else None)
            assert "wallet" in error(answer, 403, "forbidden")["message"]
        assert client.get(KEYS, headers=by(key)).status_code == 200
        assert client.delete(f"{KEYS}/{key['id']}", headers=by(key)).status_code == 204  # it may end itself
        error(client.get(KEYS, headers=by(key)), 401, "unauthorized")


def test_an_operators_scope_is_refused_to_others(user: User) -> None:
    answer = user.http.post(KEYS, json={"name": "x", "scopes": ["operator"]})
    assert error(answer, 403, "forbidden")["param"] == "scopes"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": "inference"}, "scopes"),
        ({"name": "x", "scopes": ["all"]}, "scopes.0"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "2199-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
        ({"name": "x", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "limits": {"units_per_day": 0}}, "limits.units_per_day"),
        ({"name": "x", "limits": {"units_per_day": 2**53}}, "limits.units_per_day"),
        ({"name": "x", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"name": "x", "limits": {"requests_per_hour": 5}}, "limits.requests_per_hour"),
        ({"name": "x", "wallet_address": "0x"}, "wallet_address"),
    ],
)
def test_what_means_nothing_makes_no_key(user: User, body: dict[str, Any], param: str) -> None:
    before = len(user.http.get(KEYS).json()["keys"])
    answer = user.http.post(KEYS, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(user.http.get(KEYS).json()["keys"]) == before


def test_a_key_with_an_end_and_a_limit_says_so(user: User) -> None:
    end = (now() + timedelta(days=1)).replace(microsecond=0)
    key = made(user, expires_at=end.isoformat(), limits={"units_per_day": 5, "requests_per_minute": 7})
    assert key["expires_at"] == end.isoformat().replace("+00:00", "Z")
    assert key["limits"] == {"units_per_day": 5, "requests_per_minute": 7}
    assert made(user)["limits"] == {"units_per_day": None, "requests_per_minute": None}


@pytest.mark.parametrize("key_id", ["key_0", "%00", "x" * 500, "..%2f"])
def test_a_key_that_is_not_there_is_not_found(user: User, key_id: str) -> None:
    assert user.http.delete(f"{KEYS}/{key_id}").status_code == 404


def test_a_key_spends_no_more_than_its_limit_and_what_it_did_not_need_comes_back(user: User) -> None:
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 40, "stream": False}
    generate, chat = "/api/inference/distributed/generate", "/v1/chat/completions"
    plain = user.generate(max_tokens=40).json()
    held, cost = plain["held_units"], plain["cost_units"]
    assert 2 * cost < held
    key = made(user, limits={"units_per_day": held + cost})
    with httpx.Client(base_url=user.house.url, timeout=20, headers=by(key)) as client:
        assert [client.post(generate, json=body).status_code for _ in range(2)] == [200, 200]
        refused = client.post(generate, json=body)
        assert error(refused, 429, "key_limit_reached")["type"] == "rate_limit_error"
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        talk = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 40}
        error(client.post(chat, json=talk), 429, "key_limit_reached")
    assert user.generate().status_code == 200  # the wallet itself has no such limit


def test_a_request_that_fails_does_not_count(user: User) -> None:
    house = user.house
    assert isinstance(house.mesh, MeshDouble)
    body = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": False}
    key = made(user, limits={"units_per_day": user.generate().json()["held_units"]})
    with httpx.Client(base_url=house.url, timeout=20, headers=by(key)) as client:
        house.mesh.break_at = 2
        for _ in range(3):
            assert client.post("/api/inference/distributed/generate", json=body).status_code == 502
        house.mesh.break_at = None
        assert client.post("/api/inference/distributed/generate", json=body).status_code == 200
