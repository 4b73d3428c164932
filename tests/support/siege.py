"""Strangers talk to nodes, many at a time, while one honest client goes on: what they hear, and what it costs."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psutil
import structlog
import torch

from discovery.dht.memory import MemoryStream, MemoryTransport
from discovery.dht.transport import Channel
from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.ids import PeerId, SessionId
from discovery.protocol.messages import (
    Close,
    Failure,
    Message,
    NodeInfo,
    Opened,
    PeerAddress,
    Pong,
    ReceiptIssued,
    Rerouted,
    Step,
    decode,
)
from discovery.protocol.receipt import read_receipt
from far_node import handler
from far_node.errors import Busy
from far_node.limits import Limits
from tests.support.documents import peer_of
from tests.support.door import opened
from tests.support.fuzz import CLOSE, Ending, Facts, Fuzzer, Talk
from tests.support.ring import Ring, RingNode

SOON = 30.0
CLOSE_ENOUGH = 1e-4  # relative, of the same steps in a batch and alone
STRANGERS = 8
LIMITS = Limits(max_sessions=24, max_sessions_per_client=6, idle_timeout=3.0, prefix_cache_bytes=1 << 20)
CACHE_BYTES = 6 << 20
_LESSON = (12, *(1,) * 20, 40, *(1,) * 10)
_HONEST_ID = SessionId(b"an honest client")


@dataclass
class Overheard:
    """What a node writes in its log, and what the event loop complains of."""

    events: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)


@contextmanager
def overheard() -> Iterator[Overheard]:
    """Listen to the log instead of writing it; warnings and all above them are alarms."""
    heard, settings = Overheard(), structlog.get_config()

    def note(_: Any, level: str, event: MutableMapping[str, Any]) -> Any:
        heard.events[str(event.get("event"))] += 1
        if level not in ("debug", "info"):
            heard.alarms.append(f"{level}: {event.get('event')} {event.get('kind', '')} {event.get('exception', '')}")
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, note], cache_logger_on_first_use=False)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.alarms.append(f"event loop: {context}"))
    try:
        yield heard
    finally:
        structlog.configure(**settings)
        loop.set_exception_handler(None)


def resident_bytes() -> int:
    """Memory of this process, after a collection."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@contextmanager
def impatient() -> Iterator[None]:
    """Nobody here is on the other side of the world: what waits for a stranger waits a moment only."""
    waits = {"FIRST_MESSAGE_SECONDS": 1.0, "LINK_WAIT_SECONDS": 0.05, "SWEEP_SECONDS": 0.2, "HANG_UP_SECONDS": 0.2}
    before = {name: getattr(handler, name) for name in waits}
    for name, seconds in waits.items():
        setattr(handler, name, seconds)
    try:
        yield
    finally:
        for name, seconds in before.items():
            setattr(handler, name, seconds)


@dataclass
class Lesson:
    """An honest session from its beginning to its receipt: always the same steps, so always the same answers."""

    ring: Ring
    node: RingNode
    steps_back: int = 7
    answers: list[torch.Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def take(self, pause: float = 0.0) -> None:
        """All steps, one after the other; a part of them once more after a step back."""
        by = self.ring.network.peers[peer_of("honest")]
        channel = await opened(self.ring, self.node, by=by, session_id=_HONEST_ID, max_length=256)
        try:
            await self._take(channel, pause)
        finally:
            await channel.close()

    async def _take(self, channel: Channel, pause: float) -> None:
        at, positions = 0, 0
        for index, length in enumerate(_LESSON):
            if length > 1 and at:
                at -= self.steps_back
            hidden = self.ring.random_hidden(length, seed=index)
            started = time.perf_counter()
            await channel.send(Step(index, at, hidden))
            async with asyncio.timeout(SOON):
                while isinstance(message := await channel.receive(), ReceiptIssued):
                    continue
            assert isinstance(message, Step), message
            self.seconds.append(time.perf_counter() - started)
            self.answers.append(self.ring.tensor(message.hidden))
            at, positions = at + length, positions + length
            await asyncio.sleep(pause)
        await channel.send(Close())
        receipts = []
        while (message := await channel.receive()) is not None:
            assert isinstance(message, ReceiptIssued), message
            receipts.append(read_receipt(message.document).receipt.positions)
        assert receipts[-1] == positions

    def difference(self, other: Lesson) -> float:
        """The largest of all answers, relative to the largest number in each."""
        pairs = zip(self.answers, other.answers, strict=True)
        return max(float((mine - theirs).abs().max() / theirs.abs().max()) for mine, theirs in pairs)


class Siege:
    """Strangers at the doors of a ring's nodes, of which the first has the honest session."""

    def __init__(self, ring: Ring, seed: int, *, can_rewind: bool = True) -> None:
        self.ring, self.nodes = ring, ring.nodes
        self._steps_back = 7 if can_rewind else 0
        self.reactions: Counter[str] = Counter()
        self.talks: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.messages = self.lessons = 0
        self.difference = 0.0
        self.quiet_seconds: list[float] = []
        self.seconds: list[float] = []
        self._strangers: list[tuple[MemoryTransport, Iterator[Talk]]] = []
        self._staying: list[MemoryStream] = []
        ring.network.join(peer_of("honest"))
        nodes = tuple((node.peer_id, *node.announcement.blocks) for node in self.nodes)
        for number in range(STRANGERS):
            peer_id = peer_of(f"stranger {number}")
            facts = Facts(
                ring.source.digest,
                ring.shape.hidden_size,
                ring.shape.context_length or 256,
                nodes,
                peer_id,
                _HONEST_ID,
                can_rewind,
            )
            fuzzer = Fuzzer(seed + number, facts)
            self._strangers.append((ring.network.join(peer_id), map(fuzzer.talk, count())))

    async def learn(self) -> None:
        """What the honest client is answered in quiet."""
        self._right = self._lesson()
        await self._right.take()
        again = self._lesson()
        await again.take()
        self.quiet_seconds = again.seconds
        assert again.difference(self._right) <= CLOSE_ENOUGH

    async def run(self, messages: int) -> None:
        """Until strangers have sent so many more messages, and all of them have left."""
        limit = self.messages + messages
        honest = asyncio.create_task(self._be_honest())
        await asyncio.gather(*(self._talk(number, limit) for number in range(STRANGERS)))
        while not self.lessons and not honest.done():  # a busy machine: the first has not ended yet
            await asyncio.sleep(0.02)
        honest.cancel()
        outcome = (await asyncio.gather(honest, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            self.complaints.append(f"the honest client: {outcome!r}")
        for stream in self._staying:
            stream.cut()
        self._staying.clear()
        await self._settle()

    def _lesson(self) -> Lesson:
        return Lesson(self.ring, self.nodes[0], self._steps_back)

    async def _settle(self) -> None:
        """All is as it was before."""
        try:
            async with asyncio.timeout(SOON):
                for node in self.nodes:
                    while (
                        node.handler.open_sessions
                        or node.budget.sessions
                        or node.transport.tasks
                        or node.executor.load().queued
                        or len(node.handler._lobby)
                    ):
                        await asyncio.sleep(0.02)
        except TimeoutError:
            self.complaints.append("streams, sessions or steps are left over")
        used = [node.budget.used_bytes for node in self.nodes]
        if any(used):
            self.complaints.append(f"cache is left over: {used} bytes")

    async def _be_honest(self) -> None:
        while True:
            lesson = self._lesson()
            try:
                await lesson.take(pause=0.005)
            except Busy:  # between two lessons a stranger took the id that it had heard of
                await asyncio.sleep(0.01)
                continue
            self.lessons += 1
            self.difference = max(self.difference, lesson.difference(self._right))
            self.seconds = [*self.seconds[-10_000:], *lesson.seconds]

    async def _talk(self, number: int, limit: int) -> None:
        transport, talks = self._strangers[number]
        while self.messages < limit and len(self.complaints) < 20:
            talk = next(talks)
            self.talks[talk.name.partition(":")[0]] += 1
            self.messages += talk.messages
            try:
                async with asyncio.timeout(SOON):
                    await self._have(talk, transport)
            except TimeoutError:
                self._complain(talk, "it was neither answered nor ended")

    async def _have(self, talk: Talk, transport: MemoryTransport) -> None:
        streams, listening = [], []
        for line in talk.lines:
            stream = await transport.open(PeerAddress(PeerId(self.nodes[line.node].peer_id)), line.protocol)
            assert isinstance(stream, MemoryStream)
            streams.append(stream)
            if talk.ending is Ending.LISTEN:
                listening.append(asyncio.create_task(self._listen(stream)))
            frames = (*line.frames, CLOSE) if talk.ending is Ending.LISTEN else line.frames
            try:
                for frame in frames:
                    await stream.send(frame)
            except PeerUnavailable:
                self.reactions["hung up"] += 1
        match talk.ending:
            case Ending.LISTEN:
                self._judge(talk, [message for heard in await asyncio.gather(*listening) for message in heard])
                for stream in streams:
                    await stream.close()
            case Ending.HANG_UP:
                for stream in streams:
                    await stream.close()
            case Ending.VANISH:
                for stream in streams:
                    stream.cut()
            case Ending.STAY:
                self._staying = [*self._staying[-100:], *streams]

    async def _listen(self, stream: MemoryStream) -> list[Message | str]:
        """All that is said until the end."""
        heard: list[Message | str] = []
        try:
            while (frame := await stream.receive()) is not None:
                heard.append(decode(frame))
        except FarError as error:
            heard.append(error.code)
        return heard

    def _judge(self, talk: Talk, heard: list[Message | str]) -> None:
        codes, answers = [], 0
        for message in heard:
            match message:
                case Failure(code=code, message=reason):
                    codes.append(code)
                    self.reactions[code] += 1
                    if code not in FarError._by_code or code in ("internal_error", "remote_error"):
                        self._complain(talk, f"a code that no node has of its own: {message}")
                    if code == "compute_failed" and "not finite" not in reason:
                        self._complain(talk, f"a bug: {message}")
                case Step(hidden=hidden):
                    answers += 1
                    self.reactions["a step's answer"] += 1
                    if not self.ring.tensor(hidden).isfinite().all():
                        self._complain(talk, "an answer that is not finite")
                case ReceiptIssued(document=document):
                    self.reactions["a receipt"] += 1
                    read_receipt(document)
                case Opened() | NodeInfo():
                    self.reactions["opened" if isinstance(message, Opened) else "told about the node"] += 1
                case Pong(taken=taken, given=given):
                    self.reactions["how far it is"] += 1
                    if given > taken:
                        self._complain(talk, f"it gave {given} of the {taken} steps it took")
                case Rerouted():
                    self.reactions["rerouted"] += 1
                case _:
                    self._complain(talk, f"an answer that nobody understands: {message}")
        if not heard:
            self.reactions["closed"] += 1
        if talk.answers is not None:
            wrong = answers != talk.answers if not codes else not talk.due.intersection(codes)
        else:
            wrong = bool(talk.due) and not talk.due.intersection(codes or [""])
        if wrong:
            self._complain(talk, f"due was {set(talk.due)} or {talk.answers} answers; heard {codes}, {answers} answers")

    def _complain(self, talk: Talk, what: str) -> None:
        said = [(line.protocol, line.node, [frame[:200].hex() for frame in line.frames]) for line in talk.lines]
        self.complaints.append(f"{talk.name}: {what}; said {said}")
