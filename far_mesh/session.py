"""A session: a ring of nodes that remembers a text.

A step enters at the first node, each node sends its output straight to the next, and the last one answers on the
client's own stream, so a client behind NAT needs no open port.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from discovery.dht.transport import Transport
from discovery.protocol.announcement import Dtype
from discovery.protocol.errors import DeadlineExceeded, FarError, ProtocolViolation
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import NONCE_BYTES, Open, Step, WireTensor
from discovery.protocol.receipt import extend_root, first_root
from far_mesh.config import MeshConfig, Treatment
from far_mesh.contributions import Asked, Roots, Verified, verify_receipts
from far_mesh.hop import Hop, address_of
from far_mesh.route import RouteHop


@dataclass(frozen=True)
class SessionRequest:
    """What a session is opened for: rows × ``max_length`` positions of a model, at a price."""

    model_digest: str
    max_length: int
    codec: Dtype
    rows: int = 1
    price_units: int = 0
    left_padding: tuple[int, ...] = ()
    treatment: Treatment = field(default_factory=Treatment)


class _Answer:
    """A result that is waited for, and the shape it must have."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.given: asyncio.Future[WireTensor] = asyncio.get_running_loop().create_future()


class MeshSession:
    """Steps go in, results come out in order; several may be in flight. Ends with :meth:`finish`."""

    def __init__(self, route: tuple[RouteHop, ...], request: SessionRequest, config: MeshConfig) -> None:
        self.route, self._request, self._config = route, request, config
        session_id, nonce = new_session_id(), secrets.token_bytes(NONCE_BYTES)
        self.asked = Asked(session_id, nonce, request.model_digest, request.codec, request.price_units)
        takers = [self._refuse_result] * (len(route) - 1) + [self._take_result]
        self._hops = [Hop(hop, taker, self._fail) for hop, taker in zip(route, takers, strict=True)]
        self._sent = self._received = first_root(session_id)
        self._roots: dict[int, Roots] = {}
        self._waiting: dict[int, _Answer] = {}
        self._results = 0
        self._checked_steps = 0
        self._positions_after: list[int] = []
        self._error: FarError | None = None

    @property
    def positions(self) -> int:
        """Positions computed, recomputed ones included, over all rows."""
        return self._positions_after[self._results - 1] if self._results else 0

    @property
    def expected_token_layers(self) -> int:
        """What all nodes together have done if all did what they should."""
        return self.positions * self._blocks

    async def open(self, transport: Transport) -> None:
        """Open at all nodes at once.

        Raises:
            FarError: the first refusal; all streams are closed again.
        """
        openings = [hop.open(transport, self._opening(index)) for index, hop in enumerate(self._hops)]
        tasks = [asyncio.ensure_future(opening) for opening in openings]
        try:
            async with asyncio.timeout(self._config.open_timeout):
                await asyncio.gather(*tasks)
        except BaseException as error:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.abandon()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"the session did not open in {self._config.open_timeout} s") from None
            raise

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
            FarError: what a node reports, a lost node, or no answer in time.
        """
        if self._error is not None:
            raise self._error
        index = len(self._positions_after)
        self._positions_after.append(self._positions_sent() + hidden.shape[0] * hidden.shape[1])
        rows_sent, positions, size = hidden.shape
        answer = self._waiting[index] = _Answer((rows_sent, keep or positions, size))
        self._sent = extend_root(self._sent, start_position, hidden.shape, hidden.dtype, hidden.data)
        self._roots[index + 1] = Roots(self._sent.hex(), "", self._positions_after[-1])
        step = Step(index, start_position, hidden, keep, rows)
        try:
            async with asyncio.timeout(self._config.step_timeout):
                await self._hops[0].send(step)
                return await answer.given
        except TimeoutError:
            raise self._fail(DeadlineExceeded(f"no answer in {self._config.step_timeout} s")) from None
        finally:
            self._waiting.pop(index, None)

    def verified_checkpoint(self) -> Verified | None:
        """What is verified at the latest step that all nodes have receipted, if that is news."""
        steps = min(max(hop.receipts, default=0) for hop in self._hops)
        if steps <= self._checked_steps or steps > self._results:
            return None
        self._checked_steps = steps
        return verify_receipts(self.asked, self.route, [hop.receipts for hop in self._hops], self._roots, steps)

    def token_layers_at_checkpoint(self) -> int:
        """Like :attr:`expected_token_layers`, at the last checkpoint."""
        return self._positions_after[self._checked_steps - 1] * self._blocks

    async def finish(self) -> Verified:
        """Close at all nodes, collect their last receipts and verify them."""
        await asyncio.gather(*(hop.finish(self._config.close_timeout) for hop in self._hops))
        return verify_receipts(self.asked, self.route, [hop.receipts for hop in self._hops], self._roots)

    async def abandon(self) -> None:
        """Close all streams; no receipts."""
        await asyncio.gather(*(hop.abandon() for hop in self._hops))

    @property
    def _blocks(self) -> int:
        return sum(hop.end_block - hop.first_block for hop in self.route)

    def _positions_sent(self) -> int:
        return self._positions_after[-1] if self._positions_after else 0

    def _opening(self, index: int) -> Open:
        route, request = self.route, self._request
        return Open(
            session_id=self.asked.session_id,
            nonce=self.asked.nonce,
            model_digest=request.model_digest,
            first_block=route[index].first_block,
            end_block=route[index].end_block,
            max_length=request.max_length,
            batch=request.rows,
            codec=request.codec,
            previous=PeerId(route[index - 1].node.peer_id) if index else None,
            next=address_of(route[index + 1]) if index + 1 < len(route) else None,
            price_units=request.price_units,
            left_padding=request.left_padding,
            priority=request.treatment.priority,
            share_prefix=request.treatment.share_prefix,
            prefix_scope=request.treatment.prefix_scope,
        )

    def _take_result(self, step: Step) -> None:
        answer, given = self._waiting.get(step.index), step.hidden
        if step.index != self._results or answer is None or answer.given.done():
            raise ProtocolViolation("a result came that nobody waits for")
        if given.shape != answer.shape:
            raise ProtocolViolation(f"a result of shape {given.shape} came where {answer.shape} is due")
        self._results += 1
        self._received = extend_root(self._received, step.start_position, given.shape, given.dtype, given.data)
        own = self._roots[self._results]
        self._roots[self._results] = Roots(own.sent, self._received.hex(), own.positions)
        answer.given.set_result(given)

    def _refuse_result(self, step: Step) -> None:
        raise ProtocolViolation("a result came from a node that is not the last of the route")

    def _fail(self, error: FarError) -> FarError:
        """The first failure ends the session; later ones are its echoes."""
        if self._error is None:
            self._error = error
            for answer in self._waiting.values():
                if not answer.given.done():
                    answer.given.set_exception(error)
        return self._error
