"""Dialing back: a peer that others rely on tells who asks how he is seen from outside.

The asker names a port and nothing else. He is dialed at the address that his own connection comes from, so nobody can
have a stranger dialed, and what the dialed port says is not told: only whether it is that of a libp2p peer. The time of
the answer shows whose clock is wrong, and the port that the connection comes from, seen by several, what kind of NAT
there is (RFC 4787: does the mapping depend on the endpoint?).

libp2p has AutoNAT for the first of these. The daemon neither tells what it found nor asks when we want to know, and its
service does not dial addresses of a private network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Literal, Self

from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.utils.multiaddr import Multiaddr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery.dht.p2p import CANNOT_OPEN
from discovery.protocol.errors import PeerUnavailable, ProtocolViolation

PROTOCOL = "/far-mesh/dial-back/1"
DIAL_SECONDS = 3.0
ANSWER_SECONDS = DIAL_SECONDS + 2.0
PER_ADDRESS, PER_ALL, WINDOW_SECONDS = 6, 120, 60.0
"""So many questions with a port are dialed in a window: for one address, and for all."""
_MOST_ADDRESSES = 4096
_MOST_BYTES = 1024
_GREETING = b"\x13/multistream/1.0.0\n"
"""What a listener of libp2p says first (https://github.com/multiformats/multistream-select)."""

Outcome = Literal["reached", "refused", "silent", "stranger", "not_asked", "relayed", "too_often"]


class Question(BaseModel):
    """``port``: of TCP, to be dialed; 0: none."""

    model_config = ConfigDict(extra="ignore", strict=True)

    port: Annotated[int, Field(ge=0, le=65535)]


class Answer(BaseModel):
    """What the peer saw.

    Attributes:
        time: of its clock, in Unix seconds.
        ip, source_port: where the asker's connection comes from; None where it came through a relay.
        outcome: of dialing: ``reached`` a libp2p peer, was ``refused``, heard nothing (``silent``), met a ``stranger``
            that is no libp2p peer; or was not dialed: ``not_asked``, for the connection is ``relayed``, ``too_often``.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    time: float
    ip: Annotated[str, Field(max_length=64)] | None
    source_port: Annotated[int, Field(ge=0, le=65535)] | None
    outcome: Outcome


class Turns:
    """How often an address may ask to be dialed: a count in windows of :data:`WINDOW_SECONDS`, of as many addresses as
    it takes; ``now`` is a steady clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._all, self._since = 0, float("-inf")

    def take(self, address: str) -> bool:
        """Whether it is this address's turn; it counts if so."""
        if self._now() - self._since >= WINDOW_SECONDS:
            self._asked.clear()
            self._all, self._since = 0, self._now()
        taken = self._asked.get(address, 0)
        if taken >= PER_ADDRESS or self._all >= PER_ALL or len(self._asked) >= _MOST_ADDRESSES:
            return False
        self._asked[address], self._all = taken + 1, self._all + 1
        return True


class DialBack:
    """Answers the questions of others, until the daemon ends."""

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns or Turns()

    @classmethod
    async def serve(cls, p2p: P2P) -> Self:
        """Answer on this daemon."""
        service = cls()
        await p2p.add_binary_stream_handler(PROTOCOL, service._accept)
        return service

    async def answer(self, question: Question, maddr: str) -> Answer:
        """What we see of somebody whose connection comes from ``maddr``."""
        place = place_of(maddr)
        if place is None:
            return Answer(time=time.time(), ip=None, source_port=None, outcome="relayed")
        ip, port = place
        outcome: Outcome = "not_asked"
        if question.port:
            outcome = await dial(ip, question.port) if self._turns.take(network_of(ip)) else "too_often"
        return Answer(time=time.time(), ip=ip, source_port=port, outcome=outcome)

    async def _accept(self, info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ValidationError, asyncio.LimitOverrunError, *CANNOT_OPEN):
            async with asyncio.timeout(ANSWER_SECONDS):
                line = await reader.readuntil(b"\n")
                answer = await self.answer(Question.model_validate_json(line[:_MOST_BYTES]), str(info.addr))
                writer.write(answer.model_dump_json().encode() + b"\n")
                await writer.drain()


async def ask(p2p: P2P, peer: PeerID, port: int) -> Answer:
    """Ask a peer that we are connected to how it sees us, and whether it reaches a TCP port of ours (0: do not try).

    Raises:
        PeerUnavailable: it does not answer, or is of a version that cannot.
        ProtocolViolation: what it says is no answer.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, reader, writer = await p2p.call_binary_stream_handler(peer, PROTOCOL)
            with contextlib.closing(writer):
                writer.write(Question(port=port).model_dump_json().encode() + b"\n")
                await writer.drain()
                line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise ProtocolViolation(f"{peer} answered with too many bytes") from None
    except CANNOT_OPEN as error:
        raise PeerUnavailable(f"{peer} does not dial back: {str(error) or type(error).__name__}") from None
    try:
        return Answer.model_validate_json(line[:_MOST_BYTES])
    except ValidationError:
        raise ProtocolViolation(f"{peer} answered with something else than an answer") from None


async def dial(ip: str, port: int) -> Outcome:
    """Whether a libp2p peer listens there. Nothing is said to whoever listens but the name of our protocol."""
    answered = False
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            reader, writer = await asyncio.open_connection(ip, port)
            answered = True
            with contextlib.closing(writer):
                writer.write(_GREETING)
                said = await reader.readexactly(len(_GREETING))
    except ConnectionRefusedError:
        return "refused"
    except (OSError, asyncio.IncompleteReadError):
        return "stranger" if answered else "silent"
    return "reached" if said == _GREETING else "stranger"


def place_of(maddr: str) -> tuple[str, int] | None:
    """IP address and port that a connection comes from; None where a relay is in between, or there is none of TCP or
    UDP."""
    try:
        parts = Multiaddr(maddr)
        if "p2p-circuit" in parts:
            return None
        ip = next(parts[kind] for kind in ("ip4", "ip6") if kind in parts)
        port = next(parts[kind] for kind in ("tcp", "udp") if kind in parts)
        return str(ipaddress.ip_address(ip)), int(port)
    except (ValueError, LookupError, TypeError, StopIteration):
        return None


def network_of(ip: str) -> str:
    """Whom an address belongs to: of IPv6 the first 64 bits, as nobody has less."""
    address = ipaddress.ip_address(ip)
    return ip if address.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
