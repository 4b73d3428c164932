"""A ring of real nodes in one process: real blocks, real handlers, a network of queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from discovery.dht.memory import MemoryNetwork, MemoryTransport
from discovery.dht.peer import SwarmPeer
from discovery.dht.transport import Stream, StreamHandler
from discovery.protocol.announcement import Announcement, Quantization, SignedAnnouncement, sign_announcement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import MAX_FRAME_BYTES, SESSION_PROTOCOL, Message, WireTensor, decode, encode
from discovery.protocol.oncall import Registration
from discovery.protocol.receipt import SignedReceipt
from discovery.tracing import Tracing
from far_mesh.client import Mesh, MeshConfig, Swarm
from far_mesh.config import Treatment
from far_mesh.route import RouteHop
from far_mesh.session import MeshSession, SessionRequest
from far_node.blocks.cut import ModelShape, read_config, shape_of
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.source import ModelSource, find_model
from far_node.blocks.wire import from_wire, to_wire
from far_node.cache import CacheBudget
from far_node.executor import Executor
from far_node.handler import NodeHandler
from far_node.limits import Limits
from far_node.receipts import Signer
from far_node.serving import Serving
from tests.support.documents import announcement, key_of, peer_of

torch.set_num_threads(1)

FAST = MeshConfig(
    step_timeout=20.0, open_timeout=10.0, close_timeout=5.0, open_attempts=2, view_age=0.0, mend_timeout=1.0
)


@lru_cache(maxsize=64)
def blocks_of(path: Path, first: int, end: int, quantization: Quantization = "none") -> Blocks:
    """Blocks of a model, loaded once for all tests; calls on them come one after the other."""
    return load_blocks(source_of(path), first, end, quantization=quantization)


@lru_cache(maxsize=64)
def source_of(path: Path) -> ModelSource:
    """A model directory, identified once."""
    return find_model(str(path))


@dataclass
class RingNode:
    """One node."""

    name: str
    announcement: Announcement
    transport: MemoryTransport
    blocks: Blocks
    executor: Executor
    serving: Serving
    handler: NodeHandler

    @property
    def peer_id(self) -> str:
        """Its peer id."""
        return self.announcement.peer_id

    @property
    def budget(self) -> CacheBudget:
        """Who holds how much cache."""
        return self.serving.budget

    async def until_free(self) -> None:
        """Wait until no session is open here."""
        async with asyncio.timeout(60):
            while self.handler.open_sessions or self.budget.sessions:
                await asyncio.sleep(0)


@dataclass
class _ChangedStream:
    """A stream whose outgoing messages a liar changes."""

    stream: Stream
    change: Callable[[Message], Message | None]

    @property
    def peer_id(self) -> PeerId:
        return self.stream.peer_id

    async def send(self, frame: bytes) -> None:
        message = self.change(decode(frame))
        if message is not None:
            await self.stream.send(encode(message))

    async def receive(self, limit: int = MAX_FRAME_BYTES) -> bytes | None:
        return await self.stream.receive(limit)

    async def close(self) -> None:
        await self.stream.close()


@dataclass
class MemoryBoard:
    """A notice board without a DHT."""

    signed: dict[str, SignedAnnouncement] = field(default_factory=dict)
    reads: int = 0

    async def on_call(self, model_digest: str) -> list[Registration]:
        """Nobody sleeps."""
        return []

    async def nodes_of(self, model_digest: str) -> list[SignedAnnouncement]:
        """As the real one."""
        self.reads += 1
        return [signed for signed in self.signed.values() if signed.announcement.model_digest == model_digest]


@dataclass
class MemoryPeer:
    """What a client sees of its place in the swarm."""

    transport: MemoryTransport
    board: MemoryBoard


class Ring:
    """Nodes on a memory network, and a client's way in."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, source_of(path)
        self.shape: ModelShape = shape_of(read_config(self.source))
        self.network, self.board = MemoryNetwork(), MemoryBoard()
        self.nodes: list[RingNode] = []
        self.crashes: list[Exception] = []  # what no stranger may cause
        self.client = self.network.join(peer_of("client"))

    async def add(
        self,
        first: int,
        end: int,
        *,
        name: str | None = None,
        quantization: Quantization = "none",
        cache_bytes: int = 1 << 28,
        max_sessions: int = 64,
        limits: Limits | None = None,
        blocks: Blocks | None = None,
        keep: Callable[[SignedReceipt], None] | None = None,
        tracing: Tracing | None = None,
        **facts: Any,
    ) -> RingNode:
        """A node that serves ``[first, end)``."""
        name = name or f"node{len(self.nodes)}"
        if blocks is None:
            blocks = await asyncio.to_thread(blocks_of, self.path, first, end, quantization)
        about = announcement(
            name,
            model_digest=self.source.digest,
            block_count=self.shape.block_count,
            first_block=first,
            end_block=end,
            quantization=quantization,
            **{"maddrs": (), **facts},
        )
        limits = limits or Limits(max_sessions=max_sessions)
        executor = Executor(limits)
        serving = await Serving.prepare(
            about,
            blocks,
            Signer(key_of(name), about),
            executor,
            cache_bytes=cache_bytes,
            context_length=self.shape.context_length,
            limits=limits,
        )
        transport = self.network.join(peer_of(name))
        handler = NodeHandler(transport, executor, limits, keep, tracing)
        handler.add(serving)
        await handler.start()
        for protocol, serve in transport.handlers.items():
            transport.handlers[protocol] = self._watched(serve)
        node = RingNode(name, about, transport, blocks, executor, serving, handler)
        self.nodes.append(node)
        self.board.signed[about.peer_id] = sign_announcement(about, key_of(name))
        return node

    def corrupt(self, node: RingNode, change: Callable[[Message], Message | None]) -> None:
        """From now on what ``node`` tells its clients goes through ``change``; None is not sent at all."""
        honest = node.transport.handlers[SESSION_PROTOCOL]

        async def serve(stream: Stream) -> None:
            await honest(_ChangedStream(stream, change))

        node.transport.handlers[SESSION_PROTOCOL] = serve

    def _watched(self, serve: StreamHandler) -> StreamHandler:
        async def watched(stream: Stream) -> None:
            try:
                await serve(stream)
            except FarError:
                raise
            except Exception as bug:
                self.crashes.append(bug)
                raise

        return watched

    @property
    def route(self) -> tuple[RouteHop, ...]:
        """All nodes with all their blocks, in the order they were added."""
        return tuple(RouteHop(node.announcement, *node.announcement.blocks) for node in self.nodes)

    def session(
        self,
        max_length: int = 64,
        *,
        rows: int = 1,
        route: Sequence[RouteHop] = (),
        left_padding: tuple[int, ...] = (),
        price_units: int = 0,
        treatment: Treatment | None = None,
        config: MeshConfig = FAST,
    ) -> MeshSession:
        """A session that is not open yet."""
        request = SessionRequest(
            self.source.digest, max_length, "float32", rows, price_units, left_padding, treatment or Treatment()
        )
        return MeshSession(tuple(route) or self.route, request, config)

    async def opened(self, max_length: int = 64, **options: Any) -> MeshSession:
        """An open session."""
        session = self.session(max_length, **options)
        await session.open(self.client)
        return session

    async def mesh(self, config: MeshConfig = FAST, **options: Any) -> Mesh:
        """The whole client over this network."""
        peer = cast(SwarmPeer, MemoryPeer(self.client, self.board))
        return await Mesh.over(Swarm(peer, cast(Any, None), config), str(self.path), **options)

    def random_hidden(self, positions: int, *, rows: int = 1, seed: int = 0) -> WireTensor:
        """Hidden states to send."""
        generator = torch.Generator().manual_seed(seed)
        return to_wire(torch.randn(rows, positions, self.shape.hidden_size, generator=generator), "float32")

    def tensor(self, wire: WireTensor) -> torch.Tensor:
        """What came back, as a tensor."""
        return from_wire(wire, torch.device("cpu"), torch.float32)

    async def close(self) -> None:
        """End all nodes."""
        await asyncio.gather(*(node.transport.close() for node in self.nodes), self.client.close())
        for node in self.nodes:
            await node.handler.close()
            node.executor.close()


@asynccontextmanager
async def a_ring(path: Path, *ranges: tuple[int, int]) -> AsyncIterator[Ring]:
    """A ring of nodes with these block ranges."""
    ring = Ring(path)
    try:
        for first, end in ranges:
            await ring.add(first, end)
        yield ring
    finally:
        await ring.close()
    assert not ring.crashes, "a node met something that is no error of the family"
