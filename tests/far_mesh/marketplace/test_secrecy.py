"""A canary is sung into every door; it must be in no log, no database file, and no chain."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from far_mesh.marketplace import logs
from far_mesh.marketplace.errors import GenerationFailed
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import SETTLER, rpc

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

    def encode(self, prompt: Any, *, raw: bool = False) -> list[int]:
        if "bug" in str(prompt):
            raise RuntimeError(f"cannot encode {prompt}")
        return super().encode(prompt, raw=raw)


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
