"""The whole at a glance, advice about it, and the registry of nodes in the words of a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from discovery.placement import Advice, coverage
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import PeerId, check_peer_id, check_wallet
from discovery.web.errors import NodeUnknown
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.cluster import repository
from far_mesh.marketplace.cluster.schemas import GatewayLife, Lease, WorkerRequest
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.health.schemas import Readiness
from far_mesh.marketplace.health.service import HealthService
from far_mesh.marketplace.nodes import repository as registry
from far_mesh.marketplace.nodes.service import NodeService, Sighting, Standing
from far_mesh.marketplace.sessions.schemas import Status
from far_mesh.marketplace.settings import ModelOffer

MB_PER_GB = 1000


class GateLike(Protocol):
    """The queue in front of a model."""

    @property
    def waiting(self) -> int: ...
    @property
    def in_use(self) -> int: ...
    @property
    def capacity(self) -> int: ...


Gates = Callable[[], Mapping[str, GateLike]]


@dataclass(frozen=True)
class Picture:
    """All that is known at a moment: ``covered`` by how many nodes each block of a model is served. What the tables say
    is empty while the database does not answer."""

    gateway: str
    readiness: Readiness
    offers: Mapping[str, ModelOffer]
    covered: Mapping[str, Sequence[int]]
    sightings: Mapping[str, list[Sighting]]
    gates: Mapping[str, GateLike]
    sessions: Mapping[str, Mapping[Status, int]]
    leases: list[Lease]
    gateways: list[GatewayLife]


class ClusterService:
    """Answers operators, at one ``gateway`` of perhaps several, whose queues ``gates`` are."""

    def __init__(
        self,
        database: Database,
        gateway: str,
        health: HealthService,
        nodes: NodeService,
        offers: Iterable[ModelOffer],
        gates: Gates = dict,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._health = health
        self._nodes = nodes
        self._offers = {offer.model_id: offer for offer in offers}
        self._gates = gates

    async def picture(self) -> Picture:
        """Everything at once. A database that does not answer is one of the things to be seen."""
        sessions: Mapping[str, Mapping[Status, int]] = {}
        leases: list[Lease] = []
        gateways: list[GatewayLife] = []
        try:
            async with self._database.snapshot() as connection:
                sessions = await repository.open_sessions(connection)
                leases = await repository.all_leases(connection)
                gateways = await repository.all_gateways(connection)
        except DatabaseUnavailable:
            pass  # readiness says so
        sightings = await self._nodes.everybody()
        return Picture(
            gateway=self._gateway,
            readiness=await self._health.readiness(),
            offers=self._offers,
            covered={
                model_id: coverage((one.announcement for one in found), self._nodes.block_count(model_id))
                for model_id, found in sightings.items()
            },
            sightings=sightings,
            gates=self._gates(),
            sessions=sessions,
            leases=leases,
            gateways=gateways,
        )

    async def advice(self, model_id: str | None, replicas: int) -> dict[str, Advice]:
        """For one model or all: what is thin, and who would do more good elsewhere.

        Raises:
            ModelUnknown: it is not on sale here.
        """
        models = list(self._offers) if model_id is None else [model_id]
        return {one: await self._nodes.advice(one, replicas) for one in models}

    async def workers(self, after: str | None, limit: int) -> list[Standing]:
        """Nodes that are announced, registered or were seen once, in the order of their ids."""
        announced: dict[str, list[Sighting]] = {}
        for sightings in (await self._nodes.everybody()).values():
            for one in sightings:
                announced.setdefault(one.announcement.peer_id, []).append(one)
        async with self._database.reading() as connection:
            rows = {row.node_id: row for row in await registry.page(connection, after, limit)}
        ids = sorted(node_id for node_id in announced.keys() | rows.keys() if after is None or node_id > after)[:limit]
        return [Standing(PeerId(one), tuple(announced.get(one, ())), rows.get(one)) for one in ids]

    async def add_worker(self, wanted: WorkerRequest) -> Standing:
        """Keep a node that sleeps, and where it can be woken.

        Raises:
            InvalidIdentity, InvalidWallet, InvalidArgument: what is sent means nothing.
            ModelUnknown: not on sale here.
        """
        node_id, wallet = check_peer_id(wanted.worker_id), check_wallet(wanted.payment_address)
        vram_gb = None if wanted.vram_mb is None else wanted.vram_mb // MB_PER_GB
        model_id = self._model(wanted.model_id)
        async with self._database.writing() as connection:
            await registry.put_worker(connection, node_id, wallet, model_id, wanted.endpoint_url, vram_gb, now())
        return await self._nodes.node(node_id)

    async def remove_worker(self, worker_id: str) -> None:
        """Forget a registration. What a node announces in the swarm is its own, and stays.

        Raises:
            InvalidIdentity: this cannot be the id of a node.
            NodeUnknown: it is not registered.
        """
        node_id = check_peer_id(worker_id)
        async with self._database.writing() as connection:
            if not await registry.remove(connection, node_id):
                raise NodeUnknown(f"{node_id} is not registered")

    def _model(self, wanted: str | None) -> str:
        if wanted is None and len(self._offers) != 1:
            raise InvalidArgument("several models are on sale: name one in model_id", param="model_id")
        model_id = next(iter(self._offers)) if wanted is None else wanted
        self._nodes.block_count(model_id)
        return model_id
