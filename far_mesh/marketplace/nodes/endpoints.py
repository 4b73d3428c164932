"""``/api/nodes`` and ``/api/discovery``: who serves a model now, what is known of a node, and what nodes say of
themselves. Each path that the specification has for one thing leads to the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request

from discovery.placement import site_at
from discovery.protocol.announcement import RENEW_SECONDS, Announcement
from discovery.web.registration import HeartbeatAnswer, HeartbeatRequest, RegistrationAnswer, RegistrationRequest
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.nodes.schemas import (
    ActiveNode,
    ActiveNodes,
    NodeAnswer,
    NodeScore,
    NodeState,
    ServedModel,
)
from far_mesh.marketplace.nodes.service import NodeService, Sighting, Standing

MAX_PAGE, MAX_OFFSET = 1000, 1_000_000
MAX_KM = 20_100  # half way round the Earth

router = APIRouter(tags=["nodes"], dependencies=[PerAddress])


async def node_service(request: Request) -> NodeService:
    """The room's service, made by the app."""
    service: NodeService = request.app.state.rooms.nodes
    return service


Service = Annotated[NodeService, Depends(node_service)]
NodeSignature = Annotated[
    str | None,
    Header(
        alias="X-Far-Node-Signature",
        max_length=128,
        description="Base64 of the ed25519 signature by the node's own key, over the domain of the request, the URI of "
        "the gateway and the body, each on a line of its own: `far-mesh/registration/v1` or `far-mesh/heartbeat/v1`.",
    ),
]
SIGNED_ERRORS = errors(400, 401, 404, 409, 413, 415, 503)
ModelId = Annotated[str, Path(max_length=255, description="A model on sale; its slashes stay slashes.")]
Location = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Only nodes there: a latitude and a longitude, or a region, of which parts count too.",
        openapi_examples={
            "point": {"summary": "near Berlin", "value": "52.5,13.4"},
            "region": {"summary": "anywhere in Europe", "value": "eu"},
        },
    ),
]


@router.post("/api/nodes/register-distributed", responses=SIGNED_ERRORS)
@router.post("/api/nodes/register", responses=SIGNED_ERRORS)
@router.post("/nodes/register", responses=SIGNED_ERRORS)
async def register(
    request: Request, service: Service, body: RegistrationRequest, signature: NodeSignature = None
) -> RegistrationAnswer:
    """Say for which wallet a node earns, and what it runs on; signed by both, each signature counts once.

    A registration is no announcement: requests go to nodes that announce themselves in the swarm, and to no other.
    """
    announced = await service.register(body, await request.body(), signature)
    return RegistrationAnswer(
        node_id=body.node_id,
        discovery_url=f"{service.audience}/api/discovery",
        heartbeat_interval_sec=RENEW_SECONDS,
        announced=announced,
    )


@router.post("/api/nodes/heartbeat", responses=SIGNED_ERRORS)
@router.post("/nodes/heartbeat", responses=SIGNED_ERRORS)
async def heartbeat(
    request: Request, service: Service, body: HeartbeatRequest, signature: NodeSignature = None
) -> HeartbeatAnswer:
    """A registered node is still there. The answer says where it would do more good."""
    announced, move = await service.heartbeat(body, await request.body(), signature)
    return HeartbeatAnswer(
        should_rebalance=move is not None, suggested_blocks=None if move is None else move.to, announced=announced
    )


@router.get("/api/discovery/nodes/active/{model_id:path}", responses=errors(404))
@router.get("/api/nodes/active/{model_id:path}", responses=errors(404))
@router.get("/nodes/active/{model_id:path}", responses=errors(404))
async def active(
    service: Service,
    model_id: ModelId,
    location: Location = None,
    max_distance_km: Annotated[
        float | None,
        Query(ge=0, le=MAX_KM, description="How far from the point in `location`; 1000 where it is not said."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> ActiveNodes:
    """The nodes that serve a model now, by their own signed announcements. Needs no token."""
    found = await service.active(model_id, location, max_distance_km, limit, offset)
    return ActiveNodes(
        model_id=model_id,
        total_nodes=found.total,
        count=len(found.sightings),
        nodes=[active_node(one) for one in found.sightings],
    )


@router.get("/api/nodes/{node_id}", responses=errors(404))
async def node(service: Service, node_id: Annotated[str, Path(max_length=128)]) -> NodeAnswer:
    """What is known of a node. Needs no token: it is what the swarm announces to everybody, and who was seen when."""
    return node_answer(await service.node(node_id))


def active_node(one: Sighting) -> ActiveNode:
    """A node of the swarm, for an answer."""
    about, row = one.announcement, one.row
    return ActiveNode(
        node_id=about.peer_id,
        wallet_address=about.wallet,
        gpu_model=row.hardware.gpu_model if row else None,
        vram_gb=row.hardware.vram_gb if row else None,
        location=one.region,
        coordinates=None if one.point is None else (round(one.point[0]), round(one.point[1])),
        part=site_at(one.point, one.region),
        layers_served=list(range(*about.blocks)),
        distance_km=one.distance_km,
        registered=row is not None and row.is_registered,
        first_seen=row.registered_at if row else None,
        state=state_of(about),
        quantization=about.quantization,
        software=about.software,
        price_units=about.price_units,
        load=about.load,
        queue_ms=about.queue_ms,
        announced_at=_time(about.issued_at),
        expires_at=_time(about.expires_at),
        **_measured(one.reliability, [one]),
    )


def node_answer(known: Standing) -> NodeAnswer:
    """All that is known of a node, for an answer."""
    announced, row = [one.announcement for one in known.sightings], known.row
    regions = [about.region for about in announced if about.region is not None]
    said = None if row is None else row.hardware.location
    return NodeAnswer(
        node_id=known.node_id,
        state=state_of_all(known),
        wallet_address=known.wallet,
        models=[_served(about) for about in announced],
        gpu_model=row.hardware.gpu_model if row else None,
        vram_gb=row.hardware.vram_gb if row else None,
        location=regions[0] if regions else said,
        registered=row is not None and row.is_registered,
        first_seen=row.registered_at if row else None,
        last_seen=row.last_seen if row else None,
        claims=row.claims if row else None,
        score=None if row is None else NodeScore.of(row.seen),
        **_measured(row.score.value if row is not None and row.score is not None else None, known.sightings),
    )


def state_of(about: Announcement) -> NodeState:
    """What a node means to do, by its announcement."""
    return NodeState.ANNOUNCED if about.state == "ready" else NodeState.LEAVING


def state_of_all(known: Standing) -> NodeState:
    """The state of a node that may serve several models."""
    if known.sightings:
        states = [state_of(one.announcement) for one in known.sightings]
        return NodeState.ANNOUNCED if NodeState.ANNOUNCED in states else NodeState.LEAVING
    return NodeState.REGISTERED if known.row is not None and known.row.is_registered else NodeState.GONE


def _served(about: Announcement) -> ServedModel:
    return ServedModel(
        model_id=about.model_id,
        state=state_of(about),
        blocks=about.blocks,
        block_count=about.block_count,
        quantization=about.quantization,
        load=about.load,
        reached=about.reached,
        expires_at=_time(about.expires_at),
    )


def _measured(reliability: float | None, sightings: Sequence[Sighting]) -> dict[str, Any]:
    """Rounded to what means something: a share in thousandths, a round trip in tenths of a millisecond."""
    round_trip = next((one.round_trip_ms for one in sightings if one.round_trip_ms is not None), None)
    return {
        "reliability_score": None if reliability is None else round(reliability, 3),
        "avg_latency_ms": None if round_trip is None else round(round_trip, 1),
    }


def _time(unix_seconds: int) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)
