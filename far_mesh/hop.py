"""One node of a route, seen from the client: its control stream, its receipts."""

from __future__ import annotations

import asyncio
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
    ReceiptIssued,
    Step,
)
from discovery.protocol.receipt import SignedReceipt, read_receipt
from far_mesh.route import RouteHop

log = structlog.get_logger(__name__)


class Hop:
    """Opens a session at a node, listens to it, asks for its last receipt.

    Results and failures go to the callbacks; a result that ``on_result`` refuses with an error is the node's failure.
    """

    def __init__(
        self, route: RouteHop, on_result: Callable[[Step], None], on_failure: Callable[[FarError], object]
    ) -> None:
        self.route = route
        self.receipts: dict[int, SignedReceipt] = {}
        self._on_result, self._on_failure = on_result, on_failure
        self._channel: Channel | None = None
        self._listening: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def address(self) -> PeerAddress:
        """Where this node says it can be reached."""
        return address_of(self.route)

    async def open(self, transport: Transport, opening: Open) -> None:
        """Open the control stream and wait until the node has admitted the session.

        Raises:
            FarError: the node's own refusal, or that it cannot be reached (with ``peer_id`` in ``facts``).
        """
        try:
            self._channel = Channel(await transport.open(self.address, SESSION_PROTOCOL))
            await self._channel.send(opening)
            await self._channel.expect(Opened)
        except FarError as error:
            error.facts.setdefault("peer_id", self.route.node.peer_id)
            raise
        self._listening = asyncio.create_task(self._listen(self._channel))

    async def send(self, step: Step) -> None:
        """Send a step to this node (the first of the route)."""
        assert self._channel is not None
        await self._channel.send(step)

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
            log.info("no_last_receipt", peer=self.route.node.peer_id, reason=str(error))
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

    async def _listen(self, channel: Channel) -> None:
        try:
            while (message := await channel.receive()) is not None:
                match message:
                    case Step():
                        self._on_result(message)
                    case ReceiptIssued():
                        self._keep(message.document)
                    case Failure():
                        self._report(message.to_error(), message.peer_id)
                    case _:
                        raise ProtocolViolation(f"{type(message).__name__} is not due from a node")
            self._report(PeerUnavailable("the node closed the session"))
        except FarError as error:
            self._report(error)

    def _keep(self, document: bytes) -> None:
        try:
            signed = read_receipt(document)
        except ReceiptInvalid as error:
            log.warning("receipt_rejected", peer=self.route.node.peer_id, reason=error.message)
            return
        if signed.peer_id == self.route.node.peer_id:
            self.receipts[signed.receipt.steps] = signed

    def _report(self, error: FarError, peer_id: str | None = None) -> None:
        if not self._closing:
            error.facts.setdefault("peer_id", peer_id or self.route.node.peer_id)
            self._on_failure(error)


def address_of(route: RouteHop) -> PeerAddress:
    """Where a node of a route says it can be reached."""
    return PeerAddress(PeerId(route.node.peer_id), route.node.maddrs)
