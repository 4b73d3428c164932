"""Who comes in over HTTP, with what, and where it has to be written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from far_mesh.marketplace.keys.text import new_key
from tests.far_mesh.marketplace.auth.contracts import deploy_wallet
from tests.far_mesh.marketplace.doubles import MeshDouble
from tests.far_mesh.marketplace.house import House, User, sign_in, signed
from tests.far_mesh.marketplace.test_http import error

PRIVATE = "/api/account/balance"
UNKNOWN_KEY = new_key()


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('door') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), MeshDouble()) as house:
        yield house.user(deposit=0)


@pytest.fixture
def stranger(user: User) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=user.house.url) as client:
        yield client


def fresh_token(user: User) -> dict[str, str]:
    return {"authorization": f"Bearer {sign_in(user.http, user.key)['token']}"}


def key_of(user: User, **changes: Any) -> str:
    answer = user.http.post("/api/account/keys", json={"name": "k", "scopes": ["account:read"]} | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def test_the_header_takes_a_token_and_a_key(user: User, stranger: httpx.Client) -> None:
    for credential in (user.token, key_of(user)):
        for scheme in ("Bearer", "bearer", "BEARER"):
            answer = stranger.get(PRIVATE, headers={"authorization": f"{scheme} {credential}"})
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer x"},
        {"authorization": "Bearer sk-far-"},
        {"authorization": f"Bearer {UNKNOWN_KEY}"},
        {"authorization": "Bearer " + "W1tb" * 10_000},
        {"authorization": b"Bearer \xff\xfe"},
        {"x-api-key": "sk-far-"},
        {"cookie": "token=x"},
    ],
    ids=lambda headers: str(headers).replace(UNKNOWN_KEY, "unknown")[:50],
)
def test_without_one_of_ours_nobody_comes_in(stranger: httpx.Client, headers: Any) -> None:
    answer = stranger.get(PRIVATE, headers=headers)
    error(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_credential_counts_in_the_header_alone(user: User, stranger: httpx.Client) -> None:
    for credential in (user.token, key_of(user)):
        error(stranger.get(PRIVATE, headers={"authorization": credential}), 401, "unauthorized")
        error(stranger.get(PRIVATE, headers={"x-api-key": credential}), 401, "unauthorized")
        error(stranger.get(PRIVATE, headers={"cookie": f"authorization=Bearer {credential}"}), 401, "unauthorized")


@pytest.mark.parametrize("name", ["access_token", "api_key", "API-Key", "key", "q"])
def test_a_credential_in_the_url_is_refused_though_the_header_has_one_too(user: User, name: str) -> None:
    for credential in (user.token, key_of(user)):
        answer = user.http.get(PRIVATE, params={name: credential})
        assert "URL" in error(answer, 401, "unauthorized")["message"]
        assert credential not in answer.text
    assert user.http.get(PRIVATE, params={"q": "eyJ"}).status_code == 200


def test_signing_out(user: User, stranger: httpx.Client) -> None:
    mine = fresh_token(user)
    assert stranger.get(PRIVATE, headers=mine).status_code == 200
    answer = stranger.post("/api/auth/logout", headers=mine)
    assert (answer.status_code, answer.content) == (204, b"")
    error(stranger.get(PRIVATE, headers=mine), 401, "unauthorized")
    error(stranger.post("/api/auth/logout", headers=mine), 401, "unauthorized")
    assert user.http.get(PRIVATE).status_code == 200


def test_signing_out_everywhere(user: User) -> None:
    guest = User(user.house, "0x" + "77" * 32)
    tokens, key = [fresh_token(guest) for _ in range(3)], key_of(guest)
    with httpx.Client(base_url=user.house.url) as stranger:
        assert stranger.post("/api/auth/logout/everywhere", headers=tokens[0]).status_code == 204
        for token in tokens:
            error(stranger.get(PRIVATE, headers=token), 401, "unauthorized")
        by_key = {"authorization": f"Bearer {key}"}
        assert stranger.get(PRIVATE, headers=by_key).status_code == 200
        again = fresh_token(guest)
        body = {"revoke_keys": True}
        assert stranger.post("/api/auth/logout/everywhere", headers=again, json=body).status_code == 204
        error(stranger.get(PRIVATE, headers=by_key), 401, "unauthorized")
    assert user.http.get(PRIVATE).status_code == 200


def test_a_contract_wallet_signs_in(user: User, stranger: httpx.Client) -> None:
    house = user.house
    wallet = house.loop.do(deploy_wallet(house.live.rpc_url, user.wallet))
    message = stranger.post("/api/auth/nonce", json={"wallet_address": wallet}).json()["message"]
    answer = stranger.post("/api/auth/login", json=signed(message, user.key) | {"wallet_address": wallet})
    assert answer.status_code == 200, answer.text
    token = {"authorization": f"Bearer {answer.json()['token']}"}
    balance = stranger.get(PRIVATE, headers=token).json()
    assert balance["wallet_address"].lower() == wallet.lower()


def test_the_document_says_how_to_come_in(user: User) -> None:
    document = user.http.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["paths"][PRIVATE]["get"]["security"] == [{"bearer": []}]
    assert "security" not in document["paths"]["/health"]["get"]
