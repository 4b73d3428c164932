"""Shapes of what operators see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from discovery.placement import WANTED_REPLICAS
from discovery.web.registration import NodeId
from far_mesh.marketplace.health.schemas import SettlementReadiness
from far_mesh.marketplace.nodes.schemas import NodeState
from far_mesh.marketplace.nodes.service import MAX_WANTED

MAX_URL_CHARACTERS = 255


@dataclass(frozen=True)
class Lease:
    """Who may do alone what one gateway at a time does."""

    name: str
    gateway: str
    expires_at: datetime


@dataclass(frozen=True)
class GatewayLife:
    """A gateway that shares this database, and until when it said that it lives."""

    name: str
    alive_until: datetime


class Stretch(BaseModel):
    """Blocks ``[first_block, end_block)`` that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


class QueueState(BaseModel):
    """In front of a model at this gateway: requests that wait, sessions that are open, and how many may be."""

    waiting: int
    in_use: int
    capacity: int


class ModelCoverage(BaseModel):
    """How the swarm covers a model. ``thin``: what fewer than two nodes serve, and stops when one of them is lost."""

    model_id: str
    block_count: int
    min_nodes: int
    active_nodes: int
    available: bool
    reason: str | None
    coverage: list[Stretch]
    thin: list[Stretch]
    queue: QueueState | None


class ClusterNode(BaseModel):
    """A node and the blocks ``[first, end)`` of a model that it announces. ``reliability_score`` is what the
    gateways have seen of it, ``latency_ms`` the round trip that this one has measured."""

    node_id: str
    wallet_address: str
    model_id: str
    state: NodeState
    blocks: tuple[int, int]
    quantization: str
    region: str | None
    software: str
    load: float
    queue_ms: float
    reliability_score: float | None
    latency_ms: float | None
    expires_at: datetime


class OpenSessions(BaseModel):
    """Requests in the hands of a gateway: those whose money is being set aside, and those whose tokens flow."""

    gateway: str
    pending: int
    active: int


class LeaseState(BaseModel):
    """What one gateway at a time does, and which. ``held``: it has not run out."""

    name: str
    gateway: str
    held: bool
    expires_at: datetime


class GatewayState(BaseModel):
    """A gateway that shares this database. ``this``: the one that answers."""

    name: str
    alive: bool
    alive_until: datetime
    this: bool


class ClusterStatus(BaseModel):
    """Everything at once, at this moment, as this gateway sees it."""

    at: datetime
    status: str
    reasons: list[str]
    models: list[ModelCoverage]
    nodes: list[ClusterNode]
    sessions: list[OpenSessions]
    settlement: SettlementReadiness | None
    leases: list[LeaseState]
    gateways: list[GatewayState]


class RebalanceRequest(BaseModel):
    """What to advise on: one model or all of them, and how many nodes each block should have."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[str, Field(max_length=255)] | None = None
    replicas: Annotated[int, Field(ge=1, le=MAX_WANTED)] = WANTED_REPLICAS


class AdvisedMove(BaseModel):
    """A node that would do more good at ``to`` than where it is. Its owner decides, and would use ``command``, with the
    names that the models have at the machine."""

    node_id: str
    blocks: tuple[int, int]
    to: tuple[int, int]
    command: str


class ModelAdvice(BaseModel):
    """``thin``: what fewer nodes serve than should. ``lacking``: what stays so after the moves, for which
    more nodes are needed."""

    model_id: str
    replicas: int
    thin: list[Stretch]
    moves: list[AdvisedMove]
    lacking: list[Stretch]


class RebalanceAnswer(BaseModel):
    """Advice. Nothing was changed, and no node was told anything by this."""

    applied: Literal[False] = False
    models: list[ModelAdvice]


class WorkerRequest(BaseModel):
    """A node that sleeps, and where it can be woken. A node that runs announces itself, and needs no entry.

    Nobody asks ``endpoint_url`` for anything yet: it is kept for the operator.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "worker_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "worker_type": "serverless",
                    "endpoint_url": "https://pod-8003.example.com/control",
                    "vram_mb": 24000,
                    "payment_address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                }
            ]
        },
    )

    worker_id: NodeId
    worker_type: Literal["serverless"] = "serverless"
    endpoint_url: Annotated[
        str,
        Field(
            max_length=MAX_URL_CHARACTERS,
            pattern=r"^https?://[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/\-]*)?$",
        ),
    ]
    vram_mb: Annotated[int, Field(ge=0, le=65_536_000)] | None = None
    payment_address: Annotated[str, Field(max_length=64)]
    model_id: (
        Annotated[str, Field(max_length=255, description="May be left out where one model is on sale.")] | None
    ) = None


class ServedRange(BaseModel):
    """A model that a worker announces, and the blocks ``[first, end)`` of it."""

    model_id: str
    blocks: tuple[int, int]


class Worker(BaseModel):
    """A node in the words of a scheduler. ``serverless``: an endpoint is known at which it can be woken."""

    worker_id: str
    worker_type: Literal["persistent", "serverless"]
    state: NodeState
    endpoint_url: str | None
    vram_mb: int | None
    payment_address: str
    models: list[ServedRange]
    first_seen: datetime | None
    last_seen: datetime | None


class WorkerList(BaseModel):
    """All nodes: those that are announced, those that are registered, those that were seen once; by their ids.
    ``next_after``: for the next page, if there may be one."""

    workers: list[Worker]
    next_after: str | None
