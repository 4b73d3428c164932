"""The door at which a node is woken."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from discovery.protocol.oncall import Calls, Registration, call, register
from far_node.waker import Waker, create_app
from tests.support.documents import announcement, key_of, peer_of

URL = "http://waker.test/wake"
STARTS = "import sys, time; open(sys.argv[1], 'a').write('started\\n'); time.sleep(float(sys.argv[2]))"


def registration() -> Registration:
    return register(announcement("node"), key_of("node"), URL, int(time.time()) + 3600).registration


class Door:
    def __init__(self, log: Path, lasts: float, every: float) -> None:
        command = [sys.executable, "-c", STARTS, str(log), str(lasts)]
        self.log = log
        self.waker = Waker(command, Calls(URL, frozenset({peer_of("node")})), every)
        transport = httpx.ASGITransport(create_app(self.waker, "/wake"))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://waker.test")

    async def ring(self, said: bytes | None = None) -> httpx.Response:
        return await self.client.post("/wake", content=call(key_of("client"), registration()) if said is None else said)

    @property
    def starts(self) -> int:
        return self.log.read_text().count("started") if self.log.exists() else 0

    async def until(self, starts: int) -> None:
        async with asyncio.timeout(60):
            while self.starts < starts:
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.client.aclose()
        await self.waker.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    door = Door(tmp_path / "log", 600, 0)
    yield door
    await door.close()


async def test_a_call_starts_the_node_and_further_ones_find_it_awake(door: Door) -> None:
    assert (await door.client.get("/health")).json() == {"state": "asleep"}
    first = await door.ring()
    assert (first.status_code, first.json()) == (202, {"state": "starting"})
    await door.until(1)
    again = await door.ring()
    assert (again.status_code, again.json()) == (200, {"state": "awake"})
    assert (await door.client.get("/health")).json() == {"state": "awake"}
    assert door.starts == 1


async def test_many_calls_at_once_start_one_node(door: Door) -> None:
    answers = await asyncio.gather(*(door.ring() for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    await door.until(1)
    assert door.starts == 1


async def test_what_is_no_call_starts_nothing(door: Door) -> None:
    said = call(key_of("client"), registration())
    for wrong in (b"", b"{}", said.replace(b"wake", b"walk"), b"x" * 100_000):
        refused = await door.ring(wrong)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "call_refused")
    assert (await door.client.get("/wake")).status_code == 405
    assert (await door.client.post("/elsewhere", content=said)).status_code == 404
    assert door.starts == 0
    assert not door.waker.is_awake
    assert (await door.ring(said)).status_code == 202
    assert (await door.ring(said)).status_code == 403


async def test_the_door_takes_the_node_with_it(tmp_path: Path) -> None:
    door = Door(tmp_path / "log", 600, 0)
    await door.ring()
    await door.until(1)
    await door.close()
    assert not door.waker.is_awake


async def test_a_node_that_ends_at_once_is_not_started_again_and_again(tmp_path: Path) -> None:
    door = Door(tmp_path / "log", 0, 3600)
    assert (await door.ring()).status_code == 202
    async with asyncio.timeout(60):
        while door.waker.is_awake:
            await asyncio.sleep(0.02)
    refused = await door.ring()
    assert refused.status_code == 429
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    assert door.starts == 1
    await door.close()


async def test_a_command_that_cannot_be_run_is_told_without_details(tmp_path: Path) -> None:
    waker = Waker([str(tmp_path / "nothing")], Calls(URL, frozenset({peer_of("node")})), 0)
    transport = httpx.ASGITransport(create_app(waker, "/wake"))
    async with httpx.AsyncClient(transport=transport, base_url="http://waker.test") as client:
        answer = await client.post("/wake", content=call(key_of("client"), registration()))
    assert answer.status_code == 500
    assert str(tmp_path) not in answer.text
