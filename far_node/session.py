"""One session on this node: its cache, its neighbours, its work log."""

from __future__ import annotations

import asyncio
import contextlib

import torch

from discovery.dht.transport import Channel, Transport
from discovery.protocol.errors import FarError, ProtocolViolation
from discovery.protocol.messages import (
    LINK_PROTOCOL,
    Failure,
    Link,
    Open,
    ReceiptIssued,
    Step,
    WireTensor,
)
from far_node.blocks.run import Blocks
from far_node.blocks.wire import from_wire, to_wire
from far_node.errors import BadPosition, SessionTooLong
from far_node.executor import Executor
from far_node.receipts import Signer, WorkLog


class NodeSession:
    """Takes steps in order, computes them, hands them on. ``control`` is the client's own stream."""

    def __init__(self, opening: Open, control: Channel, blocks: Blocks, executor: Executor, signer: Signer) -> None:
        self.opening = opening
        self.log = WorkLog(opening, signer)
        self._control, self._blocks, self._executor = control, blocks, executor
        self._cache = blocks.new_cache()
        self._next: Channel | None = None
        self._taking = asyncio.Lock()
        self.closed = False

    async def link_to_next(self, transport: Transport) -> None:
        """Open the stream to the successor, if there is one.

        Raises:
            PeerUnavailable: the successor cannot be reached.
        """
        if self.opening.next is None:
            return
        self._next = Channel(await transport.open(self.opening.next, LINK_PROTOCOL))
        await self._next.send(Link(self.opening.session_id))

    async def take(self, step: Step) -> None:
        """Compute a step and hand the result on; a failure is told to the client on its own stream."""
        async with self._taking:
            if self.closed:
                return
            try:
                self._check(step)
                given = await self._executor.run(lambda: self._compute(step))
                self.log.record(step.start_position, step.hidden, given)
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
        """Let go of the successor. The cache goes with the object."""
        self.closed = True
        if self._next is not None:
            await self._next.close()

    def _check(self, step: Step) -> None:
        rows, positions, size = step.hidden.shape
        if rows != self.opening.batch:
            raise ProtocolViolation(f"the session has {self.opening.batch} rows, the step {rows}")
        if size != self._blocks.hidden_size:
            raise ProtocolViolation(f"this model's hidden states have {self._blocks.hidden_size} values, not {size}")
        if step.start_position + positions > self.opening.max_length:
            raise SessionTooLong(f"the session was opened for {self.opening.max_length} positions")
        if any(row >= rows for row in step.rows):
            raise BadPosition(f"the session has {rows} rows")

    def _compute(self, step: Step) -> WireTensor:
        """On the compute thread."""
        opening, blocks = self.opening, self._blocks
        self._cache.rewind(step.start_position)
        if step.rows:
            self._cache.select_rows(torch.tensor(step.rows, device=blocks.device))
        hidden = from_wire(step.hidden, blocks.device, blocks.dtype)
        output = blocks.run(hidden, self._cache, opening.first_block, opening.end_block, opening.left_padding)
        if opening.next is None and step.keep:
            output = output[:, -step.keep :]
        return to_wire(output, opening.codec)

    async def _hand_on(self, step: Step, given: WireTensor) -> None:
        target = self._next or self._control
        await target.send(Step(step.index, step.start_position, given, step.keep, step.rows))

    async def _issue_interim_receipt(self) -> None:
        receipt = self.log.interim_receipt()
        if receipt is not None:
            await self._control.send(ReceiptIssued(receipt.to_bytes()))
