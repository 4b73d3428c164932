"""Slots at relays: how a peer whose router lets nobody in is reached all the same.

A relay keeps the connection that we opened to it, and lets others through to us (libp2p circuit relay v2,
https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md). It sees who talks to whom and how much, and carries
bytes that it cannot read or change: peers authenticate each other and encrypt end to end inside the circuit.

The daemon finds relays by itself only after three minutes and does not say when it has none, so we speak the few bytes
of the reservation ourselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog
from hivemind.p2p import P2P, PeerID

from discovery.dht.p2p import CANNOT_OPEN, OPEN_TIMEOUT_SECONDS, to_multiaddr
from discovery.protocol.errors import FarError, InvalidArgument, PeerUnavailable, ProtocolViolation

log = structlog.get_logger(__name__)

RENEW_SECONDS = 20.0
"""A relay forgets us when the connection breaks; so long we are out of reach then."""
LEAST_BYTES = 1 << 28
LEAST_SECONDS = 600
"""A relay that cuts circuits off sooner would break sessions in the middle. Stock libp2p relays allow 128 KiB."""
DEFAULT_SLOTS, DEFAULT_CIRCUITS = 1024, 256
DEFAULT_CIRCUIT_BYTES, DEFAULT_CIRCUIT_SECONDS = 1 << 40, 24 * 3600
_BUFFER_BYTES = 1 << 16
_HOP = "/libp2p/circuit/relay/0.2.0/hop"
_RESERVE = bytes([2, 0x08, 0])
"""HopMessage with type = RESERVE, and its length before it."""
_MAX_ANSWER_BYTES = 4096
_STATUS, _OK = 2, 100
_REFUSALS = {200: "it has no slot left", 201: "its resources are used up", 202: "it does not permit us"}


@dataclass(frozen=True)
class RelayLimits:
    """What a relay of ours gives to others, as far as the daemon can be told.

    It cannot be told how many bytes it may carry in a second or in a month, how many slots one address may have, or
    who may have one.

    Attributes:
        slots: peers that are let through to.
        circuits: open connections of one peer, on either end.
        circuit_bytes, circuit_seconds: after which a circuit is cut off; bytes of each direction.
    """

    slots: int = DEFAULT_SLOTS
    circuits: int = DEFAULT_CIRCUITS
    circuit_bytes: int = DEFAULT_CIRCUIT_BYTES
    circuit_seconds: int = DEFAULT_CIRCUIT_SECONDS

    def __post_init__(self) -> None:
        if min(self.slots, self.circuits) < 1:
            raise InvalidArgument("a relay has at least one slot, and one connection for each")
        if self.circuit_bytes < LEAST_BYTES or self.circuit_seconds < LEAST_SECONDS:
            raise InvalidArgument(
                f"a relay that cuts connections off after less than {LEAST_BYTES >> 20} MiB or {LEAST_SECONDS // 60} "
                "minutes would break sessions, and no node takes it"
            )

    @property
    def flags(self) -> tuple[str, ...]:
        """For the daemon."""
        return (
            f"-relayDataLimit={self.circuit_bytes}",
            f"-relayTimeLimit={self.circuit_seconds}s",
            f"-relayMaxCircuits={self.circuits}",
            f"-relayMaxReservations={self.slots + 1}",  # one is taken when the relay is tried at its start
            f"-relayBufferSize={_BUFFER_BYTES}",
        )


@dataclass(frozen=True)
class Reservation:
    """A slot. Limits are of one circuit, in each direction; 0: none.

    Attributes:
        expires_at: Unix time in seconds.
        byte_limit: bytes after which a circuit is cut off.
        second_limit: seconds after which a circuit is cut off.
    """

    expires_at: int
    byte_limit: int
    second_limit: int

    @property
    def suffices(self) -> bool:
        """Whether circuits last long enough for sessions."""
        return (not self.byte_limit or self.byte_limit >= LEAST_BYTES) and (
            not self.second_limit or self.second_limit >= LEAST_SECONDS
        )

    @property
    def too_weak(self) -> str:
        """What is said of one that does not suffice."""
        return f"it cuts circuits off after {self.byte_limit} bytes or {self.second_limit} s, too soon for sessions"


def parse_answer(body: bytes) -> Reservation:
    """A relay's answer to a reservation (HopMessage, protocol buffers without the length).

    Raises:
        PeerUnavailable: it refuses.
        ProtocolViolation: it is no such answer.
    """
    try:
        answer = dict(_fields(body))
        status, slot, limit = answer.get(5, 0), answer.get(3, b""), answer.get(4, b"")
        if answer.get(1) != _STATUS or not (isinstance(status, int) and isinstance(slot, bytes)):
            raise ValueError("it is no status")
        if not isinstance(limit, bytes):
            raise ValueError("its limits are no message")
        if status != _OK:
            raise PeerUnavailable(f"the relay refuses: {_REFUSALS.get(status, f'status {status}')}")
        limits, expires_at = dict(_fields(limit)), dict(_fields(slot)).get(1, 0)
        numbers = (expires_at, limits.get(2, 0), limits.get(1, 0))
        expiry, most_bytes, most_seconds = (_number(value) for value in numbers)
    except (ValueError, IndexError) as error:
        raise ProtocolViolation(f"the relay's answer is none: {error}") from None
    return Reservation(expiry, most_bytes, most_seconds)


async def reserve(p2p: P2P, relay: PeerID) -> Reservation:
    """Ask a peer we are connected to for a slot, or for more time in ours.

    Raises:
        PeerUnavailable: it is no relay, refuses, or cannot be reached.
        ProtocolViolation: its answer is none.
    """
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            _, reader, writer = await p2p.call_binary_stream_handler(relay, _HOP)
            with contextlib.closing(writer):
                writer.write(_RESERVE)
                await writer.drain()
                return parse_answer(await reader.readexactly(await _length(reader)))
    except CANNOT_OPEN as error:
        raise PeerUnavailable(f"it does not relay: {str(error) or type(error).__name__}") from None


class RelaySlots:
    """Our slots at the relays with the given addresses. Use :meth:`start`, and :meth:`stop` at the end."""

    def __init__(self, p2p: P2P, relays: Sequence[str]) -> None:
        self._p2p = p2p
        self._relays = tuple(relays)
        self._slots: dict[str, Reservation] = {}
        self._keeping: asyncio.Task[None] | None = None

    @property
    def held(self) -> tuple[str, ...]:
        """Addresses of the relays that let others through to us now, with their peer ids."""
        now = time.time()
        return tuple(relay for relay in self._relays if relay in self._slots and self._slots[relay].expires_at > now)

    async def start(self) -> None:
        """Take a slot at each relay that gives one, and keep it.

        Raises:
            PeerUnavailable: none does.
        """
        reasons = await self._renew()
        if not self._slots:
            told = "; ".join(f"{relay}: {error.message}" for relay, error in reasons.items())
            raise PeerUnavailable(f"no initial peer relays for this node ({told}); name a bootstrap peer that does")
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Renew no longer. The relay forgets us when the connection ends."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            before = set(self._slots)
            reasons = await self._renew()
            for relay in before - set(self._slots):
                log.warning("relay_lost", relay=relay, reason=reasons[relay].message)
            for relay in set(self._slots) - before:
                log.info("relay_found", relay=relay)

    async def _renew(self) -> dict[str, FarError]:
        """Ask all relays.

        Returns:
            Why those relays without a slot for us have none.
        """
        answers = await asyncio.gather(*(self._ask(relay) for relay in self._relays))
        asked = dict(zip(self._relays, answers, strict=True))
        self._slots = {relay: answer for relay, answer in asked.items() if isinstance(answer, Reservation)}
        return {relay: answer for relay, answer in asked.items() if isinstance(answer, FarError)}

    async def _ask(self, relay: str) -> Reservation | FarError:
        head, _, name = relay.rpartition("/p2p/")
        try:
            peer = PeerID.from_base58(name)
            async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                await self._p2p._client.connect(peer, [to_multiaddr(head)])
            slot = await reserve(self._p2p, peer)
        except FarError as error:
            return error
        except (*CANNOT_OPEN, ValueError) as error:
            return PeerUnavailable(str(error) or type(error).__name__)
        return slot if slot.suffices else PeerUnavailable(slot.too_weak)


async def _length(reader: asyncio.StreamReader) -> int:
    length = 0
    for place in range(2):
        (byte,) = await reader.readexactly(1)
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    else:
        raise ProtocolViolation("the relay's answer is none: it is too long")
    if length > _MAX_ANSWER_BYTES:
        raise ProtocolViolation("the relay's answer is none: it is too long")
    return length


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes where a number was due")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and contents of the fields: those of wire types 0 and 2, all that this protocol has.

    Raises:
        ValueError, IndexError: it is cut off, or has others.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2:
            if at + value > len(message):
                raise ValueError("it is cut off")
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError("it has fields of another kind")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = message[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number in it is too long")
