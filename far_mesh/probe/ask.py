"""One session with one node, in which it computes what we ask: what it gave, how long that took, and its receipt."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from discovery.dht.transport import Channel
from discovery.protocol.announcement import Announcement, Codec
from discovery.protocol.codec import WireTensor
from discovery.protocol.errors import DeadlineExceeded, FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import new_session_id
from discovery.protocol.messages import LINK_PROTOCOL, NONCE_BYTES, HopTime, Link, Open, Step
from discovery.protocol.receipt import extend_root, first_root
from far_mesh.contributions import Asked, OwnView, verify_receipts
from far_mesh.hop import Hop, address_of
from far_mesh.probe.vantage import Vantage
from far_mesh.route import RouteHop
from far_node.blocks.wire import from_wire, to_wire

OPEN_SECONDS, STEP_SECONDS, CLOSE_SECONDS = 20.0, 60.0, 10.0
_INPUT, _OUTPUT = 0, 1


@dataclass(frozen=True)
class Given:
    """What a node gave.

    Attributes:
        hidden: (1, positions, size), of the positions ``[first, …)``: of the last blocks only the end of the prompt
            comes back, as in any session.
        step_seconds: of the steps of one position.
        receipt: whether its receipt says what it did.
    """

    hidden: Tensor
    first: int
    step_seconds: tuple[float, ...]
    receipt: bool


class _Talk:
    """What goes to the node and comes from it, with the roots by which its receipt is checked."""

    def __init__(self, asked: Asked, vantage: Vantage, hop: RouteHop) -> None:
        self.asked, self.vantage = asked, vantage
        self._results: asyncio.Queue[Step] = asyncio.Queue(1)
        self._failure: asyncio.Future[FarError] = asyncio.get_running_loop().create_future()
        self.hop = Hop(hop, self._take, self._fail, (_INPUT, _OUTPUT))
        self._roots = {link: first_root(asked.session_id) for link in (_INPUT, _OUTPUT)}
        self._said: dict[tuple[int, int], str] = {}
        self._positions = [0]
        self.link: Channel | None = None

    def take(self, step: Step) -> None:
        """A result has come.

        Raises:
            ProtocolViolation: another one waits already, though nothing was asked since.
        """
        try:
            self._results.put_nowait(step)
        except asyncio.QueueFull:
            raise ProtocolViolation("a result came that nobody waits for") from None

    def _take(self, _hop: Hop, step: Step) -> None:
        self.take(step)

    def _fail(self, _hop: Hop, error: FarError, _is_own_finding: bool) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    async def step(self, step: Step) -> WireTensor:
        """Send one, and wait for what comes of it.

        Raises:
            FarError: what the node reports, no answer in time, or an answer to something else.
        """
        await (self.hop.send(step) if self.link is None else self.link.send(step))
        self._add(_INPUT, step.start_position, step.hidden, step.index)
        self._positions.append(self._positions[-1] + step.hidden.shape[1])
        waiting = asyncio.ensure_future(self._results.get())
        try:
            await asyncio.wait((waiting, self._failure), timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                if self._failure.done():
                    raise self._failure.result()
                raise DeadlineExceeded(f"no answer within {STEP_SECONDS:g} s", peer_id=self.hop.peer_id)
            result = waiting.result()
        finally:
            waiting.cancel()
        positions, size = step.keep or step.hidden.shape[1], step.hidden.shape[2]
        if result.index != step.index or result.hidden.shape[:2] != (1, positions) or result.hidden.shape[2] != size:
            raise ProtocolViolation(f"step {result.index} of shape {result.hidden.shape} came for step {step.index}")
        self._add(_OUTPUT, step.start_position, result.hidden, step.index)
        return result.hidden

    def _add(self, link: int, start: int, hidden: WireTensor, index: int) -> None:
        root = self._roots[link] = extend_root(self._roots[link], start, hidden.shape, hidden.dtype, hidden.data)
        self._said[link, index + 1] = root.hex()

    def receipt_is_right(self) -> bool:
        """Whether the last receipt says what was done."""
        verified = verify_receipts(self.asked, [self.hop.stint], OwnView(self._said, self._positions))
        done = self._positions[-1] * (self.hop.route.end_block - self.hop.route.first_block)
        return not verified.rejected and sum(one.token_layers for one in verified.contributions) == done


@dataclass(frozen=True)
class Task:
    """Hidden states (1, positions, size) to be brought through ``blocks``: the first ``prompt`` of them at once, the
    others one by one, as when a text is written, in a session for ``max_length`` positions."""

    blocks: tuple[int, int]
    hidden: Tensor
    prompt: int
    max_length: int
    codec: Codec

    @property
    def token_layers(self) -> int:
        """What it costs who does it."""
        return int(self.hidden.shape[1]) * (self.blocks[1] - self.blocks[0])

    def steps(self) -> Sequence[Tensor]:
        """The hidden states of each step."""
        return self.hidden[:, : self.prompt], *torch.split(self.hidden[:, self.prompt :], 1, dim=1)


async def ask(vantage: Vantage, node: Announcement, task: Task) -> Given:
    """Have a node do a task.

    Nobody pays for it. What the node asks for is offered all the same: less would be refused, or known by it.

    Raises:
        FarError: what the node reported, or that it cannot be reached or does not answer.
    """
    has_behind = task.blocks[1] < node.block_count
    try:
        return await _ask(vantage, node, task, has_behind=has_behind)
    except PeerUnavailable as error:
        # whom another node has reached, this one could reach as well
        if not has_behind or vantage.was_reached or error.facts.get("peer_id") != vantage.behind.peer_id:
            raise
        return await _ask(vantage, node, task, has_behind=False)


async def _ask(vantage: Vantage, node: Announcement, task: Task, *, has_behind: bool) -> Given:
    hop, has_before = RouteHop(node, *task.blocks), task.blocks[0] > 0
    asked = Asked(new_session_id(), secrets.token_bytes(NONCE_BYTES), node.model_digest, task.codec, node.price_units)
    talk = _Talk(asked, vantage, hop)
    opening = Open(
        session_id=asked.session_id,
        nonce=asked.nonce,
        model_digest=node.model_digest,
        first_block=task.blocks[0],
        end_block=task.blocks[1],
        max_length=task.max_length,
        batch=1,
        codec=task.codec,
        previous=vantage.before.peer_id if has_before else None,
        next=vantage.next if has_behind else None,
        price_units=asked.price_units,
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(vantage.expecting(asked.session_id, node.peer_id, talk.take))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await talk.hop.open(vantage.client, opening)
        except TimeoutError:
            raise DeadlineExceeded(f"the session did not open in {OPEN_SECONDS:g} s", peer_id=node.peer_id) from None
        stack.push_async_callback(talk.hop.abandon)
        if has_before:
            stream = await vantage.before.open(address_of(hop), LINK_PROTOCOL)
            stack.push_async_callback(stream.close)
            talk.link = Channel(stream)
            await talk.link.send(Link(asked.session_id, time.monotonic_ns()))
        given, seconds = await _walk(talk, task, has_before=has_before, is_last=not has_behind)
        await talk.hop.finish(CLOSE_SECONDS)
    answer = torch.cat(given, dim=1)
    return Given(answer, task.hidden.shape[1] - answer.shape[1], tuple(seconds), talk.receipt_is_right())


async def _walk(talk: _Talk, task: Task, *, has_before: bool, is_last: bool) -> tuple[list[Tensor], list[float]]:
    given, seconds = list[Tensor](), list[float]()
    start = 0
    for index, part in enumerate(task.steps()):
        # what came through other nodes says how long it took them
        times = (HopTime(secrets.randbelow(900) / 1e6, (2000 + secrets.randbelow(9000)) / 1e6),) if has_before else ()
        keep = 1 if is_last and part.shape[1] > 1 else 0
        sent_at = time.perf_counter()
        got = await talk.step(Step(index, start, to_wire(part, task.codec), keep, settled=index, times=times))
        if part.shape[1] == 1:
            seconds.append(time.perf_counter() - sent_at)
        given.append(from_wire(got, torch.device("cpu"), torch.float32))
        start += part.shape[1]
    return given, seconds
