"""The queue at work: one gate for each model. It knows the time, calls who may go in, and finds out how many may.

How many: what the nodes say they take, at most what the operator allows, and less than that while nodes refuse. Several
gateways share a swarm and see nothing of each other but refusals; then each takes a part less at once, and one session
more for each round that nobody refuses, which shares what there is (D.-M. Chiu and R. Jain, Analysis of the Increase
and Decrease Algorithms for Congestion Avoidance in Computer Networks, 1989).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from discovery.protocol.errors import FarError
from far_mesh.marketplace.errors import Conflict, QueueFull, QueueTimeout
from far_mesh.marketplace.inference.queue import Claim, Entry, Full, Queue, Standing

FIRST_GUESS_SECONDS = 5.0
"""What a session is reckoned to take while none has ended."""
NEWEST_COUNTS = 0.1
LOOK_SECONDS = 2.0
DECREASE = 0.75
PAUSE_SECONDS = 1.0
"""Between two tries at nodes that have no room and do not say when to come back."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rules:
    """How many may wait, all together and of one account; for how long; and how many sessions of a model may be open
    at once, 0: as many as its nodes take."""

    size: int
    size_per_account: int
    seconds: float
    most_sessions: int


@dataclass(frozen=True)
class Survey:
    """How many sessions the nodes take. ``obstacle``: why none can be opened at all."""

    sessions: int
    obstacle: FarError | None = None


@dataclass(frozen=True)
class Place:
    """Where somebody stands in the queue, from 1, and in how many seconds it is likely to be their turn. Position 0:
    it is, and the nodes have no room. ``obstacle``: what all are waiting for."""

    position: int
    seconds: float
    obstacle: str | None = None


Look = Callable[[], Awaitable[Survey]]
Clock = Callable[[], float]


class Ticket:
    """A request's place: wait for your :meth:`turn`, and :meth:`leave`, whatever happens."""

    def __init__(self, gate: Gate, claim: Claim, on_leave: Callable[[], None]) -> None:
        self._gate, self._on_leave = gate, on_leave
        self.entry = Entry(claim)
        self.called = asyncio.Event()
        self._given_up = asyncio.Event()
        self._reason: FarError | None = None
        self._has_left = False
        self._pauses_until: float | None = None

    @property
    def has_to_wait(self) -> bool:
        """Whether it is not our turn yet."""
        return not self.called.is_set()

    @property
    def place(self) -> Place | None:
        """Where we stand; None: it is our turn, and there is room."""
        if not self.called.is_set():
            return self._gate.place(self)
        return None if self._pauses_until is None else Place(0, max(0.0, self._pauses_until - self._gate.now()))

    async def turn(self) -> None:
        """Until it is our turn.

        Raises:
            QueueTimeout: it has taken too long.
            FarError: why nobody is served at all, when it has taken too long; what :meth:`give_up` was told.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._gate.rules.seconds):
                await self.called.wait()
        if self._reason is not None:
            raise self._reason
        if self.has_to_wait:
            raise self._gate.too_late(self)

    async def open(self, begin: Callable[[], Awaitable[T]], no_room: tuple[type[FarError], ...]) -> T:
        """What ``begin`` opens at the nodes; tried again for as long as one may wait while they have ``no_room``.

        Raises:
            FarError: of another kind, or the last refusal; what :meth:`give_up` was told.
        """
        patience = self._gate.now() + self._gate.rules.seconds
        while True:
            try:
                opened = await begin()
            except no_room as error:
                self._gate.refused()
                # Not all at once: other gateways have been refused as well.
                pause = (error.retry_after or PAUSE_SECONDS) * random.uniform(0.5, 1.5)  # noqa: S311
                if self._gate.now() + pause > patience:
                    raise
                log.info("nodes_have_no_room", code=error.code, pause=round(pause, 3))
                await self._pause(pause)
            else:
                self._gate.took()
                return opened

    async def _pause(self, seconds: float) -> None:
        self._pauses_until = self._gate.now() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._given_up.wait()
        self._pauses_until = None
        if self._reason is not None:
            raise self._reason

    def give_up(self, reason: FarError) -> None:
        """Wait no more, for this reason. Who is being served already is not disturbed."""
        self._reason = self._reason or reason
        self._given_up.set()
        if self.has_to_wait:
            self.leave()
            self.called.set()

    def leave(self) -> None:
        """Make room. Leaving twice is no fault."""
        if not self._has_left:
            self._has_left = True
            self._gate.end(self)
            self._on_leave()


class Gate:
    """The queue of one model."""

    def __init__(self, look: Look, rules: Rules, now: Clock = time.monotonic) -> None:
        self._look, self.rules, self.now = look, rules, now
        self._queue = Queue(0, rules.size, rules.size_per_account)
        self._tickets: dict[Entry, Ticket] = {}
        self._entered: dict[Entry, float] = {}
        self._survey = Survey(0)
        self._looked_at = -math.inf
        self._window = math.inf
        self._decreased_at = -math.inf
        self._session_seconds: float | None = None
        self._promised = -math.inf
        self._watching: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def in_use(self) -> int:
        """Sessions that are open, or about to be."""
        return self._queue.in_use

    @property
    def capacity(self) -> int:
        """Sessions that may be open at once."""
        return self._queue.capacity

    async def enter(self, ticket: Ticket) -> None:
        """Stand in line.

        Raises:
            QueueFull: there is no place.
        """
        if self.now() - self._looked_at > LOOK_SECONDS:
            with suppress(FarError):
                await self._look_again()
        try:
            admitted = self._queue.add(ticket.entry)
        except Full as full:
            raise self._full(ticket.entry.claim, for_account=full.for_account) from None
        self._tickets[ticket.entry] = ticket
        self._call(admitted)
        if self.waiting and self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def end(self, ticket: Ticket) -> None:
        """Let the next ones in."""
        entered = self._entered.pop(ticket.entry, None)
        if entered is not None:
            self._measure((self.now() - entered) * ticket.entry.claim.width)
        del self._tickets[ticket.entry]
        self._call(self._queue.end(ticket.entry))

    def close(self, reason: FarError) -> None:
        """Send away who waits."""
        for ticket in list(self._tickets.values()):
            ticket.give_up(reason)
        if self._watching is not None:
            self._watching.cancel()

    # ---- how long it takes

    def place(self, ticket: Ticket) -> Place:
        """Where somebody stands who waits."""
        standing = self._queue.standings()[ticket.entry]
        obstacle = self._survey.obstacle
        seconds = self._seconds_to(standing, ticket.entry.claim)
        return Place(standing.position, seconds, None if obstacle is None else obstacle.message)

    def too_late(self, ticket: Ticket) -> FarError:
        """Why somebody has waited in vain."""
        if self._survey.obstacle is not None:
            return self._survey.obstacle
        return QueueTimeout(
            f"it was not your turn within {self.rules.seconds:g} s, and nothing was charged; ask again in a while",
            retry_after=self.place(ticket).seconds,
        )

    def _full(self, claim: Claim, *, for_account: bool) -> QueueFull:
        now = self.now()
        if for_account:
            standings = self._queue.standings()
            first = next(standings[entry] for entry in standings if entry.claim.account == claim.account)
            return QueueFull(
                f"{self.rules.size_per_account} of your requests wait already, the most of one account",
                retry_after=self._seconds_to(first, claim),
            )
        # Each that is refused is told of another place that becomes free, so that not all come back for one.
        last = now + self._interval * max(1, self.rules.size)
        self._promised = min(max(now, self._promised) + self._interval, last)
        return QueueFull(
            f"{self.waiting} requests wait already, the most there is room for", retry_after=self._promised - now
        )

    def _seconds_to(self, standing: Standing, claim: Claim) -> float:
        by_all = standing.position * self._interval
        if claim.concurrency is None:
            return by_all
        return max(by_all, standing.own * self._seconds_each / claim.concurrency)

    @property
    def _seconds_each(self) -> float:
        return FIRST_GUESS_SECONDS if self._session_seconds is None else self._session_seconds

    @property
    def _interval(self) -> float:
        """Seconds from one that goes in to the next, while all sessions are in use."""
        return self._seconds_each / max(1, self.capacity)

    def _measure(self, session_seconds: float) -> None:
        before = session_seconds if self._session_seconds is None else self._session_seconds
        self._session_seconds = before + NEWEST_COUNTS * (session_seconds - before)

    # ---- how many

    def refused(self) -> None:
        """Nodes had no room for one that was let in."""
        if self.now() - self._decreased_at < PAUSE_SECONDS:
            return  # of the same moment: it says nothing new
        self._decreased_at = self.now()
        self._window = max(1.0, DECREASE * min(self._window, self.in_use))
        self._resize()

    def took(self) -> None:
        """Nodes had room."""
        if self._window < self._survey.sessions:
            self._window += 1 / self._window
            self._resize()

    async def _watch(self) -> None:
        """Look who serves while somebody waits: that nobody new comes does not mean that nothing changes."""
        try:
            while self.waiting:
                await asyncio.sleep(LOOK_SECONDS)
                with suppress(FarError):
                    await self._look_again()
        finally:
            self._watching = None

    async def _look_again(self) -> None:
        self._survey = await self._look()
        self._looked_at = self.now()
        self._resize()

    def _resize(self) -> None:
        most = self._survey.sessions if self._survey.obstacle is None else 0
        if self.rules.most_sessions:
            most = min(most, self.rules.most_sessions)
        self._call(self._queue.resize(math.floor(min(most, self._window))))

    def _call(self, admitted: Iterable[Entry]) -> None:
        for entry in admitted:
            self._entered[entry] = self.now()
            self._tickets[entry].called.set()


class Admission:
    """All gates, and the names of the requests that are behind them or in front of them."""

    def __init__(self, rules: Rules, looks: Mapping[str, Look]) -> None:
        self._gates = {model_id: Gate(look, rules) for model_id, look in looks.items()}
        self._names: set[str] = set()

    @property
    def gates(self) -> Mapping[str, Gate]:
        """By the id of their model."""
        return self._gates

    async def enter(self, model_id: str, request_id: str, claim: Claim) -> Ticket:
        """A ticket for the request of this name.

        Raises:
            Conflict: it has one already.
            QueueFull: there is no place to wait in.
        """
        if request_id in self._names:
            raise Conflict(f"{request_id} was asked for before, and waits or is being answered")
        gate = self._gates[model_id]
        self._names.add(request_id)
        ticket = Ticket(gate, claim, lambda: self._names.discard(request_id))
        try:
            await gate.enter(ticket)
        except BaseException:
            self._names.discard(request_id)
            raise
        return ticket

    def close(self, reason: FarError) -> None:
        """Send away who waits, and whoever comes later."""
        for gate in self._gates.values():
            gate.close(reason)
