"""A session: a ring of nodes that remembers a text.

A step enters at the first node, each node sends its output straight to the next, and the last one answers on the
client's own stream, so a client behind NAT needs no open port. A node that is lost is replaced: see :meth:`_replace`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from discovery.dht.transport import Transport
from discovery.protocol.announcement import Codec
from discovery.protocol.codec import WireTensor
from discovery.protocol.errors import DeadlineExceeded, FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.history import History
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import NONCE_BYTES, HopTime, Open, Pong, Resumption, Step
from discovery.protocol.receipt import extend_root, first_root
from far_mesh.config import MeshConfig, Treatment
from far_mesh.contributions import Asked, OwnView, Verified, latest_checkpoint, verify_receipts
from far_mesh.errors import NoRoute
from far_mesh.hop import Hop
from far_mesh.mending import Pace, Shunned, StandStill, can_mend, first_gap, transfer_seconds
from far_mesh.receipts_file import Evidence
from far_mesh.route import RouteHop

T = TypeVar("T")
log = structlog.get_logger(__name__)

FindOthers = Callable[[Sequence[RouteHop], str | None, str | None, Collection[str]], Awaitable[tuple[RouteHop, ...]]]
"""A chain in the place of lost hops, between two peers (None: the client), without these."""

_LOOK_SECONDS, _MOST_LOOK_SECONDS = 0.1, 1.0
_TRY_AGAIN_SECONDS = 0.5
_DOUBT_SECONDS = 0.5
_ROUNDS_KEPT, _ROUNDS_NEEDED = 1024, 4
_TELL_SECONDS = 2.0
_FAREWELL_SECONDS = 1.0  # for the last receipt of one that was replaced and may still be there
_MENDING_SHARE = 0.5  # of the time for opening: a text stands still meanwhile


@dataclass(frozen=True)
class SessionRequest:
    """What a session is opened for: rows × ``max_length`` positions of a model, at a price.

    ``divides``: whether the model's text is the same whether it comes in few steps or many.
    """

    model_digest: str
    max_length: int
    codec: Codec
    rows: int = 1
    price_units: int = 0
    left_padding: tuple[int, ...] = ()
    treatment: Treatment = field(default_factory=Treatment)
    divides: bool = True


@dataclass(frozen=True)
class Mended:
    """Nodes were replaced: blocks ``[first, end)``, after ``seconds`` in which the session stood still.

    ``tried``: who should have replaced them, and could not be reached. ``waiting_for``: nobody is there to replace them
    yet, and the session waits; ``seconds`` is for how long already.
    """

    blocks: tuple[int, int]
    seconds: float
    lost: tuple[str, ...] = ()
    replaced_by: tuple[str, ...] = ()
    waiting_for: bool = False
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """What a session tells of its nodes when it is over.

    Attributes:
        route: who served at the end.
        heard_ms: for each of them, how long after a step of one position had left, with nothing before it, we heard of
            it: by a receipt, and of the last by the answer. The median; None: unknown. Empty: nodes were replaced.
        steps: how many went round.
    """

    route: tuple[RouteHop, ...]
    heard_ms: tuple[float | None, ...]
    steps: int
    verified: Verified


class _Answer:
    """A result that is waited for, and the shape it must have. ``alone``: nothing else was under way when it left."""

    def __init__(self, step: Step, shape: tuple[int, ...], *, alone: bool) -> None:
        self.shape, self.alone = shape, alone
        self.positions = step.hidden.shape[0] * step.hidden.shape[1]
        self.size = len(step.hidden.data)
        self.sent_at = time.monotonic()
        self.times: tuple[HopTime, ...] = ()
        self.given: asyncio.Future[WireTensor] = asyncio.get_running_loop().create_future()


class MeshSession:
    """Steps go in, results come out in order; several may be in flight. Ends with :meth:`finish`.

    Args:
        find_others: who finds nodes in the place of lost ones; None: a lost node ends the session.
        on_mended: told of every replacement, and while one is waited for.
        on_ended: told when it is finished, and its receipts are verified.
    """

    def __init__(
        self,
        route: tuple[RouteHop, ...],
        request: SessionRequest,
        config: MeshConfig,
        find_others: FindOthers | None = None,
        on_mended: Callable[[Mended], None] | None = None,
        on_ended: Callable[[Ended], None] | None = None,
    ) -> None:
        self._request, self._config = request, config
        self._find_others, self._on_mended, self._on_ended = find_others, on_mended, on_ended
        session_id, nonce = new_session_id(), secrets.token_bytes(NONCE_BYTES)
        self.asked = Asked(session_id, nonce, request.model_digest, request.codec, request.price_units)
        self._links = len(route) + 1
        self._hops = [self._hop(hop, (index, index + 1)) for index, hop in enumerate(route)]
        self._stints = list(self._hops)
        self._feed = _Feed(self.asked, self._hops[0], History(joins=request.divides))
        self._received = first_root(session_id)
        self._roots: dict[tuple[int, int], str] = {}
        self._waiting: dict[int, _Answer] = {}
        self._results = 0
        self._checked_steps = 0
        self._positions = [0]
        self._transport: Transport | None = None
        self._error: FarError | None = None
        self._trouble = asyncio.Event()
        self._lost: dict[Hop, FarError] = {}
        self._pace = Pace(config.suspect_after)
        self._stand_still = StandStill(config.ping_timeout)
        self._stood_still: set[str] = set()
        self._tried: list[str] = []
        self._shunned = Shunned(config.shun_seconds)
        self._supervisor: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.last_times: tuple[HopTime, ...] = ()
        self.mended: list[Mended] = []
        self._rounds: deque[float] = deque(maxlen=_ROUNDS_KEPT)
        self._left_at: dict[int, float] = {}  # steps of one position, with nothing before them

    @property
    def route(self) -> tuple[RouteHop, ...]:
        """Who serves now, in order."""
        return tuple(hop.route for hop in self._hops)

    @property
    def divides(self) -> bool:
        """Whether a prompt may come in parts."""
        return self._request.divides

    @property
    def positions(self) -> int:
        """Positions computed, those after a rollback included, over all rows."""
        return self._positions[self._results]

    @property
    def expected_token_layers(self) -> int:
        """What all nodes together are owed for if all did what they should."""
        return self.positions * self._blocks

    @property
    def evidence(self) -> Evidence:
        """The receipts so far, with our account of the session."""
        blocks = self._hops[0].route.first_block, self._hops[-1].route.end_block
        return Evidence(self.asked, blocks, tuple(hop.stint for hop in self._stints), self._own_view(), self._results)

    async def open(self, transport: Transport) -> None:
        """Open at all nodes at once.

        Raises:
            FarError: the first refusal; all streams are closed again. ``facts["failed"]``: who did not open.
        """
        self._transport = transport
        openings = [self._opening(index) for index in range(len(self._hops))]
        try:
            await _open_all(transport, self._hops, openings, self._config.open_timeout)
        except BaseException:
            await self.abandon()
            raise
        self._supervisor = asyncio.create_task(self._supervise())

    async def step(
        self, hidden: WireTensor, start_position: int, *, keep: int = 0, rows: tuple[int, ...] = ()
    ) -> WireTensor:
        """Send hidden states round the ring.

        Args:
            hidden: (rows, positions, size); the first of them stands at ``start_position``, which may lie below the
                positions already computed: then the nodes roll their caches back.
            keep: how many positions to get back, counted from the end; 0 for all.
            rows: cache rows to continue from (beam search).

        Returns:
            The hidden states after the last block.

        Raises:
            FarError: what went wrong and could not be mended.
        """
        if self._error is not None:
            raise self._error
        index = len(self._positions) - 1
        rows_sent, positions, size = hidden.shape
        self._positions.append(self._positions[-1] + rows_sent * positions)
        step = Step(index, start_position, hidden, keep, rows, settled=self._results)
        answer = _Answer(step, (rows_sent, keep or positions, size), alone=not self._waiting)
        self._waiting[index] = answer
        try:
            try:
                await self._feed.give(step)
            except PeerUnavailable as error:
                self._suspect(self._feed.hop, error)
            given = await answer.given
            self.last_times = answer.times  # for who waits for this step, whatever came after it
            return given
        finally:
            self._waiting.pop(index, None)

    def verified_checkpoint(self) -> Verified | None:
        """What is verified at the latest step that all nodes have receipted, if that is news."""
        stints = [hop.stint for hop in self._stints]
        steps = latest_checkpoint(stints, self._results)
        if steps <= self._checked_steps:
            return None
        self._checked_steps = steps
        return verify_receipts(self.asked, stints, self._own_view(), steps)

    def token_layers_at_checkpoint(self) -> int:
        """Like :attr:`expected_token_layers`, at the last checkpoint."""
        return self._positions[self._checked_steps] * self._blocks

    async def finish(self) -> Verified:
        """Close at all nodes, collect their last receipts and verify them."""
        await self._stop_supervising()
        await asyncio.gather(*(hop.finish(self._config.close_timeout) for hop in self._hops), *self._leaving)
        verified = verify_receipts(self.asked, [hop.stint for hop in self._stints], self._own_view())
        if self._on_ended is not None:
            heard = () if self.mended else tuple(map(self._heard_ms, self._hops))
            self._on_ended(Ended(self.route, heard, self._results, verified))
        return verified

    def _heard_ms(self, hop: Hop) -> float | None:
        if hop is self._hops[-1]:
            return 1000.0 * statistics.median(self._rounds) if len(self._rounds) >= _ROUNDS_NEEDED else None
        taken = [at - self._left_at[steps - 1] for steps, at in hop.heard_at.items() if steps - 1 in self._left_at]
        return 1000.0 * statistics.median(taken) if taken else None

    async def abandon(self) -> None:
        """Close all streams; no receipts."""
        await self._stop_supervising()
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*(hop.abandon() for hop in self._hops), *self._leaving, return_exceptions=True)

    @property
    def _blocks(self) -> int:
        return sum(hop.route.end_block - hop.route.first_block for hop in self._hops)

    def _own_view(self) -> OwnView:
        return OwnView(self._roots | self._feed.roots, self._positions)

    def _hop(self, route: RouteHop, links: tuple[int, int], first_step: int = 0) -> Hop:
        return Hop(route, self._take_result, self._on_failure, links, first_step)

    def _opening(
        self,
        index: int,
        hops: Sequence[Hop] = (),
        ends: tuple[Hop | None, Hop | None] = (None, None),
        resumption: Resumption | None = None,
    ) -> Open:
        """How hop ``index`` of ``hops`` is opened, which stand between ``ends`` (None: the client)."""
        request, hops = self._request, hops or self._hops
        before = hops[index - 1] if index else ends[0]
        after = hops[index + 1] if index + 1 < len(hops) else ends[1]
        return Open(
            session_id=self.asked.session_id,
            nonce=self.asked.nonce,
            model_digest=request.model_digest,
            first_block=hops[index].route.first_block,
            end_block=hops[index].route.end_block,
            max_length=request.max_length,
            batch=request.rows,
            codec=request.codec,
            previous=PeerId(before.peer_id) if before else None,
            next=after.address if after else None,
            price_units=request.price_units,
            left_padding=request.left_padding,
            priority=request.treatment.priority,
            share_prefix=request.treatment.share_prefix,
            prefix_scope=request.treatment.prefix_scope,
            resumption=resumption,
            trace_parent=request.treatment.trace_parent,
        )

    def _take_result(self, hop: Hop, step: Step) -> None:
        answer, given = self._waiting.get(step.index), step.hidden
        if hop is not self._hops[-1]:
            raise ProtocolViolation("a result came from a node that is not the last of the route")
        if step.index != self._results or answer is None or answer.given.done():
            raise ProtocolViolation("a result came that nobody waits for")
        if given.shape != answer.shape:
            raise ProtocolViolation(f"a result of shape {given.shape} came where {answer.shape} is due")
        self._results += 1
        self._received = extend_root(self._received, step.start_position, given.shape, given.dtype, given.data)
        self._roots[hop.output_link, self._results] = self._received.hex()
        seconds = time.monotonic() - answer.sent_at
        self._pace.learn(answer.positions, seconds)
        if answer.alone and answer.positions == 1:
            self._rounds.append(seconds)
            self._left_at[step.index] = answer.sent_at
            if len(self._left_at) > _ROUNDS_KEPT:
                del self._left_at[next(iter(self._left_at))]
        answer.times = step.times
        answer.given.set_result(given)

    def _on_failure(self, hop: Hop, error: FarError, is_own_finding: bool) -> None:
        accused = next((one for one in self._hops if one.peer_id == error.facts.get("peer_id")), None)
        if hop not in self._hops or accused is None:  # the echo of a loss that is mended
            return
        if self._find_others is None or not can_mend(error, is_own_finding=is_own_finding or accused is not hop):
            self._fail(error)
        else:
            self._suspect(accused, error)

    def _suspect(self, hop: Hop, error: FarError) -> None:
        if self._find_others is None:
            self._fail(error)
        elif hop in self._hops and hop not in self._lost:
            self._lost[hop] = error
            self._shunned.add(hop.peer_id, time.monotonic(), error.retry_after)
            self._trouble.set()
            if self._transport is not None:
                self._transport.doubt(hop.address.peer_id)

    def _fail(self, error: FarError) -> FarError:
        """The first failure ends the session; later ones are its echoes."""
        if self._error is None:
            self._error = error
            for answer in self._waiting.values():
                if not answer.given.done():
                    answer.given.set_exception(error)
        return self._error

    async def _supervise(self) -> None:
        """Replace who is lost; when an answer takes long, find out who that is."""
        pause = _LOOK_SECONDS
        try:
            while self._error is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._trouble.wait()
                self._trouble.clear()
                if self._lost:
                    await self._mend()
                elif not self._is_overdue():
                    pause = _LOOK_SECONDS
                else:
                    await self._look_around()
                    pause = min(2 * pause, _MOST_LOOK_SECONDS)  # they are there, and slow
        except FarError as error:
            self._fail(error)
        except Exception as bug:
            log.exception("supervision_failed")
            self._fail(FarError(f"the session could not be supervised: {type(bug).__name__}"))

    async def _stop_supervising(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    def _is_overdue(self) -> bool:
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None:
            return False
        age = time.monotonic() - oldest.sent_at
        if age > self._config.step_timeout:
            raise DeadlineExceeded(f"no answer in {self._config.step_timeout:g} s")
        return age > self._pace.patience(oldest.positions)

    async def _look_around(self) -> None:
        """Ask every node how far it has come. Who does not answer is lost, and who does not get what it is sent."""
        slack = transfer_seconds(sum(answer.size for answer in self._waiting.values()))
        patience, hops = self._config.ping_timeout + slack, list(self._hops)
        heard = await asyncio.gather(*(self._ping(hop, patience) for hop in hops))
        pongs = [pong for pong in heard if pong is not None]
        if len(pongs) == len(hops):
            peers = [hop.peer_id for hop in hops]
            sent = len(self._positions) - 1  # nobody can have given out more
            pongs = [replace(pong, given=min(pong.given, sent)) for pong in pongs]
            for index in self._stand_still.suspects(peers, pongs, time.monotonic(), slack):
                # where there is nobody else it may take its own place soon, over a new link
                back_in = None if peers[index] in self._stood_still else _TRY_AGAIN_SECONDS
                self._stood_still.add(peers[index])
                words = f"steps do not get through to {peers[index]}"
                self._suspect(hops[index], PeerUnavailable(words, retry_after=back_in, peer_id=peers[index]))

    async def _ping(self, hop: Hop, patience: float) -> Pong | None:
        assert self._transport is not None
        self._transport.doubt(hop.address.peer_id)  # its host answers sooner than the node, which may be busy
        try:
            async with asyncio.timeout(patience):
                return await hop.ping()
        except TimeoutError:
            reason = PeerUnavailable(f"{hop.peer_id} has not answered for {patience:.1f} s", peer_id=hop.peer_id)
        except FarError as error:
            reason = PeerUnavailable(error.message, peer_id=hop.peer_id)
        self._suspect(hop, reason)
        return None

    async def _mend(self) -> None:
        """Replace all who are lost, also those who get lost meanwhile.

        Raises:
            NoRoute: nobody was found in their place in time.
        """
        started, told_at = time.monotonic(), 0.0
        while self._lost:
            first, end = first_gap({self._hops.index(hop) for hop in self._lost}, len(self._hops))
            try:
                await self._replace(first, end, started)
            except FarError as error:
                span = self._hops[first].route.first_block, self._hops[end - 1].route.end_block
                waited = time.monotonic() - started
                if waited > self._config.mend_timeout:
                    if isinstance(error, NoRoute) or not error.retry:
                        raise
                    raise NoRoute(f"nobody could take over blocks {span[0]}:{span[1]}", uncovered=[span]) from error
                log.info(
                    "mending_goes_on",
                    blocks=span,
                    code=error.code,
                    reason=error.message,
                    peers=error.facts.get("failed"),
                )
                if isinstance(error, NoRoute):
                    for hop in self._hops[first:end]:
                        if hop in self._lost and not self._lost[hop].retry:
                            raise self._lost[hop] from None  # only another node could have mended it
                    if waited >= told_at:
                        told_at = waited + _TELL_SECONDS
                        self._say(Mended(span, waited, waiting_for=True, tried=self._take_tried()))
                    await asyncio.sleep(_TRY_AGAIN_SECONDS)
        now = time.monotonic()
        for answer in self._waiting.values():
            answer.sent_at = now  # they have their whole time again

    async def _replace(self, first: int, end: int, started: float) -> None:
        """Put others in the place of hops ``[first, end)``. Nobody else computes anything twice.

        The node after them tells how far it has come; the new ones open there; the node before them, or we, send them
        all that the lost ones were sent.

        Raises:
            FarError: it did not work; who is to blame is lost or shunned now.
        """
        assert self._find_others is not None
        before = self._hops[first - 1] if first else None
        after = self._hops[end] if end < len(self._hops) else None
        gone = self._hops[first:end]
        span = gone[0].route.first_block, gone[-1].route.end_block
        peers = {hop.peer_id for hop in self._hops}
        excluded = (peers - {hop.peer_id for hop in gone}) | self._shunned.at(time.monotonic())
        ends = (before.peer_id if before else None, after.peer_id if after else None)
        route = await self._find_others([hop.route for hop in gone], *ends, excluded)
        links = range(self._links, self._links + len(route) + 1)
        self._links = links.stop
        taken, needs_replay = self._results, False
        if after is not None:
            told = await self._asking(after, after.follow(route[-1].node.peer_id, links[-1]))
            taken, needs_replay = told.taken, told.needs_replay
            if not self._results <= taken < len(self._positions):
                nonsense = ProtocolViolation(f"{after.peer_id} says that it took {taken} steps", peer_id=after.peer_id)
                self._suspect(after, nonsense)
                raise nonsense
        hops = [self._hop(hop, (links[index], links[index + 1]), taken) for index, hop in enumerate(route)]
        try:
            await self._open_instead(hops, (before, after), taken, needs_replay)
            if before is not None:
                await self._asking(before, before.lead(hops[0].address, links[0]), blamed=hops[0])
        except BaseException:
            await asyncio.gather(*(hop.abandon() for hop in hops))
            raise
        if after is None:
            self._received = first_root(self.asked.session_id)
            self._roots[links[-1], taken] = self._received.hex()
        self._hops[first:end] = hops
        self._stints += hops
        for hop in gone:
            hop.end_step = taken
            self._lost.pop(hop, None)
            self._leaving.add(asyncio.create_task(hop.finish(min(_FAREWELL_SECONDS, self._config.close_timeout))))
        if before is None:
            await self._restart_feed(hops[0], taken)
        self._say(
            Mended(
                span,
                time.monotonic() - started,
                tuple(hop.peer_id for hop in gone),
                tuple(hop.peer_id for hop in hops),
                tried=self._take_tried(),
            )
        )

    def _take_tried(self) -> tuple[str, ...]:
        tried, self._tried = tuple(self._tried), []
        return tried

    async def _restart_feed(self, hop: Hop, at_step: int) -> None:
        try:
            async with asyncio.timeout(self._config.ping_timeout + transfer_seconds(self._feed.held_bytes)):
                await self._feed.restart(hop, at_step)
        except TimeoutError:
            self._suspect(hop, PeerUnavailable(f"{hop.peer_id} takes nothing", peer_id=hop.peer_id))
        except FarError as error:
            self._suspect(hop, error)

    async def _open_instead(
        self, hops: Sequence[Hop], ends: tuple[Hop | None, Hop | None], taken: int, needs_replay: bool
    ) -> None:
        """``needs_replay``: the node after them has not got all that was before ``taken`` either."""
        assert self._transport is not None
        openings = [
            self._opening(
                index,
                hops,
                ends,
                Resumption(taken, self._positions[taken], feeds_new=needs_replay or index + 1 < len(hops)),
            )
            for index in range(len(hops))
        ]
        patience = _MENDING_SHARE * self._config.open_timeout
        opening = asyncio.create_task(_open_all(self._transport, hops, openings, patience))
        try:
            await self._while_they_stay(ends, opening)
        except FarError as error:
            for peer_id in error.facts["failed"]:
                staying = next((hop for hop in ends if hop is not None and hop.peer_id == peer_id), None)
                if staying is not None:
                    self._suspect(staying, error)
                else:
                    self._shunned.add(peer_id, time.monotonic(), error.retry_after)
                    if isinstance(error, (PeerUnavailable, DeadlineExceeded)):
                        self._tried.append(peer_id)
            raise

    async def _while_they_stay(self, ends: tuple[Hop | None, Hop | None], work: asyncio.Task[None]) -> None:
        """Do what cannot be done without the nodes at its ends, until one of them is lost.

        Raises:
            FarError: what went wrong, or that one of them is lost.
        """
        assert self._transport is not None
        try:
            while not work.done():
                for hop in ends:
                    if hop is not None:
                        self._transport.doubt(hop.address.peer_id)
                self._trouble.clear()
                lost = next((hop for hop in ends if hop in self._lost), None)
                if lost is not None:
                    raise PeerUnavailable(f"{lost.peer_id} was lost meanwhile", peer_id=lost.peer_id, failed=[])
                trouble = asyncio.create_task(self._trouble.wait())
                await asyncio.wait((work, trouble), timeout=_DOUBT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                trouble.cancel()
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _asking(self, hop: Hop, question: Awaitable[T], blamed: Hop | None = None) -> T:
        """Wait for a node that stays, which is lost if it is silent. ``blamed`` is shunned when it is at fault."""
        assert self._transport is not None
        self._transport.doubt(hop.address.peer_id)
        slack = transfer_seconds(sum(answer.size for answer in self._waiting.values()))
        try:
            async with asyncio.timeout(self._config.ping_timeout + slack):
                return await question
        except TimeoutError:
            error: FarError = PeerUnavailable(f"{hop.peer_id} does not answer", peer_id=hop.peer_id)
            if blamed is not None and await self._ping(hop, self._config.ping_timeout) is not None:
                reason = f"{hop.peer_id} does not reach {blamed.peer_id}"
                error = PeerUnavailable(reason, peer_id=blamed.peer_id)
        except FarError as failure:
            error = failure
        if blamed is not None and error.facts.get("peer_id") == blamed.peer_id:
            self._shunned.add(blamed.peer_id, time.monotonic())
        else:
            self._suspect(hop, error)
        raise error

    def _say(self, mended: Mended) -> None:
        event = "session_waits" if mended.waiting_for else "session_mended"
        log.info(event, blocks=mended.blocks, seconds=round(mended.seconds, 3))
        if not mended.waiting_for:
            self.mended.append(mended)
        if self._on_mended is not None:
            self._on_mended(mended)


class _Feed:
    """What we send to the first node: kept, so that it can be sent to another in its place."""

    def __init__(self, asked: Asked, hop: Hop, history: History) -> None:
        self.hop = hop
        self.roots: dict[tuple[int, int], str] = {}
        self._asked = asked
        self._history = history
        self._sending = asyncio.Lock()
        self._scope: asyncio.Timeout | None = None
        self._root = first_root(asked.session_id)

    @property
    def held_bytes(self) -> int:
        """What is kept."""
        return self._history.held_bytes

    async def give(self, step: Step) -> None:
        """Send a step.

        Raises:
            PeerUnavailable: the node is lost; the step will be sent to who comes in its place.
        """
        async with self._sending:
            self._history.add(step)
            await self._send(step)

    async def restart(self, hop: Hop, at_step: int) -> None:
        """Send everything to another node."""
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())
        async with self._sending:
            self.hop = hop
            self._root = first_root(self._asked.session_id)
            self.roots[hop.input_link, at_step] = self._root.hex()
            for step in self._history.replay():
                await self._send(step)

    async def _send(self, step: Step) -> None:
        hop, hidden = self.hop, step.hidden
        try:
            async with asyncio.timeout(None) as self._scope:
                await hop.send(step)
        except TimeoutError:
            raise PeerUnavailable(f"{hop.peer_id} takes nothing", peer_id=hop.peer_id) from None
        finally:
            self._scope = None
        self._root = extend_root(self._root, step.start_position, hidden.shape, hidden.dtype, hidden.data)
        steps = hop.first_step if step.is_replay else max(step.index + 1, hop.first_step)
        self.roots[hop.input_link, steps] = self._root.hex()


async def _open_all(transport: Transport, hops: Sequence[Hop], openings: Sequence[Open], patience: float) -> None:
    """Open at all of them at once; the first that fails ends the others.

    Raises:
        FarError: its error; ``facts["failed"]`` names all who have failed by then, or are not open in time.
    """
    tasks = [asyncio.create_task(hop.open(transport, one)) for hop, one in zip(hops, openings, strict=True)]
    try:
        await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_EXCEPTION)
        errors = [task.exception() if task.done() else None for task in tasks]
        error = next((error for error in errors if error is not None), None)
        if error is None and not all(task.done() for task in tasks):
            waited_for = [hop for hop, task in zip(hops, tasks, strict=True) if not task.done()]
            unreached = [hop for hop in waited_for if not hop.is_reached]  # the others may be waiting for these
            late = [hop.peer_id for hop in unreached or waited_for]
            raise DeadlineExceeded(f"the session did not open in {patience:g} s", peer_id=late[0], failed=late)
        if isinstance(error, FarError):
            blamed = [one.facts.get("peer_id") for one in errors if isinstance(one, FarError)]
            error.facts["failed"] = [str(peer_id) for peer_id in dict.fromkeys(blamed)]
        if error is not None:
            raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
