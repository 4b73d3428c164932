"""Shapes of ``/api/tiers`` and of what operators set."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import Tier


class TierPrices(BaseModel):
    """What a token of a model costs in a tier, before demand."""

    prompt_price_units: int
    completion_price_units: int


class TierEntry(Tier):
    """A tier, and what the models that are sold in it cost there."""

    prices: dict[str, TierPrices]


class TierList(BaseModel):
    """All tiers, the lowest first."""

    tiers: list[TierEntry]


class AccountTier(BaseModel):
    """In which tier an account is now, and until when: null, until it is changed. It may use ``allowed``."""

    wallet_address: str
    tier: TierName
    until: AwareDatetime | None
    allowed: list[TierName]


class AccountTiers(BaseModel):
    """The accounts that are in another tier than standard."""

    accounts: list[AccountTier]


class NewAccountTier(BaseModel):
    """In which tier an account is from now on."""

    model_config = ConfigDict(extra="forbid")

    tier: TierName
    until: AwareDatetime | None = None


class PrivatePool(BaseModel):
    """The nodes of an account's own pool: peer ids, and wallets for those of their nodes that are registered."""

    wallet_address: str
    members: list[str]


class NewPrivatePool(BaseModel):
    """The nodes that it has from now on."""

    model_config = ConfigDict(extra="forbid")

    members: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=1000)]
