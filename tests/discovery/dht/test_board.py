"""The notice board on a real DHT of several peers: honest peers refuse forgeries, and readers skip what is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import P2P

from discovery.dht.board import Board
from discovery.dht.keys import all_nodes_key, model_key, node_key
from discovery.dht.node import SwarmNode
from discovery.dht.validator import AnnouncementValidator
from discovery.protocol.announcement import SignedAnnouncement
from tests.support.documents import (
    DIGEST,
    OTHER_DIGEST,
    announcement,
    forged_announcement,
    peer_of,
    signed_announcement,
    tampered,
    wallet_of,
)

PREFIX = "far"


async def dht_node(*peers: DHTNode, honest: bool = True, prefix: str = PREFIX) -> DHTNode:
    maddrs = [str(maddr) for peer in peers for maddr in await peer.get_visible_maddrs()]
    if honest:
        p2p = await P2P.create(initial_peers=maddrs or None, auto_nat=False, nat_port_map=False)
        return await SwarmNode.join(p2p, AnnouncementValidator(prefix), maddrs)
    return await DHTNode.create(
        initial_peers=maddrs or None,
        cache_locally=False,
        auto_nat=False,
        nat_port_map=False,
    )


async def end(*nodes: DHTNode) -> None:
    await asyncio.gather(*(node.shutdown() for node in nodes))
    await asyncio.gather(*(node.p2p.shutdown() for node in nodes))


@pytest.fixture
async def honest() -> AsyncIterator[list[DHTNode]]:
    """Three peers that check what they store."""
    first = await dht_node()
    others = await asyncio.gather(dht_node(first), dht_node(first))
    nodes = [first, *others]
    yield nodes
    await end(*nodes)


@pytest.fixture
async def careless() -> AsyncIterator[list[DHTNode]]:
    """Two peers that store anything."""
    first = await dht_node(honest=False)
    nodes = [first, await dht_node(first, honest=False)]
    yield nodes
    await end(*nodes)


async def test_what_one_publishes_the_others_read(honest: list[DHTNode]) -> None:
    boards = [Board(node, PREFIX) for node in honest]
    signed = [signed_announcement(name, first_block=first) for name, first in (("a", 0), ("b", 1), ("c", 2))]
    assert all(await asyncio.gather(*(board.publish(one) for board, one in zip(boards, signed, strict=True))))
    for board in boards:
        assert _by_peer(await board.nodes_of(DIGEST)) == _by_peer(signed)
        assert _by_peer(await board.all_nodes()) == _by_peer(signed)
        assert await board.node(peer_of("b")) == [signed[1]]
        assert await board.node(peer_of("nobody")) == []
        assert await board.nodes_of(OTHER_DIGEST) == []


async def test_a_node_that_serves_two_models_is_found_with_both(honest: list[DHTNode]) -> None:
    writer, reader = Board(honest[1], PREFIX), Board(honest[2], PREFIX)
    now = int(time.time())
    for digest in (DIGEST, OTHER_DIGEST):  # they end at the same time, and neither replaces the other
        assert await writer.publish(signed_announcement("a", model_digest=digest, expires_at=now + 50))
    both = {DIGEST, OTHER_DIGEST}
    assert {signed.announcement.model_digest for signed in await reader.node(peer_of("a"))} == both
    assert {signed.announcement.model_digest for signed in await reader.all_nodes()} == both
    assert await writer.publish(signed_announcement("a", state="leaving", expires_at=now + 60))
    states = {signed.announcement.model_digest: signed.announcement.state for signed in await reader.all_nodes()}
    assert states == {DIGEST: "leaving", OTHER_DIGEST: "ready"}


async def test_a_later_announcement_replaces_the_one_before(honest: list[DHTNode]) -> None:
    writer, reader = Board(honest[1], PREFIX), Board(honest[2], PREFIX)
    now = int(time.time())
    assert await writer.publish(signed_announcement("a", expires_at=now + 50))
    assert await writer.publish(signed_announcement("a", state="leaving", expires_at=now + 60))
    (read,) = await reader.nodes_of(DIGEST)
    assert read.announcement.state == "leaving"
    assert not await writer.publish(signed_announcement("a", expires_at=now + 40)), "an old one does not come back"
    (read,) = await reader.nodes_of(DIGEST)
    assert read.announcement.state == "leaving"


async def test_swarms_with_other_prefixes_do_not_see_each_other(honest: list[DHTNode]) -> None:
    private = await dht_node(honest[0], prefix="private")
    try:
        await Board(honest[1], PREFIX).publish(signed_announcement("a"))
        assert await Board(private, "private").nodes_of(DIGEST) == []
        stray = signed_announcement("b", swarm="private")
        assert not await Board(honest[1], PREFIX).publish(stray)
        assert await Board(honest[2], PREFIX).node(peer_of("b")) == []
    finally:
        await end(private)


def _forgeries() -> dict[str, tuple[str, object, object, float]]:
    """What a liar stores: key, subkey, value, seconds."""
    good = signed_announcement("victim")
    model, everybody = model_key(PREFIX, DIGEST, good.peer_id), all_nodes_key(PREFIX, good.peer_id)
    return {
        "signed by another key": (model, peer_of("victim"), forged_announcement("liar", announcement("victim")), 100),
        "about another peer": (model, peer_of("liar"), forged_announcement("liar", announcement("victim")), 100),
        "under another model": (model_key(PREFIX, OTHER_DIGEST, good.peer_id), peer_of("victim"), good.to_bytes(), 100),
        "under another node": (node_key(PREFIX, peer_of("node")), peer_of("victim"), good.to_bytes(), 100),
        "expiry stretched": (model, peer_of("victim"), good.to_bytes(), 5000),
        "subkey swapped": (model, peer_of("liar"), good.to_bytes(), 100),
        "wallet changed": (
            model,
            peer_of("victim"),
            tampered(good.document, wallet_of("victim"), wallet_of("liar")),
            100,
        ),
        "garbage": (everybody, peer_of("victim"), b"garbage", 100),
        "not bytes": (everybody, peer_of("victim"), {"peer_id": "x"}, 100),
        "oversized": (model, peer_of("victim"), good.to_bytes() + b" " * 50_000, 100),
        "subkey no peer": (model, 7, good.to_bytes(), 100),
    }


async def test_honest_peers_do_not_store_a_forgery(honest: list[DHTNode]) -> None:
    liar = await dht_node(honest[0], honest=False)
    try:
        board = Board(honest[2], PREFIX)
        await board.publish(signed_announcement("witness"))
        witness = {peer_of("witness"), f"{peer_of('witness')}/{DIGEST}"}
        for kind, (key, subkey, value, seconds) in _forgeries().items():
            await liar.store(key, value, time.time() + seconds, subkey=subkey)
            assert _subkeys_kept_at(honest, key) <= witness, kind
            assert _by_peer(await board.all_nodes()) == {peer_of("witness")}, kind
            assert await board.node(peer_of("victim")) == [], kind
    finally:
        await end(liar)


async def test_a_liar_can_store_what_is_true(honest: list[DHTNode]) -> None:
    """So the test above is about the forgeries, and not about the liar."""
    liar = await dht_node(honest[0], honest=False)
    try:
        good = signed_announcement("victim")
        key = model_key(PREFIX, DIGEST, good.peer_id)
        assert await liar.store(key, good.to_bytes(), good.announcement.expires_at, subkey=good.peer_id)
        assert _subkeys_kept_at(honest, key) == {peer_of("victim")}
    finally:
        await end(liar)


async def test_a_reader_skips_a_forgery_that_careless_peers_stored(careless: list[DHTNode]) -> None:
    writer, reader = careless
    board = Board(reader, PREFIX)
    await Board(writer, PREFIX).publish(signed_announcement("witness"))
    forgeries = _forgeries()
    del forgeries["expiry stretched"]  # to a reader that is a good announcement; it reads the time inside
    for number, (kind, (key, subkey, value, seconds)) in enumerate(forgeries.items()):
        assert await writer.store(key, value, time.time() + seconds + number, subkey=subkey), kind
        assert (await _readable(reader, key))[subkey].value == value, kind
        assert _by_peer(await board.nodes_of(DIGEST)) == {peer_of("witness")}, kind
        assert _by_peer(await board.all_nodes()) == {peer_of("witness")}, kind
        assert await board.nodes_of(OTHER_DIGEST) == [], kind
        assert await board.node(peer_of("node")) == [], kind


async def test_a_reader_skips_what_has_expired(careless: list[DHTNode]) -> None:
    writer, reader = careless
    now = int(time.time())
    old = signed_announcement("old", issued_at=now - 200, expires_at=now - 80)
    early = signed_announcement("early", issued_at=now + 3000, expires_at=now + 3100)
    for signed in (old, early):
        assert await writer.store(
            model_key(PREFIX, DIGEST, signed.peer_id), signed.to_bytes(), time.time() + 100, subkey=signed.peer_id
        )
        assert len(await _readable(reader, model_key(PREFIX, DIGEST, signed.peer_id))) == 1
    assert await Board(reader, PREFIX).nodes_of(DIGEST) == []


async def test_a_value_without_subkeys_is_no_board(careless: list[DHTNode]) -> None:
    writer, reader = careless
    assert await writer.store(all_nodes_key(PREFIX, peer_of("a")), "a plain value", time.time() + 100)
    assert await Board(reader, PREFIX).all_nodes() == []


def _subkeys_kept_at(nodes: list[DHTNode], key: str) -> set[Any]:
    """What lies in the peers' own storage, before any check that a reader makes."""
    kept: set[Any] = set()
    for node in nodes:
        found = node.protocol.storage.get(DHTID.generate(key))
        if found is not None:
            kept |= set(found.value.data) if isinstance(found.value, DictionaryDHTValue) else {found.value}
    return kept


async def _readable(node: DHTNode, key: str) -> dict[Any, Any]:
    found = await node.get(key, latest=True)
    return found.value if found is not None and isinstance(found.value, dict) else {}


def _by_peer(found: list[SignedAnnouncement]) -> set[str]:
    return {signed.peer_id for signed in found}
