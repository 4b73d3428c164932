"""``/api/cluster``, ``/workers`` and ``/api/models``, for operators."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from shlex import quote
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from discovery.placement import WANTED_REPLICAS, Advice, stretches, thin
from discovery.placement import Stretch as Piece
from far_mesh.marketplace.auth.door import Operator
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.cluster.errors import NoRemoteControl
from far_mesh.marketplace.cluster.schemas import (
    AdvisedMove,
    ClusterNode,
    ClusterStatus,
    GatewayState,
    LeaseState,
    ModelAdvice,
    ModelCoverage,
    OpenSessions,
    QueueState,
    RebalanceAnswer,
    RebalanceRequest,
    ServedRange,
    Stretch,
    Worker,
    WorkerList,
    WorkerRequest,
)
from far_mesh.marketplace.cluster.service import MB_PER_GB, ClusterService, Picture
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.nodes.endpoints import state_of, state_of_all
from far_mesh.marketplace.nodes.service import Sighting, Standing
from far_mesh.marketplace.sessions.schemas import Status

MAX_PAGE = 1000

router = APIRouter(tags=["operators"])


async def cluster_service(request: Request) -> ClusterService:
    """The room's service, made by the app."""
    service: ClusterService = request.app.state.rooms.cluster
    return service


Service = Annotated[ClusterService, Depends(cluster_service)]


@router.get("/api/cluster/status")
async def status(service: Service, operator: Operator) -> ClusterStatus:
    """Models and how they are covered, nodes, requests under way, the queue, settlement, leases and gateways."""
    return cluster_status(await service.picture())


@router.post("/api/cluster/rebalance", responses=errors(404))
async def rebalance(service: Service, operator: Operator, body: RebalanceRequest | None = None) -> RebalanceAnswer:
    """Which blocks are thin, and which nodes would do more good where. Advice alone: no node is told anything."""
    body = body or RebalanceRequest()
    found = await service.advice(body.model_id, body.replicas)
    return RebalanceAnswer(models=[_advice(model_id, advice) for model_id, advice in found.items()])


_REFUSED = errors(409)


@router.post("/api/models/load", responses=_REFUSED, status_code=409)
async def load(operator: Operator) -> None:
    """Always refused: a node loads what its owner tells it to, at the machine."""
    raise NoRemoteControl(
        "nodes take no orders from here: their owners load a model with `far-node load MODEL --blocks FIRST:END`; to "
        "sell another model, name it in FAR_MODELS and restart this gateway"
    )


@router.post("/api/models/unload", responses=_REFUSED, status_code=409)
async def unload(operator: Operator) -> None:
    """Always refused: a node unloads what its owner tells it to, at the machine."""
    raise NoRemoteControl(
        "nodes take no orders from here: their owners take a model away with `far-node unload MODEL`; to sell a model "
        "no more, take it out of FAR_MODELS and restart this gateway"
    )


@router.post("/api/models/hot-swap", responses=_REFUSED, status_code=409)
async def hot_swap(operator: Operator) -> None:
    """Always refused: owners swap models on a running node themselves, without losing a session."""
    raise NoRemoteControl(
        "nodes take no orders from here: their owners swap models without losing a session: `far-node swap OLD NEW`"
    )


@router.get("/workers")
async def workers(
    service: Service,
    operator: Operator,
    after: Annotated[str | None, Query(max_length=64, pattern=r"^[1-9A-HJ-NP-Za-km-z]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
) -> WorkerList:
    """All nodes that are announced, registered, or were seen once."""
    found = await service.workers(after, limit)
    return WorkerList(
        workers=[_worker(one) for one in found], next_after=found[-1].node_id if len(found) == limit else None
    )


@router.post("/workers", status_code=201, responses=errors(404))
async def add_worker(service: Service, operator: Operator, body: WorkerRequest) -> Worker:
    """Keep a node that sleeps and where it can be woken. No request goes to a node that does not announce itself."""
    return _worker(await service.add_worker(body))


@router.delete("/workers/{worker_id}", status_code=204, responses=errors(404))
async def remove_worker(service: Service, operator: Operator, worker_id: Annotated[str, Path(max_length=128)]) -> None:
    """Forget a registration. What the node announces in the swarm is its own, and what it has served stays counted."""
    await service.remove_worker(worker_id)


def cluster_status(picture: Picture) -> ClusterStatus:
    """A picture, for an answer."""
    at = now()
    return ClusterStatus(
        at=at,
        status=picture.readiness.status,
        reasons=picture.readiness.reasons,
        models=[_model(picture, model_id) for model_id in picture.offers],
        nodes=[_node(model_id, one) for model_id, found in picture.sightings.items() for one in found],
        sessions=[
            OpenSessions(gateway=name, pending=counts.get(Status.PENDING, 0), active=counts.get(Status.ACTIVE, 0))
            for name, counts in sorted(picture.sessions.items())
        ],
        settlement=picture.readiness.settlement,
        leases=[
            LeaseState(name=one.name, gateway=one.gateway, held=one.expires_at > at, expires_at=one.expires_at)
            for one in picture.leases
        ],
        gateways=[
            GatewayState(
                name=one.name,
                alive=one.alive_until > at,
                alive_until=one.alive_until,
                this=one.name == picture.gateway,
            )
            for one in picture.gateways
        ],
    )


def _model(picture: Picture, model_id: str) -> ModelCoverage:
    covered, gate = picture.covered[model_id], picture.gates.get(model_id)
    ready = [one for one in picture.sightings.get(model_id, ()) if one.announcement.state == "ready"]
    readiness = picture.readiness.models.get(model_id)
    return ModelCoverage(
        model_id=model_id,
        block_count=len(covered),
        min_nodes=picture.offers[model_id].min_nodes,
        active_nodes=len(ready),
        available=readiness is not None and readiness.ok,
        reason=None if readiness is None else readiness.reason,
        coverage=_stretches(stretches(covered)),
        thin=_stretches(thin(covered, WANTED_REPLICAS)),
        queue=None if gate is None else QueueState(waiting=gate.waiting, in_use=gate.in_use, capacity=gate.capacity),
    )


def _node(model_id: str, one: Sighting) -> ClusterNode:
    about = one.announcement
    return ClusterNode(
        node_id=about.peer_id,
        wallet_address=about.wallet,
        model_id=model_id,
        state=state_of(about),
        blocks=about.blocks,
        quantization=about.quantization,
        region=about.region,
        software=about.software,
        load=about.load,
        queue_ms=about.queue_ms,
        reliability_score=None if one.reliability is None else round(one.reliability, 3),
        latency_ms=None if one.round_trip_ms is None else round(one.round_trip_ms, 1),
        expires_at=datetime.fromtimestamp(about.expires_at, UTC),
    )


def _advice(model_id: str, advice: Advice) -> ModelAdvice:
    return ModelAdvice(
        model_id=model_id,
        replicas=advice.wanted,
        thin=_stretches(advice.thin),
        moves=[
            AdvisedMove(
                node_id=move.peer_id,
                blocks=move.blocks,
                to=move.to,
                command=f"far-node swap {quote(model_id)} {quote(model_id)} --blocks {move.to[0]}:{move.to[1]}",
            )
            for move in advice.moves
        ],
        lacking=_stretches(advice.lacking),
    )


def _stretches(pieces: Iterable[Piece]) -> list[Stretch]:
    return [Stretch(first_block=one.first_block, end_block=one.end_block, replicas=one.replicas) for one in pieces]


def _worker(known: Standing) -> Worker:
    row, announced = known.row, [one.announcement for one in known.sightings]
    vram_gb = row.hardware.vram_gb if row else None
    return Worker(
        worker_id=known.node_id,
        worker_type="serverless" if row is not None and row.endpoint_url else "persistent",
        state=state_of_all(known),
        endpoint_url=row.endpoint_url if row else None,
        vram_mb=None if vram_gb is None else vram_gb * MB_PER_GB,
        payment_address=known.wallet,
        models=[ServedRange(model_id=about.model_id, blocks=about.blocks) for about in announced],
        first_seen=row.registered_at if row else None,
        last_seen=row.last_seen if row else None,
    )
