"""The gate of a private swarm: every peer that we meet shows its pass before anything else is said.

One question and one answer introduce two peers to each other (:data:`ADMISSION_PROTOCOL`): who asks shows its pass, who
answers shows its own only to a member. Whoever meets a peer it does not know asks, so a member that was started anew
needs to be told nothing. What is shown is remembered for a while, and counts no longer than the invitation: streams of
a peer whose invitation ends are closed.

With their passes peers show their charters. A later one is kept and told to all members who are known, so what the
owner revokes goes through the swarm from one to the next, and no record of the DHT has to be found, renewed or
defended.

The daemon has no option for a key of the whole network (libp2p's pnet), so strangers can connect to it, and see that a
peer is there; none of our protocols, nor hivemind's, answers them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import structlog

from discovery.dht.transport import Stream, StreamHandler, Transport
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError, MembershipInvalid, NotInvited, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import PeerId
from discovery.protocol.membership import Membership, Pass, SignedCharter, read_charter, read_pass
from discovery.protocol.messages import MAX_PLAIN_BYTES, Failure, PeerAddress, encode

log = structlog.get_logger(__name__)

ADMISSION_PROTOCOL = "/far-mesh/admission/1"
ANSWER_SECONDS = 5.0
HANG_UP_SECONDS = 1.0
HEAR_OUT_SECONDS = 0.2
FRESH_SECONDS = 60.0
"""For so long a peer that was introduced is not asked again."""
REFUSED_SECONDS = 2.0
"""For so long a stranger that knocks again is refused unasked."""
WATCH_SECONDS = 0.5
MOST_KNOWN = 8192
MOST_ASKED = 64
"""Strangers who are asked at once who they are."""
MOST_TOLD = 64


@dataclass
class _Known:
    """A peer that has shown a pass, and when, by a steady clock."""

    shown: Pass
    until: int
    at: float


class Gate:
    """Whom we believe to belong to our swarm. :meth:`start`, and :meth:`close` at the end.

    Raises:
        NotInvited: our own invitation does not count.
    """

    def __init__(self, transport: Transport, membership: Membership) -> None:
        self._transport, self._charter, self._file = transport, membership.charter, membership.file
        self._charter_text = membership.charter.to_bytes().decode()
        self._own = membership.token.pass_of(transport.peer_id)
        self._check_own()
        self._known: OrderedDict[PeerId, _Known] = OrderedDict()
        self._refused: OrderedDict[PeerId, float] = OrderedDict()
        self._asking: dict[PeerId, asyncio.Task[None]] = {}
        self._streams: dict[PeerId, WeakSet[Stream]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._strangers = asyncio.Semaphore(MOST_ASKED)
        self._out: asyncio.Future[NotInvited] = asyncio.get_running_loop().create_future()

    @property
    def swarm(self) -> str:
        """The prefix under which the swarm lives."""
        return self._charter.swarm

    @property
    def charter(self) -> SignedCharter:
        """The latest that we have seen."""
        return self._charter

    @property
    def pass_text(self) -> str:
        """What we show."""
        return self._own.to_text()

    async def start(self) -> None:
        """Answer those who want to be introduced, and watch over the streams of those who were."""
        await self._transport.serve(ADMISSION_PROTOCOL, self._answer)
        self._run(self._watch())

    async def close(self) -> None:
        """Stop watching. Nobody new is let in."""
        for task in (*self._errands, *self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._errands, *self._asking.values(), return_exceptions=True)

    async def cast_out(self) -> NotInvited:
        """Returns when we are no longer a member: why."""
        return await asyncio.shield(self._out)

    def check_announcement(self, about: Announcement) -> None:
        """Whether what a node says of itself is that of a member who may serve.

        Raises:
            MembershipInvalid: it shows no pass, or what is none.
            NotInvited: the pass does not count.
        """
        if about.invitation is None:
            raise NotInvited("it shows no pass")
        self._charter.counts_until(read_pass(about.invitation), about.peer_id, "node")

    async def meet(self, address: PeerAddress) -> None:
        """Be introduced to a peer that we want something of.

        Raises:
            NotInvited: our own invitation counts no longer.
            PeerUnavailable: it cannot be reached, does not let us in, or is no member itself.
        """
        self._check_own()
        if self._is_fresh(address.peer_id):
            return
        try:
            await self._ask_once(address)
        except NotInvited as error:
            self._check_own()  # by its charter too, if that is a later one
            raise PeerUnavailable(error.message, peer_id=address.peer_id) from None

    async def admit(self, peer_id: PeerId) -> None:
        """Whether a peer that wants something of us may have it.

        Raises:
            NotInvited: it is no member, or does not say so.
        """
        if self._is_fresh(peer_id):
            return
        if self._refused.get(peer_id, 0.0) > time.monotonic():
            raise NotInvited("this swarm is private")
        try:
            async with self._strangers:
                await self._ask_once(PeerAddress(peer_id))
        except FarError as error:
            _remember(self._refused, peer_id, time.monotonic() + REFUSED_SECONDS)
            log.info("stranger_refused", peer=peer_id, code=error.code, reason=error.message)
            raise NotInvited("this swarm is private, and you have shown no invitation that counts") from None

    def watch(self, stream: Stream) -> Stream:
        """Close a stream when its peer is a member no longer."""
        self._streams.setdefault(stream.peer_id, WeakSet()).add(stream)
        return stream

    def adopt(self, charter: SignedCharter) -> bool:
        """Keep a charter, if it counts in the place of ours, and tell the others."""
        if not charter.supersedes(self._charter):
            return False
        self._charter, self._charter_text = charter, charter.to_bytes().decode()
        log.info("charter_changed", serial=charter.charter.serial, owner=charter.owner)
        if self._file is not None:
            self._run(asyncio.to_thread(_keep, self._file, charter))
        for peer_id in list(self._known)[-MOST_TOLD:]:
            self._run(self._tell(peer_id))
        return True

    def _check_own(self) -> None:
        self._charter.counts_until(self._own, self._transport.peer_id)

    def _is_fresh(self, peer_id: PeerId) -> bool:
        known = self._known.get(peer_id)
        return known is not None and time.monotonic() - known.at < FRESH_SECONDS and self._objection(known) is None

    def _objection(self, known: _Known) -> NotInvited | None:
        return self._why_out(known.shown, known.shown.holder)

    def _why_out(self, shown: Pass, peer_id: str) -> NotInvited | None:
        try:
            self._charter.counts_until(shown, peer_id)
        except NotInvited as error:
            return error
        return None

    async def _ask_once(self, address: PeerAddress) -> None:
        """One question at a time to each peer."""
        asking = self._asking.get(address.peer_id)
        if asking is None:
            asking = self._asking[address.peer_id] = asyncio.create_task(self._ask(address))
            asking.add_done_callback(lambda _: self._asking.pop(address.peer_id, None))
        await asyncio.shield(asking)

    async def _ask(self, address: PeerAddress) -> None:
        peer_id = address.peer_id
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                stream = await self._transport.open(address, ADMISSION_PROTOCOL)
                try:
                    await stream.send(self._introduction())
                    told = _read(await stream.receive(MAX_PLAIN_BYTES))
                finally:
                    await stream.close()
        except TimeoutError:
            raise PeerUnavailable(f"{peer_id} does not say who it is", peer_id=peer_id) from None
        if told.get("charter") is not None:
            self._hear_of(told["charter"])
        if told.get("pass") is None:
            raise NotInvited(f"{peer_id} does not let us in: {str(told.get('why', 'it does not say why'))[:200]}")
        try:
            self._let_in(peer_id, told["pass"])
        except (NotInvited, MembershipInvalid) as error:
            raise PeerUnavailable(f"{peer_id} is no member of this swarm: {error.message}", peer_id=peer_id) from None

    async def _answer(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                told = _read(await stream.receive(MAX_PLAIN_BYTES))
        except TimeoutError:
            raise ProtocolViolation(f"{stream.peer_id} opened a stream and said nothing") from None
        if told.get("charter") is not None:
            self._hear_of(told["charter"])
        try:
            if told.get("pass") is None:
                raise NotInvited("no invitation was shown")
            self._let_in(stream.peer_id, told["pass"])
            answer = self._introduction()
        except (NotInvited, MembershipInvalid) as error:
            log.info("stranger_refused", peer=stream.peer_id, code=error.code, reason=error.message)
            answer = json.dumps({"charter": self._charter_text, "why": error.message}).encode()
        await stream.send(answer)

    def _introduction(self) -> bytes:
        return json.dumps({"charter": self._charter_text, "pass": self._own.to_text()}).encode()

    def _hear_of(self, text: str) -> None:
        if text == self._charter_text:
            return
        try:
            self.adopt(read_charter(text.encode(errors="replace")))
        except MembershipInvalid as error:
            log.info("charter_refused", reason=error.message)

    def _let_in(self, peer_id: PeerId, text: str) -> None:
        shown = read_pass(text)
        until = self._charter.counts_until(shown, peer_id)
        self._refused.pop(peer_id, None)
        _remember(self._known, peer_id, _Known(shown, until, time.monotonic()))

    async def _tell(self, peer_id: PeerId) -> None:
        try:
            if peer_id in self._asking:  # with the charter before
                await self._ask_once(PeerAddress(peer_id))
            await self._ask_once(PeerAddress(peer_id))
        except FarError as error:
            log.debug("not_told", peer=peer_id, code=error.code)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            why = self._why_out(self._own, self._transport.peer_id)
            if why is not None and not self._out.done():
                log.warning("cast_out", reason=why.message)
                self._out.set_result(why)
            for peer_id, known in list(self._known.items()):
                objection = self._objection(known)
                if objection is not None:
                    log.info("member_gone", peer=peer_id, reason=objection.message)
                    del self._known[peer_id]
            for peer_id, streams in list(self._streams.items()):
                if peer_id not in self._known:
                    for stream in self._streams.pop(peer_id):
                        self._run(_hang_up(stream, NotInvited("this swarm is private, and you are no member any more")))
                elif not streams:
                    del self._streams[peer_id]

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


class GatedTransport:
    """A :class:`~discovery.dht.transport.Transport` on which only members meet."""

    def __init__(self, inner: Transport, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    @property
    def peer_id(self) -> PeerId:
        return self._inner.peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        async def at_the_gate(stream: Stream) -> None:
            try:
                await self._gate.admit(stream.peer_id)
            except NotInvited as error:
                await _hear_out(stream)
                await stream.send(encode(Failure.of(error)))
                raise
            await handler(self._gate.watch(stream))

        await self._inner.serve(protocol, at_the_gate)

    async def open(self, address: PeerAddress, protocol: str) -> Stream:
        await self._gate.meet(address)
        return self._gate.watch(await self._inner.open(address, protocol))

    async def check(self, peer_id: PeerId) -> bool:
        return await self._inner.check(peer_id)

    def doubt(self, peer_id: PeerId) -> None:
        self._inner.doubt(peer_id)

    async def close(self) -> None:
        await self._gate.close()
        await self._inner.close()


class GatedP2P:
    """What hivemind's DHT needs of a daemon, where it answers members alone and asks nobody else."""

    def __init__(self, p2p: Any, gate: Gate) -> None:
        self._p2p, self._gate = p2p, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._p2p, name)

    async def add_protobuf_handler(self, name: str, handler: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        """hivemind's, with our gate before the handler. Those of its DHT take one message and give one."""

        async def at_the_gate(request: Any, context: Any) -> Any:
            await self._gate.admit(PeerId(context.remote_id.to_base58()))
            return await handler(request, context)

        await self._p2p.add_protobuf_handler(name, at_the_gate, *arguments, **more)

    async def call_protobuf_handler(self, peer_id: Any, *arguments: Any, **more: Any) -> Any:
        """hivemind's, to members."""
        await self._gate.meet(PeerAddress(PeerId(peer_id.to_base58())))
        return await self._p2p.call_protobuf_handler(peer_id, *arguments, **more)


async def tell_charter(transport: Transport, address: PeerAddress, charter: SignedCharter) -> None:
    """Bring a charter to a member; its owner need not be one.

    Raises:
        PeerUnavailable: nobody answers there, or not with this charter or a later one.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            stream = await transport.open(address, ADMISSION_PROTOCOL)
            try:
                await stream.send(json.dumps({"charter": charter.to_bytes().decode()}).encode())
                told = _read(await stream.receive(MAX_PLAIN_BYTES))
            finally:
                await stream.close()
        kept = read_charter(told.get("charter", "").encode(errors="replace"))
    except (TimeoutError, MembershipInvalid, ProtocolViolation):
        raise PeerUnavailable(f"{address.peer_id} is no member of a private swarm", peer_id=address.peer_id) from None
    if kept.swarm != charter.swarm or charter.supersedes(kept):
        raise PeerUnavailable(f"{address.peer_id} did not take the charter", peer_id=address.peer_id)


async def _hang_up(stream: Stream, why: NotInvited) -> None:
    with contextlib.suppress(FarError, TimeoutError):
        async with asyncio.timeout(HANG_UP_SECONDS):
            await stream.send(encode(Failure.of(why)))
    await stream.close()


async def _hear_out(stream: Stream) -> None:
    """Take what is on its way: a stream that is closed before it is read may lose the answer as well."""
    with contextlib.suppress(FarError, TimeoutError):
        async with asyncio.timeout(HEAR_OUT_SECONDS):
            await stream.receive(MAX_PLAIN_BYTES)


def _read(frame: bytes | None) -> dict[str, str]:
    """An introduction: text by name."""
    try:
        told = json.loads(frame or b"")
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise ProtocolViolation("this is no introduction")
    return told


def _remember(memory: OrderedDict[PeerId, Any], peer_id: PeerId, what: Any) -> None:
    memory[peer_id] = what
    memory.move_to_end(peer_id)
    while len(memory) > MOST_KNOWN:
        memory.popitem(last=False)


def _keep(file: Path, charter: SignedCharter) -> None:
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(charter.to_bytes())
        fresh.replace(file)
    except OSError as error:
        log.warning("charter_not_kept", reason=error.strerror)
