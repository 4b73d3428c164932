"""Streams over libp2p, through hivemind's daemon.

Our own length-prefixed frames travel on hivemind's binary streams: its protobuf streams hang when the peer dies, these
see the loss in tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import time
import weakref
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import base58
import structlog
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.control import DaemonConnector, P2PDaemonError
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure, DispatchFailure
from hivemind.utils.multiaddr import Multiaddr

from discovery.dht.transport import SLOW_BYTES_PER_SECOND, Stream, StreamHandler
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import PeerId, check_peer_id
from discovery.protocol.messages import MAX_FRAME_BYTES, PeerAddress

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_SECONDS = 10.0
CHECK_SECONDS = 1.0
"""How long a peer has to answer a ping of libp2p, which its daemon answers whatever the process behind it does."""
LINGER_SECONDS = 5.0
"""How long what was sent before a close may take to be read. asyncio by itself would wait for ever."""
_LENGTH = struct.Struct(">I")
_PING_PROTOCOL, _PING_BYTES = "/ipfs/ping/1.0.0", 32
"""https://github.com/libp2p/specs/blob/master/ping/ping.md"""
_STREAM_BROKE = (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError)
CANNOT_OPEN = (P2PDaemonError, ControlFailure, DispatchFailure, TimeoutError, OSError, asyncio.IncompleteReadError)
"""What the daemon and the streams to it raise when a peer cannot be reached."""
_RELAY_SAYS = {
    "RESERVATION_REFUSED": "the relay has no slot left",
    "RESOURCE_LIMIT_EXCEEDED": "its relay carries no more connections for it, or for us",
    "PERMISSION_DENIED": "its relay does not permit us",
    "CONNECTION_FAILED": "its relay does not get through to it",
    "NO_RESERVATION": "the relay that it names lets nobody through to it",
}
"""Statuses of circuit relay v2, by their names in its specification."""
_P2P_PROTOCOL = bytes([0xA5, 0x03])
"""Code 421 of the multiaddr protocol ``p2p``, as a varint."""


class _Traffic:
    """What goes to and comes from one peer: how long an answer may take because of what is on its way before it."""

    def __init__(self) -> None:
        self.heard_at = 0.0
        self._slowest = 0.0
        self._on_its_way, self._at = 0.0, 0.0

    def sent(self, count: int, now: float) -> None:
        """So many bytes more."""
        self._on_its_way, self._at = self._left(now) + count, now

    def answered(self, seconds: float) -> None:
        """A ping took so long."""
        self._slowest = max(0.9 * self._slowest, seconds)

    def patience(self, now: float) -> float:
        """Seconds in which a ping is answered if anything gets through."""
        return CHECK_SECONDS + 2 * self._slowest + self._left(now) / SLOW_BYTES_PER_SECOND

    def _left(self, now: float) -> float:
        return max(0.0, self._on_its_way - SLOW_BYTES_PER_SECOND * (now - self._at))


class P2PStream:
    """Frames on one libp2p stream: four bytes of length (big-endian), then the bytes."""

    def __init__(
        self, peer_id: PeerId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, traffic: _Traffic
    ) -> None:
        self._peer_id, self._reader, self._writer, self._traffic = peer_id, reader, writer, traffic

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def send(self, frame: bytes) -> None:
        self._traffic.sent(len(frame), time.monotonic())
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
        self._traffic.heard_at = time.monotonic()
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
        _close_the_forgotten(p2p._client.control.daemon_connector)
        self._peer_id = check_peer_id(p2p.peer_id.to_base58())
        self._connected: set[PeerId] = set()
        self._traffic: WeakValueDictionary[PeerId, _Traffic] = WeakValueDictionary()
        self._checks: dict[PeerId, asyncio.Task[bool]] = {}
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
            reason = relay_refusal(str(error)) or str(error) or type(error).__name__
            raise PeerUnavailable(f"{address.peer_id} cannot be reached: {reason}", peer_id=address.peer_id) from None

    async def check(self, peer_id: PeerId) -> bool:
        self.doubt(peer_id)
        return await asyncio.shield(self._checks[peer_id])

    def doubt(self, peer_id: PeerId) -> None:
        if peer_id not in self._checks:  # one at a time: a second would close what comes after the first
            check = self._checks[peer_id] = asyncio.create_task(self._check(peer_id))
            check.add_done_callback(lambda _: self._checks.pop(peer_id, None))

    async def close(self) -> None:
        self._closing = True
        for check in list(self._checks.values()):
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
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
        return P2PStream(address.peer_id, reader, writer, self._traffic_of(address.peer_id))

    def _traffic_of(self, peer_id: PeerId) -> _Traffic:
        return self._traffic.setdefault(peer_id, _Traffic())  # lives as long as a stream to the peer

    async def _check(self, peer_id: PeerId) -> bool:
        remote, traffic, started = PeerID.from_base58(peer_id), self._traffic_of(peer_id), 0.0
        while traffic.heard_at >= started:  # at first, and when something came that is no answer: it may be the last
            started = time.monotonic()
            try:
                if not await self._is_connected(remote):
                    return True
                async with asyncio.timeout(traffic.patience(started)):
                    await self._ping(remote)
            except (*CANNOT_OPEN, ValueError):
                continue
            traffic.answered(time.monotonic() - started)
            return True
        self._connected.discard(peer_id)
        with contextlib.suppress(*CANNOT_OPEN):
            async with asyncio.timeout(CHECK_SECONDS):
                await self._p2p._client.disconnect(remote)
        log.info("connection_closed", peer=peer_id, reason="the peer does not answer on it")
        return False

    async def _is_connected(self, remote: PeerID) -> bool:
        return any(peer.peer_id == remote for peer in await self._p2p._client.list_peers())

    async def _ping(self, remote: PeerID) -> None:
        _, reader, writer = await self._p2p.call_binary_stream_handler(remote, _PING_PROTOCOL)
        try:
            asked = secrets.token_bytes(_PING_BYTES)
            writer.write(asked)
            if await reader.readexactly(_PING_BYTES) != asked:
                raise ValueError("a ping is answered with its own bytes")
        finally:
            writer.close()

    def _accept_with(
        self, handler: StreamHandler
    ) -> Callable[[StreamInfo, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._handling.add(task)
            task.add_done_callback(self._handling.discard)
            peer_id = PeerId(info.peer_id.to_base58())
            stream = P2PStream(peer_id, reader, writer, self._traffic_of(peer_id))
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


def _close_the_forgotten(connector: DaemonConnector) -> None:
    """Close streams to the daemon that nobody holds any more: hivemind leaves one open where a request fails.

    Python does so itself from 3.11.4 on. Before, each peer that cannot be reached would cost a file for good.
    """
    open_connection = connector.open_connection

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await open_connection()
        weakref.finalize(writer, _close, asyncio.get_running_loop(), writer.transport).atexit = False
        return reader, writer

    connector.open_connection = opened


def _close(loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport) -> None:
    if not loop.is_closed():  # with it the stream was gone
        transport.close()


def relay_refusal(text: str) -> str | None:
    """What the daemon says when a relay did not put us through, in words; None where no relay said anything."""
    return next((f"{words} ({sign})" for sign, words in _RELAY_SAYS.items() if sign in text), None)


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
        maddrs = [to_multiaddr(maddr) for maddr in address.maddrs if _leads_on(maddr, address.peer_id)]
    except (ValueError, LookupError, TypeError) as error:
        reason = f"{address.peer_id} cannot be reached at an address that is none: {error}"
        raise PeerUnavailable(reason, peer_id=address.peer_id) from None
    if not maddrs:
        reason = f"{address.peer_id} cannot be reached: its addresses lead through itself, or through several relays"
        raise PeerUnavailable(reason, peer_id=address.peer_id)
    return maddrs


def _leads_on(maddr: str, peer_id: PeerId) -> bool:
    """Whether an address is direct, or goes through one relay that is somebody else: dialing others takes seconds."""
    relays = maddr.split("/p2p-circuit")[:-1]
    return not relays or (len(relays) == 1 and relays[0].rpartition("/p2p/")[2] != peer_id)
