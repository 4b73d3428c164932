"""The price of a token: of the database or else of the settings, times what demand asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from discovery.protocol.announcement import Announcement
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.ledger.split import BPS, Prices
from far_mesh.marketplace.pricing import repository
from far_mesh.marketplace.pricing.schemas import Listed, ListPrice, PriceNow, Source
from far_mesh.marketplace.pricing.surge import multiplier_bps, next_level, raised, utilisation_of
from far_mesh.marketplace.settings import ModelOffer
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import Tier


@dataclass(frozen=True)
class Terms:
    """What holds for all prices. ``requests_per_node`` 0: prices do not follow demand."""

    fee_bps: int
    cached_discount_bps: int
    requests_per_node: int


class Pricing:
    """Owner of how far each model's price has gone up."""

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database = database
        self._terms = terms
        self._levels: dict[str, int] = {}

    async def now(self, offer: ModelOffer, tier: Tier, nodes: Sequence[Announcement], block_count: int) -> PriceNow:
        """What a token of ``offer`` costs while ``nodes`` serve it.

        Raises:
            UnsupportedParameter: this tier of the model has no price.
        """
        async with self._database.reading() as connection:
            listed = decide(offer, tier, await repository.of_model(connection, offer.model_id)).price
            waiting = await repository.open_requests(connection, offer.model_id) if self._terms.requests_per_node else 0
        if listed is None:
            raise UnsupportedParameter(f"{offer.model_id} has no price in the tier {tier.name}", param="tier")
        utilisation = 0.0
        if self._terms.requests_per_node:
            utilisation = utilisation_of(waiting, nodes, block_count, self._terms.requests_per_node)
        level = self._levels[offer.model_id] = next_level(self._levels.get(offer.model_id, 0), utilisation)
        return price_now(listed, utilisation, multiplier_bps(level), self._terms)

    async def listed(self, offer: ModelOffer, tiers: Iterable[Tier]) -> dict[TierName, ListPrice]:
        """What a token of ``offer`` costs in each tier that it is sold in, before demand."""
        async with self._database.reading() as connection:
            kept = await repository.of_model(connection, offer.model_id)
        found = [decide(offer, tier, kept) for tier in tiers]
        return {one.tier: one.price for one in found if one.price is not None}

    async def by_tier(self, offer: ModelOffer, tiers: Iterable[Tier], now: PriceNow) -> dict[TierName, Prices]:
        """What a token of ``offer`` costs in each tier that it is sold in, while demand is as in ``now``."""
        listed = await self.listed(offer, tiers)
        return {
            name: price_now(price, now.utilisation, now.multiplier_bps, self._terms).prices
            for name, price in listed.items()
        }


def decide(offer: ModelOffer, tier: Tier, kept: Mapping[str, ListPrice]) -> Listed:
    """The price in a tier: of the database (``kept``, by tier), or else of the settings, or else a multiple of the
    standard price."""
    if (own := kept.get(tier.name)) is not None:
        return Listed(offer.model_id, tier.name, own, Source.DATABASE)
    if (said := list_price(offer, tier.name)) is not None:
        return Listed(offer.model_id, tier.name, said, Source.SETTINGS)
    standard = kept.get(TierName.STANDARD) or list_price(offer, TierName.STANDARD)
    if standard is None or tier.price_factor_bps is None:
        return Listed(offer.model_id, tier.name, None, None)
    return Listed(offer.model_id, tier.name, times(standard, tier.price_factor_bps), Source.TIER)


def list_price(offer: ModelOffer, tier: TierName) -> ListPrice | None:
    """What the settings say of a tier."""
    if tier is TierName.STANDARD:
        return ListPrice(offer.prompt_price_units, offer.completion_price_units)
    special = offer.tiers.get(tier)
    return None if special is None else ListPrice(special.prompt_price_units, special.completion_price_units)


def times(listed: ListPrice, factor_bps: int) -> ListPrice:
    """A multiple of a price, rounded down, but an answer is never free."""
    return ListPrice(listed.prompt * factor_bps // BPS, max(1, listed.completion * factor_bps // BPS))


def price_now(listed: ListPrice, utilisation: float, multiplier: int, terms: Terms) -> PriceNow:
    """The parts put together."""
    prompt = raised(listed.prompt, multiplier)
    prices = Prices(
        prompt=prompt,
        completion=raised(listed.completion, multiplier),
        cached=prompt * (BPS - terms.cached_discount_bps) // BPS,
        fee_bps=terms.fee_bps,
    )
    return PriceNow(prices, utilisation, multiplier)
