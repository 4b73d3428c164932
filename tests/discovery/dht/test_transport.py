"""What every transport does, asked of the double and of libp2p alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hivemind.p2p import P2P

from discovery.dht.identity import Identity, load_identity
from discovery.dht.memory import MemoryNetwork
from discovery.dht.p2p import P2PTransport
from discovery.dht.transport import Channel, Stream, Transport
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.messages import Close, Failure, InfoRequest, Link, PeerAddress
from tests.support.documents import peer_of

ECHO = "/far-mesh/test/echo"


@dataclass
class Pair:
    """Two peers that can reach each other, how to lose the second, and how to silence the connection to it."""

    here: Transport
    there: Transport
    address: PeerAddress
    lose: Callable[[], Awaitable[None]]
    silence: Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["memory", "p2p"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    if request.param == "memory":
        network = MemoryNetwork()
        here, there = network.join(peer_of("here")), network.join(peer_of("there"))

        async def lose() -> None:
            network.cut(there.peer_id)

        @contextmanager
        def stall() -> Iterator[None]:
            network.stall(here.peer_id, there.peer_id)
            yield

        yield Pair(here, there, PeerAddress(there.peer_id), lose, stall)
        await asyncio.gather(here.close(), there.close())
        return
    first, second = await asyncio.gather(*(_daemon(load_identity(tmp_path / name)) for name in ("a", "b")))
    maddrs = tuple(str(maddr).rpartition("/p2p/")[0] for maddr in await second.get_visible_maddrs())
    near, far = P2PTransport(first), P2PTransport(second)

    async def lose_daemon() -> None:
        await second.shutdown()

    @contextmanager
    def stop_the_daemon() -> Iterator[None]:
        assert second._child is not None
        daemon = psutil.Process(second._child.pid)
        daemon.suspend()
        while {psutil.Process(thread.id).status() for thread in daemon.threads()} != {psutil.STATUS_STOPPED}:
            time.sleep(0.001)  # the signal reaches its threads one after the other: one that still runs may answer
        try:
            yield
        finally:
            daemon.resume()

    yield Pair(near, far, PeerAddress(far.peer_id, maddrs), lose_daemon, stop_the_daemon)
    await asyncio.gather(near.close(), far.close())
    await asyncio.gather(first.shutdown(), second.shutdown())


async def _daemon(identity: Identity) -> P2P:
    return await P2P.create(identity_path=str(identity.path), auto_nat=False, nat_port_map=False)


async def _echo(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


async def test_both_sides_know_whom_they_speak_to(pair: Pair) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def look(stream: Stream) -> None:
        await seen.put(stream.peer_id)

    await pair.there.serve(ECHO, look)
    stream = await pair.here.open(pair.address, ECHO)
    assert stream.peer_id == pair.there.peer_id == pair.address.peer_id
    assert await seen.get() == pair.here.peer_id
    await stream.close()


async def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    frames = [bytes([number % 256]) * (number * 37 % 5000) for number in range(200)]
    assert b"" in frames, "an empty frame is a frame"
    for frame in frames:
        await stream.send(frame)
    assert [await stream.receive() for _ in frames] == frames
    await stream.close()


async def test_a_frame_of_eight_megabytes_arrives(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    frame = bytes(range(256)) * 2**15
    sending = asyncio.create_task(stream.send(frame))
    assert await stream.receive() == frame
    await sending
    await stream.close()


async def test_many_streams_to_one_peer_do_not_mix(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    streams = await asyncio.gather(*(pair.here.open(pair.address, ECHO) for _ in range(10)))
    for number, stream in enumerate(streams):
        await stream.send(f"stream {number}".encode())
    assert [await stream.receive() for stream in streams] == [f"stream {number}".encode() for number in range(10)]
    for stream in streams:
        await stream.close()


async def test_the_end_of_a_handler_is_the_end_of_the_stream(pair: Pair) -> None:
    async def say_and_go(stream: Stream) -> None:
        await stream.send(b"goodbye")

    await pair.there.serve(ECHO, say_and_go)
    stream = await pair.here.open(pair.address, ECHO)
    assert await stream.receive() == b"goodbye"
    assert await stream.receive() is None
    assert await stream.receive() is None, "the end stays the end"
    await stream.close()


async def test_the_handler_sees_the_end_when_the_opener_closes(pair: Pair) -> None:
    ended = asyncio.Event()

    async def wait_for_the_end(stream: Stream) -> None:
        assert await stream.receive() == b"one"
        assert await stream.receive() is None
        ended.set()

    await pair.there.serve(ECHO, wait_for_the_end)
    stream = await pair.here.open(pair.address, ECHO)
    await stream.send(b"one")
    await stream.close()
    await asyncio.wait_for(ended.wait(), 20)


async def test_a_closed_stream_can_be_closed_again_and_takes_no_more(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    await stream.close()
    await stream.close()
    with pytest.raises(PeerUnavailable):
        await _send_until_noticed(stream)


async def _send_until_noticed(stream: Stream) -> None:
    for _ in range(100):  # libp2p may take a moment
        await stream.send(b"x" * 100_000)


async def test_the_loss_of_a_peer_ends_what_waits_for_it(pair: Pair) -> None:
    reached = asyncio.Event()

    async def say_nothing(stream: Stream) -> None:
        reached.set()
        await stream.receive()

    await pair.there.serve(ECHO, say_nothing)
    stream = await pair.here.open(pair.address, ECHO)
    waiting = asyncio.create_task(_until_the_end(stream))
    await asyncio.wait_for(reached.wait(), 20)
    await pair.lose()
    assert await asyncio.wait_for(waiting, 20) in ("closed", "peer_unavailable")
    with pytest.raises(PeerUnavailable) as failure:
        await pair.here.open(pair.address, ECHO)
    assert failure.value.facts["peer_id"] == pair.address.peer_id


async def test_what_is_sent_to_a_lost_peer_fails_soon(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    await stream.send(b"one")
    assert await stream.receive() == b"one"
    await pair.lose()
    with pytest.raises(PeerUnavailable) as failure:
        await _send_until_noticed(stream)
    assert failure.value.facts["peer_id"] == pair.address.peer_id


async def test_a_peer_that_answers_keeps_its_connection(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    assert await pair.here.check(pair.address.peer_id)
    await stream.send(b"one")
    assert await stream.receive() == b"one"
    await stream.close()


async def test_a_silent_connection_is_closed_with_its_streams_and_the_next_stream_gets_a_new_one(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    stream = await pair.here.open(pair.address, ECHO)
    await stream.send(b"one")
    assert await stream.receive() == b"one"
    waiting = asyncio.create_task(_until_the_end(stream))
    with pair.silence():
        checks = await asyncio.gather(*(pair.here.check(pair.address.peer_id) for _ in range(3)))
        assert not checks[0]
        assert await asyncio.wait_for(waiting, 20) in ("closed", "peer_unavailable")
    fresh = await pair.here.open(pair.address, ECHO)
    await fresh.send(b"two")
    assert await fresh.receive() == b"two"
    assert await pair.here.check(pair.address.peer_id)
    await fresh.close()


async def test_where_there_is_no_connection_none_is_closed(pair: Pair) -> None:
    assert await pair.here.check(peer_of("nobody"))


async def test_a_frame_longer_than_its_receiver_takes_is_a_violation_before_it_is_read(pair: Pair) -> None:
    seen: asyncio.Queue[bytes | FarError | None] = asyncio.Queue()

    async def take_little(stream: Stream) -> None:
        for limit in (4, 4, 3):
            try:
                await seen.put(await stream.receive(limit))
            except FarError as error:
                await seen.put(error)
                raise

    await pair.there.serve(ECHO, take_little)
    stream = await pair.here.open(pair.address, ECHO)
    for frame in (b"four", b"", b"four"):
        await stream.send(frame)
    assert [await seen.get(), await seen.get()] == [b"four", b""]
    violation = await seen.get()
    assert isinstance(violation, ProtocolViolation)
    assert violation.facts["peer_id"] == pair.here.peer_id
    assert "a frame of 4 bytes, the most here is 3" in violation.message
    await stream.close()


async def test_what_a_peer_does_not_read_is_not_held_for_it_without_end(pair: Pair) -> None:
    sent = 0
    ended = asyncio.Event()

    async def talk_for_ever(stream: Stream) -> None:
        nonlocal sent
        try:
            while True:
                await stream.send(bytes(2**16))
                sent += 2**16
        finally:
            ended.set()

    await pair.there.serve(ECHO, talk_for_ever)
    stream = await pair.here.open(pair.address, ECHO)
    assert await stream.receive() is not None
    before = -1
    async with asyncio.timeout(20):
        while sent < 2**17 or before != sent:
            before = sent
            await asyncio.sleep(0.3)
    assert sent <= 2**23, "the sender waits"
    assert not ended.is_set()
    await stream.close()
    await asyncio.wait_for(ended.wait(), 20)


async def test_a_peer_at_an_address_that_is_none_is_unavailable(pair: Pair) -> None:
    for maddr in ("", "nowhere", "/ip4/999.1.1.1/tcp/1", "/ip4/127.0.0.1/tcp/-1", "/ip4", "/dns4/\0"):
        with pytest.raises(PeerUnavailable) as failure:
            await pair.here.open(PeerAddress(peer_of("nobody"), (maddr,)), ECHO)
        assert failure.value.facts["peer_id"] == peer_of("nobody"), maddr


async def _until_the_end(stream: Stream) -> str:
    try:
        while await stream.receive() is not None:
            continue
    except PeerUnavailable as error:
        return error.code
    return "closed"


async def test_a_protocol_that_nobody_serves_is_an_unavailable_peer(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    with pytest.raises(PeerUnavailable) as failure:
        await pair.here.open(pair.address, "/far-mesh/test/nobody")
    assert failure.value.facts["peer_id"] == pair.address.peer_id


async def test_a_peer_that_nobody_knows_is_unavailable(pair: Pair) -> None:
    with pytest.raises(PeerUnavailable) as failure:
        await pair.here.open(PeerAddress(peer_of("nobody")), ECHO)
    assert failure.value.facts["peer_id"] == peer_of("nobody")
    assert failure.value.retry


async def test_a_peer_that_is_not_who_the_address_says_is_unavailable(pair: Pair) -> None:
    await pair.there.serve(ECHO, _echo)
    with pytest.raises(PeerUnavailable):
        await pair.here.open(PeerAddress(peer_of("impostor"), pair.address.maddrs), ECHO)


async def test_a_handler_that_refuses_one_stream_serves_the_next(pair: Pair) -> None:
    async def refuse_garbage(stream: Stream) -> None:
        await Channel(stream).expect(InfoRequest)
        await stream.send(b"welcome")

    await pair.there.serve(ECHO, refuse_garbage)
    for garbage in (b"", b"\xff" * 10, b"\x1a\xff\xff\xff\xff\x0f"):
        stream = await pair.here.open(pair.address, ECHO)
        await stream.send(garbage)
        assert await _until_the_end(stream) in ("closed", "peer_unavailable")
        await stream.close()
    channel = Channel(stream := await pair.here.open(pair.address, ECHO))
    await channel.send(InfoRequest())
    assert await stream.receive() == b"welcome"
    await channel.close()


async def test_a_transport_that_closes_ends_its_streams(pair: Pair) -> None:
    reached = asyncio.Event()

    async def stay(stream: Stream) -> None:
        reached.set()
        await _echo(stream)

    await pair.there.serve(ECHO, stay)
    stream = await pair.here.open(pair.address, ECHO)
    await asyncio.wait_for(reached.wait(), 20)
    await pair.there.close()
    assert await asyncio.wait_for(_until_the_end(stream), 20) in ("closed", "peer_unavailable")
    with pytest.raises(PeerUnavailable):
        await pair.here.open(pair.address, ECHO)


class TestChannel:
    """Typed messages on a stream."""

    async def test_what_is_due_is_given_back(self, pair: Pair) -> None:
        await pair.there.serve(ECHO, _echo)
        channel = Channel(await pair.here.open(pair.address, ECHO))
        assert channel.peer_id == pair.there.peer_id
        await channel.send(Close())
        assert await channel.expect(Close) == Close()
        await channel.close()

    async def test_a_failure_where_something_is_due_is_raised_as_what_it_was(self, pair: Pair) -> None:
        await pair.there.serve(ECHO, _echo)
        channel = Channel(await pair.here.open(pair.address, ECHO))
        await channel.send(Failure("deadline_exceeded", "too slow", retry=True, retry_after=3.0))
        with pytest.raises(FarError) as failure:
            await channel.expect(Close)
        assert (failure.value.code, failure.value.retry_after) == ("deadline_exceeded", 3.0)
        await channel.close()

    async def test_anything_else_where_something_is_due_is_a_violation(self, pair: Pair) -> None:
        await pair.there.serve(ECHO, _echo)
        channel = Channel(await pair.here.open(pair.address, ECHO))
        await channel.send(InfoRequest())
        with pytest.raises(ProtocolViolation, match="sent InfoRequest where Close was due"):
            await channel.expect(Close)
        await channel.close()

    async def test_the_end_where_something_is_due_is_a_violation(self, pair: Pair) -> None:
        async def go(stream: Stream) -> None:
            await stream.receive()

        await pair.there.serve(ECHO, go)
        channel = Channel(await pair.here.open(pair.address, ECHO))
        await channel.send(Close())
        with pytest.raises(ProtocolViolation, match="sent nothing where Link was due"):
            await channel.expect(Link)
        await channel.close()
