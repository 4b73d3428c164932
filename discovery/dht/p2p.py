"""Streams over libp2p, through hivemind's daemon.

Our own length-prefixed frames travel on hivemind's binary streams: its protobuf streams hang when the peer dies, these
see the loss in tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import base58
import structlog
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import P2PDaemonError
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure, DispatchFailure
from hivemind.utils.multiaddr import Multiaddr

from discovery.dht.transport import Stream, StreamHandler
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import PeerId, check_peer_id
from discovery.protocol.messages import MAX_FRAME_BYTES, PeerAddress

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_SECONDS = 10.0
LINGER_SECONDS = 5.0
"""How long what was sent before a close may take to be read. asyncio by itself would wait for ever."""
_LENGTH = struct.Struct(">I")
_STREAM_BROKE = (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError)
CANNOT_OPEN = (P2PDaemonError, ControlFailure, DispatchFailure, TimeoutError, OSError, asyncio.IncompleteReadError)
"""What the daemon and the streams to it raise when a peer cannot be reached."""
_P2P_PROTOCOL = bytes([0xA5, 0x03])
"""Code 421 of the multiaddr protocol ``p2p``, as a varint."""


class P2PStream:
    """Frames on one libp2p stream: four bytes of length (big-endian), then the bytes."""

    def __init__(self, peer_id: PeerId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer_id, self._reader, self._writer = peer_id, reader, writer

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def send(self, frame: bytes) -> None:
        try:
            self._writer.writelines((_LENGTH.pack(len(frame)), frame))
            await self._writer.drain()
        except (*_STREAM_BROKE, RuntimeError):
            raise self._broke() from None
        if self._writer.is_closing():  # while we waited
            raise self._broke()

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        try:
            header = await self._reader.readexactly(_LENGTH.size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise self._broke() from None
            return None
        except ConnectionError:
            raise self._broke() from None
        (length,) = _LENGTH.unpack(header)
        if length > limit:
            raise ProtocolViolation(
                f"{self._peer_id} announced a frame of {length} bytes, the most here is {limit}", peer_id=self._peer_id
            )
        try:
            return await self._reader.readexactly(length)
        except _STREAM_BROKE:
            raise self._broke() from None

    async def close(self) -> None:
        transport = self._writer.transport
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)
        self._writer.close()

    def _broke(self) -> PeerUnavailable:
        return PeerUnavailable(f"the stream to {self._peer_id} broke", peer_id=self._peer_id)


class P2PTransport:
    """A :class:`~discovery.dht.transport.Transport` on a running p2p daemon. It does not own the daemon."""

    def __init__(self, p2p: P2P) -> None:
        self._p2p = p2p
        self._peer_id = check_peer_id(p2p.peer_id.to_base58())
        self._connected: set[PeerId] = set()
        self._protocols: list[str] = []
        self._handling: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        await self._p2p.add_binary_stream_handler(protocol, self._accept_with(handler))
        self._protocols.append(protocol)

    async def open(self, address: PeerAddress, protocol: str) -> Stream:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                return await self._open(address, protocol)
        except CANNOT_OPEN as error:
            self._connected.discard(address.peer_id)
            reason = str(error) or type(error).__name__
            raise PeerUnavailable(f"{address.peer_id} cannot be reached: {reason}", peer_id=address.peer_id) from None

    async def close(self) -> None:
        self._closing = True
        for protocol in self._protocols:
            try:
                await self._p2p.remove_binary_stream_handler(protocol)
            except CANNOT_OPEN:  # the daemon is gone already
                break
        for task in list(self._handling):
            task.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)

    async def _open(self, address: PeerAddress, protocol: str) -> Stream:
        remote = PeerID.from_base58(address.peer_id)
        if address.maddrs and address.peer_id not in self._connected:
            await self._p2p._client.connect(remote, _parse(address))
            self._connected.add(address.peer_id)
        _, reader, writer = await self._p2p.call_binary_stream_handler(remote, protocol)
        return P2PStream(address.peer_id, reader, writer)

    def _accept_with(
        self, handler: StreamHandler
    ) -> Callable[[StreamInfo, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
            stream = P2PStream(PeerId(info.peer_id.to_base58()), reader, writer)
            try:
                check_peer_id(stream.peer_id)
                await handler(stream)
            except FarError as error:
                log.info("stream_ended", peer=stream.peer_id, code=error.code, reason=error.message)
            except asyncio.CancelledError:
                if not self._closing:
                    raise
            finally:
                await stream.close()

        return accept


def to_multiaddr(text: str) -> Multiaddr:
    """An address with the bytes that the daemon reads.

    A relayed address (``…/p2p/<relay>/p2p-circuit``) has a peer id inside. hivemind writes ids as CIDs there, and its
    daemon reads plain multihashes (https://github.com/multiformats/multiaddr/blob/master/protocols/p2p.md).

    Raises:
        ValueError, LookupError, TypeError: it is no multiaddr.
    """
    parts = Multiaddr(text).split()
    return Multiaddr(b"".join(_peer_part(part["p2p"]) if "p2p" in part else part.to_bytes() for part in parts))


def _peer_part(name: str) -> bytes:
    multihash = base58.b58decode(name)
    return _P2P_PROTOCOL + bytes([len(multihash)]) + multihash


def _parse(address: PeerAddress) -> list[Multiaddr]:
    """The addresses that somebody gave for a peer, who may be a stranger."""
    try:
        return [to_multiaddr(maddr) for maddr in address.maddrs]
    except (ValueError, LookupError, TypeError) as error:
        reason = f"{address.peer_id} cannot be reached at an address that is none: {error}"
        raise PeerUnavailable(reason, peer_id=address.peer_id) from None
