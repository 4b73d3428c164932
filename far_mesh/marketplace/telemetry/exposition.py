"""All numbers as Prometheus reads them: what this gateway counts, what it sees of the swarm, and what the books say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.logs import where_it_failed
from far_mesh.marketplace.telemetry import books
from far_mesh.marketplace.telemetry.books import BookFacts
from far_mesh.marketplace.telemetry.metrics import Metrics
from far_mesh.route import takes_sessions, uncovered_ranges

LOOK_SECONDS = 3.0
FACTS_SECONDS = 15.0
"""What the books say is read as often as this at most, however many look."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Presence:
    """Who serves a model now. ``gaps``: blocks that nobody serves."""

    nodes: Sequence[Announcement]
    gaps: Sequence[tuple[int, int]]


LookAround = Callable[[], Awaitable[Mapping[str, Presence]]]
"""Who serves which model now."""


class Exposition:
    """Puts it together. ``gateway`` is the name under which this process holds leases."""

    def __init__(self, metrics: Metrics, database: Database, gateway: str, look_around: LookAround) -> None:
        self._metrics, self._database, self._gateway, self._look_around = metrics, database, gateway, look_around
        self._facts: BookFacts | None = None
        self._read_at = -FACTS_SECONDS
        self._one_at_a_time = asyncio.Lock()

    async def text(self) -> bytes:
        """Everything, in Prometheus' text format. What cannot be learnt in some seconds is left out."""
        facts, swarm = await asyncio.gather(self._books(), self._swarm())
        families = [*self._metrics.collect(), *swarm, *books.families(facts, self._gateway), self._connections()]
        return generate_latest(cast(Any, _Gathered([*families, *_also(families)])))

    async def _books(self) -> BookFacts | None:
        async with self._one_at_a_time:
            if time.monotonic() - self._read_at >= FACTS_SECONDS:
                self._facts = await self._read()
                self._read_at = time.monotonic()
        return self._facts

    async def _read(self) -> BookFacts | None:
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._database.reading() as connection:
                return await books.read(connection)
        except (DatabaseUnavailable, TimeoutError):
            return None

    async def _swarm(self) -> list[Metric]:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                present = await self._look_around()
        except (FarError, OSError, RuntimeError, TimeoutError) as error:  # the other numbers are wanted all the more
            log.warning("swarm_not_counted", **where_it_failed(error))
            present = {}
        return swarm_families(present)

    def _connections(self) -> Metric:
        used, size = self._database.connections
        family = GaugeMetricFamily(
            "far_mesh_database_connections", "Connections to the database, and how many there may be.", labels=["state"]
        )
        family.add_metric(["in_use"], used)
        family.add_metric(["most"], size)
        return family


class _Gathered:
    """What :func:`generate_latest` reads."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """Everything."""
        return self._families


def looking_at(meshes: Mapping[str, MeshLike]) -> LookAround:
    """Looks at the swarm through the meshes of what is on sale."""

    async def look_around() -> dict[str, Presence]:
        present = {}
        for model, mesh in meshes.items():
            nodes = takes_sessions(signed.announcement for signed in await mesh.nodes())
            present[model] = Presence(nodes, uncovered_ranges(nodes, mesh.block_count))
        return present

    return look_around


def swarm_families(present: Mapping[str, Presence]) -> list[Metric]:
    """What is seen of the swarm. What nodes say of themselves is their word."""
    nodes = GaugeMetricFamily("far_mesh_active_nodes", "Nodes that serve the model.", labels=["model_id"])
    gaps = GaugeMetricFamily(
        "far_mesh_uncovered_blocks", "Blocks of the model that no node serves.", labels=["model_id"]
    )
    load = GaugeMetricFamily(
        "far_mesh_nodes_load", "How full the model's nodes say they are, from 0 to 1, on average.", labels=["model_id"]
    )
    peers = set[str]()
    for model, there in sorted(present.items()):
        nodes.add_metric([model], len(there.nodes))
        gaps.add_metric([model], sum(end - first for first, end in there.gaps))
        if there.nodes:
            load.add_metric([model], sum(node.load for node in there.nodes) / len(there.nodes))
        peers |= {node.peer_id for node in there.nodes}
    connected = GaugeMetricFamily("far_mesh_peers_connected", "Nodes that serve any of the models on sale.")
    connected.add_metric([], len(peers))
    return [nodes, gaps, load, connected]


_ALSO = {
    "far_mesh_inference_requests": "hanzo_inference_requests",
    "far_mesh_inference_latency_seconds": "hanzo_inference_latency_seconds",
    "far_mesh_peers_connected": "hanzo_peers_connected",
    "far_mesh_queue_depth": "hanzo_queue_depth",
}
"""What boards and rules made for a Hanzo node ask for, and what it is here."""


def _also(families: Sequence[Metric]) -> Iterator[Metric]:
    for family in families:
        if name := _ALSO.get(family.name):
            twin = Metric(name, f"The same as {family.name}.", family.type)
            twin.samples = [one._replace(name=name + one.name.removeprefix(family.name)) for one in family.samples]
            yield twin
