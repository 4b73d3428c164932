"""The node's door: streams that clients and other nodes open come in here, and messages become typed work."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TypeVar

import psutil
import structlog

from discovery.dht.transport import Channel, Stream, Transport
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
    SESSION_PROTOCOL,
    Close,
    Failure,
    InfoRequest,
    Link,
    NodeInfo,
    Open,
    Opened,
    Step,
)
from far_node.blocks.run import Blocks
from far_node.cache import CacheBudget
from far_node.errors import BlocksNotServed, SessionTooLong, SessionUnknown
from far_node.executor import Executor
from far_node.receipts import Signer
from far_node.session import NodeSession

log = structlog.get_logger(__name__)

M = TypeVar("M")

FIRST_MESSAGE_SECONDS = 10.0
LINK_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Served:
    """What this node offers: its announcement, its blocks, the longest context, and who signs for it."""

    announcement: Announcement
    blocks: Blocks
    context_length: int | None
    signer: Signer


@dataclass
class _OpenSessions:
    """Sessions by id, and who waits for one to open."""

    by_id: dict[SessionId, NodeSession] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, session: NodeSession) -> None:
        self.by_id[session.opening.session_id] = session
        async with self.changed:
            self.changed.notify_all()

    async def wait_for(self, session_id: SessionId) -> NodeSession:
        """A link may arrive before the client's own Open does."""
        try:
            async with asyncio.timeout(LINK_WAIT_SECONDS), self.changed:
                await self.changed.wait_for(lambda: session_id in self.by_id)
        except TimeoutError:
            raise SessionUnknown("no such session is open here") from None
        return self.by_id[session_id]


class NodeHandler:
    """Serves sessions, links between nodes, and questions about the node."""

    def __init__(self, transport: Transport, executor: Executor, budget: CacheBudget, served: Served) -> None:
        self._transport, self._executor, self._budget, self._served = transport, executor, budget, served
        self._sessions = _OpenSessions()
        self._token_layers_done = 0
        self._started_at = time.monotonic()

    async def start(self) -> None:
        """Begin to serve."""
        await self._transport.serve(SESSION_PROTOCOL, self.serve_session)
        await self._transport.serve(LINK_PROTOCOL, self.serve_link)
        await self._transport.serve(INFO_PROTOCOL, self.serve_info)

    @property
    def token_layers_served(self) -> int:
        """Work of all sessions since the start."""
        return self._token_layers_done + sum(s.log.token_layers for s in self._sessions.by_id.values())

    @property
    def open_sessions(self) -> int:
        """Sessions open now."""
        return len(self._sessions.by_id)

    async def serve_session(self, stream: Stream) -> None:
        """A client's control stream: Open, then steps (at the first node), then Close."""
        channel = Channel(stream)
        session: NodeSession | None = None
        try:
            opening = await _first(channel, Open)
            session = await self._open(opening, channel)
            await channel.send(Opened())
            await self._obey(session, channel)
        except PeerUnavailable as error:
            if session is None and error.facts.get("peer_id") != channel.peer_id:
                await channel.send(Failure.of(error, error.facts.get("peer_id")))  # the successor, not the client
        except FarError as error:
            log.info("session_refused", peer=channel.peer_id, code=error.code, reason=error.message)
            await channel.send(Failure.of(error))
        finally:
            if session is not None:
                await self._forget(session)

    async def serve_link(self, stream: Stream) -> None:
        """The predecessor's stream: Link, then steps. Only the peer the client named may link."""
        channel = Channel(stream)
        link = await _first(channel, Link)
        session = await self._sessions.wait_for(link.session_id)
        if session.opening.previous != channel.peer_id:
            raise SessionUnknown(f"the session expects its steps from {session.opening.previous}")
        try:
            while (message := await channel.receive()) is not None:
                if not isinstance(message, Step):
                    raise ProtocolViolation(f"{type(message).__name__} on a link, where only steps travel")
                await session.take(message)
            raise PeerUnavailable("the predecessor closed the link")
        except FarError as error:
            if not session.closed:
                await session.fail(Failure.of(error, channel.peer_id))

    async def serve_info(self, stream: Stream) -> None:
        """Answer what this process is and holds (``rpc_info``)."""
        channel = Channel(stream)
        await _first(channel, InfoRequest)
        await channel.send(self.info())

    def info(self) -> NodeInfo:
        """What this process says of itself."""
        about, blocks = self._served.announcement, self._served.blocks
        return NodeInfo(
            peer_id=about.peer_id,
            wallet=about.wallet,
            model_id=about.model_id,
            model_digest=about.model_digest,
            first_block=about.first_block,
            end_block=about.end_block,
            block_count=about.block_count,
            quantization=about.quantization,
            dtype=about.dtype,
            software=about.software,
            parameter_count=blocks.parameter_count(),
            parameter_bytes=blocks.parameter_bytes(),
            resident_bytes=psutil.Process().memory_info().rss,
            cache_budget_bytes=self._budget.capacity_bytes,
            cache_used_bytes=self._budget.used_bytes,
            open_sessions=self.open_sessions,
            token_layers_served=self.token_layers_served,
            uptime_seconds=int(time.monotonic() - self._started_at),
        )

    async def _open(self, opening: Open, channel: Channel) -> NodeSession:
        self._check(opening)
        blocks = opening.end_block - opening.first_block
        self._budget.admit(opening.session_id, opening.batch, opening.max_length, blocks)
        session = NodeSession(opening, channel, self._served.blocks, self._executor, self._served.signer)
        try:
            await self._sessions.add(session)
            await session.link_to_next(self._transport)
        except BaseException:
            await self._forget(session)
            raise
        return session

    def _check(self, opening: Open) -> None:
        about, longest = self._served.announcement, self._served.context_length
        if opening.model_digest != about.model_digest:
            raise BlocksNotServed(f"this node serves {about.model_id}, not the model asked for")
        if not about.first_block <= opening.first_block < opening.end_block <= about.end_block:
            asked = f"{opening.first_block}:{opening.end_block}"
            raise BlocksNotServed(f"blocks {asked} are asked for, {about.first_block}:{about.end_block} are here")
        if longest is not None and opening.max_length > longest:
            raise SessionTooLong(f"{opening.max_length} positions are asked for, the model's context has {longest}")

    async def _obey(self, session: NodeSession, channel: Channel) -> None:
        while (message := await channel.receive()) is not None:
            match message:
                case Step() if session.opening.previous is None:
                    await session.take(message)
                case Close():
                    await session.final_receipt()
                    return
                case _:
                    raise ProtocolViolation(f"{type(message).__name__} is not due on this stream")

    async def _forget(self, session: NodeSession) -> None:
        await session.close()
        if self._sessions.by_id.pop(session.opening.session_id, None) is not None:
            self._token_layers_done += session.log.token_layers
        self._budget.free(session.opening.session_id)


async def _first(channel: Channel, kind: type[M]) -> M:
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            return await channel.expect(kind)
    except TimeoutError:
        raise ProtocolViolation(f"{channel.peer_id} opened a stream and said nothing") from None
