"""Shapes of the discovery service: those of the specification (sections 3.2.3 and 7.3), and what we add to them.

What a node says of itself stands in its signed announcement, and every answer can carry that document, so that nobody
has to believe us. What is called a claim is a node's word alone.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from discovery.probe.observation import Reach
from discovery.web.registration import HeartbeatAnswer, HeartbeatRequest, RegistrationRequest

MAX_DOCUMENT_CHARACTERS = 16 * 1024
MAX_REPORTS = 32
"""Of one answer."""


class Document(BaseModel):
    """A signed announcement. ``signature`` is base64 of the ed25519 signature by ``signer``, whose id contains the key,
    over ``far-mesh/announcement/v1``, a line feed, and ``body`` as it is."""

    model_config = ConfigDict(extra="forbid")

    body: Annotated[str, Field(max_length=MAX_DOCUMENT_CHARACTERS)]
    signer: Annotated[str, Field(max_length=64)]
    signature: Annotated[str, Field(max_length=128)]


Announced = Annotated[
    Document | None,
    Field(
        description="The node's announcement, by its own signature, where it cannot publish it in the swarm itself. It "
        "is passed on as it is; a registration without one is listed nowhere."
    ),
]


Sleeping = Annotated[
    Document | None,
    Field(
        description="Where the node is woken when it sleeps, by its own signature: over `far-mesh/on-call/v1`, a line "
        "feed, and the body. It is passed on to the swarm as it is, and lasts as long as it says, a day at most; one "
        "with `wake_url` null ends that."
    ),
]


class Registration(RegistrationRequest):
    """A node and the wallet it earns for, signed by both, and what it announces. ``signature`` is the wallet's, a key's
    and not a contract's, over the sentence that names the two."""

    model_id: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
    announcement: Announced = None
    on_call: Sleeping = None


class Heartbeat(HeartbeatRequest):
    """How a registered node is, by its own word, and its announcement anew."""

    announcement: Announced = None
    on_call: Sleeping = None

    def claims(self) -> dict[str, Any]:
        """What is kept of it as the node's word."""
        said = super().claims()
        for document in ("announcement", "on_call"):
            said.pop(document, None)
        return said


class Registered(BaseModel):
    """``active``: whether the node is listed now, because it has announced itself here or in the swarm. ``on_call``:
    whether the swarm has heard where it is woken, or that it is so no longer; null where nothing was said of that."""

    status: Literal["registered"] = "registered"
    node_id: str
    heartbeat_interval_sec: int
    expires_after_sec: int
    active: bool
    on_call: bool | None


class HeartbeatTaken(HeartbeatAnswer):
    """``should_rebalance``: the node would do more good at ``suggested_blocks`` (``[first, end)``), by how the swarm
    covers the model now. It is advice. ``announced``: whether the node is listed now. ``on_call``: as for a
    registration."""

    on_call: bool | None


class NodeState(StrEnum):
    """ACTIVE: it announces a model and takes requests. LEAVING: it takes no new ones. UNWELL: its last heartbeat said
    that it is not healthy, and it is not listed. REGISTERED: it has registered and announces nothing. GONE: it was seen
    once."""

    ACTIVE = "active"
    LEAVING = "leaving"
    UNWELL = "unwell"
    REGISTERED = "registered"
    GONE = "gone"


class Served(BaseModel):
    """A model that a node announces, by its own word; ``layers_served`` are the blocks.

    ``source`` is where we have it from: ``dht``, or ``sent`` here by the node. ``document`` is there where it was asked
    for with ``signed=true``.
    """

    model_id: str
    model_digest: str
    layers_served: list[int]
    block_count: int
    state: NodeState
    quantization: str
    dtype: str
    software: str
    price_units: int
    block_ms: float | None
    load: float
    queue_ms: float
    sessions: int
    maddrs: list[str]
    announced_at: datetime
    expires_at: datetime
    source: str
    document: Document | None = None


class ActiveNode(Served):
    """A node that serves a model now. ``location`` is the region that it names; ``distance_km`` is from the point that
    was asked about, to where its address is or else where it says that it is. ``gpu_model`` and ``vram_gb`` are from
    its registration, if it has one."""

    node_id: str
    wallet_address: str
    location: str | None
    distance_km: float | None
    registered: bool
    gpu_model: str | None
    vram_gb: int | None


class ActiveNodes(BaseModel):
    """The nodes that serve a model now, in the order of their ids, or the nearest first where a point was given.
    ``total_nodes`` is how many fit, ``count`` how many of them are on this page; ``next_cursor`` leads to the next."""

    model_id: str
    total_nodes: int
    count: int
    nodes: list[ActiveNode]
    next_cursor: str | None


class History(BaseModel):
    """When a node was seen. ``uptime_percent``: of the time since ``first_seen`` it was active for so much."""

    first_seen: datetime
    last_seen: datetime
    seen_seconds: int
    uptime_percent: float


class Probed(BaseModel):
    """What a prober has seen of a node within a day, from where it stands. ``reach`` and ``round_trip_ms`` are of the
    last hour in which it looked; of ``probes`` the answers ``right`` and ``wrong`` were held against the right one.
    ``block_ms`` is what a token took in a block, the way taken off, ``claimed_block_ms`` what the node announced;
    ``overclaims``: it is three times slower than that."""

    prober: str
    last_at: datetime
    reach: Reach
    probes: int
    right: int
    wrong: int
    undecided: int
    round_trip_ms: float | None
    block_ms: float | None
    claimed_block_ms: float | None
    overclaims: bool | None


class NodeScore(BaseModel):
    """How far a node is trusted by what probers have seen of it within a week, from 0 to 1: ``value`` is the product of
    the four after it. What follows them is of what it was made: counts, in which what is older counts for less, the
    share of the time that the node was there, and the seconds since it was first seen."""

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
    uptime: float | None
    age: float


class ProbedHour(BaseModel):
    """What a prober has seen of a node and a model within the hour that began at ``hour``: how often it looked, how it
    came to it, what became of that, what it asked it to compute. Times are means, the round trip is the shortest."""

    hour: datetime
    model_digest: str
    prober: str
    probes: int
    direct: int
    relay: int
    unreached: int
    completed: int
    refused: int
    failed: int
    timed_out: int
    unasked: int
    right: int
    wrong: int
    undecided: int
    receipts_rejected: int
    token_layers: int
    round_trip_ms: float | None
    block_ms: float | None
    claimed_block_ms: float | None


class ProbeHistory(BaseModel):
    """What probers have seen of a node, the newest hour first."""

    node_id: str
    hours: list[ProbedHour]


class ProbeReports(BaseModel):
    """Reports of a prober as it has signed them, in the order of their numbers."""

    prober: str
    reports: Annotated[list[Document], Field(max_length=MAX_REPORTS)]


class ReportTaken(BaseModel):
    """``counted``: observations of nodes that are announced now; the others are left out."""

    status: Literal["taken"] = "taken"
    sequence: int
    counted: int


class NodeAnswer(BaseModel):
    """What is known of a node. ``claims`` is what it said in its last heartbeat: nothing is decided by it, but that one
    that says it is not healthy is not listed. ``probed`` and ``score`` are by what was seen: nothing, and none, where
    no prober has looked."""

    node_id: str
    state: NodeState
    wallet_address: str
    models: list[Served]
    location: str | None
    registered: bool
    gpu_model: str | None
    vram_gb: int | None
    public_addr: str | None
    claims: dict[str, Any] | None
    history: History | None
    probed: list[Probed] = []
    score: NodeScore | None = None


class ModelAnswer(BaseModel):
    """A model by its weights. Its name and its number of blocks are what most of its nodes say. ``complete``: every
    block has a node that means to stay."""

    model_id: str
    model_digest: str
    block_count: int
    nodes: int
    ready_nodes: int
    complete: bool
    fewest_replicas: int


class Models(BaseModel):
    """All models that are announced now, in the order of their digests."""

    total_models: int
    count: int
    models: list[ModelAnswer]
    next_cursor: str | None


class Covered(BaseModel):
    """The blocks ``[first_block, end_block)`` are each served by so many nodes that mean to stay."""

    first_block: int
    end_block: int
    replicas: int


class VariantCoverage(ModelAnswer):
    """Who covers which block, how often: ``blocks`` has a number for each block, ``stretches`` the same in as few
    pieces as there are, ``thin`` those of them that fewer than ``wanted`` nodes serve."""

    blocks: list[int]
    stretches: list[Covered]
    thin: list[Covered]


class Coverage(BaseModel):
    """How a model is covered, for each set of weights that is announced under its name, those of most nodes first.
    ``total_variants`` is how many these are, ``count`` how many of them are on this page; ``next_cursor`` leads to the
    next."""

    model_id: str
    wanted: int
    total_variants: int
    count: int
    variants: list[VariantCoverage]
    next_cursor: str | None


class Bootstrap(BaseModel):
    """Where to join the swarm: a first hint, and nothing that has to be believed. Who is found through these peers is
    known by its own signatures."""

    prefix: str
    initial_peers: list[str]


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether what is told here is true now, and if not, why. ``followed_seconds``: how long ago the DHT was read."""

    status: Literal["ready", "unready"]
    reasons: list[str]
    announcements: int
    followed_seconds: float | None
