"""Who is in a swarm, and how far away, for ``far-node peers``. Announcements are read as any client reads them."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from discovery.dht.identity import discard_identity, ephemeral_identity
from discovery.dht.peer import CIRCUIT, PeerConfig, SwarmPeer
from discovery.dht.ping import round_trip
from discovery.dht.transport import Transport
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.membership import Membership
from discovery.protocol.messages import PeerAddress

ANSWER_SECONDS = 5.0
AT_ONCE = 16


@dataclass(frozen=True)
class Neighbour:
    """A node as it announces itself for one model."""

    announcement: Announcement

    @property
    def way(self) -> str:
        """How it says that it is reached: ``direct``, ``relay``, or ``none`` where it names no address or knows that
        nobody gets through to it."""
        maddrs = self.announcement.maddrs
        if not maddrs or self.announcement.reached == "none":
            return "none"
        return "relay" if all(CIRCUIT in maddr for maddr in maddrs) else "direct"

    def facts(self, now: float) -> dict[str, Any]:
        """For programs; ``seen_seconds`` ago it announced itself."""
        about = self.announcement
        return {
            "model_id": about.model_id,
            "model_digest": about.model_digest,
            "peer_id": about.peer_id,
            "wallet": about.wallet,
            "blocks": about.blocks,
            "block_count": about.block_count,
            "quantization": about.quantization,
            "reached": self.way,
            "state": about.state,
            "software": about.software,
            "region": about.region,
            "load": about.load,
            "price_units": about.price_units,
            "seen_seconds": max(0, round(now - about.issued_at)),
        }


@dataclass(frozen=True)
class Pinged:
    """What came of asking a node several times. ``reason``: why the last question that failed did."""

    neighbour: Neighbour
    milliseconds: tuple[float, ...]
    asked: int
    reason: str | None

    def facts(self) -> dict[str, Any]:
        """For programs; what was not measured is None."""
        times = self.milliseconds
        about = self.neighbour.announcement
        return {
            "peer_id": about.peer_id,
            "model_id": about.model_id,
            "reached": self.neighbour.way,
            "asked": self.asked,
            "answered": len(times),
            "min_ms": round(min(times), 2) if times else None,
            "median_ms": round(statistics.median(times), 2) if times else None,
            "p95_ms": round(percentile(times, 0.95), 2) if times else None,
            "reason": self.reason,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def chosen(nodes: Sequence[Announcement], model: str | None, peer_id: str | None) -> list[Neighbour]:
    """Those of a model (its name, its digest or the beginning of it) and of a peer, where they are named; in the order
    of models and blocks."""
    fit = [
        node
        for node in nodes
        if (model is None or node.model_id == model or (len(model) >= 8 and node.model_digest.startswith(model)))
        and (peer_id is None or node.peer_id == peer_id)
    ]
    return [Neighbour(node) for node in sorted(fit, key=lambda node: (node.model_id, node.blocks, node.peer_id))]


@asynccontextmanager
async def visiting(
    initial_peers: Sequence[str], prefix: str, membership: Membership | None = None
) -> AsyncIterator[SwarmPeer]:
    """A client of the swarm, under a name that is used once; of a private one with the invitation of ``membership``.

    Raises:
        FarError: the initial peers mean nothing, or none answers.
    """
    identity = ephemeral_identity()
    try:
        config = PeerConfig(tuple(initial_peers), prefix=prefix, is_client=True, membership=membership)
        peer = await SwarmPeer.start(identity, config)
        try:
            yield peer
        finally:
            await peer.close()
    finally:
        discard_identity(identity)


async def ping(transport: Transport, nodes: Sequence[Neighbour], count: int) -> list[Pinged]:
    """Ask each node so many times, one question after the other, several nodes at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(node: Neighbour) -> Pinged:
        async with turns:
            return await _ping(transport, node, count)

    return list(await asyncio.gather(*map(one, nodes)))


async def _ping(transport: Transport, node: Neighbour, count: int) -> Pinged:
    about, times, reason = node.announcement, list[float](), None
    address = PeerAddress(PeerId(about.peer_id), about.maddrs)
    for asked in range(1, count + 1):
        try:
            times.append(await round_trip(transport, address, about.model_digest, ANSWER_SECONDS))
        except FarError as error:
            reason = error.message
            if not times:  # whoever does not answer the first question is not waited for again and again
                return Pinged(node, (), asked, reason)
    return Pinged(node, tuple(times), count, reason)
