"""What a gateway answers, as far as it is read here. Everything that it says is checked where it comes in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Units = Annotated[int, Field(ge=0, lt=2**63)]
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
Transaction = Annotated[str, Field(pattern=r"^(0x[0-9a-f]{64}|[1-9A-HJ-NP-Za-km-z]{64,88})$")]
"""A transaction's name: a hash, or a signature on Solana."""
Text = Annotated[str, Field(max_length=256)]
Proof = Annotated[list[Hash], Field(max_length=64)]


class Answer(BaseModel):
    """A gateway may say more than we know of."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SignInOffer(Answer):
    """A message to be signed."""

    message: Annotated[str, Field(max_length=4096)]


class Registered(Answer):
    """What a marketplace says of a registration. ``announced``: whether the swarm hears of the node."""

    announced: bool


class Claimed(Answer):
    """What a marketplace says of a claim. ``announced``: whether the swarm hears of the node."""

    announced: bool


class OnSale(Answer):
    """A model that a marketplace sells: units for a token of an answer, its fee in basis points, and the demand."""

    id: Annotated[str, Field(max_length=255)]
    completion_price_units: Annotated[int, Field(ge=0)]
    fee_bps: Annotated[int, Field(ge=0, le=10_000)]
    utilisation: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    active_nodes: Annotated[int, Field(ge=0)]


class OnSaleList(Answer):
    """All of them."""

    models: list[OnSale]


class SignedIn(Answer):
    """A bearer token."""

    token: Annotated[str, Field(max_length=8192)]


class NodeRewards(Answer):
    """What one node earned in the days that were asked for."""

    node_id: Text
    requests: int
    token_layers: int
    earned_units: Units


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class NodeScore(Answer):
    """How far a node is trusted: ``value`` is the product of the others."""

    value: Share
    dependability: Share
    honesty: Share
    presence: Share
    standing: Share


class NodeStanding(Answer):
    """A node of the wallet, and what would help its score."""

    node_id: Text
    score: NodeScore | None
    advice: Annotated[list[Text], Field(max_length=16)]


class DayRewards(Answer):
    """What a day brought."""

    date: Text
    requests: int
    earned_units: Units


class Place(Answer):
    """Where a marketplace pays. Without an escrow it pays by transfer."""

    chain_id: int
    escrow_address: Address | None


class TransferTo(Answer):
    """Where a marketplace without an escrow pays the wallet, what takes its place and when, and why it cannot pay."""

    chain: Text | None
    address: Text | None
    next_address: Text | None
    next_from: datetime | None
    held_code: Text | None
    held_reason: Annotated[str, Field(max_length=500)] | None


class Rewards(Place):
    """All of a provider's money, in units."""

    wallet_address: Address
    earned_units: int
    waiting_units: int
    in_flight_units: int
    paid_units: int
    credit_units: Units | None
    unclaimed_units: Units | None
    withdrawn_units: Units | None
    per_node: list[NodeRewards]
    per_day: list[DayRewards]
    scores: Annotated[list[NodeStanding], Field(max_length=1000)] = []
    transfer: TransferTo | None = None


class Line(Answer):
    """What a node did for a request, and what became of the money."""

    request_id: Text
    earned_at: datetime
    model_id: Text
    node_id: Text
    blocks: tuple[int, int]
    token_layers: int
    units: Units
    state: Text
    paid_at: datetime | None
    batch_number: Units | None
    tx_hash: Transaction | None
    receipt_id: Text
    receipt: Annotated[str, Field(max_length=65_536)] | None = None


class HistoryPage(Answer):
    """Lines, newest first."""

    lines: list[Line]
    next_cursor: Text | None


class BatchLine(Answer):
    """What the wallet gets for one request of a batch, with its proof."""

    request_id: Text
    units: Units
    proof: Proof


class BatchPage(Answer):
    """A batch, and some of the wallet's lines in it."""

    number: Units
    kind: Text
    detail_root: Hash
    tx_hash: Transaction | None
    lines: list[BatchLine]
    next_cursor: Text | None


class Claim(Answer):
    """What a payout root promises the wallet."""

    epoch: Units
    state: Text
    cumulative_units: Units
    proof: Proof


class ClaimsPage(Place):
    """Payout roots, newest first."""

    claims: list[Claim]
    next_cursor: Text | None
