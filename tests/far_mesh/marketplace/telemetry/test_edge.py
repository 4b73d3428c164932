"""The line that each exchange leaves in the log, and what does not get into it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from discovery.tracing import Tracing
from far_mesh.marketplace import logs
from far_mesh.marketplace.telemetry.edge import Telemetry, Watch
from far_mesh.marketplace.telemetry.metrics import Metrics

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(Metrics([]), Tracing())


@pytest.fixture
async def client(telemetry: Telemetry) -> Any:
    app = FastAPI()

    @app.get("/things/{thing_id}")
    async def thing(thing_id: str) -> str:
        structlog.get_logger().info("looked_for")
        return thing_id

    app.add_middleware(Watch, telemetry=telemetry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_a_line_names_the_route_and_not_what_was_asked_for(client: httpx.AsyncClient, log: io.StringIO) -> None:
    await client.get("/things/secret1", params={"key": "secret2"}, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
    looked, request = lines(log)
    assert {"method": "GET", "route": "/things/{thing_id}", "status": 200, "bytes": 9}.items() <= request.items()
    assert looked["trace_id"] == request["trace_id"] == TRACE
    assert "secret" not in log.getvalue()


async def test_a_line_about_nothing_names_nothing(client: httpx.AsyncClient, log: io.StringIO) -> None:
    await client.get("/secret", headers={"traceparent": "secret"})
    (request,) = lines(log)
    assert (request["route"], request["status"]) == (None, 404)
    assert "trace_id" not in request
    assert "secret" not in log.getvalue()


async def test_who_leaves_before_an_answer_is_counted_too(telemetry: Telemetry, log: io.StringIO) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asking = asyncio.create_task(Watch(slow, telemetry)(scope, slow, slow))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (request,) = lines(log)
    assert request["status"] == 0
    labels = {"method": "GET", "route": "unmatched", "status": "0"}
    assert telemetry.metrics.registry.get_sample_value("far_mesh_http_requests_total", labels) == 1


def test_levels_can_be_set(log: io.StringIO) -> None:
    logs.configure(log, logs.LEVELS["warning"])
    structlog.get_logger().info("a word")
    structlog.get_logger().warning("a warning")
    assert [line["event"] for line in lines(log)] == ["a warning"]
