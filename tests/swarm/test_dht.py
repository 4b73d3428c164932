"""The DHT with real peers, each with its daemon: who joined together, or apart, is in one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from tests.support.documents import DIGEST, peer_of, signed_announcement

pytestmark = pytest.mark.swarm


async def started(folder: Path, name: str, *through: SwarmPeer) -> SwarmPeer:
    initial = tuple([(await peer.maddrs())[0] for peer in through])
    return await SwarmPeer.start(load_identity(folder / name), PeerConfig(initial))


async def close(*peers: SwarmPeer) -> None:
    await asyncio.gather(*(peer.close() for peer in peers))


async def until_all_read(peers: Sequence[SwarmPeer], wanted: set[str]) -> None:
    """Each looks for others, as it does on its clock, until it reads what is announced."""
    async with asyncio.timeout(120):
        for peer in peers:
            while {str(one.peer_id) for one in await peer.board.nodes_of(DIGEST)} != wanted:
                await asyncio.gather(*(one._dht.rejoin() for one in peers))


async def test_four_peers_that_join_at_the_same_moment_are_one_dht_without_the_one_they_joined_through(
    tmp_path: Path,
) -> None:
    first = await started(tmp_path, "first")
    four = await asyncio.gather(*(started(tmp_path, f"peer {number}", first) for number in range(4)))
    try:
        await asyncio.gather(*(peer._dht.rejoin() for peer in four))
        await close(first)
        for number, peer in enumerate(four):
            assert await peer.board.publish(signed_announcement(f"n{number}"))
        await until_all_read(four, {str(peer_of(f"n{number}")) for number in range(4)})
    finally:
        await close(*four)


async def test_halves_that_began_apart_become_one(tmp_path: Path) -> None:
    left, right = await asyncio.gather(started(tmp_path, "left"), started(tmp_path, "right"))
    a, b = await asyncio.gather(started(tmp_path, "a", left), started(tmp_path, "b", right))
    peers = [left, right, a, b]
    try:
        assert await a.board.publish(signed_announcement("a"))
        assert await b.board.publish(signed_announcement("b"))
        assert [one.peer_id for one in await b.board.nodes_of(DIGEST)] == [peer_of("b")]
        peers.append(await started(tmp_path, "between", left, right))
        await until_all_read(peers, {str(peer_of("a")), str(peer_of("b"))})
    finally:
        await close(*peers)
