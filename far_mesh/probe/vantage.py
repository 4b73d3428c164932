"""Where a prober stands: three peers of the swarm, of which a node sees what it sees of any session.

An ordinary session comes to a node from three sides: the client has the control stream, the node before it sends the
steps, the node behind it takes what comes out. A prober is all three, under three ids of an hour. To the first block
steps come from the client itself, and what the last block gives goes back to it, as always.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from discovery.dht.identity import discard_identity, ephemeral_identity
from discovery.dht.peer import PeerConfig, SwarmPeer, bare_maddr
from discovery.dht.ping import round_trip
from discovery.dht.transport import Channel, Stream, Transport
from discovery.probe.observation import Reach
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError, ProtocolViolation
from discovery.protocol.ids import PeerId, SessionId
from discovery.protocol.messages import LINK_PROTOCOL, MAX_PLAIN_BYTES, Link, PeerAddress, Step
from far_mesh.entrance import Entrance

TakeStep = Callable[[Step], None]
"""Raises ProtocolViolation at a step that nobody waits for."""

QUESTIONS = 3
ANSWER_SECONDS = 10.0
MAX_STEP_BYTES = 16 * 2**20
"""Of what a node hands on: 64 positions of 32,768 values, and more."""
_CIRCUIT = "/p2p-circuit"


@dataclass(frozen=True)
class Reached:
    """How a node was reached; ``round_trip_ms``: the shortest; ``reason``: the code of why it was not."""

    reach: Reach
    round_trip_ms: float | None = None
    reason: str = ""


@dataclass
class Vantage:
    """Owner of what comes in from nodes that take us for the one behind them.

    Args:
        behind_maddrs: where nodes reach ``behind``.
    """

    client: Transport
    before: Transport
    behind: Transport
    behind_maddrs: tuple[str, ...] = ()
    was_reached: bool = False
    """Whether a node has come to ``behind``: then others can as well."""
    _expected: dict[SessionId, tuple[str, TakeStep]] = field(default_factory=dict)

    async def start(self) -> None:
        """Take what nodes hand on."""
        await self.behind.serve(LINK_PROTOCOL, self._take_link)

    @property
    def next(self) -> PeerAddress:
        """Who comes after a node."""
        return PeerAddress(self.behind.peer_id, self.behind_maddrs)

    @contextlib.contextmanager
    def expecting(self, session_id: SessionId, peer_id: str, take: TakeStep) -> Iterator[None]:
        """Meanwhile ``take`` gets what a node hands on of a session."""
        self._expected[session_id] = peer_id, take
        try:
            yield
        finally:
            del self._expected[session_id]

    async def _take_link(self, stream: Stream) -> None:
        channel = Channel(stream)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                link = await channel.expect(Link, MAX_PLAIN_BYTES)
        except TimeoutError:
            raise ProtocolViolation("a link that names no session") from None
        peer_id, take = self._expected.get(link.session_id, ("", _nobody))
        if peer_id != stream.peer_id:
            raise ProtocolViolation("no such session is open here")
        self.was_reached = True
        while (message := await channel.receive(MAX_STEP_BYTES)) is not None:
            if not isinstance(message, Step):
                raise ProtocolViolation(f"{type(message).__name__} on a link, where only steps travel")
            take(message)

    async def look(self, node: Announcement) -> Reached:
        """Come to a node: at its own addresses first, else through a relay that it names."""
        direct = tuple(maddr for maddr in node.maddrs if _CIRCUIT not in maddr)
        relayed = tuple(maddr for maddr in node.maddrs if _CIRCUIT in maddr)
        reason = ""
        for reach, maddrs in ((Reach.DIRECT, direct), (Reach.RELAY, relayed)):
            if not maddrs and (node.maddrs or reach is Reach.RELAY):
                continue
            address = PeerAddress(PeerId(node.peer_id), maddrs)
            try:
                trips = [
                    await round_trip(self.client, address, node.model_digest, ANSWER_SECONDS) for _ in range(QUESTIONS)
                ]
                return Reached(reach, min(trips))
            except FarError as error:
                reason = error.code
        return Reached(Reach.NONE, None, reason)


def _nobody(_step: Step) -> None:
    raise ProtocolViolation("no such session is open here")


@asynccontextmanager
async def a_vantage(
    entrance: Entrance, host_maddrs: Sequence[str], announce_maddrs: Sequence[str]
) -> AsyncIterator[tuple[Vantage, SwarmPeer]]:
    """Three peers under new ids, of which the client's is given too: it reads the board.

    Args:
        host_maddrs: where the one behind a node listens, ``announce_maddrs`` where it says to be.

    Raises:
        InvalidArgument: an address is none.
        PeerUnavailable: no initial peer answers.
    """
    client = PeerConfig(await entrance.peers(), prefix=entrance.prefix, membership=entrance.membership, is_client=True)
    behind = replace(client, host_maddrs=tuple(host_maddrs), announce_maddrs=tuple(announce_maddrs))
    async with AsyncExitStack() as stack:
        peers = []
        for config in (client, client, behind):
            identity = ephemeral_identity()
            stack.callback(discard_identity, identity)
            peer = await SwarmPeer.start(identity, config)
            stack.push_async_callback(peer.close)
            peers.append(peer)
        maddrs = tuple(bare_maddr(maddr) for maddr in await peers[-1].maddrs())
        visitor, before, last = peers
        vantage = Vantage(visitor.transport, before.transport, last.transport, maddrs)
        await vantage.start()
        yield vantage, visitor
