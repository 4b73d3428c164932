"""Streams between peers: the one seam through which the rest of the house knows the network.

Two classes implement it: ``p2p.P2PTransport`` (libp2p through hivemind) and ``memory.MemoryTransport`` (a double for
tests). A stream carries whole frames; :class:`Channel` puts typed messages on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from discovery.protocol.errors import ProtocolViolation
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import MAX_FRAME_BYTES, Failure, Message, PeerAddress, decode, encode

SLOW_BYTES_PER_SECOND = 2_000_000
"""A connection is thought to carry that much at least: what is asked waits behind what was sent before it. One that is
slower, with a long prompt on it, may be taken for a lost one."""

M = TypeVar("M")


class Stream(Protocol):
    """A two-way stream of frames to one peer, whose id the transport has authenticated."""

    @property
    def peer_id(self) -> PeerId:
        """Who is on the other side."""
        ...

    async def send(self, frame: bytes) -> None:
        """Send one frame; :class:`~discovery.protocol.errors.PeerUnavailable` when the stream is broken."""
        ...

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        """The next frame; ``None`` when the other side has closed.

        Raises:
            PeerUnavailable: the stream broke.
            ProtocolViolation: the frame is longer than ``limit`` bytes; of it nothing has been read.
        """
        ...

    async def close(self) -> None:
        """Close both directions; a peer that does not read loses what it has not read by then. Never raises."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]


class Transport(Protocol):
    """Opens streams to peers by protocol name, and serves those that others open."""

    @property
    def peer_id(self) -> PeerId:
        """Our own id."""
        ...

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Give every stream that a peer opens for ``protocol`` to ``handler``; it is closed when that returns."""
        ...

    async def open(self, address: PeerAddress, protocol: str) -> Stream:
        """Open a stream; :class:`~discovery.protocol.errors.PeerUnavailable` when the peer cannot be reached."""
        ...

    async def check(self, peer_id: PeerId) -> bool:
        """Whether a peer answers on the connection to it; also true where there is none yet.

        A connection that carries nothing, as after a time in which the network was cut, may be silent for long after
        the peer can be reached again. It is closed, with all its streams, and the next stream gets a new one.
        """
        ...

    def doubt(self, peer_id: PeerId) -> None:
        """Begin to :meth:`check`, and do not wait for it."""
        ...

    async def close(self) -> None:
        """Close all streams and stop serving."""
        ...


class Channel:
    """Typed messages on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def peer_id(self) -> PeerId:
        """Who is on the other side."""
        return self._stream.peer_id

    async def send(self, message: Message) -> None:
        """Send one message."""
        await self._stream.send(encode(message))

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> Message | None:
        """The next message, of ``limit`` bytes at most, or ``None`` at the end. A :class:`Failure` is not raised."""
        frame = await self._stream.receive(limit)
        return None if frame is None else decode(frame)

    async def expect(self, kind: type[M], limit: int = MAX_FRAME_BYTES) -> M:
        """The next message, which must be a ``kind`` of ``limit`` bytes at most.

        Raises:
            FarError: the one the peer reports, if it sends a :class:`Failure` instead.
            ProtocolViolation: it sends anything else, or closes.
        """
        message = await self.receive(limit)
        if isinstance(message, Failure):
            raise message.to_error()
        if not isinstance(message, kind):
            got = "nothing" if message is None else type(message).__name__
            raise ProtocolViolation(f"{self.peer_id} sent {got} where {kind.__name__} was due")
        return message

    async def close(self) -> None:
        """Close the stream. Never raises."""
        await self._stream.close()
