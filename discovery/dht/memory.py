"""A network in one process: the double of the p2p transport, for tests that need no town.

Every frame is copied through a pipe that holds as much as a wire would, so both sides see what they would see over one.
``MemoryNetwork.cut(peer)`` breaks all streams of a peer, as a lost machine does; ``freeze`` keeps them open and lets
nothing through, as a stopped one does, or one behind a link that is dead; ``stall`` does so to the connection of two
peers until one of them closes it, as TCP does for long after such a link is well again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from weakref import WeakSet

import structlog

from discovery.dht.transport import Stream, StreamHandler
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import MAX_FRAME_BYTES, PeerAddress

log = structlog.get_logger(__name__)

CHECK_SECONDS = 0.1
"""After that a peer that is silent does not answer."""
HELD_BYTES = 2**19
"""What may be on its way in one direction before the sender has to wait, about what libp2p and its daemons hold."""


class _Pipe:
    """One direction of a stream."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._held = 0
        self._changed = asyncio.Event()
        self.ended = self.cut = self.frozen = False

    async def put(self, frame: bytes) -> bool:
        """Whether the frame went in; it waits while the pipe is full."""
        while self._held >= HELD_BYTES and not (self.ended or self.cut):
            await self._change()
        if self.ended or self.cut:
            return False
        self._frames.append(frame)
        self._held += len(frame)
        self._tell()
        return True

    async def look(self) -> bytes | None:
        """The next frame, which stays; ``None`` when no more will come."""
        while self.frozen or (not self._frames and not (self.ended or self.cut)):
            await self._change()
        return self._frames[0] if self._frames else None

    def take(self) -> None:
        """Let go of the frame that was looked at."""
        self._held -= len(self._frames.popleft())
        self._tell()

    def freeze(self, frozen: bool) -> None:
        """Let nothing be read, or again all that was put in."""
        self.frozen = frozen
        self._tell()

    def end(self, *, cut: bool = False) -> None:
        """Nothing more goes in; what is in may still be read."""
        self.ended, self.cut = True, self.cut or cut
        self._tell()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()


class MemoryStream:
    """One side of a pair of pipes."""

    def __init__(self, peer_id: PeerId, inward: _Pipe, outward: _Pipe) -> None:
        self._peer_id = peer_id
        self._in, self._out = inward, outward
        self._has_read_the_end = False

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def send(self, frame: bytes) -> None:
        if self._has_read_the_end or not await self._out.put(bytes(frame)):
            raise PeerUnavailable(f"the stream to {self._peer_id} is closed", peer_id=self._peer_id)

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        frame = await self._in.look()
        if frame is None:
            self._has_read_the_end = True
            if self._in.cut:
                raise PeerUnavailable(f"the stream to {self._peer_id} broke", peer_id=self._peer_id)
            return None
        if len(frame) > limit:
            raise ProtocolViolation(
                f"{self._peer_id} announced a frame of {len(frame)} bytes, the most here is {limit}",
                peer_id=self._peer_id,
            )
        self._in.take()
        return frame

    async def close(self) -> None:
        self._out.end()
        self._in.end()

    def freeze(self, frozen: bool) -> None:
        """Let nothing through in either direction, or all again."""
        self._out.freeze(frozen)
        self._in.freeze(frozen)

    def cut(self) -> None:
        """Break it as a lost machine does: what was sent before may still be read, nothing more can be sent."""
        self._out.end(cut=True)
        self._in.end(cut=True)


class MemoryTransport:
    """A peer on a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, peer_id: PeerId) -> None:
        self._network, self._peer_id = network, peer_id
        self.handlers: dict[str, StreamHandler] = {}
        self.streams: WeakSet[MemoryStream] = WeakSet()
        self.visits = 0
        """Streams that others have opened here."""
        self.tasks: set[asyncio.Task[Any]] = set()

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        self.handlers[protocol] = handler

    async def open(self, address: PeerAddress, protocol: str) -> Stream:
        remote = self._network.peers.get(address.peer_id)
        if remote is None or protocol not in remote.handlers:
            raise PeerUnavailable(f"{address.peer_id} cannot be reached", peer_id=address.peer_id)
        forth, back = _Pipe(), _Pipe()
        for pipe in (forth, back):
            pipe.frozen = self._network.is_silent(self._peer_id, remote.peer_id)
        ours = MemoryStream(address.peer_id, back, forth)
        theirs = MemoryStream(self._peer_id, forth, back)
        self.streams.add(ours)
        remote.streams.add(theirs)
        remote.visits += 1
        task = asyncio.create_task(remote._run(remote.handlers[protocol], theirs))
        remote.tasks.add(task)
        task.add_done_callback(remote.tasks.discard)
        return ours

    async def check(self, peer_id: PeerId) -> bool:
        for seconds in (0.0, CHECK_SECONDS):
            await asyncio.sleep(seconds)
            if not self._network.is_silent(self._peer_id, peer_id):
                return True
        for stream in list(self.streams):
            if stream.peer_id == peer_id:
                stream.cut()
        self._network.stall(self._peer_id, peer_id, stalled=False)
        return False

    def doubt(self, peer_id: PeerId) -> None:
        check = asyncio.create_task(self.check(peer_id))
        self.tasks.add(check)
        check.add_done_callback(self.tasks.discard)

    async def _run(self, handler: StreamHandler, stream: MemoryStream) -> None:
        try:
            await handler(stream)
        except FarError as error:
            log.info("stream_ended", peer=stream.peer_id, code=error.code, reason=error.message)
        finally:
            await stream.close()

    async def close(self) -> None:
        self._network.cut(self._peer_id)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class MemoryNetwork:
    """Who is on the network."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, MemoryTransport] = {}
        self._frozen: set[frozenset[PeerId]] = set()
        self._stalled: set[frozenset[PeerId]] = set()

    def join(self, peer_id: PeerId) -> MemoryTransport:
        """A transport for ``peer_id``."""
        transport = self.peers[peer_id] = MemoryTransport(self, peer_id)
        return transport

    def freeze(self, peer_id: PeerId, *others: PeerId, frozen: bool = True) -> None:
        """Let nothing through between a peer and ``others``, by default all who are here; or let it through again."""
        for other in others or [other for other in self.peers if other != peer_id]:
            (self._frozen.add if frozen else self._frozen.discard)(frozenset((peer_id, other)))
            self._quieten(peer_id, other)

    def stall(self, one: PeerId, other: PeerId, *, stalled: bool = True) -> None:
        """Let nothing through on the connection that two peers have now; or make way for a new one."""
        (self._stalled.add if stalled else self._stalled.discard)(frozenset((one, other)))
        self._quieten(one, other)

    def is_silent(self, one: PeerId, other: PeerId) -> bool:
        """Whether nothing gets through between two peers."""
        pair = frozenset((one, other))
        return pair in self._frozen or pair in self._stalled

    def _quieten(self, one: PeerId, other: PeerId) -> None:
        for here, there in ((one, other), (other, one)):
            transport = self.peers.get(here)
            for stream in list(transport.streams) if transport else []:
                if stream.peer_id == there:
                    stream.freeze(self.is_silent(one, other))

    def cut(self, peer_id: PeerId) -> None:
        """Take a peer off the network and break all its streams."""
        transport = self.peers.pop(peer_id, None)
        for stream in list(transport.streams) if transport else []:
            stream.cut()
