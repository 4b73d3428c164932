"""One shape for every failure, whatever it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import House, User

PATH = "/api/inference/distributed/generate"


class Broken(MeshDouble):
    """A mesh with a bug."""

    def encode(self, prompt: Any, **_: Any) -> list[int]:
        raise RuntimeError(f"cannot encode {prompt}")


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('http') / 'm.db'}"
    settings = live.settings(database_url=url, max_body_bytes=2048)
    with House(loop, live, settings, Broken()) as house:
        yield house.user(deposit=0)


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["code"] == code
    assert answer.headers["x-request-id"].startswith("req_")
    return found


def test_an_unknown_path(user: User) -> None:
    error(user.http.get("/nowhere"), 404, "not_found")
    error(user.http.get("/api/inference/requests/a%00b"), 404, "not_found")


def test_a_wrong_method(user: User) -> None:
    error(user.http.get(PATH), 405, "method_not_allowed")


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"null", b'"x"'])
def test_a_body_that_is_not_ours(user: User, body: bytes) -> None:
    error(user.http.post(PATH, content=body, headers={"content-type": "application/json"}), 400, "invalid_argument")


@pytest.mark.parametrize("opening", [b"[", b'{"prompt":'])
def test_a_body_of_a_hundred_thousand_brackets_does_not_end_the_process(
    opening: bytes, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    settings = live.settings(database_url=f"sqlite+aiosqlite:///{tmp_path / 'm.db'}", max_body_bytes=2 * 2**20)
    with House(loop, live, settings, Broken()) as house:
        user = house.user(deposit=0)
        body = opening * 100_000
        error(user.http.post(PATH, content=body, headers={"content-type": "application/json"}), 400, "invalid_argument")
        error(user.http.get("/nowhere"), 404, "not_found")


def test_what_is_missing_is_named(user: User) -> None:
    found = error(user.http.post(PATH, json={"model_id": MODEL}), 400, "invalid_argument")
    assert (found["param"], found["type"]) == ("prompt", "invalid_request_error")
    assert error(user.http.get("/api/auth/nonce"), 400, "invalid_argument")["param"] == "wallet_address"


def test_what_was_sent_is_not_quoted_back(user: User) -> None:
    answer = user.http.post(PATH, json={"model_id": MODEL, "prompt": "p", "max_tokens": "canary"})
    assert "canary" not in answer.text


def test_a_long_body_is_refused_by_its_announced_length(user: User) -> None:
    error(user.http.post(PATH, json={"model_id": MODEL, "prompt": "x" * 4096}), 413, "body_too_large")


def test_a_long_body_is_refused_while_it_comes(user: User) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 100

    error(user.http.post(PATH, content=chunks()), 413, "body_too_large")


def test_a_bug_is_an_internal_error_without_details(user: User) -> None:
    found = error(user.http.post(PATH, json={"model_id": MODEL, "prompt": "canary"}), 500, "internal_error")
    assert found["type"] == "server_error"
    assert "canary" not in str(found)
    assert "encode" not in str(found)


def test_every_request_has_an_id_of_our_making(user: User) -> None:
    answers = [user.http.get("/health", headers={"x-request-id": "mine"}) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert "mine" not in ids


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/api/account/balance", "/nothing", "/"])
def test_nothing_is_taken_for_something_else_than_it_says(user: User, path: str) -> None:
    assert user.http.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_no_page_that_runs_scripts_of_others_is_on_the_origin_of_the_dashboard(user: User, path: str) -> None:
    assert user.http.get(path).status_code == 404


def test_login_over_http(user: User) -> None:
    offer = user.http.post("/api/auth/nonce", json={"wallet_address": user.wallet}).json()
    assert (offer["domain"], offer["uri"], offer["chain_id"]) == ("far.test", "https://far.test", 31337)
    assert offer["nonce"] in offer["message"]
    body = {"wallet_address": user.wallet, "message": offer["message"], "signature": "0x" + "00" * 65}
    assert error(user.http.post("/api/auth/login", json=body), 401, "bad_signature")["type"] == "authentication_error"
    error(user.http.get("/api/auth/nonce", params={"wallet_address": ""}), 400, "invalid_wallet")


def test_balance_says_where_to_deposit(user: User) -> None:
    balance = user.balance()
    assert balance["wallet_address"] == user.wallet
    assert balance["escrow_address"] == user.house.live.deployment.escrow
    assert (balance["available_units"], balance["available_far"]) == (0, 0.0)


def test_the_openapi_document_is_there(user: User) -> None:
    paths = user.http.get("/openapi.json").json()["paths"]
    assert {PATH, "/v1/chat/completions", "/api/account/balance", "/api/auth/login", "/ready"} <= set(paths)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (PATH, "POST"),
        ("/api/auth/nonce", "GET, POST"),
        ("/api/account/keys/key_1", "DELETE"),
        ("/v1/models/org/model", "GET"),
    ],
)
def test_a_wrong_method_is_told_which_ones_there_are(user: User, path: str, allow: str) -> None:
    answer = user.http.request("PATCH", path)
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("half", [r"\ud800", r"\uDFFF", r"\ud83d.\udc07", r"\udc07\ud83d"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, '{"model_id": "tiny", "prompt": "p", "tier": "%s"}'),
        ("/v1/chat/completions", '{"model": "tiny", "messages": [{"role": "user", "content": "%s"}]}'),
        ("/api/auth/login", '{"wallet_address": "0x", "message": "m", "signature": "%s"}'),
    ],
)
def test_half_a_character_is_no_text(user: User, path: str, body: str, half: str) -> None:
    json = {"content-type": "application/json"}
    found = error(user.http.post(path, content=body % half, headers=json), 400, "invalid_argument")
    assert "half a character" in found["message"]


def test_a_character_that_is_written_in_two_halves_is_whole(user: User) -> None:
    body = r'{"model": "\ud83d\udc07", "prompt": "\\ud800"}'
    answer = user.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    error(answer, 404, "model_not_found")
