"""hivemind's DHT with strangers in it: who lies hides nobody, and who was lost is found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from hivemind.utils.timed_storage import TimedStorage

from discovery.dht.keys import model_key, model_keys
from discovery.dht.node import MOST_KEY_BYTES, SwarmNode, id_of
from discovery.protocol.announcement import SignedAnnouncement
from tests.support.dht_net import (
    LIARS,
    PREFIX,
    Crowding,
    Liar,
    Net,
    Wire,
    board_of,
    crowd,
    ids_next_to,
    join,
    join_as_it_is,
    new_peer_id,
    told,
)
from tests.support.documents import DIGEST, forged_announcement, peer_of, signed_announcement, unchecked

HONEST, LYING = 14, 6


async def honest_peers(net: Net, count: int = HONEST) -> tuple[list[SwarmNode], list[Wire]]:
    """Peers that joined through the first of them."""
    nodes = [await join(net)]
    for _ in range(count - 1):
        nodes.append(await join(net, net.wires[nodes[0].peer_id]))
    return nodes, [net.wires[node.peer_id] for node in nodes]


async def publish(nodes: Sequence[DHTNode], count: int = 12) -> set[str]:
    """Announcements of so many, each brought by one of these peers."""
    signed = [signed_announcement(f"n{number}") for number in range(count)]
    for number, one in enumerate(signed):
        assert await board_of(nodes[number % len(nodes)]).publish(one)
    return names(signed)


def names(found: Sequence[SignedAnnouncement]) -> set[str]:
    return {str(signed.peer_id) for signed in found}


async def read(node: DHTNode) -> set[str]:
    async with asyncio.timeout(60):
        return names(await board_of(node).nodes_of(DIGEST))


@pytest.mark.parametrize("kind", LIARS, ids=lambda kind: kind.__name__.lower())
async def test_of_thirty_liars_in_a_hundred_peers_none_hides_anybody(kind: type[Liar]) -> None:
    net = Net()
    nodes, wires = await honest_peers(net)
    await crowd(net, kind, [None] * LYING, wires)
    there = await publish(nodes)
    client = await join(net, wires[0], is_client=True)
    assert await read(client) == there


async def test_hivemind_alone_is_led_astray() -> None:
    """So the test above is about what we do."""
    net = Net()
    nodes = [await join_as_it_is(net)]
    nodes += [await join_as_it_is(net, net.wires[nodes[0].peer_id]) for _ in range(HONEST - 1)]
    await crowd(net, Crowding, [None] * LYING, [net.wires[node.peer_id] for node in nodes])
    there = await publish(nodes)
    assert await read(await join_as_it_is(net, net.wires[nodes[0].peer_id], is_client=True)) < there


@pytest.mark.parametrize("publisher", [0, 3], ids=["the initial peer itself", "another"])
async def test_who_made_ids_until_they_were_next_to_a_key_hides_nobody_from_who_shares_an_initial_peer(
    publisher: int,
) -> None:
    net = Net()
    victim = signed_announcement("victim")
    key = model_key(PREFIX, DIGEST, victim.peer_id)
    place = DHTID.generate(source=key)
    elsewhere = [one for one in (new_peer_id() for _ in range(100)) if place.xor_distance(id_of(one)) >> 157]
    nodes = [await join(net, peer_id=elsewhere[0])]
    nodes += [await join(net, net.wires[elsewhere[0]], peer_id=one) for one in elsewhere[1:HONEST]]
    wires = [net.wires[node.peer_id] for node in nodes]
    await crowd(net, Liar, ids_next_to(key, 20, 500), wires)
    nearest = await nodes[publisher].find_nearest_nodes([place], k_nearest=5)
    assert not set(next(iter(nearest.values())).values()) & {wire.peer_id for wire in wires}
    assert await board_of(nodes[publisher]).publish(victim)
    assert await read(await join(net, wires[0], is_client=True)) == {victim.peer_id}


async def test_who_says_that_he_did_not_store_does_not_make_others_not_have() -> None:
    class Refusing(Liar):
        async def rpc_store(self, request: dht_pb2.StoreRequest, context: Any) -> dht_pb2.StoreResponse:
            await asyncio.sleep(0.01)  # the last word
            return dht_pb2.StoreResponse(store_ok=[False] * len(request.keys), peer=self.node_info)

    net = Net()
    nodes, wires = await honest_peers(net, 3)
    await crowd(net, Refusing, [None] * 3, wires)
    assert await board_of(nodes[1]).publish(signed_announcement("a"))


async def test_nobody_stands_where_he_likes() -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 3)
    stranger = net.wire()
    place = DHTID.generate(source=model_keys(PREFIX, DIGEST)[0])
    elsewhere = await Liar.create(stranger, place, 20, 5, 5, 1.0)
    for wire in wires:
        await elsewhere.call_ping(wire.peer_id)
    await asyncio.sleep(0)
    assert all(place not in node.protocol.routing_table for node in nodes)
    await nodes[0].protocol.call_ping(stranger.peer_id)
    await asyncio.sleep(0)
    assert stranger.peer_id not in nodes[0].protocol.routing_table
    assert all(id_of(wire.peer_id) in nodes[0].protocol.routing_table for wire in wires[1:])


@pytest.mark.parametrize("kind", [TimedStorage, DHTLocalStorage, DictionaryDHTValue], ids=lambda kind: kind.__name__)
def test_an_old_record_that_is_repeated_does_not_take_the_new_one_with_it(kind: type[TimedStorage]) -> None:
    storage, now = kind(), time.time()
    assert storage.store("key", b"new", now + 100)
    for old in (now + 0.02, now + 100):
        assert not storage.store("key", b"old", old)
    while time.time() <= now + 0.02:
        time.sleep(0.005)
    assert storage.get("key").value == b"new"
    assert storage.store("key", b"newer", now + 101)
    assert storage.get("key").value == b"newer"


async def test_an_old_announcement_that_a_stranger_repeats_changes_nothing() -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 3)
    now = int(time.time())
    old = signed_announcement("a", issued_at=now - 30, expires_at=now + 1)
    new = signed_announcement("a", state="leaving", expires_at=now + 90)
    assert await board_of(nodes[1]).publish(new)
    stranger = await Liar.of(net, None, wires)
    key = DHTID.generate(source=model_key(PREFIX, DIGEST, old.peer_id))
    value = MSGPackSerializer.dumps(old.to_bytes())
    for wire in wires:
        for ends in (now + 0.9, float(now + 1)):
            stored = await stranger.call_store(wire.peer_id, [key], [value], [ends], subkeys=[old.peer_id])
            assert not any(stored or ()), "an old one, or too late"
    while time.time() <= now + 1:
        await asyncio.sleep(0.05)
    (found,) = await board_of(nodes[2]).nodes_of(DIGEST)
    assert found == new


async def test_what_a_stranger_brings_for_the_cache_hides_nothing() -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 3)
    there = await publish(nodes, 3)
    mine = signed_announcement("mine", expires_at=int(time.time()) + 5000)
    stranger = await Liar.of(net, None, wires)
    for name in ("n0", "n1", "n2", "mine"):
        for wire in wires:
            key = DHTID.generate(source=model_key(PREFIX, DIGEST, peer_of(name)))
            only = DictionaryDHTValue()
            only.store(mine.peer_id, MSGPackSerializer.dumps(mine.to_bytes()), mine.announcement.expires_at)
            await stranger.call_store(wire.peer_id, [key], [only], [time.time() + 5000], in_cache=True)
    assert await read(await join(net, wires[0], is_client=True)) == there
    assert all(not len(node.protocol.cache) for node in nodes)


async def test_of_a_dictionary_the_good_records_are_kept() -> None:
    net = Net()
    nodes, _ = await honest_peers(net, 2)
    good, key = signed_announcement("good"), model_key(PREFIX, DIGEST, peer_of("good"))
    records = DictionaryDHTValue()
    value = MSGPackSerializer.dumps(good.to_bytes())
    ends = float(good.announcement.expires_at)
    with records.freeze():
        records.store(good.peer_id, value, ends)
        records.store("bad", MSGPackSerializer.dumps(b"{}"), ends)
        records.store("no number", value, float("nan"))
        records.store(peer_of("another"), value, ends)
        records.store("for ever", value, float("inf"))
    place = DHTID.generate(source=key)
    key_bytes = place.to_bytes()
    believed = await nodes[0].protocol._believed(place, told(records))
    assert (set(believed.value.data), believed.expiration_time) == ({good.peer_id}, ends)
    assert await nodes[0].protocol._believed(place, told(DictionaryDHTValue())) is None
    assert nodes[0].protocol._validate_dictionary(key_bytes, records)
    assert set(records.data) == {good.peer_id}
    assert not nodes[0].protocol._validate_dictionary(key_bytes, DictionaryDHTValue())


async def test_a_key_that_is_flooded_can_still_be_told() -> None:
    net = Net()
    nodes, _ = await honest_peers(net, 2)
    honest = signed_announcement("honest")
    key = model_key(PREFIX, DIGEST, honest.peer_id)
    assert await board_of(nodes[0]).publish(honest)
    storage = nodes[0].protocol.storage
    long = MSGPackSerializer.dumps(b"x" * 15_000)  # the validator has seen them, say
    for number in range(100):
        storage.store(DHTID.generate(source=key), long, time.time() + 100, subkey=f"flood {number}")
    context = type("Context", (), {"remote_id": nodes[1].peer_id})
    request = dht_pb2.StoreRequest(keys=[DHTID.generate(source=key).to_bytes()], values=[b""], subkeys=[b"x"])
    request.expiration_time.append(1.0)
    request.in_cache.append(False)
    await nodes[0].protocol.rpc_store(request, context)
    kept = storage.get(DHTID.generate(source=key)).value
    assert honest.peer_id in kept
    assert sum(len(value) for _, (value, _) in kept.items()) <= MOST_KEY_BYTES
    assert len(kept) > 50


async def test_peers_that_join_at_the_same_moment_know_each_other_after_the_first_rounds() -> None:
    net = Net()
    first = await join(net)
    through = net.wires[first.peer_id]
    four = await asyncio.gather(*(join(net, through) for _ in range(4)))
    for node in four:
        await node.rejoin()
    await asyncio.sleep(0)
    for node in four:
        others = {id_of(one.peer_id) for one in (first, *four) if one is not node}
        assert others <= set(node.protocol.routing_table.uid_to_peer_id)
    del net.wires[first.peer_id]
    assert await board_of(four[0]).publish(signed_announcement("a"))
    assert await read(four[3]) == {peer_of("a")}


async def test_halves_that_were_cut_off_are_one_when_they_can_be_even_without_the_first_peer() -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 9)
    half = {wire.peer_id for wire in wires[:4]}
    del net.wires[nodes[0].peer_id]
    await nodes[0].shutdown()
    net.is_cut = lambda a, b: (a in half) != (b in half)
    left, right = nodes[1:4], nodes[4:]
    for node in (*left, *right):
        await node.rejoin()
    assert _tables(left) & {node.peer_id for node in right} == set()
    assert await board_of(left[0]).publish(signed_announcement("left"))
    assert await board_of(right[0]).publish(signed_announcement("right"))
    assert (await read(left[1]), await read(right[1])) == ({peer_of("left")}, {peer_of("right")})
    net.is_cut = lambda _a, _b: False
    for node in (*left, *right):
        await node.rejoin()
    now = int(time.time())
    assert await board_of(left[0]).publish(signed_announcement("left", expires_at=now + 200))  # as it renews itself
    assert await board_of(right[0]).publish(signed_announcement("right", expires_at=now + 200))
    for node in (*left, *right):
        assert await read(node) == {peer_of("left"), peer_of("right")}


async def test_halves_that_began_apart_are_one_through_a_peer_that_knows_both() -> None:
    net = Net()
    left, left_wires = await honest_peers(net, 4)
    right, right_wires = await honest_peers(net, 4)
    assert await board_of(left[1]).publish(signed_announcement("left"))
    assert await read(right[1]) == set()
    await join(net, left_wires[0], right_wires[0])
    for _ in range(2):
        for node in (*left, *right):
            await node.rejoin()
    assert {one.peer_id for one in right} & _tables(left)
    for node in right:
        assert await read(node) == {peer_of("left")}


async def test_who_is_gone_for_good_is_looked_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 3)
    gone = wires[2].peer_id
    del net.wires[gone]
    await nodes[1].protocol.call_ping(gone)
    await asyncio.sleep(0)
    assert gone in nodes[1].protocol.lost
    monkeypatch.setattr("discovery.dht.node.LOST_SECONDS", 0.0)
    await nodes[1].rejoin()
    assert gone not in nodes[1].protocol.lost


async def test_what_expires_is_gone_everywhere() -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 8)
    now = int(time.time())
    short = signed_announcement("short", issued_at=now - 100, expires_at=now + 2)
    assert await board_of(nodes[1]).publish(short)
    client = await join(net, wires[0], is_client=True)
    assert await read(client) == {short.peer_id}
    while time.time() < short.announcement.expires_at:
        await asyncio.sleep(0.05)
    for node in (*nodes, client):
        assert await read(node) == set()
    kept = [
        node.protocol.storage.get(DHTID.generate(source=key)) for node in nodes for key in model_keys(PREFIX, DIGEST)
    ]
    assert not any(kept)


async def test_an_announcement_beyond_the_bounds_is_pinned_nowhere() -> None:
    net = Net()
    nodes, _ = await honest_peers(net, 3)
    long = signed_announcement("long")
    body = unchecked(long.announcement, software="x" * 20_000)
    key = model_key(PREFIX, DIGEST, long.peer_id)
    assert not await nodes[1].store(key, forged_announcement("long", body), time.time() + 50, subkey=long.peer_id)
    assert await read(nodes[2]) == set()


def _tables(nodes: Sequence[SwarmNode]) -> set[PeerID]:
    return {peer for node in nodes for peer in node.protocol.routing_table.peer_id_to_uid}


async def test_what_does_not_fit_into_an_answer_comes_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 3)
    there = await publish(nodes, 40)
    client = await join(net, wires[0], is_client=True)
    before = net.messages
    assert await read(client) == there
    assert net.messages - before == 3, "one question to each"
    monkeypatch.setattr("discovery.dht.node.MOST_ANSWER_BYTES", 4000)
    before = net.messages
    assert await read(client) == there
    assert net.messages - before > 3 * 5


async def test_who_always_says_that_it_does_not_fit_is_asked_once() -> None:
    class Evading(Liar):
        def _lie(self, key: DHTID) -> dht_pb2.FindResult:
            return dht_pb2.FindResult(type=dht_pb2.FOUND_REGULAR)

    net = Net()
    nodes, wires = await honest_peers(net, 3)
    await crowd(net, Evading, [None] * 3, wires)
    there = await publish(nodes, 4)
    assert await read(await join(net, wires[0], is_client=True)) == there


async def test_the_initial_peer_holds_what_was_announced_wherever_it_stands() -> None:
    net = Net()
    nodes, _ = await honest_peers(net, 12)
    for name in await publish(nodes[1:], 12):
        assert nodes[0].protocol.storage.get(DHTID.generate(source=model_key(PREFIX, DIGEST, name)))


async def test_a_newcomer_is_handed_what_belongs_to_it_as_much_as_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    nodes, wires = await honest_peers(net, 1)
    there = await publish(nodes, 20)
    newcomer = await join(net, wires[0])
    await nodes[0].protocol.update_routing_table(newcomer.node_id, newcomer.peer_id)
    async with asyncio.timeout(30):
        while names(await board_of(newcomer).nodes_of(DIGEST)) != there or not len(newcomer.protocol.storage):
            await asyncio.sleep(0.01)
    kept = len(newcomer.protocol.storage)
    assert kept > 20
    monkeypatch.setattr("discovery.dht.node.MOST_KEY_BYTES", 5000)
    second = await join(net, wires[0])
    async with asyncio.timeout(30):
        while not len(second.protocol.storage):
            await asyncio.sleep(0.01)
    assert len(second.protocol.storage) < kept
    assert newcomer.peer_id in nodes[0].protocol.routing_table
    assert second.peer_id in nodes[0].protocol.routing_table
