"""Distance between the peers of a memory network: what is sent arrives later, however much is on its way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from discovery.dht.transport import Stream
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import MAX_FRAME_BYTES, SESSION_PROTOCOL
from tests.support.ring import RingNode


@dataclass
class _FarStream:
    """A stream whose outgoing frames take ``seconds``."""

    stream: Stream
    seconds: float

    def __post_init__(self) -> None:
        self._frames: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        self._carrier = asyncio.create_task(self._carry())

    @property
    def peer_id(self) -> PeerId:
        return self.stream.peer_id

    async def send(self, frame: bytes) -> None:
        self._frames.put_nowait((asyncio.get_running_loop().time() + self.seconds, frame))

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        return await self.stream.receive(limit)

    async def close(self) -> None:
        self._frames.put_nowait(None)
        await asyncio.wait([self._carrier])
        await self.stream.close()

    async def _carry(self) -> None:
        with suppress(FarError):
            while (item := await self._frames.get()) is not None:
                due, frame = item
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                await self.stream.send(frame)


def move_away(node: RingNode, seconds: float) -> None:
    """From now on what ``node`` says to its clients takes ``seconds`` more."""
    near = node.transport.handlers[SESSION_PROTOCOL]

    async def serve(stream: Stream) -> None:
        far = _FarStream(stream, seconds)
        try:
            await near(far)
        finally:
            await far.close()

    node.transport.handlers[SESSION_PROTOCOL] = serve
