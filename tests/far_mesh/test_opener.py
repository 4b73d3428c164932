"""A session is opened on the route that is preferred, and who broke off is not preferred next time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.geoip import GeoDatabase
from discovery.protocol.errors import InvalidArgument
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, Pool, Preference
from far_mesh.errors import NoRoute
from far_mesh.opener import Swarm
from tests.support import mmdb
from tests.support.ring import FAST, MemoryPeer, Ring, RingNode, a_ring

ONE = GenerationOptions(max_tokens=1)


@pytest.fixture
async def ring(talker: Path) -> AsyncIterator[Ring]:
    """Two nodes for each half: a dear and fast one, and a cheap and slow one."""
    async with a_ring(talker) as ring:
        for name, first, end in (("0", 0, 3), ("1", 3, 6)):
            await ring.add(first, end, name=f"fast{name}", block_ms=1.0, price_units=900, region="eu-west")
            await ring.add(first, end, name=f"slow{name}", block_ms=500.0, price_units=100, region="us-east")
        yield ring


async def route_of(ring: Ring, preference: Preference, price_units: int = 900) -> list[str]:
    mesh = await ring.mesh(replace(FAST, preference=preference))
    try:
        generation = await mesh.open([5], ONE, price_units=price_units)
        await generation.finish()
    finally:
        await mesh.close()
    names: dict[str, str] = {node.peer_id: node.name for node in ring.nodes}
    return [names[hop.peer_id] for hop in generation.hops]


def named(ring: Ring, name: str) -> RingNode:
    (node,) = (node for node in ring.nodes if node.name == name)
    return node


async def test_the_preference_of_the_client_decides(ring: Ring) -> None:
    assert await route_of(ring, Preference()) == ["fast0", "fast1"]
    assert await route_of(ring, Preference("cheapest")) == ["slow0", "slow1"]
    assert await route_of(ring, Preference(region="us")) == ["slow0", "slow1"]


async def test_those_who_ask_for_more_than_is_offered_are_left_alone(ring: Ring) -> None:
    assert await route_of(ring, Preference(), price_units=100) == ["slow0", "slow1"]
    assert await route_of(ring, Preference(), price_units=900) == ["fast0", "fast1"]
    for offered in (5, 0):
        with pytest.raises(NoRoute, match=f"asks for 100 units, {offered} are offered"):
            await route_of(ring, Preference(), price_units=offered)


async def test_only_invited_nodes_see_a_text(ring: Ring) -> None:
    invited = frozenset({named(ring, "slow0").peer_id, named(ring, "fast1").announcement.wallet})
    assert await route_of(ring, Preference(trusted_only=invited)) == ["slow0", "fast1"]
    with pytest.raises(NoRoute, match="trusted_only"):
        await route_of(ring, Preference(trusted_only=frozenset({named(ring, "slow0").peer_id})))


async def test_ends_are_measured_when_a_session_opens(ring: Ring) -> None:
    mesh = await ring.mesh()
    await (await mesh.open([5], ONE, price_units=900)).finish()
    known = mesh._swarm.measured.known()
    assert set(known.round_trips) == {node.peer_id for node in ring.nodes}
    assert all(0 < round_trip < 1000 for round_trip in known.round_trips.values())
    await mesh.close()


async def test_who_cannot_be_reached_is_remembered_and_who_is_full_is_not_blamed(talker: Path) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        full = await ring.add(3, 6, name="full", max_sessions=1, block_ms=0.1)
        gone = await ring.add(3, 6, name="gone", block_ms=0.2)
        spare = await ring.add(3, 6, name="spare", block_ms=50.0)
        await ring.add(0, 3, name="other")
        mesh = await ring.mesh(replace(FAST, open_attempts=3))
        first = await mesh.open([5], ONE)
        assert first.hops[1].peer_id == full.peer_id
        ring.network.cut(gone.transport.peer_id)
        second = await mesh.open([5], ONE)
        assert second.hops[1].peer_id == spare.peer_id
        reliability = mesh._swarm.measured.known().reliability
        assert reliability[gone.peer_id] < 1.0 == reliability[full.peer_id] == reliability[spare.peer_id]
        await first.finish()
        await second.finish()
        await mesh.close()


async def test_the_route_is_explained_without_opening_it(ring: Ring) -> None:
    mesh = await ring.mesh()
    told = await mesh._opener.explain()
    names: dict[str, str] = {node.peer_id: node.name for node in ring.nodes}
    assert [names[each.hop.node.peer_id] for each in told.hops] == ["fast0", "fast1"]
    assert {names[reason.node.peer_id] for reason in told.reasons} == {"slow0", "slow1"}
    assert all(not node.handler.open_sessions for node in ring.nodes)
    await mesh.close()


async def test_who_is_gone_is_asked_last_until_it_announces_itself_again(talker: Path) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        gone = await ring.add(3, 6, name="gone", block_ms=0.1)
        await ring.add(3, 6, name="spare", block_ms=50.0)
        mesh = await ring.mesh(replace(FAST, open_attempts=3))
        transport = ring.network.peers.pop(gone.transport.peer_id)
        for _ in range(2):
            await (await mesh.open([5], ONE)).finish()
        assert mesh._swarm.measured.known().reliability[gone.peer_id] > 0.8, "it was asked once"
        ring.network.peers[gone.transport.peer_id] = transport
        del ring.board.signed[named(ring, "spare").peer_id]
        there = await mesh.open([5], ONE)
        assert there.hops[1].peer_id == gone.peer_id, "where there is nobody else it is asked again"
        await there.finish()
        await mesh.close()


async def test_who_is_gone_is_asked_whether_it_is_back(talker: Path) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        gone = await ring.add(3, 6, name="gone", block_ms=0.1)
        await ring.add(3, 6, name="spare", block_ms=50.0)
        mesh = await ring.mesh(replace(FAST, open_attempts=3))
        transport = ring.network.peers.pop(gone.transport.peer_id)
        await (await mesh.open([5], ONE)).finish()
        ring.network.peers[gone.transport.peer_id] = transport
        async with asyncio.timeout(20):
            hops = []
            while gone.peer_id not in hops:
                session = await mesh.open([5], ONE)
                hops = [hop.peer_id for hop in session.hops]
                await session.finish()
        await mesh.close()


async def test_who_broke_off_is_announced_still_and_not_present_until_it_answers(talker: Path) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        gone = await ring.add(3, 6, name="gone", block_ms=0.1)
        await ring.add(3, 6, name="spare", block_ms=50.0)
        mesh = await ring.mesh(replace(FAST, open_attempts=3))
        assert len(await mesh.present()) == 3
        transport = ring.network.peers.pop(gone.transport.peer_id)
        await (await mesh.open([5], ONE)).finish()
        assert gone.peer_id in {signed.peer_id for signed in await mesh.nodes()}
        assert gone.peer_id not in {signed.peer_id for signed in await mesh.present()}
        ring.network.peers[gone.transport.peer_id] = transport
        async with asyncio.timeout(60):
            while len(await mesh.present()) < 3:
                await asyncio.sleep(0.01)
        await mesh.close()


async def test_nodes_are_found_on_the_map_by_the_addresses_they_are_reached_at(talker: Path, tmp_path: Path) -> None:
    file = mmdb.write(
        tmp_path / "city.mmdb", {"8.8.8.8/32": mmdb.city(52.5, 13.4), "9.9.9.9/32": mmdb.city(35.7, 139.7)}
    )
    async with a_ring(talker) as ring:
        for name, address in (("berlin", "8.8.8.8"), ("tokyo", "9.9.9.9"), ("nowhere", "7.7.7.7")):
            await ring.add(0, 6, name=name, maddrs=(f"/ip4/{address}/tcp/31330",), block_ms=1.0)
        peer = cast(SwarmPeer, MemoryPeer(ring.client, ring.board))
        config = replace(FAST, preference=Preference(near=(35, 139)))
        swarm = Swarm(peer, cast(Any, None), config, GeoDatabase(file))
        try:
            mesh = await Mesh.over(swarm, str(ring.path))
            generation = await mesh.open([5], ONE)
            await generation.finish()
            assert [hop.peer_id for hop in generation.hops] == [named(ring, "tokyo").peer_id]
            known = swarm.known([node.announcement for node in ring.nodes])
        finally:
            for errand in swarm._errands:
                errand.cancel()
    assert known.points == {named(ring, "berlin").peer_id: (52.5, 13.4), named(ring, "tokyo").peer_id: (35.7, 139.7)}
    assert known.location is None
    assert Swarm(peer, cast(Any, None), replace(FAST, location=(48.9, 2.4))).known([]).location == (48.9, 2.4)


async def test_a_file_that_is_no_city_database_is_said_before_anybody_is_met(tmp_path: Path) -> None:
    config = replace(FAST, geoip_db=tmp_path / "none.mmdb")
    with pytest.raises(InvalidArgument, match=r"none\.mmdb cannot be read"):
        await Swarm.join(["/ip4/127.0.0.1/tcp/9/p2p/12D3KooW"], config)


async def test_who_wants_nodes_to_come_to_him_listens_for_them(tmp_path: Path) -> None:
    bootstrap = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), PeerConfig())
    swarm = await Swarm.join(await bootstrap.maddrs(), replace(FAST, host_maddrs=("/ip4/127.0.0.2/tcp/0",)))
    (maddr,) = await swarm.peer.maddrs()
    assert maddr.startswith("/ip4/127.0.0.2/tcp/")
    for peer in (swarm, bootstrap):
        await peer.close()


# ---- pools


async def test_a_session_with_a_pool_opens_on_nodes_of_it_alone(ring: Ring) -> None:
    mesh = await ring.mesh()
    members = frozenset({named(ring, "slow0").peer_id, named(ring, "slow1").peer_id})
    generation = await mesh.open([5], ONE, price_units=900, pool=Pool("the pool", members))
    assert [hop.peer_id for hop in generation.hops] == [named(ring, name).peer_id for name in ("slow0", "slow1")]
    await generation.finish()
    everybody = await mesh.open([5], ONE, price_units=900)
    assert [hop.peer_id for hop in everybody.hops] == [named(ring, name).peer_id for name in ("fast0", "fast1")]
    await everybody.finish()
    made = await mesh.embed([[5, 6]], price_units=900, pool=Pool("the pool", members))
    assert {one.peer_id for one in made.contributions} == {named(ring, name).peer_id for name in ("slow0", "slow1")}
    by_wallet = frozenset({named(ring, name).announcement.wallet for name in ("slow0", "slow1")})  # anybody names any
    for few in (frozenset({named(ring, "slow0").peer_id}), frozenset[str](), by_wallet):
        with pytest.raises(NoRoute, match="not of the pool"):
            await mesh.open([5], ONE, price_units=900, pool=Pool("the pool", few))
    await mesh.close()


async def test_who_is_lost_is_replaced_out_of_the_pool_or_not_at_all(talker: Path) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        lost = await ring.add(3, 6, name="lost", block_ms=0.1)
        near = await ring.add(3, 6, name="near", block_ms=0.2)
        far = await ring.add(3, 6, name="far", block_ms=50.0)
        mesh, failed = await ring.mesh(replace(FAST, mend_timeout=0.3)), list[str]()
        mesh.watch(lambda peers, outcome, sure: failed.extend(peers))
        first = frozenset({ring.nodes[0].peer_id})
        generation = await mesh.open(
            [5], GenerationOptions(max_tokens=12), pool=Pool("the pool", first | {lost.peer_id, far.peer_id})
        )
        await anext(aiter(generation))
        ring.network.cut(lost.transport.peer_id)
        async for _ in generation:
            pass
        assert [hop.peer_id for hop in generation.hops] == [ring.nodes[0].peer_id, far.peer_id]
        assert not near.handler.open_sessions
        await generation.finish()
        assert set(failed) == {lost.peer_id}
        alone = await mesh.open([5], GenerationOptions(max_tokens=12), pool=Pool("the pool", first | {far.peer_id}))
        await anext(aiter(alone))
        ring.network.cut(far.transport.peer_id)
        with pytest.raises(NoRoute, match="not of the pool"):
            async for _ in alone:
                pass
        await mesh.close()
