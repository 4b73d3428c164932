"""A request as the books know it, and the work that was done for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from far_mesh.marketplace.ledger.split import Prices


class Status(StrEnum):
    """PENDING: money is being set aside. ACTIVE: tokens flow. COMPLETED: captured. FAILED: all of it refunded."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


OPEN = (Status.PENDING, Status.ACTIVE)


class Payment(StrEnum):
    """How a request is paid on chain. ESCROW: its money is locked before it begins, and released for it alone.
    NETTED: charged to the user's deposit afterwards, together with many others. CHANNEL: covered by vouchers."""

    ESCROW = "escrow"
    NETTED = "netted"
    CHANNEL = "channel"


@dataclass(frozen=True)
class Gateway:
    """A process that serves requests. The name outlives a restart, the incarnation does not."""

    name: str
    incarnation: str


@dataclass(frozen=True)
class NewSession:
    """A request that begins. Prices (units per token) and fee are frozen; ``held_units`` is the most it can cost.
    ``channel_id`` is there when vouchers of a channel pay it, ``api_key_id`` when it was asked for with an API
    key, ``promised_p95_ms`` when its tier promises something, which is worth ``credit_bps`` of its cost if it is
    missed."""

    id: str
    request_id: str
    user_wallet: str
    model_id: str
    tier: str
    prompt_tokens: int
    prompt_price_units: int
    completion_price_units: int
    cached_price_units: int
    fee_bps: int
    held_units: int
    payment: Payment = field(default=Payment.ESCROW, kw_only=True)
    channel_id: str | None = field(default=None, kw_only=True)
    api_key_id: str | None = field(default=None, kw_only=True)
    promised_p95_ms: int | None = field(default=None, kw_only=True)
    credit_bps: int = field(default=0, kw_only=True)

    @property
    def prices(self) -> Prices:
        """What a token costs."""
        return Prices(self.prompt_price_units, self.completion_price_units, self.cached_price_units, self.fee_bps)


@dataclass(frozen=True)
class Session(NewSession):
    """A request at any time. Amounts are units, None until they are known. ``cached_tokens`` are tokens of the prompt
    that the nodes knew from before. ``batch_number`` is that of the batch in which it is settled, if it is.
    ``counted_units`` is what was counted on its channel before it was served. ``credit_units`` and
    ``spent_credit_units`` as in :class:`Outcome`; in costs, fees and refunds they are reckoned in."""

    status: Status
    started_at: datetime
    completed_at: datetime | None
    cached_tokens: int
    token_count: int
    total_cost_units: int | None
    fee_units: int | None
    refund_units: int | None
    finish_reason: str | None
    error_code: str | None
    latency_ms: int | None
    time_to_first_token_ms: int | None
    p95_token_ms: int | None
    service_level_met: bool | None
    credit_units: int
    spent_credit_units: int
    checkpoint: dict[str, Any] | None
    batch_number: int | None
    counted_units: int


@dataclass(frozen=True, order=True)
class Share:
    """Verified work of one node. ``receipt`` is the signed document that proves it, as text."""

    wallet: str
    node_id: str
    first_block: int
    end_block: int
    quantization: str
    positions: int
    token_layers: int
    receipt: str


@dataclass(frozen=True)
class Work:
    """What was done for a request and could be proven. ``expected_token_layers`` counts the unproven too;
    ``cached_tokens`` are tokens of the prompt that all of the nodes say they knew from before. ``embedded``: vectors
    were made of the prompt, so it is paid for although no answer was generated."""

    prompt_tokens: int
    completion_tokens: int
    shares: tuple[Share, ...]
    expected_token_layers: int
    cached_tokens: int = 0
    embedded: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the checkpoint column."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Work:
        """From the checkpoint column."""
        return cls(**{**fields, "shares": tuple(Share(**share) for share in fields["shares"])})


@dataclass(frozen=True)
class PaidShare:
    """A share with what it earned, in units. ``paid_at`` is when the chain had credited it."""

    share: Share
    paid_units: int
    paid_at: datetime | None = None


@dataclass(frozen=True)
class Outcome:
    """How the money of a request was divided, in units. ``service_level_met`` None: nothing was promised, or nothing
    could be measured. ``credit_units`` is what a missed promise gave back, ``spent_credit_units`` by how much it was
    cheaper for promises missed before."""

    held_units: int
    cost_units: int
    fee_units: int
    refund_units: int
    shares: tuple[PaidShare, ...]
    service_level_met: bool | None = None
    credit_units: int = 0
    spent_credit_units: int = 0
