"""What strangers can do with relays: relays that look at what they carry or change it, relays that are full, addresses
that lie about relays."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from discovery.dht import relay as relay_module
from discovery.dht.identity import load_identity
from discovery.dht.p2p import relay_refusal
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr
from discovery.dht.relay import LEAST_BYTES, LEAST_SECONDS, RelayLimits
from discovery.dht.transport import Stream
from discovery.protocol.errors import InvalidArgument, PeerUnavailable
from discovery.protocol.messages import PeerAddress
from tests.support.tapped_relay import TappedRelay

PROTOCOL = "/far-mesh/test/strangers"
WORDS = b"what the weather is like in the town where I live "
PLAIN = WORDS * 4000
CIRCUIT_BYTES = 1 << 20

Start = Callable[..., Awaitable[SwarmPeer]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts peers, each with an identity of its own, and ends them."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_peer(**config: object) -> SwarmPeer:
            identity = load_identity(tmp_path / f"peer-{len(stack._exit_callbacks)}")  # type: ignore[attr-defined]
            peer = await SwarmPeer.start(identity, PeerConfig(**config))  # type: ignore[arg-type]
            stack.push_async_callback(peer.close)
            return peer

        yield start_peer


async def echo(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


def at(peer: SwarmPeer, *maddrs: str) -> PeerAddress:
    return PeerAddress(peer.peer_id, maddrs)


async def test_a_relay_sees_nothing_of_what_it_carries(start: Start) -> None:
    owner = await start()
    tapped = TappedRelay(owner._p2p)
    await tapped.start()
    hidden = await start(initial_peers=await owner.maddrs(), behind_nat=True)
    await hidden.transport.serve(PROTOCOL, echo)
    client = await start(initial_peers=await owner.maddrs(), is_client=True)
    stream = await client.transport.open(at(hidden, *map(bare_maddr, await hidden.maddrs())), PROTOCOL)
    for _ in range(3):
        await stream.send(PLAIN)
        assert await stream.receive() == PLAIN
    await stream.close()
    for seen in (bytes(tapped.to_peer), bytes(tapped.to_client)):
        assert len(seen) > 3 * len(PLAIN), "it carried everything"
        assert b"/noise" in seen[:200] or b"/tls" in seen[:200], "the two agree on encryption first"
        assert WORDS not in seen
        assert PROTOCOL.encode() not in seen, "nor what it is about"
        assert len(zlib.compress(seen)) > 0.99 * len(seen), "what is encrypted cannot be compressed"


async def test_what_a_relay_has_changed_is_never_delivered(start: Start) -> None:
    owner = await start()
    tapped = TappedRelay(owner._p2p)
    await tapped.start()
    hidden = await start(initial_peers=await owner.maddrs(), behind_nat=True)
    got: list[bytes] = []
    over = asyncio.Event()

    async def keep(stream: Stream) -> None:
        try:
            while (frame := await stream.receive()) is not None:
                got.append(frame)
                await stream.send(frame)
        finally:
            over.set()

    await hidden.transport.serve(PROTOCOL, keep)
    client = await start(initial_peers=await owner.maddrs(), is_client=True)
    stream = await client.transport.open(at(hidden, *map(bare_maddr, await hidden.maddrs())), PROTOCOL)
    await stream.send(PLAIN)
    assert await stream.receive() == PLAIN
    tapped.change = lambda carried: carried[:-1] + bytes([carried[-1] ^ 1])
    with contextlib.suppress(PeerUnavailable):
        await stream.send(PLAIN)
        assert await stream.receive() is None
    await asyncio.wait_for(over.wait(), 60)
    assert got == [PLAIN]


async def test_a_full_relay_says_that_it_has_no_slot_left_and_one_that_carries_enough_that_it_carries_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "LEAST_BYTES", CIRCUIT_BYTES)
    limits = RelayLimits(slots=1, circuits=1, circuit_bytes=CIRCUIT_BYTES)
    relay = await start(is_relay=True, relay_limits=limits)
    hidden = await start(initial_peers=await relay.maddrs(), behind_nat=True)
    await hidden.transport.serve(PROTOCOL, echo)
    maddrs = tuple(map(bare_maddr, await hidden.maddrs()))
    with pytest.raises(PeerUnavailable, match="the relay refuses: it has no slot left"):
        await start(initial_peers=await relay.maddrs(), behind_nat=True)
    first, second = [await start(initial_peers=await relay.maddrs(), is_client=True) for _ in range(2)]
    stream = await first.transport.open(at(hidden, *maddrs), PROTOCOL)
    with pytest.raises(PeerUnavailable, match=r"its relay carries no more connections for it.*RESOURCE_LIMIT_EXCEEDED"):
        await second.transport.open(at(hidden, *maddrs), PROTOCOL)
    carried = 0
    with contextlib.suppress(PeerUnavailable):
        while carried <= CIRCUIT_BYTES:
            await stream.send(PLAIN)
            if await stream.receive() is None:
                break
            carried += len(PLAIN)
    assert CIRCUIT_BYTES // 2 < carried <= CIRCUIT_BYTES, "its limit of bytes is that of a connection"


async def test_an_address_that_lies_about_its_relay_is_an_error_that_says_so(start: Start, tmp_path: Path) -> None:
    relay = await start(is_relay=True)
    client = await start(initial_peers=await relay.maddrs(), is_client=True)
    direct = bare_maddr((await relay.maddrs())[0])
    away = f"{direct}/p2p/{relay.peer_id}/p2p-circuit"
    ghost = load_identity(tmp_path / "ghost").peer_id
    for relayed, says in (
        (away, r"the relay that it names lets nobody through.*NO_RESERVATION"),
        (f"{direct}/p2p/{ghost}/p2p-circuit", "lead through itself"),
        (f"{away}/p2p/{relay.peer_id}/p2p-circuit", "through several relays"),
    ):
        with pytest.raises(PeerUnavailable, match=says) as caught:
            await client.transport.open(PeerAddress(ghost, (relayed,)), PROTOCOL)
        assert ghost in caught.value.message
    reached = await client.transport.open(at(relay, away, direct), "/ipfs/ping/1.0.0")
    await reached.close()  # a lie beside a true address does no harm


@pytest.mark.parametrize("limits", [{"circuit_bytes": LEAST_BYTES - 1}, {"circuit_seconds": LEAST_SECONDS - 1}])
def test_a_relay_that_no_node_would_take_is_not_started(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="would break sessions"):
        RelayLimits(**limits)


@pytest.mark.parametrize("limits", [{"slots": 0}, {"circuits": 0}])
def test_a_relay_lets_somebody_through(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="at least one"):
        RelayLimits(**limits)


def test_the_daemon_is_told_all_limits() -> None:
    flags = RelayLimits(3, 5, 1 << 30, 3600).flags
    assert {"-relayMaxReservations=4", "-relayMaxCircuits=5", "-relayDataLimit=1073741824"} <= set(flags)
    assert "-relayTimeLimit=3600s" in flags


def test_only_what_a_relay_says_is_put_in_words() -> None:
    assert relay_refusal("error opening relay circuit: NO_RESERVATION (204)") is not None
    assert relay_refusal("dial tcp4 10.0.0.1:1: connect: connection refused") is None
