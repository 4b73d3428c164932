"""What only real streams can do: lengths that lie, and buffers that nobody empties."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr

from discovery.dht import p2p as p2p_module
from discovery.dht.identity import load_identity
from discovery.dht.p2p import P2PTransport
from discovery.dht.transport import Stream
from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.messages import MAX_FRAME_BYTES, PeerAddress
from tests.support.documents import peer_of

PROTOCOL = "/far-mesh/test/raw"
A_FRAME = 2**22


@pytest.fixture
async def daemons(tmp_path: Path) -> AsyncIterator[tuple[P2P, P2P]]:
    paths = [load_identity(tmp_path / name).path for name in ("a", "b")]
    first, second = await asyncio.gather(
        *(P2P.create(identity_path=str(path), auto_nat=False, nat_port_map=False) for path in paths)
    )
    await first._client.connect(
        PeerID.from_base58(second.peer_id.to_base58()),
        [Multiaddr(str(maddr).rpartition("/p2p/")[0]) for maddr in await second.get_visible_maddrs()],
    )
    yield first, second
    await asyncio.gather(first.shutdown(), second.shutdown())


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"\x00\x00\x00\x02ok\x00\x00", "peer_unavailable"),
        (b"\x00\x00\x00\x02ok\x00\x00\x00\x05half", "peer_unavailable"),
        (b"\x00\x00\x00\x02ok\xff\xff\xff\xff" + b"x" * 1000, "protocol_violation"),
        (b"\x00\x00\x00\x02ok" + (MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "protocol_violation"),
        (b"\x00\x00\x00\x02ok", "end"),
    ],
    ids=["half a length", "half a frame", "four gigabytes", "one byte over the limit", "a clean end"],
)
async def test_a_frame_that_is_not_what_its_length_says_is_an_error_after_the_frames_before(
    daemons: tuple[P2P, P2P], raw: bytes, seen: str
) -> None:
    here, there = daemons
    story: asyncio.Queue[bytes | str] = asyncio.Queue()

    async def listen(stream: Stream) -> None:
        try:
            while (frame := await stream.receive()) is not None:
                await story.put(frame)
            await story.put("end")
        except FarError as error:
            await story.put(error.code)
            raise

    transport = P2PTransport(there)
    await transport.serve(PROTOCOL, listen)
    _, _, writer = await here.call_binary_stream_handler(there.peer_id, PROTOCOL)
    writer.write(raw)
    writer.close()
    assert await asyncio.wait_for(story.get(), 60) == b"ok"
    assert await asyncio.wait_for(story.get(), 60) == seen
    await transport.close()


@pytest.mark.parametrize("sender_waits", [True, False], ids=["in the middle of a frame", "when the handler is done"])
async def test_a_stream_that_is_closed_is_gone_soon_whether_its_peer_reads_or_not(
    daemons: tuple[P2P, P2P], monkeypatch: pytest.MonkeyPatch, sender_waits: bool
) -> None:
    monkeypatch.setattr(p2p_module, "LINGER_SECONDS", 0.2)
    here, there = daemons
    full, ended = asyncio.Event(), asyncio.Event()

    async def talk(stream: Stream) -> None:
        try:
            while True:
                async with asyncio.timeout(1):
                    await stream.send(bytes(A_FRAME))
        except TimeoutError:
            full.set()
        if sender_waits:
            closing = asyncio.create_task(_close_soon(stream))
            with pytest.raises(PeerUnavailable):
                await stream.send(b"one more")
            await closing
        ended.set()

    transport = P2PTransport(there)
    await transport.serve(PROTOCOL, talk)
    before = _open_files()
    _, _, writer = await here.call_binary_stream_handler(there.peer_id, PROTOCOL)
    await asyncio.wait_for(full.wait(), 30)
    assert _open_files() == before + 2, "one of ours, and one that is served"
    await asyncio.wait_for(ended.wait(), 60)
    async with asyncio.timeout(60):
        while _open_files() > before + 1:
            await asyncio.sleep(0.05)
    writer.close()
    await transport.close()


async def test_what_was_sent_before_a_close_still_arrives(daemons: tuple[P2P, P2P]) -> None:
    here, there = daemons

    async def talk(stream: Stream) -> None:
        await stream.send(bytes(A_FRAME))

    transport = P2PTransport(there)
    await transport.serve(PROTOCOL, talk)
    _, reader, writer = await here.call_binary_stream_handler(there.peer_id, PROTOCOL)
    await asyncio.sleep(1)
    assert len(await asyncio.wait_for(reader.read(-1), 60)) == 4 + A_FRAME
    writer.close()
    await transport.close()


async def test_who_cannot_be_reached_costs_no_files_with_any_python(
    daemons: tuple[P2P, P2P], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(asyncio.StreamWriter, "__del__", raising=False)  # as before 3.11.4
    transport = P2PTransport(daemons[0])
    before = _open_files()
    for number in range(8):
        with pytest.raises(PeerUnavailable):
            await transport.open(PeerAddress(peer_of(f"away {number}"), ()), PROTOCOL)
    async with asyncio.timeout(60):
        while _open_files() > before + 1:
            gc.collect()
            await asyncio.sleep(0.05)
    await transport.close()


async def _close_soon(stream: Stream) -> None:
    await asyncio.sleep(0.1)
    await stream.close()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
