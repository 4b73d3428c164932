"""One session on this node: its place on the device, its neighbours, its work log."""

from __future__ import annotations

import asyncio
import contextlib
import time

from discovery.dht.transport import Channel, Transport
from discovery.protocol.errors import FarError, ProtocolViolation
from discovery.protocol.messages import (
    DTYPE_BYTES,
    LINK_PROTOCOL,
    MAX_FRAME_BYTES,
    MAX_PLAIN_BYTES,
    Failure,
    Link,
    Open,
    ReceiptIssued,
    Step,
    WireTensor,
)
from far_node.blocks.prefix import PREFIX_POSITIONS, Keys, prefix_keys
from far_node.errors import BadPosition, SessionTooLong, SessionUnknown
from far_node.executor import Executor, Place
from far_node.receipts import Signer, WorkLog

_LARGE_BYTES = 1 << 18
"""What is hashed beside the event loop, so that the streams of others do not wait for it."""


class NodeSession:
    """Takes steps in order, has them computed, hands them on. ``control`` is the client's own stream."""

    def __init__(self, opening: Open, control: Channel, place: Place, executor: Executor, signer: Signer) -> None:
        self.opening = opening
        self.log = WorkLog(opening, signer)
        self._control, self._place, self._executor = control, place, executor
        self._previous: Channel | None = None
        self._next: Channel | None = None
        self._taking = asyncio.Lock()
        self._computing = False
        self._last_step_at = time.monotonic()
        self.closed = False

    @property
    def client(self) -> str:
        """The peer that opened it."""
        return self._control.peer_id

    @property
    def frame_limit(self) -> int:
        """Bytes of the longest message that can be a step of this session."""
        opening = self.opening
        values = opening.batch * opening.max_length * self._place.blocks.hidden_size
        return min(MAX_FRAME_BYTES, values * DTYPE_BYTES[opening.codec] + MAX_PLAIN_BYTES)

    def idle_seconds(self, now: float) -> float:
        """How long nothing has been asked of us, or what we answered has not been taken."""
        return 0.0 if self._computing else now - self._last_step_at

    async def link_to_next(self, transport: Transport) -> None:
        """Open the stream to the successor, if there is one. Steps wait for it.

        Raises:
            PeerUnavailable: the successor cannot be reached.
        """
        if self.opening.next is None:
            return
        async with self._taking:
            self._next = Channel(await transport.open(self.opening.next, LINK_PROTOCOL))
            if self.closed:  # meanwhile
                await self._next.close()
            await self._next.send(Link(self.opening.session_id))

    def link_from(self, channel: Channel) -> None:
        """Take steps from the predecessor, whose stream ends with the session.

        Raises:
            SessionUnknown: it is another peer that the client named.
            ProtocolViolation: it has linked already.
        """
        if self.opening.previous != channel.peer_id:
            raise SessionUnknown(f"the session expects its steps from {self.opening.previous}")
        if self._previous is not None:
            raise ProtocolViolation("the session has its link already")
        self._previous = channel

    async def take(self, step: Step) -> None:
        """Compute a step and hand the result on; a failure is told to the client on its own stream."""
        async with self._taking:
            if self.closed:
                return
            try:
                self._check(step)
                given = await self._compute(step)
                await self._hand_on(step, given)
                await self._issue_interim_receipt()
            except FarError as error:
                await self.fail(Failure.of(error, error.facts.get("peer_id")))  # who: the successor, where it is lost

    async def fail(self, failure: Failure) -> None:
        """Tell the client, and take no more steps."""
        self.closed = True
        with contextlib.suppress(FarError):  # a client that is gone needs no telling
            await self._control.send(failure)

    async def final_receipt(self) -> None:
        """Wait for the step in progress, then send the last receipt."""
        async with self._taking:
            self.closed = True
            await self._control.send(ReceiptIssued(self.log.receipt().to_bytes()))

    async def close(self) -> None:
        """Let go of the neighbours. The cache goes with the object."""
        self.closed = True
        for neighbour in (self._previous, self._next):
            if neighbour is not None:
                await neighbour.close()

    async def hang_up(self, failure: Failure, patience: float) -> None:
        """End the session from our side: tell the client, who may not be reading, and close its stream."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.fail(failure)
        await self._control.close()

    def _check(self, step: Step) -> None:
        rows, positions, size = step.hidden.shape
        if rows != self.opening.batch:
            raise ProtocolViolation(f"the session has {self.opening.batch} rows, the step {rows}")
        if step.hidden.dtype != self.opening.codec:
            raise ProtocolViolation(f"the session's wire type is {self.opening.codec}, not {step.hidden.dtype}")
        wire_size = self._place.blocks.hidden_size
        if size != wire_size:
            raise ProtocolViolation(f"this model's hidden states have {wire_size} values, not {size}")
        if step.start_position + positions > self.opening.max_length:
            raise SessionTooLong(f"the session was opened for {self.opening.max_length} positions")
        if any(row >= rows for row in step.rows):
            raise BadPosition(f"the session has {rows} rows")

    async def _compute(self, step: Step) -> WireTensor:
        self._computing = True
        try:
            keep = 0 if self.opening.next else step.keep  # a successor needs every position
            computed = await self._executor.compute(self._place, step, keep, await self._prefix_of(step))
            await self._record(step, computed.hidden, computed.cached)
        finally:
            self._computing = False
            self._last_step_at = time.monotonic()
        return computed.hidden

    async def _prefix_of(self, step: Step) -> Keys:
        """Keys of the first step's whole prefix, where states of earlier sessions may be used."""
        is_first = step.start_position == 0 and self.log.is_empty
        if self._place.prefixes is None or not is_first or step.hidden.shape[1] <= PREFIX_POSITIONS:
            return ()
        owner = None if self.opening.share_prefix else self.client.encode() + b"\n" + self.opening.prefix_scope
        span = self.opening.first_block, self.opening.end_block
        return await asyncio.to_thread(prefix_keys, owner, span, step.hidden)

    async def _record(self, step: Step, given: WireTensor, cached: int) -> None:
        if len(step.hidden.data) + len(given.data) > _LARGE_BYTES:
            await asyncio.to_thread(self.log.record, step.start_position, step.hidden, given, cached)
        else:
            self.log.record(step.start_position, step.hidden, given, cached)

    async def _hand_on(self, step: Step, given: WireTensor) -> None:
        target = self._next or self._control
        await target.send(Step(step.index, step.start_position, given, step.keep, step.rows))

    async def _issue_interim_receipt(self) -> None:
        receipt = self.log.interim_receipt()
        if receipt is not None:
            await self._control.send(ReceiptIssued(receipt.to_bytes()))
