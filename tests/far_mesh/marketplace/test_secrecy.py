"""A canary is sung into every door; it must be in no log, no database file, and no chain."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis import Redis

from discovery.tracing import Tracing
from far_mesh.marketplace import logs
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.keys.text import new_key
from far_mesh.marketplace.tables import metadata
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import SETTLER, rpc, signed
from tests.support.redis_server import RedisServer

CANARY = "canary7f3a"
SONG = "birdsong9c2e"
RULE, TOOL = "wrenrule51d0", "owltool8b6f"


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


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What a collector gets."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(Tracing, "from_environment", lambda _service: Tracing(provider))
    return exporter


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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_said_to_tools_and_jobs_is_in_no_dump(
    kind: str, open_house: OpenHouse, log: io.StringIO, request: pytest.FixtureRequest, spans: InMemorySpanExporter
) -> None:
    """Everything at once: both databases, Redis, numbers, spans and logs."""
    url = str(request.getfixturevalue(f"{kind}_url"))
    mesh = MeshDouble(story=[SONG, f" {SONG}", "."], tool_format=FORMATS[0])
    with RedisServer() as redis:
        house = open_house(
            mesh, database_url=url, redis_url=redis.url, jobs_keys=["11" * 32], account_requests_per_minute=600
        )
        user = house.user()
        key = user.http.post("/api/account/keys", json={"name": "mine"}).json()["key"]
        webhook = user.http.post("/api/account/webhook-secret").json()["secret"]
        tool = {"type": "function", "function": {"name": f"{TOOL}_name", "description": TOOL, "parameters": {}}}
        messages = [{"role": "system", "content": RULE}, {"role": "user", "content": CANARY}]
        chat = {"model": MODEL, "messages": messages, "max_tokens": 5, "tools": [tool], "user": CANARY}
        headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        assert user.http.post("/v1/chat/completions", json=chat, headers=headers).status_code == 200
        made = user.http.post("/submit", json={"model_id": MODEL, "prompt": CANARY, "max_tokens": 5})
        assert made.status_code == 202, made.text
        user.wait_for(lambda: SONG in user.http.get(f"/results/{made.json()['job_id']}").text)
        user.wait_for(lambda: {"request", "distributed_inference"} <= {one.name for one in spans.get_finished_spans()})

        places = {
            "the log": log.getvalue(),
            "numbers": httpx.get(f"{house.url}/metrics").text,
            "spans": "".join(one.to_json() for one in spans.get_finished_spans()),
            "Redis": dump_of(redis),
            kind: dump_of_postgresql(request) if kind == "postgresql" else dump_of_sqlite(url),
        }
        assert user.wallet in places[kind]  # so these are the right ones
        assert "far_mesh_tokens_total" in places["numbers"]
        assert "aaaa" in places["spans"]
        assert user.wallet in places["Redis"]
    for name, text in places.items():
        for secret in (CANARY, SONG, RULE, TOOL, key, webhook, user.token, house.settings.jwt_key()):
            assert secret not in text, f"{secret} is in {name}"


def dump_of(redis: RedisServer) -> str:
    """All that a Redis keeps."""
    with Redis.from_url(redis.url) as client:
        keys: list[bytes] = client.keys("*")
        return b"".join(key + (client.dump(key) or b"") for key in keys).decode(errors="replace")


def dump_of_sqlite(url: str) -> str:
    """The file, and what lies beside it."""
    path = Path(url.partition("///")[2])
    files = [one for one in path.parent.iterdir() if one.name.startswith(path.name)]
    return b"".join(one.read_bytes() for one in files).decode(errors="replace")


def dump_of_postgresql(request: pytest.FixtureRequest) -> str:
    """All rows of all tables, as PostgreSQL copies them."""
    server = request.getfixturevalue("postgresql")
    copies = "".join(f"COPY {table} TO STDOUT;\n" for table in metadata.tables)
    return str(server.psql(f"\\c far\n{copies}"))
