"""Peers that nobody can reach, and the relays that let others through to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hivemind.p2p import P2P, PeerID

from discovery.dht import peer as peer_module
from discovery.dht import relay as relay_module
from discovery.dht.identity import load_identity
from discovery.dht.p2p import to_multiaddr
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr
from discovery.dht.relay import Reservation, parse_answer
from discovery.dht.transport import Stream
from discovery.protocol.errors import PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import check_peer_id
from discovery.protocol.messages import PeerAddress

PROTOCOL = "/far-mesh/test/relayed"
ID = check_peer_id("12D3KooWEjunvbHqkjL26TpYh8hkoF12nQk3hDrHh8PTtaiGgg5W")
A_MEBIBYTE = bytes(1 << 20)
ACCEPTED = bytes.fromhex("0802 1a06 08e29986d806 2209 08880e 108080808010 2864")


@pytest.fixture
async def bootstrap(tmp_path: Path) -> AsyncIterator[SwarmPeer]:
    peer = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), PeerConfig(is_relay=True))
    yield peer
    with contextlib.suppress(Exception):
        await peer.close()


async def start_behind_nat(path: Path, bootstrap: SwarmPeer) -> SwarmPeer:
    config = PeerConfig(initial_peers=await bootstrap.maddrs(), behind_nat=True)
    return await SwarmPeer.start(load_identity(path), config)


async def test_a_peer_behind_nat_is_reached_through_the_relay_for_more_than_stock_relays_carry(
    bootstrap: SwarmPeer, tmp_path: Path
) -> None:
    hidden = await start_behind_nat(tmp_path / "hidden", bootstrap)
    client_config = PeerConfig(initial_peers=await bootstrap.maddrs(), is_client=True)
    client = await SwarmPeer.start(load_identity(tmp_path / "client"), client_config)

    async def echo(stream: Stream) -> None:
        assert stream.peer_id == client.peer_id
        while (frame := await stream.receive()) is not None:
            await stream.send(frame)

    await hidden.transport.serve(PROTOCOL, echo)
    maddrs = await hidden.maddrs()
    assert hidden.relays == (bootstrap.peer_id,)
    assert maddrs == tuple(f"{maddr}/p2p-circuit/p2p/{hidden.peer_id}" for maddr in await bootstrap.maddrs())
    assert tuple(map(str, await hidden._p2p.get_visible_maddrs(latest=True))) == maddrs, "and nothing else is told"
    stream = await client.transport.open(PeerAddress(hidden.peer_id, tuple(map(bare_maddr, maddrs))), PROTOCOL)
    async with asyncio.timeout(20):
        for _ in range(3):
            await stream.send(A_MEBIBYTE)
            assert await stream.receive() == A_MEBIBYTE
    await stream.close()
    for peer in (client, hidden):
        await peer.close()


async def test_a_relay_cannot_pass_itself_off_as_the_peer_behind_it(bootstrap: SwarmPeer, tmp_path: Path) -> None:
    client_config = PeerConfig(initial_peers=await bootstrap.maddrs(), is_client=True)
    client = await SwarmPeer.start(load_identity(tmp_path / "client"), client_config)
    hidden = load_identity(tmp_path / "hidden").peer_id
    direct = tuple(bare_maddr(maddr) for maddr in await bootstrap.maddrs())
    through = tuple(f"{maddr}/p2p-circuit" for maddr in await bootstrap.maddrs())
    for maddrs in (direct, through):
        with pytest.raises(PeerUnavailable):
            await client.transport.open(PeerAddress(hidden, maddrs), PROTOCOL)
    await client.close()


async def test_a_relay_that_came_out_weak_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def reserve_weakly_at_first(p2p: P2P, relay: PeerID) -> Reservation:
        asked.append(relay.to_base58())
        return Reservation(0, 1 << 17, 120) if len(asked) == 1 else await relay_module.reserve(p2p, relay)

    monkeypatch.setattr(peer_module, "reserve", reserve_weakly_at_first)
    bootstrap = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), PeerConfig(is_relay=True))
    assert len(asked) >= 2
    assert set(asked) == {bootstrap.peer_id}
    await bootstrap.close()


async def test_a_slot_is_taken_again_when_the_relay_comes_back(
    bootstrap: SwarmPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "RENEW_SECONDS", 0.2)
    hidden = await start_behind_nat(tmp_path / "hidden", bootstrap)
    (maddr,) = await bootstrap.maddrs()
    await bootstrap.close()
    async with asyncio.timeout(20):
        while hidden.relays:
            await asyncio.sleep(0.1)
    assert await hidden.maddrs() == ()
    again = PeerConfig(host_maddrs=(bare_maddr(maddr),), is_relay=True)
    returned = await SwarmPeer.start(load_identity(tmp_path / "bootstrap"), again)
    async with asyncio.timeout(30):
        while not hidden.relays:
            await asyncio.sleep(0.1)
    for peer in (hidden, returned):
        await peer.close()


async def test_a_peer_that_relays_too_little_is_no_relay(tmp_path: Path) -> None:
    ordinary = await SwarmPeer.start(load_identity(tmp_path / "ordinary"), PeerConfig())
    with pytest.raises(PeerUnavailable, match=r"131072 bytes or 120 s, too soon for sessions"):
        await start_behind_nat(tmp_path / "hidden", ordinary)
    await ordinary.close()


def test_an_accepted_reservation_tells_how_long_it_lasts_and_what_it_carries() -> None:
    assert parse_answer(ACCEPTED) == Reservation(1795263714, 1 << 32, 1800)
    assert parse_answer(ACCEPTED).suffices
    assert not Reservation(0, 1 << 17, 0).suffices
    assert not Reservation(0, 0, 120).suffices
    assert Reservation(0, 0, 0).suffices, "0 means no limit"


@pytest.mark.parametrize(
    ("answer", "reason"), [("0802 28c801", "no slot"), ("0802 28cc01", "status 204"), ("0802", "status 0")]
)
def test_a_refusal_says_why(answer: str, reason: str) -> None:
    with pytest.raises(PeerUnavailable, match=reason):
        parse_answer(bytes.fromhex(answer))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "0801 2864",
        "0802 1a",
        "0802 1aff7f00",
        "0802 2b",
        "ff" * 11,
        "0802 1864 2864",
        "0802 2202 0a00 2864",
        "0802 1a02 0a00 2864",
        "0802 2001 2864",
        "0802 2a00",
    ],
)
def test_an_answer_that_is_none_is_a_violation(answer: str) -> None:
    with pytest.raises(ProtocolViolation, match="the relay's answer is none"):
        parse_answer(bytes.fromhex(answer))


def test_no_cut_of_a_good_answer_passes_for_one() -> None:
    for end in range(len(ACCEPTED)):
        with pytest.raises((ProtocolViolation, PeerUnavailable)):
            parse_answer(ACCEPTED[:end])


def test_a_peer_id_inside_an_address_is_a_plain_multihash() -> None:
    relayed = to_multiaddr(f"/ip4/10.0.0.1/tcp/4001/p2p/{ID}/p2p-circuit")
    assert relayed.to_bytes().hex().startswith("040a00000106" + "0fa1" + "a50326002408011220")
    assert relayed.to_bytes().hex().endswith("a202")
    assert str(relayed) == f"/ip4/10.0.0.1/tcp/4001/p2p/{ID}/p2p-circuit"
    assert str(to_multiaddr("/dns4/example.org/tcp/1")) == "/dns4/example.org/tcp/1"


async def test_an_address_that_is_none_is_an_error_that_names_the_peer(bootstrap: SwarmPeer) -> None:
    for maddr in (
        "/p2p-circuit/p2p",
        "/ip4/1.2.3.4/tcp/1/p2p/0OIl/p2p-circuit",
        "/ip4/1.2.3.4/tcp/1/p2p//p2p-circuit",
        "/p2p/" + "1" * 90,
        "/ip4/1.2.3.4/tcp/1/p2p/12D3KooW/p2p-circuit",
        "p2p-circuit",
        "/ip4/1.2.3.4/tcp/1/p2p/" + "z" * 200,
    ):
        with pytest.raises(PeerUnavailable, match=ID):
            await bootstrap.transport.open(PeerAddress(ID, (maddr,)), PROTOCOL)
