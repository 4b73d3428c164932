"""Bootstrap peers that name each other are one swarm, whoever of them is there first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from discovery.dht.board import Board
from discovery.dht.identity import discard_identity, ephemeral_identity, load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from tests.support.documents import DIGEST, signed_announcement
from tests.support.ports import free_port
from tests.support.swarm import Process

pytestmark = pytest.mark.swarm


async def test_two_that_start_at_the_same_moment_join_each_other(tmp_path: Path) -> None:
    doors = {name: f"/ip4/127.0.0.1/tcp/{free_port()}" for name in ("one", "other")}
    peers = {name: f"{door}/p2p/{load_identity(tmp_path / name).peer_id}" for name, door in doors.items()}
    both = []
    try:
        for name, named in (("one", "other"), ("other", "one")):
            command = ["discovery.cli", "bootstrap", "--json", "--no-relay", "--identity", str(tmp_path / name)]
            more = ["--host-maddr", doors[name], "--initial-peers", peers[named]]
            both.append(Process.start(name, [*command, *more], tmp_path))
        for process in both:
            assert process.wait_until_ready().ready["joined"], process.story()
        announcement = signed_announcement("node")
        async with _member(peers["one"]) as board:
            assert await board.publish(announcement)
        async with _member(peers["other"]) as board:
            assert [one.peer_id for one in await board.nodes_of(DIGEST)] == [announcement.peer_id]
    finally:
        for process in both:
            process.kill()


@asynccontextmanager
async def _member(through: str) -> AsyncIterator[Board]:
    """The board as one reads it who joins through one peer, and stores nothing for others."""
    identity = ephemeral_identity()
    peer = await SwarmPeer.start(identity, PeerConfig(initial_peers=(through,), is_client=True))
    try:
        yield peer.board
    finally:
        await peer.close()
        discard_identity(identity)
