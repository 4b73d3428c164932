"""One node of a route, seen from the client: its control stream, its receipts, its part in the session."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable

import structlog

from discovery.dht.transport import Channel, Transport
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation, ReceiptInvalid
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import (
    SESSION_PROTOCOL,
    Close,
    Failure,
    Open,
    Opened,
    PeerAddress,
    Ping,
    Pong,
    ReceiptIssued,
    Reroute,
    Rerouted,
    Step,
)
from discovery.protocol.receipt import read_receipt
from far_mesh.contributions import Stated, Stint
from far_mesh.route import RouteHop

log = structlog.get_logger(__name__)

_MOST_RECEIPTS = 4096
"""Kept of one node: more than come due in any context there is."""
_WONDER_SECONDS = 0.5
"""A node that has not opened by then is asked whether the connection to it carries anything."""


class _Question:
    """What a node was asked, and who waits for the answer."""

    def __init__(self, message: Ping | Reroute, link: int = 0) -> None:
        self.message, self.link = message, link
        self.answer: asyncio.Future[Pong | Rerouted] = asyncio.get_running_loop().create_future()

    def is_about(self, failed: str, asked: str) -> bool:
        """Whether the failure of a peer answers it."""
        following = self.message.next if isinstance(self.message, Reroute) else None
        return failed == asked or (following is not None and failed == following.peer_id)


class Hop:
    """Opens a session at a node, listens to it, asks it things, and for its last receipt.

    Results and failures go to the callbacks, a failure with whether we found it ourselves; a result that ``on_result``
    refuses with an error is one. ``links`` are the numbers of those it stands between.
    """

    def __init__(
        self,
        route: RouteHop,
        on_result: Callable[[Hop, Step], None],
        on_failure: Callable[[Hop, FarError, bool], object],
        links: tuple[int, int] = (0, 0),
        first_step: int = 0,
    ) -> None:
        self.route = route
        self.input_link, self.output_link = links
        self._former_input: tuple[int, int] | None = None
        self.first_step = first_step
        self.end_step: int | None = None
        self.receipts: list[Stated] = []
        self.heard_at: dict[int, float] = {}
        """By steps, when the receipt came that covers so many: it is sent when the last of them was given on."""
        self.answered_at = time.monotonic()
        self.is_reached = False
        """Whether there is a connection to it that carries something, as far as we know."""
        self._on_result, self._on_failure = on_result, on_failure
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Question] = {}
        self._closing = False

    @property
    def peer_id(self) -> str:
        """Who it is."""
        return self.route.node.peer_id

    @property
    def address(self) -> PeerAddress:
        """Where this node says it can be reached."""
        return address_of(self.route)

    @property
    def stint(self) -> Stint:
        """Its part in the session so far."""
        return Stint(self.route, tuple(self.receipts), self.first_step, self.end_step)

    async def open(self, transport: Transport, opening: Open) -> None:
        """Open the control stream and wait until the node has admitted the session.

        Raises:
            FarError: the node's own refusal, or that it cannot be reached (with ``peer_id`` in ``facts``).
        """
        try:
            self._channel = await self._admitted(transport, opening)
        except FarError as error:
            error.facts.setdefault("peer_id", self.peer_id)
            raise
        self._listening = asyncio.create_task(self._listen(self._channel))

    async def send(self, step: Step) -> None:
        """Send a step to this node (the first of the route)."""
        assert self._channel is not None
        await self._channel.send(step)

    async def ping(self) -> Pong:
        """How far it has come.

        Raises:
            PeerUnavailable: the stream is broken.
        """
        answer = await self._ask(lambda number: _Question(Ping(number)))
        assert isinstance(answer, Pong)
        return answer

    async def follow(self, previous: str, link: int) -> Rerouted:
        """Have it take its steps from another, over a new link.

        Returns:
            How far it has come.

        Raises:
            FarError: it cannot be reached.
        """
        answer = await self._ask(lambda number: _Question(Reroute(number, previous=PeerId(previous)), link))
        assert isinstance(answer, Rerouted)
        return answer

    async def lead(self, following: PeerAddress, link: int) -> None:
        """Have it hand its results to another, over a new link: those from before as well.

        Raises:
            FarError: it cannot reach the other (whose id is in ``facts``), or cannot be reached itself.
        """
        await self._ask(lambda number: _Question(Reroute(number, next=following), link))

    async def finish(self, patience: float) -> None:
        """Ask for the last receipt and wait for it; then close. A node that gives none is not waited for longer."""
        self._closing = True
        if self._channel is None:
            return
        try:
            async with asyncio.timeout(patience):
                await self._channel.send(Close())
                if self._listening is not None:
                    await asyncio.shield(self._listening)
        except (FarError, TimeoutError) as error:
            log.info("no_last_receipt", peer=self.peer_id, reason=str(error))
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Close without waiting."""
        self._closing = True
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    async def _admitted(self, transport: Transport, opening: Open) -> Channel:
        """A stream on which the node has admitted the session: over a new connection if the one there is is silent."""
        asking = asyncio.create_task(self._ask_in(transport, opening))
        try:
            done, _ = await asyncio.wait((asking,), timeout=_WONDER_SECONDS)
            if done or await transport.check(self.address.peer_id):
                return await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.is_reached = False
        return await self._ask_in(transport, opening)

    async def _ask_in(self, transport: Transport, opening: Open) -> Channel:
        channel = Channel(await transport.open(self.address, SESSION_PROTOCOL))
        self.is_reached = True
        try:
            await channel.send(opening)
            await channel.expect(Opened)
        except BaseException:
            await channel.close()
            raise
        return channel

    async def _ask(self, about: Callable[[int], _Question]) -> Pong | Rerouted:
        assert self._channel is not None
        number = next(self._numbers)
        question = self._asked[number] = about(number)
        try:
            await self._channel.send(question.message)
            return await question.answer
        finally:
            del self._asked[number]

    async def _listen(self, channel: Channel) -> None:
        try:
            while (message := await channel.receive()) is not None:
                self.answered_at = time.monotonic()
                match message:
                    case Step():
                        self._on_result(self, message)
                    case ReceiptIssued():
                        self._keep(message.document)
                    case Failure():
                        self._report(message.to_error(), message.peer_id, is_own_finding=False)
                    case Pong() | Rerouted():
                        self._settle(message)
                    case _:
                        raise ProtocolViolation(f"{type(message).__name__} is not due from a node")
            self._report(PeerUnavailable("the node closed the session"))
        except FarError as error:
            self._report(error)

    def _settle(self, message: Pong | Rerouted) -> None:
        question = self._asked.get(message.number)
        if question is None or question.answer.done():
            return
        if isinstance(question.message, Reroute) and isinstance(message, Rerouted):
            if question.message.next is not None:
                self.output_link = question.link
            else:
                self._former_input = self.input_link, message.taken
                self.input_link = question.link
        question.answer.set_result(message)

    def _keep(self, document: bytes) -> None:
        try:
            signed = read_receipt(document)
        except ReceiptInvalid as error:
            log.warning("receipt_rejected", peer=self.peer_id, reason=error.message)
            return
        if signed.peer_id == self.peer_id:
            link = self.input_link
            if self._former_input is not None and signed.receipt.steps <= self._former_input[1]:
                link = self._former_input[0]  # the roots change with the first step that comes over the new link
            self.receipts.append(Stated(signed, link, self.output_link))
            del self.receipts[:-_MOST_RECEIPTS]
            if not self._closing and len(self.heard_at) < _MOST_RECEIPTS:
                self.heard_at.setdefault(signed.receipt.steps, self.answered_at)

    def _report(self, error: FarError, peer_id: str | None = None, *, is_own_finding: bool = True) -> None:
        error.facts.setdefault("peer_id", peer_id or self.peer_id)
        for question in self._asked.values():
            if not question.answer.done() and question.is_about(str(error.facts["peer_id"]), self.peer_id):
                question.answer.set_exception(error)
        if not self._closing:
            self._on_failure(self, error, is_own_finding)


def address_of(route: RouteHop) -> PeerAddress:
    """Where a node of a route says it can be reached."""
    return PeerAddress(PeerId(route.node.peer_id), route.node.maddrs)
