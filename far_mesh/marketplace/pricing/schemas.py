"""The words of prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from far_mesh.marketplace.ledger.split import Prices


@dataclass(frozen=True)
class ListPrice:
    """Units per token of the prompt and of the answer, before demand."""

    prompt: int
    completion: int


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
