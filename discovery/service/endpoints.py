"""The paths of the discovery service."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from discovery.placement import WANTED_REPLICAS, Stretch, stretches, thin
from discovery.probe.history import HOUR, KEEP_HOURS, Hour, observed, summaries
from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH
from discovery.protocol.ids import check_peer_id
from discovery.score import COUNTS, score_of
from discovery.service.cursor import MAX_CURSOR_CHARACTERS
from discovery.service.http import answer, may_ask, may_look, may_write
from discovery.service.metrics import Metrics
from discovery.service.mirror import Entry, Variant
from discovery.service.schemas import (
    MAX_REPORTS,
    ActiveNode,
    ActiveNodes,
    Bootstrap,
    Coverage,
    Covered,
    Document,
    Health,
    Heartbeat,
    HeartbeatTaken,
    History,
    ModelAnswer,
    Models,
    NodeAnswer,
    NodeScore,
    NodeState,
    Probed,
    ProbedHour,
    ProbeHistory,
    ProbeReports,
    Readiness,
    Registered,
    Registration,
    ReportTaken,
    Served,
    VariantCoverage,
)
from discovery.service.service import DiscoveryService, Known, Page, Sighting
from discovery.service.store import NodeRow
from discovery.web.answers import errors
from discovery.web.errors import DatabaseUnavailable

MAX_PAGE, USUAL_PAGE = 1000, 100
MAX_VARIANTS, USUAL_VARIANTS = 50, 10  # each has a number for each of up to 4096 blocks
MAX_KM = 20_100  # half way round the Earth
MAX_WANTED = 16
USUAL_HOURS = 24

_VARIES = {"document", "distance_km", "registered", "gpu_model", "vram_gb"}
_told: WeakKeyDictionary[Entry, bytes] = WeakKeyDictionary()
"""What is told of an announcement, but for what varies, and without the last brace."""

router = APIRouter()
nodes = APIRouter(tags=["nodes"], dependencies=[Depends(may_ask)], responses=errors(400, 429, 500))
writes = APIRouter(
    tags=["nodes"],
    dependencies=[Depends(may_write)],
    responses=errors(400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503),
)
health = APIRouter(tags=["health"])


def _service(request: Request) -> DiscoveryService:
    service: DiscoveryService = request.app.state.service
    return service


Service = Annotated[DiscoveryService, Depends(_service)]
NodeSignature = Annotated[
    str | None,
    Header(
        alias="X-Far-Node-Signature",
        max_length=128,
        description="Base64 of the ed25519 signature by the node's own key, over the domain of the request, the URI of "
        "this service and the body, each on a line of its own: `far-mesh/registration/v1` or `far-mesh/heartbeat/v1`.",
    ),
]
Model = Annotated[
    str,
    Path(
        max_length=MAX_MODEL_ID_LENGTH,
        description="The name of a model, its slashes as they are, or the digest of its weights in hexadecimal.",
    ),
]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE)]
PageCursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR_CHARACTERS, description="`next_cursor` of the page before.")
]
Signed = Annotated[bool, Query(description="With the signed announcements themselves, for who wants to check them.")]
Known304 = Annotated[
    str | None, Header(alias="If-None-Match", description="The `ETag` of an answer: 304 if it is still the same.")
]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "What the caller has is what there is."}}
GETS = NOT_MODIFIED | errors(404)


@writes.post("/nodes/register")
async def register(
    request: Request, service: Service, body: Registration, signature: NodeSignature = None
) -> Registered:
    """Say for which wallet a node earns, and what it runs on; signed by both, each signature counts once. A node that
    cannot publish its announcement in the swarm, or where it is woken when it sleeps, sends that along."""
    active, on_call = await service.register(body, await request.body(), signature)
    return Registered(
        node_id=body.node_id,
        heartbeat_interval_sec=request.app.state.renew_seconds,
        expires_after_sec=service.mirror.expiry_seconds,
        active=active,
        on_call=on_call,
    )


@writes.post("/nodes/heartbeat")
async def heartbeat(
    request: Request, service: Service, body: Heartbeat, signature: NodeSignature = None
) -> HeartbeatTaken:
    """A registered node is still there, and announces itself anew if it cannot do so in the swarm. The answer says
    where it would do more good."""
    announced, on_call, move = await service.heartbeat(body, await request.body(), signature)
    return HeartbeatTaken(
        should_rebalance=move is not None,
        suggested_blocks=None if move is None else move.to,
        announced=announced,
        on_call=on_call,
    )


@nodes.get("/nodes/active/{model:path}", response_model=ActiveNodes, responses=GETS)
async def active(
    request: Request,
    service: Service,
    model: Model,
    location: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Only nodes there: a latitude and a longitude, or a region, of which parts count too.",
        ),
    ] = None,
    max_distance_km: Annotated[
        float | None,
        Query(ge=0, le=MAX_KM, description="How far from the point in `location`; 1000 where it is not said."),
    ] = None,
    limit: PageSize = USUAL_PAGE,
    cursor: PageCursor = None,
    signed: Signed = False,
    _known: Known304 = None,
) -> Response:
    """The nodes that serve a model now, by their own signed announcements."""
    return answer(request, active_nodes(model, service.active(model, location, max_distance_km, limit, cursor), signed))


@nodes.get("/nodes/{node_id}", response_model=NodeAnswer, responses=GETS | errors(503))
async def node(
    request: Request,
    service: Service,
    node_id: Annotated[str, Path(max_length=128)],
    signed: Signed = False,
    _known: Known304 = None,
) -> Response:
    """What is known of a node: what it announces, what it has registered, when it was seen, and what probers say."""
    return answer(request, _node_answer(await service.node(node_id), signed))


@nodes.get("/nodes/{node_id}/history", response_model=ProbeHistory, responses=NOT_MODIFIED | errors(503))
async def probe_history(
    request: Request,
    service: Service,
    node_id: Annotated[str, Path(max_length=128)],
    hours: Annotated[int, Query(ge=1, le=KEEP_HOURS, description="How far back.")] = USUAL_HOURS,
    _known: Known304 = None,
) -> Response:
    """What probers have seen of a node, hour by hour; nothing, where none has looked."""
    peer_id = check_peer_id(node_id)
    seen = await service.probes.lately(peer_id, hours)
    return answer(request, ProbeHistory(node_id=peer_id, hours=[_probed_hour(one) for one in seen]))


@writes.post("/probes/reports")
async def report(service: Service, body: Document) -> ReportTaken:
    """What a prober has seen: a report that it has signed (`far-mesh/probe-report/v1`), of one that the operator has
    named. Each is taken once."""
    signed, counted = await service.probes.take(body.model_dump_json().encode())
    return ReportTaken(sequence=signed.report.sequence, counted=counted)


@nodes.get("/probes/reports", response_model=ProbeReports, responses=NOT_MODIFIED | errors(403, 503))
async def reports(
    request: Request,
    service: Service,
    prober: Annotated[str, Query(max_length=128, description="The peer id of one that the operator has named.")],
    after: Annotated[int, Query(ge=0, le=2**53, description="The number of the last report that is known.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_REPORTS)] = MAX_REPORTS,
    _known: Known304 = None,
) -> Response:
    """What a prober has reported within a day, for who believes it and not us: each with its signature."""
    found = await service.probes.reports(prober, after, limit)
    told = ProbeReports(prober=prober, reports=[Document.model_validate_json(one) for one in found])
    return answer(request, told)


@nodes.get("/models", response_model=Models, responses=NOT_MODIFIED)
async def models(
    request: Request,
    service: Service,
    limit: PageSize = USUAL_PAGE,
    cursor: PageCursor = None,
    _known: Known304 = None,
) -> Response:
    """All models that are announced now."""
    total, found, more = service.models(limit, cursor)
    told = Models(
        total_models=total,
        count=len(found),
        models=[ModelAnswer(**_about(one)) for one in found],
        next_cursor=more,
    )
    return answer(request, told)


@nodes.get("/coverage/{model:path}", response_model=Coverage, responses=GETS)
async def coverage(
    request: Request,
    service: Service,
    model: Model,
    wanted: Annotated[int, Query(ge=1, le=MAX_WANTED, description="Below so many nodes a block is thin.")] = (
        WANTED_REPLICAS
    ),
    limit: Annotated[int, Query(ge=1, le=MAX_VARIANTS)] = USUAL_VARIANTS,
    cursor: PageCursor = None,
    _known: Known304 = None,
) -> Response:
    """Who covers which block of a model, how often."""
    total, found, more = service.variants(model, limit, cursor)
    variants = [
        VariantCoverage(
            **_about(one),
            blocks=list(one.replicas),
            stretches=_covered(stretches(one.replicas)),
            thin=_covered(thin(one.replicas, wanted)),
        )
        for one in found
    ]
    told = Coverage(
        model_id=model,
        wanted=wanted,
        total_variants=total,
        count=len(variants),
        variants=variants,
        next_cursor=more,
    )
    return answer(request, told)


@nodes.get("/bootstrap")
async def bootstrap(request: Request, service: Service) -> Bootstrap:
    """Where a newcomer can join the swarm: a hint. What the swarm says is signed, and is to be checked."""
    return Bootstrap(prefix=request.app.state.prefix, initial_peers=service.bootstrap())


@health.get("/health")
async def alive() -> Health:
    """The process answers."""
    return Health()


@health.get("/ready", responses={503: {"model": Readiness}})
async def ready(request: Request, response: Response, service: Service) -> Readiness:
    """Whether what is told here is true now: the DHT was read lately, and the database answers."""
    reasons = []
    try:
        await service.check_store()
    except DatabaseUnavailable as error:
        reasons.append(error.message)
    since, patience = service.followed_seconds, request.app.state.follow_patience
    if service.has_follower and (since is None or since > patience):
        reasons.append("the DHT has not been read yet" if since is None else f"the DHT was not read for {since:.0f} s")
    response.status_code = 503 if reasons else 200
    return Readiness(
        status="unready" if reasons else "ready",
        reasons=reasons,
        announcements=sum(1 for _ in service.mirror.active(_now())),
        followed_seconds=None if since is None else round(since, 1),
    )


@health.get("/metrics", include_in_schema=False, response_class=Response, dependencies=[Depends(may_look)])
async def metrics(request: Request, service: Service) -> Response:
    """Everything that is counted, as Prometheus reads it."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(service), headers={"content-type": CONTENT_TYPE_LATEST})


def active_nodes(model: str, page: Page, signed: bool) -> bytes:
    """An :class:`ActiveNodes` as JSON, put together of pieces: what is told of a node is written once for each of its
    announcements, and there may be a thousand of them on a page."""
    head = {"model_id": model, "total_nodes": page.total, "count": len(page.sightings), "next_cursor": page.next_cursor}
    nodes = b",".join([_active_node(one, signed) for one in page.sightings])
    return b'%b, "nodes": [%b]}' % (json.dumps(head)[:-1].encode(), nodes)


def _active_node(one: Sighting, signed: bool) -> bytes:
    entry, row = one.entry, one.row
    told = _told.get(entry)
    if told is None:
        told = _told[entry] = _node_of(entry).model_dump_json(exclude=_VARIES)[:-1].encode()
    varies = _varying(one.apart, False) if row is None else _varying(one.apart, True, row.gpu_model, row.vram_gb)
    return b'%b, "document": %b, %b' % (told, entry.signed.to_bytes() if signed else b"null", varies)


@lru_cache(4096)
def _varying(apart: float | None, registered: bool, gpu_model: str | None = None, vram_gb: int | None = None) -> bytes:
    said = {"distance_km": apart, "registered": registered, "gpu_model": gpu_model, "vram_gb": vram_gb}
    return json.dumps(said)[1:].encode()


def _node_of(entry: Entry) -> ActiveNode:
    about = entry.announcement
    return ActiveNode(
        **_served(entry, False),
        node_id=about.peer_id,
        wallet_address=about.wallet,
        location=about.region,
        distance_km=None,
        registered=False,
        gpu_model=None,
        vram_gb=None,
    )


def _served(entry: Entry, signed: bool) -> dict[str, Any]:
    about = entry.announcement
    return {
        "model_id": about.model_id,
        "model_digest": about.model_digest,
        "layers_served": list(range(*about.blocks)),
        "block_count": about.block_count,
        "state": NodeState.ACTIVE if about.state == "ready" else NodeState.LEAVING,
        "quantization": about.quantization,
        "dtype": about.dtype,
        "software": about.software,
        "price_units": about.price_units,
        "block_ms": about.block_ms,
        "load": about.load,
        "queue_ms": about.queue_ms,
        "sessions": about.sessions,
        "maddrs": list(about.maddrs),
        "announced_at": _time(about.issued_at),
        "expires_at": _time(entry.ends_at),
        "source": entry.source.value,
        "document": Document.model_validate_json(entry.signed.to_bytes()) if signed else None,
    }


def _node_answer(known: Known, signed: bool) -> NodeAnswer:
    announced, row = [one.announcement for one in known.entries], known.row
    registered = row if row is not None and row.is_registered else None
    regions = [about.region for about in announced if about.region is not None]
    return NodeAnswer(
        node_id=known.peer_id,
        state=_state(known),
        wallet_address=announced[0].wallet if announced else row.wallet if row is not None else "",
        models=[Served.model_validate(_served(one, signed)) for one in known.entries],
        location=next(iter(regions), None if registered is None else registered.location),
        registered=registered is not None,
        gpu_model=None if registered is None else registered.gpu_model,
        vram_gb=None if registered is None else registered.vram_gb,
        public_addr=None if registered is None else registered.public_addr,
        claims=None if registered is None or registered.claims is None else dict(registered.claims),
        history=None if row is None else _history(row),
        probed=_probed(known.hours),
        score=_score(known),
    )


def _probed(hours: list[Hour]) -> list[Probed]:
    lately = [one for one in hours if one.hour > _now() - USUAL_HOURS * HOUR]
    return [
        Probed(
            prober=one.prober,
            last_at=_time(one.last_at),
            reach=one.reach,
            probes=one.probes,
            right=one.right,
            wrong=one.wrong,
            undecided=one.undecided,
            round_trip_ms=one.round_trip_ms,
            block_ms=one.block_ms,
            claimed_block_ms=one.claimed_block_ms,
            overclaims=one.overclaims,
        )
        for one in summaries(lately)
    ]


def _score(known: Known) -> NodeScore | None:
    row, now = known.row, _now()
    age = 0.0 if row is None else max(0.0, now - row.first_seen)
    uptime = None if row is None else min(1.0, row.seen_seconds / max(1.0, age))
    seen = observed(known.hours, now, uptime, age)
    if not seen.anything:
        return None
    score = score_of(seen)
    return NodeScore(
        value=round(score.value, 3),
        dependability=round(score.dependability, 3),
        honesty=round(score.honesty, 3),
        presence=round(score.presence, 3),
        standing=round(score.standing, 3),
        **{name: round(getattr(seen, name), 2) for name in COUNTS},
        uptime=None if uptime is None else round(uptime, 4),
        age=round(age),
    )


def _probed_hour(one: Hour) -> ProbedHour:
    fields = {name: getattr(one, name) for name in ProbedHour.model_fields}
    mean = {name: getattr(one, name) / one.timed if one.timed else None for name in ("block_ms", "claimed_block_ms")}
    return ProbedHour.model_validate(fields | mean | {"hour": _time(one.hour)})


def _state(known: Known) -> NodeState:
    if not known.entries:
        return NodeState.REGISTERED if known.row is not None and known.row.is_registered else NodeState.GONE
    if known.is_unwell:
        return NodeState.UNWELL
    is_ready = any(one.announcement.state == "ready" for one in known.entries)
    return NodeState.ACTIVE if is_ready else NodeState.LEAVING


def _history(row: NodeRow) -> History:
    known_seconds = max(1, int(_now()) - row.first_seen)
    return History(
        first_seen=_time(row.first_seen),
        last_seen=_time(row.last_seen),
        seen_seconds=row.seen_seconds,
        uptime_percent=round(min(100.0, 100 * row.seen_seconds / known_seconds), 1),
    )


def _about(variant: Variant) -> dict[str, object]:
    return {
        "model_id": variant.model_id,
        "model_digest": variant.model_digest,
        "block_count": variant.block_count,
        "nodes": variant.nodes,
        "ready_nodes": variant.ready,
        "complete": variant.is_complete,
        "fewest_replicas": min(variant.replicas),
    }


def _covered(pieces: list[Stretch]) -> list[Covered]:
    return [Covered(first_block=one.first_block, end_block=one.end_block, replicas=one.replicas) for one in pieces]


def _time(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def _now() -> float:
    return datetime.now(UTC).timestamp()


for room in (writes, nodes, health):
    router.include_router(room)
