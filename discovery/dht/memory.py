"""A network in one process: the double of the p2p transport, for tests that need no town.

Every frame is copied through a queue, so both sides see what they would see over a wire. ``MemoryNetwork.cut(peer)``
breaks all streams of a peer, as a lost machine does.
"""

from __future__ import annotations

import asyncio

import structlog

from discovery.dht.transport import Stream, StreamHandler
from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import PeerAddress

log = structlog.get_logger(__name__)

_END = object()
_CUT = object()


class MemoryStream:
    """One side of a pair of queues."""

    def __init__(self, peer_id: PeerId, inbox: asyncio.Queue[object], outbox: asyncio.Queue[object]) -> None:
        self._peer_id = peer_id
        self._inbox, self._outbox = inbox, outbox
        self._broken = False
        self._ended = False
        self._closed = False
        self.other: MemoryStream | None = None

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def send(self, frame: bytes) -> None:
        if self._broken or self._ended or self._closed:
            raise PeerUnavailable(f"the stream to {self._peer_id} is closed", peer_id=self._peer_id)
        await self._outbox.put(bytes(frame))

    async def receive(self) -> bytes | None:
        if self._broken:
            raise PeerUnavailable(f"the stream to {self._peer_id} broke", peer_id=self._peer_id)
        if self._ended:
            return None
        item = await self._inbox.get()
        if item is _CUT:
            self._broken = True
            raise PeerUnavailable(f"the stream to {self._peer_id} broke", peer_id=self._peer_id)
        if item is _END:
            self._ended = True
            return None
        assert isinstance(item, bytes)
        return item

    async def close(self) -> None:
        if not self._broken and not self._closed:
            self._closed = True
            self._outbox.put_nowait(_END)
            self._inbox.put_nowait(_END)

    def cut(self) -> None:
        """Break it as a lost machine does: what was sent before may still be read, nothing more can be sent."""
        for side in (self, self.other):
            if side is not None:
                side._closed = True
                side._inbox.put_nowait(_CUT)
        self._broken = True


class MemoryTransport:
    """A peer on a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, peer_id: PeerId) -> None:
        self._network, self._peer_id = network, peer_id
        self.handlers: dict[str, StreamHandler] = {}
        self.streams: list[MemoryStream] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        self.handlers[protocol] = handler

    async def open(self, address: PeerAddress, protocol: str) -> Stream:
        remote = self._network.peers.get(address.peer_id)
        if remote is None or protocol not in remote.handlers:
            raise PeerUnavailable(f"{address.peer_id} cannot be reached", peer_id=address.peer_id)
        forth: asyncio.Queue[object] = asyncio.Queue()
        back: asyncio.Queue[object] = asyncio.Queue()
        ours = MemoryStream(address.peer_id, back, forth)
        theirs = MemoryStream(self._peer_id, forth, back)
        ours.other, theirs.other = theirs, ours
        self.streams.append(ours)
        remote.streams.append(theirs)
        task = asyncio.create_task(remote._run(remote.handlers[protocol], theirs))
        remote._tasks.add(task)
        task.add_done_callback(remote._tasks.discard)
        return ours

    async def _run(self, handler: StreamHandler, stream: MemoryStream) -> None:
        try:
            await handler(stream)
        except FarError as error:
            log.info("stream_ended", peer=stream.peer_id, code=error.code, reason=error.message)
        finally:
            await stream.close()

    async def close(self) -> None:
        self._network.cut(self._peer_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class MemoryNetwork:
    """Who is on the network."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, MemoryTransport] = {}

    def join(self, peer_id: PeerId) -> MemoryTransport:
        """A transport for ``peer_id``."""
        transport = self.peers[peer_id] = MemoryTransport(self, peer_id)
        return transport

    def cut(self, peer_id: PeerId) -> None:
        """Take a peer off the network and break all its streams."""
        transport = self.peers.pop(peer_id, None)
        for stream in transport.streams if transport else []:
            stream.cut()
