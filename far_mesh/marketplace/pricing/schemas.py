"""The words of prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from far_mesh.marketplace.ledger.split import Prices
from far_mesh.marketplace.tiers.names import TierName


@dataclass(frozen=True)
class ListPrice:
    """Units per token of the prompt and of the answer, before demand."""

    prompt: int
    completion: int


class Source(StrEnum):
    """Who says a price: the database, else the settings, else the tier, as a multiple of the standard price."""

    DATABASE = "database"
    SETTINGS = "settings"
    TIER = "tier"


@dataclass(frozen=True)
class Listed:
    """The price of a model in a tier and who says it; None of both: it is not sold there."""

    model_id: str
    tier: TierName
    price: ListPrice | None
    source: Source | None


@dataclass(frozen=True)
class PriceNow:
    """What a token costs at this moment, and why."""

    prices: Prices
    utilisation: float
    multiplier_bps: int


@dataclass(frozen=True)
class Quote:
    """A price that is kept until ``expires_at`` for one wallet, model and tier. ``id`` is shown to have it."""

    id: str
    expires_at: datetime
