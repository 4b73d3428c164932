"""The node's door: streams that clients and other nodes open come in here, and messages become typed work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import structlog

from discovery.dht.transport import Channel, Stream, Transport
from discovery.protocol.errors import FarError, InvalidArgument, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
    MAX_PLAIN_BYTES,
    SESSION_PROTOCOL,
    Close,
    Failure,
    InfoRequest,
    Link,
    NodeInfo,
    Open,
    Opened,
    Ping,
    Reroute,
    Step,
)
from discovery.protocol.receipt import SignedReceipt
from discovery.tracing import Tracing, Values, Within
from far_node.errors import BlocksNotServed, Busy, Leaving, SessionExpired, SessionUnknown
from far_node.executor import Executor, Place
from far_node.limits import Limits
from far_node.lobby import Lobby
from far_node.serving import Serving, Standing
from far_node.session import NodeSession

log = structlog.get_logger(__name__)

M = TypeVar("M")

FIRST_MESSAGE_SECONDS = 10.0
LINK_WAIT_SECONDS = 10.0
SWEEP_SECONDS = 1.0
HANG_UP_SECONDS = 2.0
HEAR_OUT_SECONDS = 0.2
BUSY_RETRY_SECONDS = 2.0
STREAMS_WAITING = 512
STREAMS_WAITING_PER_PEER = 64


class _OpenSession:
    """A session, the model it is of and where it computes."""

    def __init__(self, session: NodeSession, serving: Serving, place: Place) -> None:
        self.session, self.serving, self.place = session, serving, place


class _OpenSessions:
    """Sessions by id, and who waits for one to open or to end."""

    def __init__(self) -> None:
        self.by_id: dict[SessionId, _OpenSession] = {}
        self._changed = asyncio.Condition()

    def of(self, serving: Serving) -> list[NodeSession]:
        """Sessions of one model."""
        return [entry.session for entry in self.by_id.values() if entry.serving is serving]

    def add(self, entry: _OpenSession) -> None:
        """An id that nobody has yet; :meth:`tell` must follow."""
        self.by_id[entry.session.opening.session_id] = entry

    def take_out(self, session: NodeSession) -> _OpenSession | None:
        """The entry of a session, once; :meth:`tell` must follow."""
        entry = self.by_id.get(session.opening.session_id)
        if entry is None or entry.session is not session:
            return None
        return self.by_id.pop(session.opening.session_id)

    async def wait_for(self, session_id: SessionId) -> NodeSession:
        """A link may arrive before the client's own Open does."""
        async with self._changed:
            await self._changed.wait_for(lambda: session_id in self.by_id)
        return self.by_id[session_id].session

    async def wait_for_end(self, serving: Serving) -> None:
        """Until no session of a model is open."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.of(serving))

    async def tell(self) -> None:
        """Wake those who wait for a change."""
        async with self._changed:
            self._changed.notify_all()


class NodeHandler:
    """Serves sessions of one model or several, links between nodes, and questions about the node."""

    def __init__(
        self,
        transport: Transport,
        executor: Executor,
        limits: Limits | None = None,
        keep: Callable[[SignedReceipt], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """``keep`` gets the last receipt of every session in which something was computed; ``tracing`` the sessions
        whose clients trace them."""
        self._transport, self._executor, self._limits = transport, executor, limits or Limits()
        self._keep, self._tracing = keep, tracing or Tracing()
        self._servings: dict[str, Serving] = {}
        self._sessions = _OpenSessions()
        self._lobby = Lobby(STREAMS_WAITING, STREAMS_WAITING_PER_PEER)
        self._token_layers_done = 0
        self._started_at = time.monotonic()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve."""
        await self._transport.serve(SESSION_PROTOCOL, self.serve_session)
        await self._transport.serve(LINK_PROTOCOL, self.serve_link)
        await self._transport.serve(INFO_PROTOCOL, self.serve_info)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """End what runs beside the streams; the streams end with the transport."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    def add(self, serving: Serving) -> None:
        """Take sessions for one more model.

        Raises:
            InvalidArgument: this model is served here already.
        """
        digest = serving.announcement.model_digest
        if digest in self._servings:
            raise InvalidArgument(f"{serving.announcement.model_id} is served here already")
        self._servings[digest] = serving

    async def drain(self, model_digest: str, patience: float) -> bool:
        """Take no new sessions of a model and wait until those that are open have ended.

        Args:
            patience: seconds; sessions that are open after that are closed with :class:`Leaving`'s code.

        Returns:
            Whether all of them ended by themselves.
        """
        serving = self._servings[model_digest]
        serving.standing = Standing.LEAVING
        try:
            async with asyncio.timeout(patience):
                await self._sessions.wait_for_end(serving)
        except TimeoutError:
            failure = Failure.of(Leaving("the node leaves and could not wait for the session to end"))
            await asyncio.gather(*(session.hang_up(failure, HANG_UP_SECONDS) for session in self._sessions.of(serving)))
            return False
        return True

    def remove(self, model_digest: str) -> Serving:
        """Serve a model no longer; its sessions have been drained."""
        return self._servings.pop(model_digest)

    @property
    def servings(self) -> tuple[Serving, ...]:
        """The models served, in the order they came."""
        return tuple(self._servings.values())

    @property
    def token_layers_served(self) -> int:
        """Work of all sessions since the start."""
        return self._token_layers_done + sum(e.session.log.token_layers for e in self._sessions.by_id.values())

    @property
    def open_sessions(self) -> int:
        """Sessions open now."""
        return len(self._sessions.by_id)

    async def serve_session(self, stream: Stream) -> None:
        """A client's control stream: Open, then steps (at the first node), then Close."""
        channel = Channel(stream)
        session: NodeSession | None = None
        try:
            opening = await self._first(channel, Open)
            if opening.trace_parent is not None:
                structlog.contextvars.bind_contextvars(trace_id=opening.trace_parent.trace_id)
            with self._traced(opening) as span:
                session = await self._open(opening, channel)
                try:
                    await channel.send(Opened())
                    await self._obey(session, channel)
                finally:
                    span.set(_work_of(session))
        except PeerUnavailable as error:
            if session is None:  # of the successor; where it is the client that is gone, this fails as well
                await channel.send(Failure.of(error, error.facts.get("peer_id")))
        except FarError as error:
            log.info("session_refused", peer=channel.peer_id, code=error.code, reason=error.message)
            await channel.send(Failure.of(error))
        finally:
            if session is not None:
                await self._forget(session)

    async def serve_link(self, stream: Stream) -> None:
        """The predecessor's stream: Link, then steps. Only the peer the client named may link."""
        channel = Channel(stream)
        link = await self._first(channel, Link)
        try:
            async with self._lobby.wait(channel.peer_id, LINK_WAIT_SECONDS):
                session = await self._sessions.wait_for(link.session_id)
        except TimeoutError:
            raise SessionUnknown("no such session is open here") from None
        await session.link_from(channel, link.opened_at)
        try:
            while (message := await channel.receive(session.frame_limit)) is not None and session.is_fed_by(channel):
                if not isinstance(message, Step):
                    raise ProtocolViolation(f"{type(message).__name__} on a link, where only steps travel")
                await session.take(message, channel)
            raise PeerUnavailable("the predecessor closed the link")
        except FarError as error:
            await session.lose_feeder(channel, error)

    async def serve_info(self, stream: Stream) -> None:
        """Answer what this process is and holds (``rpc_info``)."""
        channel = Channel(stream)
        try:
            request = await self._first(channel, InfoRequest)
            await channel.send(self.info(request.model_digest or None))
        except (BlocksNotServed, Busy) as error:
            await channel.send(Failure.of(error))

    def info(self, model_digest: str | None = None) -> NodeInfo:
        """What this process says of itself and of one model it serves; None: the first.

        Raises:
            BlocksNotServed: it does not serve this model.
        """
        serving = self._serving_of(model_digest or next(iter(self._servings), ""))
        about, blocks, load = serving.announcement, serving.blocks, self._executor.load()
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
            cache_budget_bytes=serving.budget.capacity_bytes,
            cache_used_bytes=serving.budget.used_bytes,
            open_sessions=len(self._sessions.of(serving)),
            token_layers_served=self.token_layers_served,
            uptime_seconds=int(time.monotonic() - self._started_at),
            device=str(blocks.device),
            context_length=serving.context_length or 0,
            max_batch_size=self._limits.max_batch_size,
            one_by_one=blocks.one_by_one or "",
            queued_steps=load.queued,
            batch_rows=load.batch_rows,
            decode_tokens_per_second=load.decode_rows_per_second,
            prefill_tokens_per_second=load.prefill_positions_per_second,
            prefix_hits=serving.prefixes.hits,
            prefix_positions=serving.prefixes.positions_reused,
            prefix_bytes=serving.prefixes.used_bytes,
            state=serving.standing.value,
            model_digests=tuple(self._servings),
        )

    def _traced(self, opening: Open) -> Within:
        """The whole session is one span: its steps are far too many. Who does not trace it has none."""
        tracing = Tracing() if opening.trace_parent is None else self._tracing
        about = {"far.first_block": opening.first_block, "far.end_block": opening.end_block}
        return tracing.begin("session", opening.trace_parent, about)

    def _serving_of(self, model_digest: str) -> Serving:
        serving = self._servings.get(model_digest)
        if serving is None:
            served = ", ".join(serving.announcement.model_id for serving in self._servings.values())
            raise BlocksNotServed(f"this node serves {served or 'nothing'}, not the model asked for")
        return serving

    async def _open(self, opening: Open, channel: Channel) -> NodeSession:
        serving = self._serving_of(opening.model_digest)
        serving.check(opening)
        await self._make_way(opening, channel.peer_id)
        self._check_room(opening, channel.peer_id)
        place = serving.admit(opening, channel.peer_id)
        session = NodeSession(opening, channel, place, self._executor, serving.signer)
        self._sessions.add(_OpenSession(session, serving, place))
        try:
            await self._sessions.tell()
            await session.link_to_next(self._transport)
        except BaseException:
            await self._forget(session)
            raise
        return session

    async def _make_way(self, opening: Open, client: str) -> None:
        """Who takes a lost node's place may be that node itself, which knows nothing of its loss. And who opens again,
        as the connection was silent, may find that the first time came through.
        """
        former = self._sessions.by_id.get(opening.session_id)
        if former is not None and former.session.client == client:
            await self._forget(former.session)
            await former.session.hang_up(Failure.of(SessionUnknown("the session was opened anew")), HANG_UP_SECONDS)

    def _check_room(self, opening: Open, client: str) -> None:
        limits, sessions = self._limits, [entry.session for entry in self._sessions.by_id.values()]
        if opening.session_id in self._sessions.by_id:  # of whichever model
            raise Busy("a session with this id is open", retry_after=BUSY_RETRY_SECONDS)
        if len(sessions) >= limits.max_sessions:
            raise Busy(
                f"{limits.max_sessions} sessions are open, the most this node takes", retry_after=BUSY_RETRY_SECONDS
            )
        if sum(session.client == client for session in sessions) >= limits.max_sessions_per_client:
            raise Busy(
                f"{limits.max_sessions_per_client} of your sessions are open, the most this node gives to one client",
                retry_after=BUSY_RETRY_SECONDS,
            )

    async def _obey(self, session: NodeSession, channel: Channel) -> None:
        is_fed_here = session.opening.previous is None
        while (message := await channel.receive(session.frame_limit if is_fed_here else MAX_PLAIN_BYTES)) is not None:
            match message:
                case Step() if is_fed_here:
                    await session.take(message, channel)
                case Ping():
                    await session.pong(message.number)
                case Reroute():
                    await session.reroute(message, self._transport)
                case Close():
                    await session.final_receipt()
                    return
                case _:
                    raise ProtocolViolation(f"{type(message).__name__} is not due on this stream")

    async def _forget(self, session: NodeSession) -> None:
        entry = self._sessions.take_out(session)
        if entry is None:
            return
        entry.serving.free(session.opening, entry.place)
        self._token_layers_done += session.log.token_layers
        if self._keep is not None and not session.log.is_empty:
            self._keep(session.log.receipt())
        await session.close()
        await self._sessions.tell()

    async def _sweep(self) -> None:
        """Close sessions of which nothing was heard for too long, also where the client does not read."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now, patience = time.monotonic(), self._limits.idle_timeout
            idle = [e.session for e in self._sessions.by_id.values() if e.session.idle_seconds(now) > patience]
            error = SessionExpired(f"nothing came for {patience:g} s, and the session was closed")
            await asyncio.gather(*(self._expire(session, Failure.of(error)) for session in idle))

    async def _expire(self, session: NodeSession, failure: Failure) -> None:
        log.info("session_expired", peer=session.client)
        await self._forget(session)
        await session.hang_up(failure, HANG_UP_SECONDS)

    async def _first(self, channel: Channel, kind: type[M]) -> M:
        try:
            async with self._lobby.wait(channel.peer_id, FIRST_MESSAGE_SECONDS):
                message = await channel.receive(MAX_PLAIN_BYTES)
        except Busy:
            await _hear_out(channel)
            raise
        except TimeoutError:
            raise ProtocolViolation(f"{channel.peer_id} opened a stream and said nothing") from None
        if not isinstance(message, kind):  # nor is a failure one of ours, whatever its code
            got = "nothing" if message is None else type(message).__name__
            raise ProtocolViolation(f"{channel.peer_id} sent {got} where {kind.__name__} was due")
        return message


def _work_of(session: NodeSession) -> Values:
    return {
        "far.peer_id": session.log.peer_id,
        "far.steps": session.spent.steps,
        "far.token_layers": session.log.token_layers,
        "far.waited_seconds": session.spent.waited,
        "far.computed_seconds": session.spent.computed,
    }


async def _hear_out(channel: Channel) -> None:
    """Take what is on its way: a stream that is closed before it is read may lose the answer as well."""
    with contextlib.suppress(FarError, TimeoutError):
        async with asyncio.timeout(HEAR_OUT_SECONDS):
            await channel.receive(MAX_PLAIN_BYTES)
