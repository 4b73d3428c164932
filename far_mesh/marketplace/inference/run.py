"""One request from hold to capture. It is a task of its own, so a reader who goes away cannot tear the money in two.

    wait for a turn ▸ hold and ask for a lock ▸ wait for the lock ▸ open a route ▸ tokens ▸ receipts
    ▸ let the next one in ▸ capture and ask for a release

A request that is netted, or paid over a channel, asks the chain for nothing and waits for no lock; over a channel each
token is counted before it is generated. Tokens wait for the reader in a short queue, so a generation is never far ahead
of who reads it. Any failure before the end refunds all of it.

A database that is gone holds nobody up who is being served: the tokens go on, the reader is told how it ended and what
it costs, and what is owed is written as soon as the database is back. Should this process end before that, whoever
comes next settles the request by its last checkpoint: never for more than the reader was told.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.errors import FarError
from discovery.protocol.messages import MAX_SCOPE_BYTES
from discovery.tracing import here, traced
from far_mesh.config import Pool, Treatment, parse_priority
from far_mesh.marketplace.channels.meter import Meter, VoucherNotice
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Conflict, DatabaseUnavailable, GenerationFailed, ShuttingDown
from far_mesh.marketplace.inference.admission import Place, Ticket
from far_mesh.marketplace.inference.jobs import NO_ROOM, Done, Embedded, Job, Labour, Said, Terms
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.ledger.split import BPS
from far_mesh.marketplace.limits.schemas import Grant
from far_mesh.marketplace.logs import where_it_failed
from far_mesh.marketplace.payments.intents import Intent
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Outcome, Payment, Status, Work
from far_mesh.marketplace.settlement.requests import (
    Choose,
    Measured,
    activate_request,
    close_request,
    division,
    open_request,
    outcome_of,
    refund_request,
)
from far_mesh.marketplace.settlement.service import Settlement
from far_mesh.marketplace.tiers.promise import TokenTimes
from far_mesh.marketplace.tiers.schemas import Tier

if TYPE_CHECKING:
    from far_mesh.model.tools import ToolFormat

TOKENS_AHEAD = 8
SILENT_SECONDS = 1.0
"""After waiting so long for its turn a stream begins, and tells where it stands."""
CHECKPOINT_SECONDS = 2.0
_SCOPE_KEY = secrets.token_bytes(32)

Item = Said | Embedded | VoucherNotice
"""What comes of a run: tokens or vectors, and vouchers that it waits for."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Keeper(Protocol):
    """Keeps an answer in the place of a reader: what it writes is written together with the money, or not at all.
    Whatever it raises ends the request, and all of it is refunded."""

    def said(self, item: Item) -> None:
        """Something came."""

    async def held(self, connection: AsyncConnection) -> None:
        """In the transaction that holds the money."""

    async def captured(self, connection: AsyncConnection, run: Run, answer: Answer) -> None:
        """In the transaction that captures it."""


@dataclass(frozen=True)
class Order:
    """What is to be done, and for whom. ``streamed``: the reader gets tokens as they come. ``choose`` is there when
    what the user owes decides how it is paid, ``intent`` when the user has signed for its escrow, and ``meter`` when it
    is paid over a channel. ``tool_format`` is how calls of tools are written in it, if there are any. With a ``keeper``
    nobody reads: it gets all that comes. ``grant``: how it counts for the limits of the account."""

    session: NewSession
    tier: Tier
    mesh: MeshLike
    job: Job
    streamed: bool
    grant: Grant
    choose: Choose | None = None
    intent: Intent | None = None
    meter: Meter | None = None
    tool_format: ToolFormat | None = None
    pool: Pool | None = None
    keeper: Keeper | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds."""

    lock_seconds: int
    generation_seconds: int
    reader_seconds: float


@dataclass(frozen=True)
class Answer:
    """How a request ended, and each text of it."""

    request_id: str
    model_id: str
    finish_reasons: tuple[str, ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    latency_ms: int
    time_to_first_token_ms: int | None
    outcome: Outcome
    mended: int | None

    @property
    def finish_reason(self) -> str:
        """How its text ended; of several the first."""
        return self.finish_reasons[0]


class Run:
    """A request under way. Iterate for the tokens, then ask :meth:`answer`."""

    def __init__(
        self,
        order: Order,
        ticket: Ticket,
        database: Database,
        settlement: Settlement,
        gateway: Gateway,
        limits: Limits,
    ) -> None:
        self._order = order
        self._ticket = ticket
        self._queued_seconds: float | None = None
        self._database = database
        self._settlement = settlement
        self._gateway = gateway
        self._limits = limits
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue(TOKENS_AHEAD)
        self._opened = asyncio.Event()
        self._stop_asked = False
        self._reader_is_gone = False
        self._delivered = 0
        self._handed_over = 0
        self._cut: str | None = None
        self._started = time.monotonic()
        self._first_token: float | None = None
        self._times = TokenTimes()
        self._payment = order.session.payment
        self._told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._to_keep: Work | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._go())

    @property
    def request_id(self) -> str:
        """The one name of this request, here, in the books and on chain."""
        return self._order.session.request_id

    @property
    def model_id(self) -> str:
        """What answers."""
        return self._order.session.model_id

    @property
    def tier(self) -> str:
        """How it is served."""
        return self._order.session.tier

    @property
    def queued_seconds(self) -> float | None:
        """How long it was in the queue; None: its turn has not come."""
        return self._queued_seconds

    @property
    def task(self) -> asyncio.Task[Answer]:
        """The task that does it all."""
        return self._task

    @property
    def is_metered(self) -> bool:
        """Whether each token is paid with vouchers while the answer is read."""
        return self._order.meter is not None

    @property
    def was_stopped(self) -> bool:
        """Whether somebody wanted it to end before its end."""
        return self._stop_asked

    @property
    def tool_format(self) -> ToolFormat | None:
        """How calls of tools are written in the answer, if there are any."""
        return self._order.tool_format

    @property
    def grant(self) -> Grant:
        """How it counts for the limits of the account."""
        return self._order.grant

    @property
    def place(self) -> Place | None:
        """Where it waits for its turn; None: it does not."""
        return None if self._told.done() else self._ticket.place

    # ---- for the reader

    async def opened(self) -> None:
        """Until a route stands and the money is locked, or raise what was in the way. Who reads a stream need not wait
        any longer than a moment for its turn: the stream tells."""
        await self._opened.wait()
        if self._told.done():
            self._told.result()

    async def __aiter__(self) -> AsyncIterator[Item]:
        while (item := await self._queue.get()) is not None:
            self._delivered += not isinstance(item, VoucherNotice)
            yield item

    async def answer(self) -> Answer:
        """How it ended, once it has. While the database is gone, what it will write.

        Raises:
            FarError: it failed, and everything is refunded.
        """
        return await asyncio.shield(self._told)

    def stop(self) -> None:
        """End after the present token. The reader gets what there is, and the bill for it."""
        self._stop_asked = True

    def reader_left(self) -> None:
        """Nobody listens any more: stop, and settle for what was delivered."""
        self._stop_asked = self._reader_is_gone = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)  # should somebody read on after all, there is an end
        self._ticket.give_up(GenerationFailed("the reader left before the answer began"))

    # ---- the walk

    async def _go(self) -> Answer:
        try:
            answer = await self._from_hold_to_capture()
        except Exception as error:
            await self._tell(error)
            raise
        except asyncio.CancelledError:
            await self._tell(ShuttingDown("this gateway stops; no more is charged than was delivered", retry_after=5.0))
            raise
        else:
            await self._tell(answer)
            return answer
        finally:
            self._ticket.leave()
            if self._keeping is not None:
                self._keeping.cancel()

    async def _from_hold_to_capture(self) -> Answer:
        await self._turn()
        self._queued_seconds = time.monotonic() - self._started
        await self._hold()
        try:
            return await self._serve()
        except FarError as error:
            await self._refund(error)
            raise
        except Exception as error:  # the edge of the task: a bug must not leave money held
            log.error("request_broke", request_id=self.request_id, **where_it_failed(error))
            told = FarError("something went wrong on our side; nothing was charged")
            await self._refund(told)
            raise told from None

    async def _tell(self, end: Answer | Exception) -> None:
        """Let the reader know how it ends. What is said first counts."""
        if self._told.done():
            return
        if isinstance(end, Exception):
            self._told.set_exception(end)
            self._told.exception()  # the reader may be gone, and then nobody else asks for it
        else:
            self._told.set_result(end)
        self._opened.set()
        await self._hand_over(None)

    @traced("queue")
    async def _turn(self) -> None:
        if not self._order.streamed:
            await self._ticket.turn()
            return
        telling = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._opened.set)
        try:
            await self._ticket.turn()
        finally:
            telling.cancel()

    @traced("payment", {"far.act": "hold"})
    async def _hold(self) -> None:
        order = self._order
        async with self._database.writing() as connection:
            session = await open_request(
                connection,
                order.session,
                self._gateway,
                self._limits.lock_seconds,
                intent=order.intent,
                choose=order.choose,
            )
            if order.meter is not None:
                await order.meter.begin(connection)
            if order.keeper is not None:
                await order.keeper.held(connection)
        self._payment = session.payment
        self._settlement.new_rows.ring()

    async def _serve(self) -> Answer:
        if self._payment is Payment.ESCROW:
            await self._lock()
        if self._reader_is_gone:
            raise GenerationFailed("the reader left before the answer began")
        labour = await self._ticket.open(self._begin, NO_ROOM)
        try:
            self._opened.set()
            await self._pass_on(labour)
        except FarError as error:
            await self._close_quietly(labour)
            raise GenerationFailed(
                f"the answer broke off ({error.code}: {error.message}); nothing is charged, please ask again",
                cause=error.code,
            ) from error
        except BaseException:
            await self._close_quietly(labour)
            raise
        done = await labour.finish()
        self._ticket.leave()  # the nodes are free: what is still to be written does not concern the next one
        return await self._capture(done)

    @traced("payment", {"far.act": "lock"})
    async def _lock(self) -> None:
        escrow = await self._settlement.locked(self._order.session.user_wallet, self.request_id)
        async with self._database.writing() as connection:
            await activate_request(connection, self.request_id, escrow.fee_bps)

    async def _begin(self) -> Labour:
        order, prices = self._order, self._order.session.prices
        # Receipts name what is offered for a thousand token-layers, net of the platform's fee.
        offered = prices.completion * 1000 * (BPS - prices.fee_bps) // (BPS * order.mesh.block_count)
        scope = _scope_of(order.session.user_wallet)
        treatment = Treatment(parse_priority(order.tier.priority), scope, trace_parent=here().parent)
        # Who reads an answer in one piece has got nothing of it when we crash, so there is nothing to settle by.
        keep = self._keep_checkpoint if order.streamed else None
        terms = Terms(offered, treatment, keep, in_turn=order.meter is not None, pool=order.pool)
        return await order.job.begin(order.mesh, terms)

    @traced("inference")
    async def _pass_on(self, labour: Labour) -> None:
        try:
            async with asyncio.timeout(self._limits.generation_seconds):
                items = aiter(labour)
                while await self._may_go_on() and (item := await self._times.wait_for(items)) is not None:
                    self._first_token = self._first_token or time.monotonic()
                    if isinstance(item, Said):
                        self._times.came(item.index)
                    await self._hand_over(item)
                    self._handed_over += 1
                    if self._stop_asked:
                        return
        except TimeoutError:
            log.warning("generation_timed_out", request_id=self.request_id)

    async def _may_go_on(self) -> bool:
        meter = self._order.meter
        if meter is not None:
            self._cut = await _patiently(lambda: meter.token(self._hand_over, lambda: self._stop_asked))
        return self._cut is None

    async def _hand_over(self, item: Item | None) -> None:
        if self._order.keeper is not None:
            if item is not None:
                self._order.keeper.said(item)
        elif not self._reader_is_gone:
            try:
                async with asyncio.timeout(self._limits.reader_seconds):
                    await self._queue.put(item)
            except TimeoutError:
                log.info("reader_takes_nothing", request_id=self.request_id)
                self.reader_left()

    async def _keep_checkpoint(self, proven: Work) -> None:
        """Note what a crash would be settled by. The answer waits a moment for it, but for no database that is gone."""
        self._to_keep = self._payable(proven, self._delivered)
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep())
            if (await asyncio.wait([self._keeping], timeout=CHECKPOINT_SECONDS))[0]:
                self._keeping.result()

    async def _keep(self) -> None:
        while (work := self._to_keep) is not None:
            self._to_keep = None
            try:
                async with self._database.writing() as connection:
                    is_ours = await sessions.keep_checkpoint(connection, self.request_id, work)
            except DatabaseUnavailable as error:
                log.warning("checkpoint_not_kept", request_id=self.request_id, code=error.code)
                return
            if not is_ours:
                log.warning("request_ended_elsewhere", request_id=self.request_id)
                self._stop_asked = True  # nobody is charged for what comes now

    async def _close_quietly(self, labour: Labour) -> None:
        """Let the nodes go. What they did is not charged, so what they say now does not matter."""
        try:
            await labour.finish()
        except FarError as error:
            log.info("generation_not_closed", request_id=self.request_id, code=error.code)

    @traced("payment", {"far.act": "capture"})
    async def _capture(self, done: Done) -> Answer:
        work = self._payable(done.work, self._delivered if self._reader_is_gone else self._handed_over)
        if self._order.meter is not None and self._cut is None:
            meter, cost = self._order.meter, division(self._order.session, work).cost
            await _patiently(lambda: meter.paid(cost, self._hand_over, lambda: self._stop_asked))
        reasons = done.finish_reasons
        if self._cut is not None:
            reasons = tuple(self._cut if reason == "stopped" else reason for reason in reasons)
        measured = Measured(
            reasons[0], self._since_start(time.monotonic()), self._time_to_first_token(), self._times.p95_ms
        )

        async def close() -> Answer:
            async with self._database.writing() as connection:
                outcome = await close_request(connection, self.request_id, work, measured)
                answer = self._answer(reasons, work, measured, outcome, done.mended)
                if self._order.keeper is not None:
                    await self._order.keeper.captured(connection, self, answer)
            return answer

        async def waits() -> None:
            # What a channel pays depends on its vouchers, which only the database knows.
            if self._order.meter is None:
                outcome = outcome_of(self._order.session, work)
                await self._tell(self._answer(reasons, work, measured, outcome, done.mended))

        try:
            answer = await _patiently(close, waits)
        except Conflict:
            answer = await _patiently(lambda: self._as_booked(reasons, done.mended))
        self._settlement.new_rows.ring()
        return answer

    async def _as_booked(self, reasons: tuple[str, ...], mended: int | None) -> Answer:
        """The request was ended in the books already: by this process, to which the database could not say so any more,
        or by another, which took this one for dead. Nothing is charged on top of that.

        Raises:
            GenerationFailed: all of it was refunded.
        """
        async with self._database.reading() as connection:
            session = await sessions.find(connection, self.request_id)
            if session is None or session.id != self._order.session.id or session.status is not Status.COMPLETED:
                raise GenerationFailed("this gateway was taken for dead meanwhile, and all was refunded")
            shares = await sessions.contributions(connection, session.id)
        outcome = Outcome(
            session.held_units,
            session.total_cost_units or 0,
            session.fee_units or 0,
            session.refund_units or 0,
            shares,
            session.service_level_met,
            session.credit_units,
            session.spent_credit_units,
        )
        work = Work(session.prompt_tokens, session.token_count, (), 0, session.cached_tokens)
        measured = Measured(reasons[0], self._since_start(time.monotonic()), self._time_to_first_token())
        return self._answer(reasons, work, measured, outcome, mended)

    def _answer(
        self, reasons: tuple[str, ...], work: Work, measured: Measured, outcome: Outcome, mended: int | None
    ) -> Answer:
        return Answer(
            self.request_id,
            self._order.session.model_id,
            reasons,
            work.prompt_tokens,
            min(work.cached_tokens, work.prompt_tokens),
            work.completion_tokens,
            measured.latency_ms or 0,
            measured.time_to_first_token_ms,
            outcome,
            mended,
        )

    def _payable(self, work: Work, tokens: int) -> Work:
        """Proven work for so many tokens at most, and without the shares of nodes that named a wallet nobody can be
        paid at: the escrow would refuse the whole release, and the others would go unpaid with them."""
        shares = tuple(share for share in work.shares if share.wallet not in self._settlement.unpayable)
        return replace(work, shares=shares, completion_tokens=min(tokens, work.completion_tokens))

    @traced("payment", {"far.act": "refund"})
    async def _refund(self, error: FarError) -> None:
        async def refund() -> bool:
            async with self._database.writing() as connection:
                return await refund_request(connection, self.request_id, error.code)

        await _patiently(refund, lambda: self._tell(error))
        self._settlement.new_rows.ring()

    def _since_start(self, moment: float) -> int:
        return round((moment - self._started) * 1000)

    def _time_to_first_token(self) -> int | None:
        return None if self._first_token is None else self._since_start(self._first_token)


def _scope_of(wallet: str) -> bytes:
    """Which prompts a node may recognise: those of one user, whom the node cannot tell by it."""
    return hashlib.blake2b(wallet.encode(), key=_SCOPE_KEY, digest_size=MAX_SCOPE_BYTES).digest()


async def _nothing() -> None:
    """Nobody has to be told."""


async def _patiently(act: Callable[[], Awaitable[T]], waits: Callable[[], Awaitable[None]] = _nothing) -> T:
    """Do it as soon as the database can: what is owed must be written. ``waits`` is called when it cannot at once. If
    this process ends before, whoever comes next recovers it."""
    pause = 0.1
    while True:
        try:
            return await act()
        except DatabaseUnavailable:
            await waits()
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)
