"""Who serves what, as the swarm says; and what a registry can add to that.

Two planes: requests go to the nodes that announce themselves in the swarm, with their own signatures, whether anybody
has registered them or not. A registration says who owns a machine, and with what; it is no announcement, and nothing is
routed by it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from discovery.geo import Point, distance_km
from discovery.location import is_in, parse_location
from discovery.placement import WANTED_REPLICAS, Advice, Move, Promises, advise
from discovery.protocol.announcement import LIFETIME_SECONDS, Announcement, SignedAnnouncement
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import PeerId, check_peer_id, check_wallet
from discovery.protocol.registration import HEARTBEAT, REGISTRATION, consent_text
from discovery.web.errors import AnnouncedForAnother, NodeUnknown, ProofStale, TooManyNodes
from discovery.web.registration import HeartbeatRequest, RegistrationRequest, check_proof
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.auth.service import AuthService
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable, ModelUnknown
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.nodes import repository
from far_mesh.marketplace.nodes.schemas import Hardware, NodeRow

if TYPE_CHECKING:
    from far_mesh.costs import Known

MAX_NODES_PER_WALLET = 1000
MAX_IDLE_NODES = 20_000
"""Nodes that have never served, of which the registry keeps a note."""
CENSUS_SECONDS = 60.0
GONE_AFTER = timedelta(seconds=2 * LIFETIME_SECONDS)
NEAR_KM = 1000.0
"""What is near, where nobody says it (section 5.4 of the specification)."""
ADVICE_SECONDS = 5.0
MAX_WANTED = 16

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sighting:
    """A node as the swarm announces it for one model, what this gateway has measured of it, and what the registry has.

    Attributes:
        distance_km: from the point that was asked about.
    """

    announcement: Announcement
    round_trip_ms: float | None
    point: Point | None
    row: NodeRow | None = None
    distance_km: float | None = None

    @property
    def region(self) -> str | None:
        """The region that it names, in its announcement or else in its registration."""
        said = None if self.row is None else self.row.hardware.location
        return self.announcement.region or said

    @property
    def reliability(self) -> float | None:
        """From 0 to 1, by what gateways have seen of it; None: nothing."""
        score = None if self.row is None else self.row.score
        return None if score is None else score.value


@dataclass(frozen=True)
class Standing:
    """All that is known of a node: what it announces now, and its row; one of them is there."""

    node_id: PeerId
    sightings: tuple[Sighting, ...]
    row: NodeRow | None

    @property
    def wallet(self) -> str:
        """For whom it earns: as it announces itself, or else as the registry has it."""
        if self.sightings:
            return self.sightings[0].announcement.wallet
        return "" if self.row is None else self.row.wallet_address


@dataclass(frozen=True)
class Found:
    """Some of the nodes that were looked for, and how many there are in all."""

    total: int
    sightings: list[Sighting]


class NodeService:
    """The one that answers for nodes. ``audience`` is the URI that proofs are made for."""

    def __init__(self, database: Database, meshes: Mapping[str, MeshLike], auth: AuthService, audience: str) -> None:
        self._database = database
        self._meshes = meshes
        self._auth = auth
        self.audience = audience
        self._advice: Recall[tuple[str, int], Advice] = Recall(ADVICE_SECONDS)
        self._promises = {model_id: Promises() for model_id in meshes}

    # ---- what the swarm says

    async def active(self, model_id: str, location: str | None, max_km: float | None, limit: int, offset: int) -> Found:
        """The nodes that announce a model and take requests, but for those that broke off in the middle of one and were
        not heard of since; those near a place alone where one is given.

        Raises:
            ModelUnknown: it is not on sale here.
            InvalidArgument: the place is none, or a distance without a point to measure it from.
        """
        mesh, where = self._mesh(model_id), None if location is None else parse_location(location)
        if max_km is not None and not isinstance(where, tuple):
            raise InvalidArgument(
                "max_distance_km needs a latitude and a longitude in location, such as 52.5,13.4",
                param="max_distance_km",
            )
        there = [one for one in _seen(mesh, await mesh.present()) if one.announcement.state == "ready"]
        if isinstance(where, tuple):
            fit = _near(there, where, NEAR_KM if max_km is None else max_km)
            return Found(len(fit), await self._with_rows(fit[offset : offset + limit]))
        there.sort(key=lambda one: one.announcement.peer_id)
        if where is None:
            return Found(len(there), await self._with_rows(there[offset : offset + limit]))
        fit = [one for one in await self._with_rows(there) if is_in(one.region, where)]
        return Found(len(fit), fit[offset : offset + limit])

    async def node(self, node_id: str) -> Standing:
        """What is known of a node.

        Raises:
            InvalidIdentity: this cannot be the id of a node.
            NodeUnknown: it is not announced for a model on sale here, and the registry does not have it.
        """
        peer_id = check_peer_id(node_id)
        sightings = [one for mesh in self._meshes.values() for one in await _sightings(mesh, peer_id)]
        async with self._database.reading() as connection:
            row = await repository.find(connection, peer_id)
        if not sightings and row is None:
            raise NodeUnknown(f"nobody has heard of {peer_id}")
        return Standing(peer_id, tuple(replace(one, row=row) for one in sightings), row)

    async def everybody(self) -> dict[str, list[Sighting]]:
        """All nodes that are announced, those that are leaving too, by the model. While the database does not answer
        their rows are missing."""
        found = {model_id: await _sightings(mesh) for model_id, mesh in self._meshes.items()}
        with suppress(DatabaseUnavailable):
            found = {model_id: await self._with_rows(sightings) for model_id, sightings in found.items()}
        return found

    async def advice(self, model_id: str, wanted: int) -> Advice:
        """How a model is covered, and which nodes would do more good elsewhere, true to some seconds.

        Raises:
            ModelUnknown: it is not on sale here.
        """
        mesh = self._mesh(model_id)

        async def make() -> Advice:
            said = [signed.announcement for signed in await mesh.nodes()]
            nodes = self._promises[model_id].believed(said, time.monotonic())
            trust = await self._trust(mesh, nodes)
            return await asyncio.to_thread(advise, nodes, mesh.block_count, wanted, trust=trust)

        return await self._advice.get((model_id, wanted), make)

    async def _trust(self, mesh: MeshLike, nodes: Sequence[Announcement]) -> dict[str, float]:
        """How much of the speed counts that nodes announce: by their scores, and by how fast they were seen to be. Who
        is unknown counts as announced, or nobody would ever place himself by what strangers bring."""
        from far_mesh.costs import claimed_block_ms  # numpy comes along

        known = mesh.known(nodes)
        slower = {
            node.peer_id: claimed_block_ms(node) / max(known.block_ms.get(node.peer_id, 0.0), claimed_block_ms(node))
            for node in nodes
        }
        with suppress(DatabaseUnavailable):
            async with self._database.reading() as connection:
                found = await repository.rows(connection, slower.keys())
            for peer_id, row in found.items():
                if row.score is not None:
                    slower[peer_id] *= row.score.value
        return slower

    def block_count(self, model_id: str) -> int:
        """How many blocks a model has.

        Raises:
            ModelUnknown: it is not on sale here.
        """
        return self._mesh(model_id).block_count

    # ---- what nodes say of themselves

    async def register(self, wanted: RegistrationRequest, body: bytes, signature: str | None) -> bool:
        """A node and the wallet that it earns for, both signed: ``body`` is what was sent, ``signature`` the node's.
        Whether the swarm hears of the node.

        Raises:
            InvalidIdentity, InvalidWallet, InvalidArgument: what is sent means nothing.
            BadSignature: one of the two has not signed this, for this gateway.
            ProofStale: too old, or not newer than what counts already.
            ModelUnknown: not on sale here.
            AnnouncedForAnother: in the swarm the node says that it earns for another wallet.
            TooManyNodes: the wallet has as many as it may have.
            ChainUnavailable: the wallet may be a contract, and the chain does not answer.
        """
        node_id, wallet = check_peer_id(wanted.node_id), check_wallet(wanted.wallet_address)
        hardware = Hardware(wanted.gpu_model, wanted.vram_gb, _normal(wanted.location), wanted.public_addr)
        check_proof(node_id, REGISTRATION, self.audience, wanted.issued_at, body, signature)
        announced = await self._announced(self._mesh(wanted.model_id), node_id)
        if announced is not None and announced.wallet != wallet:
            raise AnnouncedForAnother(
                f"in the swarm {node_id} says that it earns for {announced.wallet}: start it with --wallet {wallet}"
            )
        consent = consent_text(self.audience, node_id, wallet, wanted.issued_at)
        await self._auth.check_signature(wallet, consent, wanted.signature)
        async with self._database.writing() as connection:
            if await repository.count_registered(connection, wallet, node_id) >= MAX_NODES_PER_WALLET:
                raise TooManyNodes(f"{wallet} has {MAX_NODES_PER_WALLET} registered nodes already")
            is_new = await repository.register(
                connection, node_id, wallet, wanted.model_id, hardware, wanted.issued_at, now()
            )
            if not is_new:
                raise ProofStale("a registration that is as new counts already: sign one with the time of now")
        return announced is not None

    async def heartbeat(self, said: HeartbeatRequest, body: bytes, signature: str | None) -> tuple[bool, Move | None]:
        """A registered node is there. Whether the swarm hears of it, and where it would do more good.

        Raises:
            InvalidIdentity: what is sent means nothing.
            BadSignature: the node has not signed this, for this gateway.
            ProofStale: too old, or not newer than the last one.
            NodeUnknown: it has to be registered first.
        """
        node_id = check_peer_id(said.node_id)
        check_proof(node_id, HEARTBEAT, self.audience, said.issued_at, body, signature)
        async with self._database.writing() as connection:
            is_new = await repository.heard(connection, node_id, said.claims(), said.issued_at, now())
            row = None if is_new else await repository.find(connection, node_id)
        if not is_new:
            if row is None or row.proven_at is None:
                raise NodeUnknown(f"{node_id} is not registered here: POST /api/nodes/register-distributed")
            raise ProofStale("a heartbeat that is as new was here already: sign one with the time of now")
        is_announced, move = False, None
        for model_id, mesh in self._meshes.items():
            if await self._announced(mesh, node_id) is not None:
                is_announced = True
                move = move or (await self.advice(model_id, WANTED_REPLICAS)).move_of(node_id)
        return is_announced, move

    async def _announced(self, mesh: MeshLike, node_id: str) -> Announcement | None:
        nodes = (signed.announcement for signed in await mesh.nodes())
        return next((node for node in nodes if node.peer_id == node_id), None)

    # ---- who was seen when

    async def run(self) -> None:
        """Take the census from time to time, until cancelled."""
        while True:
            await asyncio.sleep(CENSUS_SECONDS)
            try:
                await self.census()
            except DatabaseUnavailable as error:
                log.warning("census_not_taken", code=error.code)

    async def census(self) -> None:
        """Write down who is in the swarm now, and who is not any more. Several gateways may do so at once."""
        seen: dict[str, tuple[str, str, str]] = {}
        for model_id, mesh in self._meshes.items():
            for signed in await mesh.nodes():
                about = signed.announcement
                seen.setdefault(about.peer_id, (about.peer_id, about.wallet, model_id))
        at = now()
        async with self._database.writing() as connection:
            left_out = await repository.add_seen(connection, list(seen.values()), at, MAX_IDLE_NODES)
        if left_out:
            log.warning("census_is_full", left_out=left_out, limit=MAX_IDLE_NODES)
        async with self._database.writing() as connection:
            await repository.mark_seen(connection, list(seen), at)
            await repository.mark_gone(connection, at - GONE_AFTER)
            await repository.forget_idle(connection, at)

    # ---- inside

    def _mesh(self, model_id: str) -> MeshLike:
        mesh = self._meshes.get(model_id)
        if mesh is None:
            known = ", ".join(self._meshes)
            raise ModelUnknown(f"the model {model_id[:80]!r} is not on sale here; there is: {known}", param="model_id")
        return mesh

    async def _with_rows(self, sightings: Sequence[Sighting]) -> list[Sighting]:
        async with self._database.reading() as connection:
            found = await repository.rows(connection, {one.announcement.peer_id for one in sightings})
        return [replace(one, row=found.get(one.announcement.peer_id)) for one in sightings]


async def _sightings(mesh: MeshLike, node_id: str | None = None) -> list[Sighting]:
    return _seen(mesh, [signed for signed in await mesh.nodes() if node_id in (None, signed.announcement.peer_id)])


def _seen(mesh: MeshLike, announced: Iterable[SignedAnnouncement]) -> list[Sighting]:
    nodes = [signed.announcement for signed in announced]
    known: Known = mesh.known(nodes)
    return [Sighting(node, known.round_trips.get(node.peer_id), known.where(node)) for node in nodes]


def _near(sightings: Sequence[Sighting], where: Point, most_km: float) -> list[Sighting]:
    """Those within so many kilometres, the nearest first. Who is nowhere is not near."""
    fit = []
    for one in sightings:
        apart = math.inf if one.point is None else distance_km(where, one.point)
        if apart <= most_km:
            fit.append(replace(one, distance_km=round(apart, 1)))
    return sorted(fit, key=lambda one: (one.distance_km, one.announcement.peer_id))


def _normal(location: str | None) -> str | None:
    if location is None:
        return None
    where = parse_location(location)
    return where if isinstance(where, str) else f"{where[0]:g},{where[1]:g}"
