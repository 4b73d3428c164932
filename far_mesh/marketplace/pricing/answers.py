"""Shapes of ``/api/operator/prices``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from far_mesh.marketplace.pricing.schemas import Source
from far_mesh.marketplace.settings import Units
from far_mesh.marketplace.tiers.answers import TierPrices
from far_mesh.marketplace.tiers.names import TierName


class ListedPrice(BaseModel):
    """What a token of a model costs in a tier, before demand, and who says so: what an operator has set (``database``),
    the settings, or the tier, as a multiple of the standard price. Null: the model is not sold in this tier."""

    model_id: str
    tier: TierName
    price: TierPrices | None
    source: Source | None


class PriceList(BaseModel):
    """Every model on sale in every tier."""

    prices: list[ListedPrice]


class NewPrice(BaseModel):
    """Units of 1e-9 FAR per token, before demand."""

    model_config = ConfigDict(extra="forbid")

    prompt_price_units: Units
    completion_price_units: Annotated[Units, Field(ge=1)]


class PriceRequest(BaseModel):
    """The price of a model in a tier from now on; null: the settings decide again."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[str, Field(max_length=255)]
    tier: TierName
    price: NewPrice | None
