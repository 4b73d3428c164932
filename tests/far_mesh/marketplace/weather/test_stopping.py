"""A gateway that is told to stop: nobody new, everybody under way to the end, nothing held afterwards."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import httpx2
import pytest
from grpc import StatusCode
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.grpc_api.far_pb2 import InferRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from tests.far_mesh.marketplace.doubles import MODEL, STORY
from tests.far_mesh.marketplace.weather.gateway import (
    COST,
    Process,
    Words,
    check_books,
    ended,
    process,
    settings_of,
    user_of,
)


async def until_stopping(http: httpx.AsyncClient) -> dict[str, Any]:
    """What ``/ready`` says, once it is no."""
    async with asyncio.timeout(30):
        while (answer := await http.get("/ready")).status_code != 503:
            await asyncio.sleep(0.02)
    found: dict[str, Any] = answer.json()
    return found


async def infer(gateway: Process, token: str) -> str:
    """The whole answer over gRPC."""
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        request = InferRequest(model_id=MODEL, prompt="Tell me", max_tokens=len(STORY))
        answer = await FarMeshStub(channel).Infer(request, metadata=(("authorization", token),), timeout=60)
        return str(answer.text)


async def tool(gateway: Process, token: str) -> str:
    """The whole answer over MCP."""
    async with (
        httpx2.AsyncClient(headers={"authorization": token}, timeout=60) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http)) as client,
    ):
        asked = {"model_id": MODEL, "prompt": "Tell me", "max_tokens": len(STORY)}
        result = await client.call_tool("generate", asked)
    assert not result.is_error, result
    return str(result.structured_content["text"])


async def test_answers_finish_and_nobody_new_is_served(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with process(tmp_path, "north", settings_of(sqlite_url)) as gateway:
        await gateway.ready()
        async with user_of(gateway.url, database) as user, user.stream() as response:
            words = Words(response)
            said = [(await words.next())["token"] for _ in range(2)]
            over_grpc = asyncio.create_task(infer(gateway, user.http.headers["authorization"]))
            over_mcp = asyncio.create_task(tool(gateway, user.http.headers["authorization"]))
            async with asyncio.timeout(30):
                while (await user.http.get("/api/account/balance")).json()["held_units"] <= 2 * COST:
                    await asyncio.sleep(0.1)

            gateway.send(signal.SIGTERM)
            assert (await until_stopping(user.http))["reasons"] == ["this gateway is about to stop"]
            refused = await user.ask()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert int(refused.headers["retry-after"]) >= 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(gateway, user.http.headers["authorization"])
            assert caught.value.code() is StatusCode.UNAVAILABLE

            gateway.open_gate()
            *more, bill = await words.rest()
            assert "".join([*said, *(word["token"] for word in more)]) == "".join(STORY)
            assert (bill["finish_reason"], bill["cost_units"]) == ("stop", COST)
            assert await over_grpc == await over_mcp == "".join(STORY)
        assert await gateway.ended() == 0, gateway.log()
        assert "Traceback" not in gateway.log()
    await check_books(database, user.wallet, 3 * COST)
    await database.close()


async def test_the_second_signal_ends_what_does_not_end_and_gives_its_money_back(
    tmp_path: Path, sqlite_url: str
) -> None:
    database = Database(sqlite_url)
    with process(tmp_path, "north", settings_of(sqlite_url, shutdown_seconds=3600)) as gateway:
        await gateway.ready()
        async with user_of(gateway.url, database) as user, user.stream() as response:
            words = Words(response)
            await words.next()
            gateway.send(signal.SIGTERM)
            await until_stopping(user.http)
            gateway.send(signal.SIGTERM)
            *_, last = await words.rest()
            assert last["error"]["code"] == "shutting_down"
        assert await gateway.ended() == 0, gateway.log()
        assert "Traceback" not in gateway.log()
    session = await ended(database, response.headers["x-far-request-id"])
    assert session.error_code == "interrupted"
    await check_books(database, user.wallet, 0)
    await database.close()
