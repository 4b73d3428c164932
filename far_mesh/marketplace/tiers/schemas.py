"""The table of tiers. Every value can be set; what is not set is what is built in.

Section 5.3 of the specification describes the three: standard is the public mesh at its best, premium promises less
than 200 ms a token and costs ten times as much, enterprise runs on nodes of its own at a price of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from far_mesh.marketplace.ledger.split import BPS
from far_mesh.marketplace.tiers.names import TierName

MAX_PRICE_FACTOR_BPS = 1000 * BPS
MAX_CHOICES = 128


class SessionPriority(StrEnum):
    """Whose steps go first on a busy node, as nodes call it."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class NodePool(StrEnum):
    """On which nodes a tier runs. ANY: all that serve the model. RELIABLE: those that this gateway has seen to be as
    reliable as the tier says. PRIVATE: those that the operator has named for the account."""

    ANY = "any"
    RELIABLE = "reliable"
    PRIVATE = "private"


Limit = Annotated[int, Field(ge=1, lt=2**53)]


class Tier(BaseModel):
    """How the accounts of a tier are served. A limit that is None is none.

    Attributes:
        price_factor_bps: its list price in basis points of the standard one, where a model has no price of its own in
            this tier; None: a model without one is not sold in it.
        priority: of its sessions on the nodes.
        requests_per_minute: of an account.
        tokens_per_minute: of an account, of prompts and answers.
        concurrent_requests: of an account.
        max_tokens: of one answer.
        max_n: answers to one prompt.
        queue_weight: its share of the queue in front of the swarm against that of other tiers.
        node_pool: on which nodes it runs; ``min_reliability`` is how reliable they are to be, from 0 to 1.
        p95_ms_per_token: the promise: of the times between the tokens of an answer, 95 of 100 are no longer.
        credit_bps: what a request that missed it gives back, in basis points of what it cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TierName
    price_factor_bps: Annotated[int, Field(ge=1, le=MAX_PRICE_FACTOR_BPS)] | None
    priority: SessionPriority
    requests_per_minute: Limit | None
    tokens_per_minute: Limit | None
    concurrent_requests: Limit | None
    max_tokens: Limit | None
    max_n: Annotated[int, Field(ge=1, le=MAX_CHOICES)]
    queue_weight: Annotated[int, Field(ge=1, le=1000)]
    node_pool: NodePool
    min_reliability: Annotated[float, Field(ge=0, le=1)] | None = None
    p95_ms_per_token: Limit | None = None
    credit_bps: Annotated[int, Field(ge=0, le=BPS)] = 0

    @model_validator(mode="after")
    def _agrees(self) -> Tier:
        if (self.node_pool is NodePool.RELIABLE) != (self.min_reliability is not None):
            raise ValueError("min_reliability belongs to the node_pool reliable, and to no other")
        if (self.p95_ms_per_token is None) != (self.credit_bps == 0):
            raise ValueError("p95_ms_per_token and credit_bps belong together: what is promised, and what it is worth")
        return self


STANDARD_TIER = Tier(
    name=TierName.STANDARD,
    price_factor_bps=BPS,
    priority=SessionPriority.NORMAL,
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrent_requests=8,
    max_tokens=8_192,
    max_n=4,
    queue_weight=1,
    node_pool=NodePool.ANY,
)
PREMIUM_TIER = Tier(
    name=TierName.PREMIUM,
    price_factor_bps=10 * BPS,
    priority=SessionPriority.HIGH,
    requests_per_minute=600,
    tokens_per_minute=1_000_000,
    concurrent_requests=32,
    max_tokens=None,
    max_n=8,
    queue_weight=4,
    node_pool=NodePool.RELIABLE,
    min_reliability=0.95,
    p95_ms_per_token=200,
    credit_bps=1_000,
)
ENTERPRISE_TIER = Tier(
    name=TierName.ENTERPRISE,
    price_factor_bps=None,
    priority=SessionPriority.HIGH,
    requests_per_minute=None,
    tokens_per_minute=None,
    concurrent_requests=128,
    max_tokens=None,
    max_n=16,
    queue_weight=8,
    node_pool=NodePool.PRIVATE,
)


def _over(built_in: Tier) -> Callable[[Any], Any]:
    def merged(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("name", built_in.name) != built_in.name:
            raise ValueError("a tier's name is where it stands in the table")
        return {**built_in.model_dump(), **given}

    return merged


class TierTable(BaseModel):
    """All tiers. Of each, what is given takes the place of what is built in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    standard: Annotated[Tier, BeforeValidator(_over(STANDARD_TIER))] = STANDARD_TIER
    premium: Annotated[Tier, BeforeValidator(_over(PREMIUM_TIER))] = PREMIUM_TIER
    enterprise: Annotated[Tier, BeforeValidator(_over(ENTERPRISE_TIER))] = ENTERPRISE_TIER

    @model_validator(mode="after")
    def _everybody_has_a_price(self) -> TierTable:
        if self.standard.price_factor_bps != BPS:
            raise ValueError("standard.price_factor_bps is what the others are measured by: it stays 10000")
        if self.standard.node_pool is NodePool.PRIVATE:
            raise ValueError("standard.node_pool cannot be private: everybody is in this tier")
        return self

    def __getitem__(self, name: TierName) -> Tier:
        tier: Tier = getattr(self, name.value)
        return tier

    def all(self) -> Iterator[Tier]:
        """The lowest first."""
        return (self[name] for name in TierName)

    def up_to(self, name: TierName) -> tuple[Tier, ...]:
        """What an account of this tier may use: the lowest first, its own last."""
        names = list(TierName)
        return tuple(self[one] for one in names[: names.index(name) + 1])
