"""The library's own client, and raw bytes, against a gateway that answers on a port."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.http import id_of_call
from far_mesh.marketplace.inference.schemas import GenerateRequest, QuoteRequest
from far_mesh.marketplace.mcp_api.tools import NOT_HERE, TOOLS, Visit
from tests.docs.pages import ROOT, blocks
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, User
from tests.far_mesh.marketplace.inference.test_endpoints import PRICE, PROMPT_TOKENS, nothing_moved
from tests.far_mesh.marketplace.test_secrecy import log as log

ASK: dict[str, Any] = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12}
ERAS = ["legacy", "auto"]
"""Clients of before the revision of 2026-07-28, which have sessions, and those of after it, which have none."""


@asynccontextmanager
async def agent(user: User, mode: str = "auto", token: str | None = None) -> AsyncIterator[Client]:
    """A client of MCP with the user's bearer token."""
    headers = {"authorization": f"Bearer {token or user.token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
        transport = streamable_http_client(f"{user.house.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def error_of(result: Any) -> dict[str, Any]:
    assert result.is_error
    found: dict[str, Any] = result.structured_content["error"]
    assert result.content[0].text == f"{found['code']}: {found['message']}"
    return found


def test_a_gateway_that_ends_says_so(open_house: OpenHouse) -> None:
    user = open_house().user(deposit=0)
    user.house.loop.do(user.house.rooms.mcp.close())
    answer = send(user, HELLO)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "5"


def nobody_reads(house: House) -> bool:
    return all(run._reader_is_gone for run in house.rooms.inference._runs)


@pytest.mark.parametrize("mode", ERAS)
async def test_an_agent_finds_the_tools_and_each_of_them_works(mode: str, open_house: OpenHouse) -> None:
    user = await asyncio.to_thread(lambda: open_house(MeshDouble()).user())
    async with agent(user, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"generate", "list_models", "quote", "node_status"}
        assert not tools["generate"].annotations.read_only_hint  # type: ignore[union-attr]
        models = await client.call_tool("list_models")
        assert models.structured_content["models"][0]["id"] == MODEL
        status = await client.call_tool("node_status")
        assert status.structured_content["status"] == "ready"
        quote = await client.call_tool("quote", ASK)
        assert quote.structured_content["max_cost_units"] == PRICE
        told: list[tuple[float, float | None, str | None]] = []

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, total, message))

        asked = ASK | {"quote_id": quote.structured_content["quote_id"], "idempotency_key": "mine"}
        answer = await client.call_tool("generate", asked, progress_callback=tell)
        found = answer.structured_content
        assert not answer.is_error
        assert answer.content[0].text == found["text"] == "".join(STORY)  # type: ignore[union-attr]
        assert found["held_units"] == PRICE
        assert [message for _, _, message in told] == list(STORY)
        assert [(progress, total) for progress, total, _ in told] == [(float(n), 12.0) for n in range(1, 13)]
        again = await client.call_tool("generate", asked)
        assert error_of(again)["code"] == "conflict"
    report = await asyncio.to_thread(user.request, id_of_call(user.wallet, "mine"))
    assert (report["status"], report["cost_units"]) == ("completed", found["cost_units"])


@pytest.mark.parametrize("mode", ERAS)
async def test_who_cancels_pays_for_what_was_told_and_no_more_is_made(mode: str, open_house: OpenHouse) -> None:
    turnstile = Turnstile()
    mesh = MeshDouble(story=["word "] * 40, gate=turnstile)
    user = await asyncio.to_thread(lambda: open_house(mesh).user())
    house, loop = user.house, user.house.loop.loop
    told = asyncio.Event()

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        if progress == 3:
            told.set()

    async with agent(user, mode) as client:
        turnstile.let_through(loop, 3)
        asked = ASK | {"max_tokens": 40, "idempotency_key": "mine"}
        call = asyncio.create_task(client.call_tool("generate", asked, progress_callback=tell))
        await asyncio.wait_for(told.wait(), 60)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(user.wait_for, lambda: nobody_reads(house))
        turnstile.let_through(loop, 37)
        ended = await asyncio.to_thread(user.settled, id_of_call(user.wallet, "mine"))
    assert (ended["status"], ended["completion_tokens"]) == ("completed", 3)
    assert 0 <= PROMPT_TOKENS * PROMPT_PRICE + 3 * COMPLETION_PRICE - ended["cost_units"] <= 1
    assert mesh.generations[0]._done <= 4


@pytest.mark.parametrize("mode", ERAS)
async def test_failures_are_those_of_the_tool_with_our_code(mode: str, open_house: OpenHouse) -> None:
    mesh = MeshDouble(break_at=2, breaks_with=GenerationFailed("a node was lost"))
    user = await asyncio.to_thread(lambda: open_house(mesh).user())
    wrong: list[tuple[str, dict[str, Any], str, str | None]] = [
        ("generate", ASK | {"model_id": "gpt-5"}, "model_not_found", "model"),
        ("generate", {"model_id": MODEL}, "invalid_argument", "prompt"),
        ("generate", ASK | {"prompt": 7}, "invalid_argument", "prompt"),
        ("generate", ASK | {"max_tokens": 0}, "invalid_argument", "max_tokens"),
        ("generate", ASK | {"voice": "deep"}, "unsupported_parameter", "voice"),
        ("generate", ASK | {"stream": True}, "unsupported_parameter", "stream"),
        ("generate", ASK | {"idempotency_key": ""}, "invalid_argument", "idempotency_key"),
        ("quote", {"model_id": MODEL}, "invalid_argument", "prompt"),
        ("list_models", {"all": True}, "unsupported_parameter", "all"),
        ("generate", ASK, "generation_failed", None),
    ]
    async with agent(user, mode) as client:
        for name, arguments, code, param in wrong:
            found = error_of(await client.call_tool(name, arguments))
            assert (found["code"], found["param"]) == (code, param), arguments
        with pytest.raises(MCPError, match="no such tool"):
            await client.call_tool("rob", {})
        mesh.serving = NODES[:2]
        assert error_of(await client.call_tool("generate", ASK))["retry_after"] == 10
    await asyncio.to_thread(user.wait_for, lambda: nothing_moved(user))


async def test_an_api_key_counts_as_far_as_its_scopes_and_limits_go(open_house: OpenHouse) -> None:
    user = await asyncio.to_thread(lambda: open_house(MeshDouble()).user())

    def key(**wanted: Any) -> str:
        return str(user.http.post("/api/account/keys", json={"name": "mine"} | wanted).json()["key"])

    async with agent(user, token=key()) as client:
        assert not (await client.call_tool("generate", ASK)).is_error
    async with agent(user, token=key(limits={"units_per_day": 1})) as client:
        assert error_of(await client.call_tool("generate", ASK))["code"] == "key_limit_reached"
    with httpx.Client() as http:
        bearer = {"authorization": f"Bearer {key(scopes=['account:read'])}"}
        assert http.post(f"{user.house.url}/mcp", json={}, headers=bearer).status_code == 403


async def test_what_was_said_is_not_logged(open_house: OpenHouse, log: io.StringIO) -> None:
    class Quoting(MeshDouble):
        def encode(self, prompt: Any, **options: Any) -> list[int]:
            if "bug" in str(prompt):
                raise RuntimeError(f"cannot encode {prompt}")
            return super().encode(prompt, **options)

    user = await asyncio.to_thread(lambda: open_house(Quoting(story=["birdsong9c2e"])).user())
    for mode in ERAS:
        async with agent(user, mode) as client:
            for prompt, is_error in (("say canary7f3a", False), ("canary7f3a bug", True), ("", True)):
                found = await client.call_tool("generate", ASK | {"prompt": prompt})
                assert found.is_error is is_error
    send(user, b'{"canary7f3a"')
    send(user, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": "canary7f3a"})
    logged = log.getvalue()
    assert "builtins.RuntimeError" in logged
    for secret in ("canary7f3a", "birdsong9c2e", user.token):
        assert secret not in logged


def test_the_example_of_the_docs_works(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = (block for block in blocks(ROOT / "docs/developers.md", "python") if "from mcp import" in block.text)
    user = open_house(MeshDouble()).user()
    monkeypatch.setenv("FAR_TOKEN", user.token)
    monkeypatch.setenv("GATEWAY", user.house.url)
    exec(example.text.replace("far-demo", MODEL).replace('"max_tokens": 60', '"max_tokens": 12'), {})
    said = capsys.readouterr().out
    assert "".join(STORY) in said
    assert said.endswith(" units\n")


# ---- raw input


@pytest.fixture(scope="module")
def somebody(loop_thread: Any, live_chain: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user of a gateway that gets raw input."""
    database = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('raw')}/raw.db"
    settings = live_chain.settings(database_url=database, max_body_bytes=16 * 1024)
    with House(loop_thread, live_chain, settings, MeshDouble()) as house:
        yield house.user(deposit=0)


def send(user: User, body: Any, *, method: str = "POST", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    accepts = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    known = accepts | {name.replace("_", "-"): value for name, value in headers.items()}
    return user.http.request(method, "/mcp", content=content, headers=known)


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}


def session_of(user: User) -> str:
    answer = send(user, HELLO)
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


@pytest.mark.parametrize("header", [None, "", "Bearer x", "Basic abc", "token"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_without_a_credential_there_is_nothing(method: str, header: str | None, somebody: User) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = httpx.request(method, f"{somebody.house.url}/mcp", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'"x"', b"null", b"\xff\xfe", b'{"jsonrpc": "1.0"}', b"[" * 5000, b'{"id": 1e999}']
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28", "1999-01-01", "x"])
def test_what_is_no_message_is_refused(version: str, body: bytes, somebody: User) -> None:
    answer = send(somebody, body, mcp_protocol_version=version)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_message_that_is_too_long_is_not_read(somebody: User) -> None:
    answer = send(somebody, HELLO | {"padding": "x" * 20_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")

    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 1000] * 20

    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    assert somebody.http.post("/mcp", content=pieces(), headers=headers).status_code == 413


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil"])
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_a_name_that_is_not_ours_is_refused(version: str, host: str, somebody: User) -> None:
    assert send(somebody, HELLO, host=host, mcp_protocol_version=version).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://far.test.evil.example", "http://far.test"])
def test_a_page_of_somebody_elses_is_refused(origin: str, somebody: User) -> None:
    assert send(somebody, HELLO, origin=origin).status_code == 403


@pytest.mark.parametrize("origin", ["https://far.test", "http://localhost:3000", "http://127.0.0.1:8000"])
def test_our_own_pages_and_name_are_served(origin: str, somebody: User) -> None:
    assert send(somebody, HELLO, origin=origin, host="far.test").status_code == 200


def test_a_session_belongs_to_the_wallet_that_opened_it(somebody: User) -> None:
    session, ask = session_of(somebody), {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert send(somebody, ask, mcp_session_id=session).status_code == 200
    other = somebody.house.user(deposit=0)
    for method in ("POST", "GET", "DELETE"):
        assert send(other, ask, method=method, mcp_session_id=session).status_code == 404
    assert send(somebody, ask, mcp_session_id=session).status_code == 200
    assert send(somebody, b"", method="DELETE", mcp_session_id=session).status_code == 200
    assert send(somebody, ask, mcp_session_id=session).status_code == 404
    assert send(somebody, ask, mcp_session_id="0" * 32).status_code == 404


def test_what_a_tool_takes_is_what_the_http_door_takes() -> None:
    schemas = {tool.name: set(tool.input_schema.get("properties", {})) for tool in TOOLS}
    assert schemas["generate"] == set(GenerateRequest.model_fields) - NOT_HERE | {"idempotency_key"}
    assert schemas["quote"] == set(QuoteRequest.model_fields) - {"idempotency_key"}
    assert schemas["list_models"] == schemas["node_status"] == set()


# ---- the end


async def test_who_hangs_up_before_the_answer_begins_is_not_served(open_house: OpenHouse) -> None:
    turnstile = Turnstile()
    mesh = MeshDouble(gate=turnstile)
    user = await asyncio.to_thread(lambda: open_house(mesh).user())
    house = user.house
    session = await asyncio.to_thread(session_of, user)
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "generate", "arguments": ASK}}
    headers = {"mcp-session-id": session, "accept": "application/json, text/event-stream"}
    with user.http.stream("POST", "/mcp", json=call, headers=headers):
        await asyncio.to_thread(user.wait_for, lambda: house.rooms.inference._runs)
    await asyncio.to_thread(user.wait_for, lambda: nobody_reads(house))
    turnstile.let_through(house.loop.loop, 12)
    await asyncio.to_thread(user.wait_for, lambda: not house.rooms.inference._runs)
    assert sum(generation._done for generation in mesh.generations) <= 1
    await asyncio.to_thread(user.wait_for, lambda: nothing_moved(user))


async def test_a_visitor_who_has_left_leaves_what_is_begun_later() -> None:
    class Begun:
        left = 0

        def reader_left(self) -> None:
            self.left += 1

    async def after(pause: float, run: Begun) -> Any:
        await asyncio.sleep(pause)
        return run

    visit, early, late = Visit(None, "req_1"), Begun(), Begun()  # type: ignore[arg-type]
    await visit.begin(after(0, early))
    starting = asyncio.create_task(visit.begin(after(60, late)))
    await asyncio.sleep(0)
    assert early.left == 0
    visit.leave()
    with pytest.raises(GenerationFailed):
        await starting
    await visit.begin(after(0, late))
    assert (early.left, late.left) == (1, 1)


def test_streams_that_only_wait_do_not_keep_a_gateway_from_ending(open_house: OpenHouse) -> None:
    user = open_house().user(deposit=0)
    headers = {"mcp-session-id": session_of(user), "accept": "text/event-stream"}
    with user.http.stream("GET", "/mcp", headers=headers) as waiting:
        assert waiting.status_code == 200
        user.house.loop.do(user.house.rooms.mcp.close())
        assert not [line for line in waiting.iter_lines() if line.startswith("data: {")]


@pytest.mark.parametrize("mode", ERAS)
async def test_answers_finish_when_the_gateway_ends(mode: str, open_house: OpenHouse) -> None:
    turnstile = Turnstile()
    user = await asyncio.to_thread(lambda: open_house(MeshDouble(gate=turnstile)).user())
    house, loop = user.house, user.house.loop.loop
    told = asyncio.Event()

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    async with agent(user, mode) as client:
        await client.list_tools()
        turnstile.let_through(loop, 2)
        call = asyncio.create_task(client.call_tool("generate", ASK, progress_callback=tell))
        await asyncio.wait_for(told.wait(), 60)

        async def end() -> None:
            await house.rooms.inference.close()
            await house.rooms.mcp.close()

        ending = asyncio.run_coroutine_threadsafe(end(), loop)
        turnstile.let_through(loop, 12)
        found = (await asyncio.wait_for(call, 60)).structured_content
        await asyncio.to_thread(ending.result, 20)
        with pytest.raises(MCPError):
            await client.call_tool("node_status")
    assert found["finish_reason"] == "stopped"
    assert 1 <= found["completion_tokens"] <= 4
