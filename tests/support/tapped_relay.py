"""A relay whose owner looks at what he carries: circuit relay v2 in the place of the daemon's own.

It speaks the protocol (https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md) on a daemon's streams, as any
relay could, and keeps every byte that passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

_HOP, _STOP = "/libp2p/circuit/relay/0.2.0/hop", "/libp2p/circuit/relay/0.2.0/stop"
_RESERVE, _CONNECT, _STATUS, _OK = 0, 1, 2, 100
_STOP_CONNECT = 0
_SLOT_SECONDS = 3600
_AT_ONCE = 1 << 16

Change = Callable[[bytes], bytes]


def _unchanged(carried: bytes) -> bytes:
    return carried


class TappedRelay:
    """All that was carried, each way; ``change`` may do something to it."""

    def __init__(self, p2p: P2P) -> None:
        self._p2p = p2p
        self.to_peer, self.to_client = bytearray(), bytearray()
        self.change: Change = _unchanged

    async def start(self) -> None:
        """Take the protocol over from the daemon."""
        await self._p2p.add_binary_stream_handler(_HOP, self._hop)

    async def _hop(self, info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            message = await _read(reader)
            if message[:2] == bytes([0x08, _RESERVE]):
                slot = b"\x08" + _varint(int(time.time()) + _SLOT_SECONDS)
                writer.write(_framed(bytes([0x08, _STATUS, 0x1A, len(slot), *slot, 0x22, 0, 0x28, _OK])))
                await writer.drain()
                return
            assert message[:3] == bytes([0x08, _CONNECT, 0x12]), message
            wanted = message[4 : 4 + message[3]]
            assert wanted[0] == 0x0A, wanted
            target = PeerID(bytes(wanted[2 : 2 + wanted[1]]))
            _, their_reader, their_writer = await self._p2p.call_binary_stream_handler(target, _STOP)
            with contextlib.closing(their_writer):
                client = info.peer_id.to_bytes()
                peer = bytes([0x0A, len(client), *client])
                their_writer.write(_framed(bytes([0x08, _STOP_CONNECT, 0x12, len(peer), *peer])))
                await _read(their_reader)
                writer.write(_framed(bytes([0x08, _STATUS, 0x28, _OK])))
                await asyncio.gather(
                    self._carry(reader, their_writer, self.to_peer), self._carry(their_reader, writer, self.to_client)
                )

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
        while some := await reader.read(_AT_ONCE):
            seen += some
            writer.write(self.change(some))
            await writer.drain()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """A message after its length, which is a varint."""
    length = (await reader.readexactly(1))[0]
    if length & 0x80:
        length = (length & 0x7F) | (await reader.readexactly(1))[0] << 7
    return await reader.readexactly(length)


def _framed(message: bytes) -> bytes:
    return _varint(len(message)) + message


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
