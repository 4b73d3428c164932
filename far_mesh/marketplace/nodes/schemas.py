"""Shapes of nodes: those of the specification (sections 7.2, 7.3 and 8.1), and what we add to them.

What was announced or measured comes from the swarm; what nobody has measured is null. What is called a claim is a
node's word alone, and nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class NodeState(StrEnum):
    """ANNOUNCED: it is in the swarm and takes requests. LEAVING: it takes no new ones. REGISTERED: its registration
    stands, and the swarm does not hear of it: nothing is routed to it. GONE: it was seen once."""

    ANNOUNCED = "announced"
    LEAVING = "leaving"
    REGISTERED = "registered"
    GONE = "gone"


class ActiveNode(BaseModel):
    """A node that announces a model now. ``layers_served`` are the blocks it serves.

    ``reliability_score`` (0 to 1) is what the gateways have seen of it, ``avg_latency_ms`` the round trip that this one
    has measured; null where nothing was. ``wallet_address`` and all that follows ``state`` are from the node's signed
    announcement; ``gpu_model`` and ``vram_gb`` from its registration; ``location`` is the region that it names in one
    or the other. ``coordinates`` are its latitude and longitude in whole degrees (some 100 km), by its address where
    this gateway has a city database, else as it says; ``part`` is the part of the world there, or else of its region:
    one of na, sa, eu, af, me, in, sea, asia, oc. Both are for maps, and null where the place is unknown.
    """

    node_id: str
    wallet_address: str
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    coordinates: tuple[int, int] | None
    part: str | None
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
    nothing is decided by it. What it earned is for its wallet alone. ``reliability_score`` is
    ``(hops_completed + 1) / (hops_completed + hops_failed + 2)``: how often its work was proven, and how often it could
    not be reached, refused without being full or on its way out, or broke off; null where nothing was seen."""

    node_id: str
    state: NodeState
    wallet_address: str
    models: list[ServedModel]
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    reliability_score: float | None
    avg_latency_ms: float | None
    hops_completed: int | None
    hops_failed: int | None
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
        reliability: from 0 to 1, by what all gateways have seen of it; None: nothing. ``hops`` are what they have seen:
            how often it did its work and how often it failed.
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
    hops: tuple[int, int]

    @property
    def is_registered(self) -> bool:
        """Whether somebody has registered it, and it was not only seen."""
        return self.proven_at is not None or self.endpoint_url is not None
