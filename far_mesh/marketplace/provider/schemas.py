"""Shapes of ``/api/provider``. Units are 1e-9 FAR; the ``_far`` numbers are for eyes only.

``ProviderStats``, ``Earning`` and ``NodeEarnings`` are those of the specification (sections 4.2 and 7.2). What nobody
has measured is null.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from far_mesh.marketplace.nodes.schemas import NodeScore


class LineState(StrEnum):
    """What has become of the money for a contribution.

    WAITING: earned, and the chain was not asked yet. BATCH: the chain is asked to pay it, in a batch or, where the
    request has an escrow of its own, in a release. PAID: the chain has credited it, or set it aside in a payout root.
    REFUSED: the chain refused the release; it is still owed. FREE: the work was proven and its request cost nothing.
    """

    WAITING = "waiting"
    BATCH = "batch"
    PAID = "paid"
    REFUSED = "refused"
    FREE = "free"


class NodeRewards(BaseModel):
    """What one node has earned in the days that were asked for. ``tokens`` are positions that it computed."""

    node_id: str
    requests: int
    tokens: int
    token_layers: int
    earned_units: int
    earned_far: float


class NodeStanding(BaseModel):
    """How far one of the caller's nodes is trusted, and why; null: nothing was seen of it. ``advice`` says what would
    help, what helps most first."""

    node_id: str
    score: NodeScore | None
    advice: list[str]


class DayRewards(BaseModel):
    """What was earned on a day (UTC), ``YYYY-MM-DD``. ``nodes``: units by the node that earned them."""

    date: str
    requests: int
    token_layers: int
    earned_units: int
    earned_far: float
    nodes: dict[str, int]


class TransferTo(BaseModel):
    """Where a provider is paid by transfer, where there is no escrow. ``address`` None: nowhere yet. ``next_address``
    takes its place at ``next_from``. ``held_…`` say why what is due could not be paid."""

    chain: str | None
    address: str | None
    next_address: str | None
    next_from: datetime | None
    held_code: str | None
    held_reason: str | None


class NewPayoutAddress(BaseModel):
    """Where a provider wants to be paid."""

    model_config = ConfigDict(extra="forbid")

    address: Annotated[str, Field(min_length=1, max_length=100)]


class RewardsAnswer(BaseModel):
    """A provider's money. ``earned = waiting + in_flight + paid``, and ``paid = credit + unclaimed + withdrawn``.

    ``credit`` lies in the escrow and can be withdrawn, ``unclaimed`` is promised by payout roots; with ``withdrawn``
    they are null while the chain does not answer. Without an escrow, what was paid was sent to the provider, and counts
    as withdrawn; ``transfer`` says where to. ``per_node`` and ``per_day`` are about the last days alone, ``scores``
    about the nodes of the wallet that have served or are registered.
    """

    wallet_address: str
    earned_units: int
    waiting_units: int
    in_flight_units: int
    paid_units: int
    credit_units: int | None
    unclaimed_units: int | None
    withdrawn_units: int | None
    earned_far: float
    waiting_far: float
    in_flight_far: float
    paid_far: float
    credit_far: float | None
    unclaimed_far: float | None
    withdrawn_far: float | None
    per_node: list[NodeRewards]
    per_day: list[DayRewards]
    scores: list[NodeStanding]
    chain_id: int
    token_address: str | None
    escrow_address: str | None
    transfer: TransferTo | None = None


class HistoryLine(BaseModel):
    """What a node did for a request, and what became of its money. ``blocks`` ends exclusive. ``receipt_id`` is the
    SHA-256 of the receipt that is paid; the receipt itself comes along when it is asked for."""

    request_id: str
    earned_at: datetime
    model_id: str
    node_id: str
    blocks: tuple[int, int]
    quantization: str
    tokens: int
    token_layers: int
    units: int
    far: float
    state: LineState
    paid_at: datetime | None
    batch_number: int | None
    tx_hash: str | None
    receipt_id: str
    receipt: str | None = None


class HistoryAnswer(BaseModel):
    """Contributions, newest first. ``next_cursor`` leads to older ones."""

    lines: list[HistoryLine]
    next_cursor: str | None


class BatchLine(BaseModel):
    """What the caller gets for one request of a batch. The leaf is of ``(request_key, wallet, wei)``; ``proof`` leads
    from it to the batch's ``detail_root``."""

    request_id: str
    request_key: str
    units: int
    wei: str
    proof: list[str]


class BatchAnswer(BaseModel):
    """A batch as the chain announces it, and the caller's part of it. ``payout_units`` is what the batch pays to the
    caller: the sum of all its lines."""

    number: int
    kind: str
    detail_root: str
    requests: int
    total_units: int
    fee_units: int
    created_at: datetime
    status: str
    tx_hash: str | None
    block_number: int | None
    payout_units: int
    lines: list[BatchLine]
    next_cursor: str | None


class ClaimState(StrEnum):
    """PENDING: not on chain yet. DELAYED: on chain, claimable later. CLAIMABLE: now. CLAIMED: done, by this root or a
    later one. REVOKED: the root was taken back."""

    PENDING = "pending"
    DELAYED = "delayed"
    CLAIMABLE = "claimable"
    CLAIMED = "claimed"
    REVOKED = "revoked"


class Claim(BaseModel):
    """What the payout root of an epoch promises the caller: all that roots ever gave, of which ``open_units`` were not
    claimed. ``claimable_at`` is null until the root is on chain."""

    epoch: int
    state: ClaimState
    root: str
    claimable_at: datetime | None
    cumulative_units: int
    cumulative_wei: str
    open_units: int
    proof: list[str]


class ClaimsAnswer(BaseModel):
    """Payout roots with something for the caller, newest first."""

    wallet_address: str
    claimed_units: int
    claims: list[Claim]
    next_cursor: str | None
    chain_id: int
    escrow_address: str | None


class ProviderStats(BaseModel):
    """What a dashboard shows at a glance. ``uptime`` is null: nobody measures it yet."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    total_tokens_served: int
    total_earned_far: float
    active_requests: int
    uptime: float | None
    avg_latency_ms: int | None


class Earning(BaseModel):
    """What was earned on a day, in FAR."""

    date: str
    amount: float


class DatedEarning(BaseModel):
    """The same in the words of ``NodeEarnings``."""

    date: str
    amount_far: float


class NodeEarnings(BaseModel):
    """A provider at a glance, by wallet. ``pending_payout_far`` was earned and is not paid yet."""

    wallet_address: str
    total_earned_far: float
    total_tokens_served: int
    active_nodes: int
    avg_uptime_percent: float | None
    pending_payout_far: float
    earnings_history: list[DatedEarning]
