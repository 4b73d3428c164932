"""One session on this node: its place on the device, its neighbours, its work log, and what it has handed on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from discovery.dht.transport import Channel, Transport
from discovery.protocol.codec import WireTensor, position_bytes
from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.history import History
from discovery.protocol.messages import (
    LINK_PROTOCOL,
    MAX_FRAME_BYTES,
    MAX_HOPS,
    MAX_PLAIN_BYTES,
    Failure,
    HopTime,
    Link,
    Open,
    PeerAddress,
    Pong,
    ReceiptIssued,
    Reroute,
    Rerouted,
    Step,
)
from far_node.blocks.prefix import PREFIX_POSITIONS, Keys, prefix_keys
from far_node.errors import BadPosition, SessionTooLong, SessionUnknown
from far_node.executor import Computed, Executor, Place
from far_node.inbox import Inbox
from far_node.receipts import Signer, WorkLog

_OnLoss = Callable[[str], Awaitable[None]]

_LARGE_BYTES = 1 << 18
"""What is hashed beside the event loop, so that the streams of others do not wait for it."""
_TAKEN_BACK_BYTES = 1 << 20
"""Of steps in flight that take each other back, beside all positions of the session."""


@dataclass
class Spent:
    """What the steps of a session took: how many they were, and seconds until their turn and in computing."""

    steps: int = 0
    waited: float = 0.0
    computed: float = 0.0


class NodeSession:
    """Takes steps in order, has them computed, hands them on. ``control`` is the client's own stream.

    A neighbour that is lost does not end it: steps that were taken are computed, what they give is kept, and the
    client, who is told, sends a :class:`Reroute`.
    """

    def __init__(self, opening: Open, control: Channel, place: Place, executor: Executor, signer: Signer) -> None:
        self.opening = opening
        self.log = WorkLog(opening, signer)
        self.spent = Spent()
        self._control, self._place, self._executor = control, place, executor
        self._hidden_size = place.blocks.hidden_size
        all_bytes = opening.batch * opening.max_length * position_bytes(opening.codec, self._hidden_size)
        self.frame_limit = min(MAX_FRAME_BYTES, all_bytes + MAX_PLAIN_BYTES)
        """Bytes of the longest message that can be a step of this session: hidden states of all rows and positions."""
        self._inbox = Inbox(self._do, self.frame_limit)
        self._taken = self._given = opening.resumption.at_step if opening.resumption else 0
        self._has_begun = False
        self._replayed = 0
        self._prefix: Keys = ()
        self._feeder, self._previous = opening.previous, None if opening.previous else control
        self._link_opened_at, self._feeder_has_spoken = -1, False
        history = History(joins=place.blocks.divides)
        self._successor = _Successor(opening, self.log, history, all_bytes + _TAKEN_BACK_BYTES, self._lost_successor)
        self._resending: asyncio.Task[None] | None = None
        self._last_step_at = time.monotonic()
        self.closed = False

    @property
    def client(self) -> str:
        """The peer that opened it."""
        return self._control.peer_id

    def idle_seconds(self, now: float) -> float:
        """How long nothing has been asked of us, or what we answered has not been taken."""
        return 0.0 if self._place.is_computing else now - self._last_step_at

    async def link_to_next(self, transport: Transport) -> None:
        """Open the stream to the successor, if there is one.

        Raises:
            PeerUnavailable: the successor cannot be reached.
        """
        if self.opening.next is not None:
            await self._successor.link(transport, self.opening.next)
            if self.closed:  # meanwhile
                await self._successor.close()

    async def link_from(self, channel: Channel, opened_at: int) -> None:
        """Take steps from the predecessor, whose stream ends with the session. Until it has sent one it may link anew.

        Raises:
            SessionUnknown: it is another peer that the client named.
            ProtocolViolation: it has linked already, and this link is not a later one, or steps came over the other.
        """
        if self._feeder != channel.peer_id:
            raise SessionUnknown(f"the session expects its steps from {self._feeder}")
        if self._feeder_has_spoken or opened_at <= self._link_opened_at:
            raise ProtocolViolation("the session has its link already")
        old, self._previous, self._link_opened_at = self._previous, channel, opened_at
        if old is not None:
            await old.close()

    def is_fed_by(self, channel: Channel) -> bool:
        """Whether steps are taken from this stream now: no longer, once another was named in its place."""
        return self._previous is channel

    async def take(self, step: Step, channel: Channel) -> None:
        """A step has come: it is computed and handed on in its turn; a failure is told to the client."""
        await self._inbox.room_for(step)
        if self.closed or not self.is_fed_by(channel):
            return
        try:
            self._check_order(step)
        except FarError as error:
            await self.fail(self._blaming_feeder(error))
            return
        if step.is_replay:
            self._replayed = step.start_position + step.hidden.shape[1]
        else:
            self._has_begun, self._taken = True, step.index + 1
        self._last_step_at = time.monotonic()
        self._feeder_has_spoken = True
        self._inbox.put(step)

    async def lose_feeder(self, channel: Channel, error: FarError) -> None:
        """The predecessor's stream is over. If nothing came over it, it may link again; else the client is told."""
        if self.is_fed_by(channel) and not self.closed:
            self._previous = None
            if self._feeder_has_spoken or isinstance(error, ProtocolViolation):
                self._feeder = None
                await self._tell(Failure.of(error, channel.peer_id))

    async def reroute(self, message: Reroute, transport: Transport) -> None:
        """Take steps from another, or hand them to another, who gets all that was handed on before."""
        if message.previous is not None:
            old, self._previous, self._feeder = self._previous, None, message.previous
            self._link_opened_at, self._feeder_has_spoken = -1, False
            await self._inbox.then(self._end_input_chain)
            if old is not None:
                await old.close()
            self._replayed = 0
        answer = Rerouted(message.number, self._taken, self.opening.resumption is not None and not self._has_begun)
        if message.next is None:
            await self._tell(answer)
        else:
            await self._replace_successor(transport, message.next, answer)

    async def pong(self, number: int) -> None:
        """Say how far we are."""
        await self._tell(Pong(number, self._taken, self._given))

    async def fail(self, failure: Failure) -> None:
        """Tell the client, and take no more steps."""
        self.closed = True
        await self._tell(failure)

    async def final_receipt(self) -> None:
        """Compute what was taken in, then send the last receipt."""
        await self._inbox.drained()
        if self._resending is not None:  # a receipt tells of all that was given, or of none
            await asyncio.wait([self._resending])
        self.closed = True
        await self._control.send(ReceiptIssued(self.log.receipt().to_bytes()))

    async def close(self) -> None:
        """Let go of the neighbours. The cache goes with the object."""
        self.closed = True
        if self._resending is not None:
            self._resending.cancel()
            await asyncio.gather(self._resending, return_exceptions=True)
        await self._inbox.close()
        await self._successor.close()
        if self._previous is not None and self._previous is not self._control:
            await self._previous.close()

    async def hang_up(self, failure: Failure, patience: float) -> None:
        """End the session from our side: tell the client, who may not be reading, and close its stream."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.fail(failure)
        await self._control.close()

    async def _do(self, step: Step) -> None:
        if self.closed:
            return
        try:
            self._check(step)
            computed = await self._compute(step)
            await self._hand_on(step, computed)
            await self._issue_interim_receipt()
        except FarError as error:
            await self.fail(self._blaming_feeder(error))

    def _blaming_feeder(self, error: FarError) -> Failure:
        """What is wrong with a step may be its sender's fault; that it does not fit the session is the client's."""
        return Failure.of(error, self._feeder if isinstance(error, ProtocolViolation) else None)

    def _check_order(self, step: Step) -> None:
        if step.is_replay:
            if self.opening.resumption is None or self._has_begun:
                raise ProtocolViolation("a replay came, and nobody is replaced here")
            if step.start_position != self._replayed:  # once, lest it go round among nodes that name each other
                raise ProtocolViolation(
                    f"a replay of position {step.start_position} came where {self._replayed} is due"
                )
        elif self.opening.resumption is not None and not self._has_begun:
            if step.index > self._taken:
                raise ProtocolViolation(f"step {step.index} came where the steps up to {self._taken} are due")
        elif step.index != self._taken:
            raise ProtocolViolation(f"step {step.index} came where {self._taken} is due")

    def _check(self, step: Step) -> None:
        rows, positions, size = step.hidden.shape
        if rows != self.opening.batch:
            raise ProtocolViolation(f"the session has {self.opening.batch} rows, the step {rows}")
        if step.hidden.dtype != self.opening.codec:
            raise ProtocolViolation(f"the session's wire type is {self.opening.codec}, not {step.hidden.dtype}")
        if size != self._hidden_size:
            raise ProtocolViolation(f"this model's hidden states have {self._hidden_size} values, not {size}")
        if step.start_position + positions > self.opening.max_length:
            raise SessionTooLong(f"the session was opened for {self.opening.max_length} positions")
        if any(row >= rows for row in step.rows):
            raise BadPosition(f"the session has {rows} rows")

    async def _compute(self, step: Step) -> Computed:
        self._place.is_computing = True
        try:
            keep = 0 if self._successor.exists else step.keep  # a successor needs every position
            computed = await self._executor.compute(self._place, step, keep, await self._prefix_of(step))
            self.spent.steps += 1
            self.spent.waited += computed.waited
            self.spent.computed += computed.seconds
        finally:
            self._place.is_computing = False
            self._last_step_at = time.monotonic()
        return computed

    async def _prefix_of(self, step: Step) -> Keys:
        """Keys of the session's beginning as far as this step, where states of earlier sessions may be used.

        A prompt may come in several steps; their positions are multiples of what a key covers, all but the last.
        """
        self._prefix = self._prefix[: step.start_position // PREFIX_POSITIONS]
        goes_on = step.start_position == len(self._prefix) * PREFIX_POSITIONS
        if self._place.prefixes is None or not goes_on or step.hidden.shape[1] < PREFIX_POSITIONS:
            return ()
        owner = None if self.opening.share_prefix else self.client.encode() + b"\n" + self.opening.prefix_scope
        span = self.opening.first_block, self.opening.end_block
        self._prefix = await asyncio.to_thread(prefix_keys, owner, span, step.hidden, self._prefix)
        return self._prefix

    async def _hand_on(self, step: Step, computed: Computed) -> None:
        times = (*step.times, HopTime(computed.waited, computed.seconds))[-MAX_HOPS:]
        out = Step(
            step.index, step.start_position, computed.hidden, step.keep, step.rows, step.settled, step.is_replay, times
        )
        count = partial(self.log.record, step, computed.cached)
        if self._successor.exists:
            await self._successor.give(out, count)
        else:
            is_due = _is_due(out, self.opening)
            await _hashing(step, count, out.hidden if is_due else None)
            if is_due:
                await self._control.send(out)
        if not step.is_replay:
            self._given = step.index + 1

    async def _issue_interim_receipt(self) -> None:
        receipt = self.log.interim_receipt()
        if receipt is not None:
            await self._control.send(ReceiptIssued(receipt.to_bytes()))

    async def _replace_successor(self, transport: Transport, address: PeerAddress, answer: Rerouted) -> None:
        """It is linked, and given all that was handed on, while other messages are read."""
        if self._resending is not None and not self._resending.done():
            self._resending.cancel()
        else:  # the last one that the old one can confirm
            await self._tell(ReceiptIssued(self.log.receipt().to_bytes()))
        self._resending = asyncio.create_task(self._resend(transport, address, answer))

    async def _resend(self, transport: Transport, address: PeerAddress, answer: Rerouted) -> None:
        try:
            # receipts after the answer are of the new link
            await self._successor.replace(transport, address, partial(self._tell, answer))
        except FarError as error:
            await self._tell(Failure.of(error, address.peer_id))
            return
        await self._tell(ReceiptIssued(self.log.receipt().to_bytes()))

    async def _end_input_chain(self) -> None:
        """What was taken from the old predecessor has been computed: a receipt that it can confirm, or be held to."""
        if self._resending is None or self._resending.done():  # else only a part has been given to the new successor
            await self._tell(ReceiptIssued(self.log.receipt().to_bytes()))
        self.log.new_predecessor()

    async def _lost_successor(self, peer_id: str) -> None:
        await self._tell(Failure.of(PeerUnavailable(f"the stream to {peer_id} broke"), peer_id))

    async def _tell(self, message: Failure | Rerouted | Pong | ReceiptIssued) -> None:
        with contextlib.suppress(FarError):  # a client that is gone needs no telling
            await self._control.send(message)


class _Successor:
    """The node after this one, if there is one: the stream to it, and all that it was given."""

    def __init__(self, opening: Open, log: WorkLog, history: History, most_bytes: int, on_loss: _OnLoss) -> None:
        self._opening, self._log, self._most_bytes, self._on_loss = opening, log, most_bytes, on_loss
        self._history = history
        self._channel: Channel | None = None
        self._sending = asyncio.Lock()
        self._scope: asyncio.Timeout | None = None

    @property
    def exists(self) -> bool:
        """Whether there is one; else results are the client's."""
        return self._opening.next is not None

    async def link(self, transport: Transport, address: PeerAddress) -> None:
        """Open a stream to it.

        Raises:
            PeerUnavailable: it cannot be reached.
        """
        async with self._sending:  # steps wait for it
            await self._link(transport, address, surely=self._opening.resumption is not None)

    async def replace(self, transport: Transport, address: PeerAddress, on_link: Callable[[], Awaitable[None]]) -> None:
        """Link to another in its place, then give it everything from the beginning.

        Raises:
            PeerUnavailable: it cannot be reached.
        """
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())  # who sends to the old one waits in vain
        async with self._sending:
            if self._channel is not None:
                transport.doubt(self._channel.peer_id)
            await self.close()
            await self._link(transport, address, surely=True)
            self._log.new_successor()
            await on_link()
            for step in self._history.replay():
                if (channel := self._channel) is None:
                    return
                await _hashing(step, self._log.give_again, step.start_position, step.hidden)
                await self._send(channel, step)

    async def give(self, step: Step, count: Callable[[WireTensor | None], None]) -> None:
        """Hand a step on, and keep it. ``count`` is told what of it is given: in its turn, for while another successor
        is given everything again, receipts are not of this step yet.

        Raises:
            SessionTooLong: with all that is kept it is more than the session.
        """
        async with self._sending:
            if self._history.held_bytes + len(step.hidden.data) > self._most_bytes:
                raise SessionTooLong("more steps are in flight than the session is long: say which have been answered")
            self._history.add(step)
            channel = self._channel if _is_due(step, self._opening) else None
            await _hashing(step, count, None if channel is None else step.hidden)
            if channel is not None:
                await self._send(channel, step)

    async def close(self) -> None:
        """Close the stream."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _send(self, channel: Channel, step: Step) -> None:
        """It is in the chain already: of what fails to be sent a part may arrive, or all."""
        try:
            async with asyncio.timeout(None) as self._scope:
                await channel.send(step)
        except (PeerUnavailable, TimeoutError):
            await self.close()
            await self._on_loss(channel.peer_id)
        finally:
            self._scope = None

    async def _link(self, transport: Transport, address: PeerAddress, *, surely: bool) -> None:
        """``surely``: over a connection that carries something, for a link answers nothing."""
        if surely:
            await transport.check(address.peer_id)
        channel = Channel(await transport.open(address, LINK_PROTOCOL))
        try:
            await channel.send(Link(self._opening.session_id, time.monotonic_ns()))
        except BaseException:
            await channel.close()
            raise
        self._channel = channel


def _is_due(step: Step, opening: Open) -> bool:
    """Whether the successor lacks a result: who takes a lost node's place is given steps that were answered before."""
    resumed = opening.resumption
    return resumed is None or resumed.feeds_new or (not step.is_replay and step.index >= resumed.at_step)


async def _hashing(step: Step, call: Callable[..., None], *arguments: object) -> None:
    """Make a call that hashes a step."""
    if len(step.hidden.data) > _LARGE_BYTES:
        await asyncio.to_thread(call, *arguments)
    else:
        call(*arguments)
