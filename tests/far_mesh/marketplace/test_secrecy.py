"""A canary is sung into every door; it must be in no log, no database file, and no chain."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from far_mesh.marketplace import logs
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.keys.text import new_key
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import SETTLER, rpc, signed

CANARY = "canary7f3a"
SONG = "birdsong9c2e"


@pytest.fixture
def log() -> Any:
    """Everything that is logged while the test runs."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(stream, logging.DEBUG)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


class Quoting(MeshDouble):
    """A mesh whose bugs quote what was said."""

    def encode(self, prompt: Any, **options: Any) -> list[int]:
        if "bug" in str(prompt):
            raise RuntimeError(f"cannot encode {prompt}")
        return super().encode(prompt, **options)


def test_what_was_said_is_kept_nowhere(open_house: OpenHouse, log: io.StringIO, tmp_path: Path) -> None:
    mesh = Quoting(story=[SONG, f" {SONG}", "."])
    house = open_house(mesh)
    user = house.user()
    streamed = user.events(f"say {CANARY}", stop=[f"{CANARY} stop"])
    assert SONG in streamed[0]["token"]
    plain = user.generate(f"say {CANARY}").json()
    assert SONG in plain["text"]
    chat = {"model": MODEL, "messages": [{"role": "user", "content": f"say {CANARY}"}], "max_tokens": 5}
    assert SONG in user.http.post("/v1/chat/completions", json=chat).text
    assert user.generate(f"{CANARY} bug").status_code == 500
    assert user.generate(CANARY, max_tokens=0).status_code == 400
    assert user.generate(CANARY, **{CANARY: 1}).status_code == 400
    mesh.break_at, mesh.breaks_with = 1, GenerationFailed(f"lost after {SONG}")
    user.generate(CANARY)
    mesh.breaks_with = ValueError(f"lost after {SONG} for {CANARY}")
    user.generate(CANARY)
    user.settled(plain["request_id"])

    logged = log.getvalue()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("marketplace.db"))
    raw = house.loop.do(rpc(house.live.rpc_url, "anvil_dumpState"))
    assert plain["request_id"] in logged  # so the log is the right one
    assert plain["request_id"].encode() in kept
    for secret in (CANARY, SONG, SETTLER[2:], user.token, house.settings.jwt_key()):
        assert secret not in logged
        assert secret.encode() not in kept
        assert secret.encode().hex() not in raw


def test_credentials_are_in_no_log_no_answer_and_no_table(
    open_house: OpenHouse, log: io.StringIO, tmp_path: Path
) -> None:
    house = open_house(MeshDouble())
    user = house.user(deposit=0)
    key = user.http.post("/api/account/keys", json={"name": "mine"}).json()["key"]
    offer = user.http.post("/api/auth/nonce", json={"wallet_address": user.wallet}).json()
    signature = signed(offer["message"], user.key)["signature"]
    login = {"wallet_address": user.wallet, "message": offer["message"], "signature": signature}
    mistyped, unknown = key[:-1] + ("0" if key[-1] != "0" else "1"), new_key()
    answers = [
        user.http.post("/api/auth/login", json=login | {"signature": signature[:-2] + "1d"}),
        user.http.post("/api/auth/login", json=login | {"signature": [signature]}),
        user.http.get("/api/account/balance", params={"key": key}),
        user.http.get("/api/account/balance", params={"access_token": user.token}),
        user.http.get(f"/v1/{key}"),
        user.http.delete(f"/api/account/keys/{key}"),
        user.http.post("/api/account/keys", json={"name": [key]}),
        user.http.get("/api/account/keys"),
    ]
    for bearer in (key, mistyped, unknown, user.token + "x", user.token[:-4]):
        answers.append(user.http.get("/api/account/balance", headers={"authorization": f"Bearer {bearer}"}))
    assert {answer.status_code for answer in answers} == {200, 400, 401, 403, 404}
    second = user.http.post("/api/auth/login", json=login).json()["token"]
    assert user.http.post("/api/auth/logout", headers={"authorization": f"Bearer {second}"}).status_code == 204

    logged, shown = log.getvalue(), "".join(answer.text for answer in answers)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("marketplace.db"))
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert digest.encode() in kept
    assert digest not in logged + shown
    for secret in (key, mistyped, unknown, user.token, second, signature[2:]):
        for part in (secret, secret[-40:]):
            assert part not in logged
            assert part not in shown
            assert part.encode() not in kept


def test_logs_are_json_with_the_request_they_belong_to(open_house: OpenHouse, log: io.StringIO) -> None:
    user = open_house(Quoting()).user()
    answer = user.generate("a bug please")
    assert answer.status_code == 500
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    broke = next(line for line in lines if line["event"] == "request_broke")
    assert broke["request_id"] == answer.headers["x-request-id"]
    assert broke["error"] == "builtins.RuntimeError"
    assert any("encode" in place for place in broke["places"])
    assert "please" not in log.getvalue()


def test_foreign_exceptions_lose_their_text_too(log: io.StringIO) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("somebody.else").exception("it broke")
        structlog.get_logger().exception("ours broke")
    assert CANARY not in log.getvalue()
    assert log.getvalue().count("builtins.ValueError") == 2
