"""When a node falls asleep, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hivemind.dht.node import DHTNode

from discovery.dht.board import Board
from discovery.dht.validator import AnnouncementValidator
from discovery.protocol.oncall import register
from far_node import oncall
from far_node.oncall import OnCall, when_idle
from tests.support.documents import DIGEST, announcement, key_of, peer_of

URL = "https://gpu.example.org/wake"


@pytest.fixture
async def board() -> AsyncIterator[Board]:
    node = await DHTNode.create(record_validator=AnnouncementValidator("far"))
    yield Board(node, "far")
    await node.shutdown()


async def test_a_node_is_on_call_while_it_runs_and_when_it_fell_asleep_but_not_when_it_was_stopped(
    board: Board,
) -> None:
    for name in ("asleep", "stopped"):
        registered = OnCall(board, announcement(name), key_of(name), URL)
        await registered.start()
        assert (peer_of(name), URL) in [(one.peer_id, one.wake_url) for one in await board.on_call(DIGEST)]
        await registered.stop(is_asleep=name == "asleep")
        await registered.stop(is_asleep=True)
    assert [one.peer_id for one in await board.on_call(DIGEST)] == [peer_of("asleep")]
    assert await board.nodes_of(DIGEST) == []


async def test_a_registration_of_another_swarm_is_not_taken(board: Board) -> None:
    stray = register(announcement("node", swarm="other"), key_of("node"), URL, announcement("node").expires_at)
    assert not await board.register(stray)
    assert await board.on_call(DIGEST) == []


async def test_a_node_falls_asleep_after_a_while_without_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oncall, "LOOK_SECONDS", 0.01)
    sessions = [1]
    idle = asyncio.create_task(when_idle(lambda: sessions[0], 0.05))
    await asyncio.sleep(0.3)
    assert not idle.done()
    sessions[0] = 0
    async with asyncio.timeout(20):
        await idle
