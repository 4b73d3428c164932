"""What only bytes on a real stream can do: lengths that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr

from discovery.dht.identity import load_identity
from discovery.dht.p2p import P2PTransport
from discovery.dht.transport import Stream
from discovery.protocol.errors import FarError
from discovery.protocol.messages import MAX_FRAME_BYTES

PROTOCOL = "/far-mesh/test/raw"


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
    assert await asyncio.wait_for(story.get(), 20) == b"ok"
    assert await asyncio.wait_for(story.get(), 20) == seen
    await transport.close()
