"""Shapes of nodes: those of the specification (sections 7.2, 7.3 and 8.1), and what we add to them.

What was announced or measured comes from the swarm; what nobody has measured is null. What is called a claim is a
node's word alone, and nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MAX_GPU_CHARACTERS = 100
MAX_SIGNATURE_CHARACTERS = 2 + 2 * 4096

PlainText = Annotated[str, Field(min_length=1, max_length=MAX_GPU_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]+$")]
NodeId = Annotated[str, Field(min_length=1, max_length=64, description="The node's libp2p peer id (ed25519).")]
Gigabytes = Annotated[int, Field(ge=0, le=65_536)]
HostAndPort = Annotated[
    str,
    Field(
        max_length=255,
        pattern=r"^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):[0-9]{1,5}$",
        description="Where the node can be reached, such as 1.2.3.4:31330.",
    ),
]
Finite = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class NodeState(StrEnum):
    """ANNOUNCED: it is in the swarm and takes requests. LEAVING: it takes no new ones. REGISTERED: its registration
    stands, and the swarm does not hear of it: nothing is routed to it. GONE: it was seen once."""

    ANNOUNCED = "announced"
    LEAVING = "leaving"
    REGISTERED = "registered"
    GONE = "gone"


class RegistrationRequest(BaseModel):
    """A node and the wallet it earns for. ``signature`` is the wallet's, over the sentence that names both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "node_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "wallet_address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                    "model_id": "meta-llama/Llama-2-7b-chat-hf",
                    "gpu_model": "NVIDIA RTX 4090",
                    "vram_gb": 24,
                    "public_addr": "1.2.3.4:31330",
                    "location": "US-East",
                    "issued_at": "2026-03-01T12:00:00Z",
                    "signature": "0x…",
                }
            ]
        },
    )

    node_id: NodeId
    wallet_address: Annotated[str, Field(max_length=64)]
    model_id: Annotated[str, Field(min_length=1, max_length=255)]
    gpu_model: PlainText | None = None
    vram_gb: Gigabytes | None = None
    public_addr: HostAndPort | None = None
    location: Annotated[str, Field(max_length=100, description="A region, or a latitude and a longitude.")] | None = (
        None
    )
    issued_at: AwareDatetime
    signature: Annotated[str, Field(max_length=MAX_SIGNATURE_CHARACTERS)]


class RegistrationAnswer(BaseModel):
    """``announced``: whether the swarm hears of the node. Requests go to announced nodes alone, registered or not."""

    node_id: str
    status: Literal["registered"] = "registered"
    discovery_url: str
    heartbeat_interval_sec: int
    announced: bool


class HeartbeatRequest(BaseModel):
    """How a node is, by its own word."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "node_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "is_healthy": True,
                    "latency_ms": 45,
                    "throughput_tokens_per_sec": 12,
                    "current_requests": 3,
                    "issued_at": "2026-03-01T12:00:30Z",
                }
            ]
        },
    )

    node_id: NodeId
    is_healthy: bool
    latency_ms: Finite
    throughput_tokens_per_sec: Finite
    current_requests: Annotated[int, Field(ge=0, le=10**6)] = 0
    gpu_utilization_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    vram_used_gb: Finite | None = None
    issued_at: AwareDatetime

    def claims(self) -> dict[str, Any]:
        """What is kept of it."""
        return self.model_dump(exclude={"node_id", "issued_at"}, exclude_none=True)


class HeartbeatAnswer(BaseModel):
    """``should_rebalance``: the node would do more good at ``suggested_blocks`` (``[first, end)``), by how the swarm
    covers the model at this moment. It is advice: whether to move is the owner's decision. Always false for a node that
    the swarm does not hear of."""

    status: Literal["ok"] = "ok"
    should_rebalance: bool
    suggested_blocks: tuple[int, int] | None = None
    announced: bool


class ActiveNode(BaseModel):
    """A node that announces a model now. ``layers_served`` are the blocks it serves.

    ``reliability_score`` (0 to 1) is what the gateways have seen of it, ``avg_latency_ms`` the round trip that this one
    has measured; null where nothing was. ``wallet_address`` and all that follows ``state`` are from the node's signed
    announcement; ``gpu_model`` and ``vram_gb`` from its registration; ``location`` is the region that it names in one
    or the other.
    """

    node_id: str
    wallet_address: str
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    layers_served: list[int]
    reliability_score: float | None
    avg_latency_ms: float | None
    distance_km: float | None = None
    registered: bool
    first_seen: datetime | None
    state: NodeState
    quantization: str
    software: str
    price_units: int
    load: float
    queue_ms: float
    announced_at: datetime
    expires_at: datetime


class ActiveNodes(BaseModel):
    """The nodes that serve a model now, in the order of their ids, or the nearest first where a point was given.
    ``total_nodes`` is how many fit, ``count`` how many of them are on this page."""

    model_id: str
    total_nodes: int
    count: int
    nodes: list[ActiveNode]


class ServedModel(BaseModel):
    """A model that a node announces, and the blocks ``[first, end)`` of it."""

    model_id: str
    state: NodeState
    blocks: tuple[int, int]
    block_count: int
    quantization: str
    load: float
    expires_at: datetime


class NodeAnswer(BaseModel):
    """What is known of a node. ``models`` are announced now. ``claims`` is what the node said in its last heartbeat:
    nothing is decided by it. What it earned is for its wallet alone."""

    node_id: str
    state: NodeState
    wallet_address: str
    models: list[ServedModel]
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    reliability_score: float | None
    avg_latency_ms: float | None
    registered: bool
    first_seen: datetime | None
    last_seen: datetime | None
    claims: dict[str, Any] | None


@dataclass(frozen=True)
class Hardware:
    """What an owner says of a machine."""

    gpu_model: str | None = None
    vram_gb: int | None = None
    location: str | None = None
    public_addr: str | None = None


@dataclass(frozen=True)
class NodeRow:
    """A node as the registry has it.

    Attributes:
        proven_at: the time that node and wallet have signed; None: they have not.
        heard_at: the time of the last heartbeat, by the node's clock; ``claims`` is what it said.
        endpoint_url: where a node that sleeps can be woken.
        reliability: from 0 to 1, by what all gateways have seen of it; None: nothing.
    """

    node_id: str
    wallet_address: str
    model_id: str
    hardware: Hardware
    registered_at: datetime
    last_seen: datetime | None
    is_active: bool
    proven_at: datetime | None
    heard_at: datetime | None
    claims: dict[str, Any] | None
    endpoint_url: str | None
    reliability: float | None

    @property
    def is_registered(self) -> bool:
        """Whether somebody has registered it, and it was not only seen."""
        return self.proven_at is not None or self.endpoint_url is not None
