"""Shapes of nodes: those of the specification (sections 7.2, 7.3 and 8.1), and what we add to them.

What was announced or measured comes from the swarm; what nobody has measured is null. What is called a claim is a
node's word alone, and nothing is decided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel

from discovery.protocol.announcement import Reached
from discovery.score import COUNTS, Observations, Score, score_of


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
    """A model that a node announces, and the blocks ``[first, end)`` of it. ``reached``: how others get through to the
    node, as it says itself; null: it does not say."""

    model_id: str
    state: NodeState
    blocks: tuple[int, int]
    block_count: int
    quantization: str
    load: float
    reached: Reached | None
    expires_at: datetime


class NodeScore(BaseModel):
    """How far a node is trusted, from 0 to 1, and why: ``value`` is the product of its parts, each from 0 to 1.

    ``dependability`` is how seldom work breaks off there, ``honesty`` falls with answers and receipts that were wrong,
    ``presence`` is how much of the time it was there (1 where nobody watches), ``standing`` is a little less than 1 in
    its first hours. The counts are what is remembered: what is older counts for less, one half after a week. Work that
    was done for probers is among them, as ten pieces of work at most.
    """

    value: float
    dependability: float
    honesty: float
    presence: float
    standing: float
    completed: float
    failed: float
    timed_out: float
    pauses_caused: float
    receipts_rejected: float
    probes_right: float
    probes_wrong: float

    @classmethod
    def of(cls, seen: Observations | None) -> Self | None:
        """In thousandths, and counts in tenths. None: nothing was seen."""
        if seen is None:
            return None
        score = score_of(seen)
        parts = ("value", "dependability", "honesty", "presence", "standing")
        return cls(
            **{name: round(getattr(score, name), 3) for name in parts},
            **{name: round(getattr(seen, name), 1) for name in COUNTS},
        )


class NodeAnswer(BaseModel):
    """What is known of a node. ``models`` are announced now. ``claims`` is what the node said in its last heartbeat:
    nothing is decided by it. ``score`` is null where nothing was seen of it. What it earned is for its wallet alone."""

    node_id: str
    state: NodeState
    wallet_address: str
    models: list[ServedModel]
    gpu_model: str | None
    vram_gb: int | None
    location: str | None
    reliability_score: float | None
    score: NodeScore | None
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
        seen: what all gateways remember of it, and of what probers said; None: nothing was seen.
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
    seen: Observations | None

    @property
    def score(self) -> Score | None:
        """How far it is trusted; None: nothing was seen."""
        return None if self.seen is None else score_of(self.seen)

    @property
    def is_registered(self) -> bool:
        """Whether somebody has registered it, and it was not only seen."""
        return self.proven_at is not None or self.endpoint_url is not None
