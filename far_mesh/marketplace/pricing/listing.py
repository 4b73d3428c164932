"""The list prices of everything on sale, for operators, who may change them while gateways run."""

from __future__ import annotations

from collections.abc import Iterable

from discovery.web.errors import ModelUnknown
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.pricing import repository
from far_mesh.marketplace.pricing.schemas import Listed, ListPrice
from far_mesh.marketplace.pricing.service import decide
from far_mesh.marketplace.settings import ModelOffer
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import TierTable


class PriceListing:
    """What a token costs before demand, in every tier of every model on sale."""

    def __init__(self, database: Database, offers: Iterable[ModelOffer], tiers: TierTable) -> None:
        self._database = database
        self._offers = {offer.model_id: offer for offer in offers}
        self._tiers = tiers

    async def all(self) -> list[Listed]:
        """Each model in each tier, those that are not sold included."""
        found = []
        async with self._database.reading() as connection:
            for model_id, offer in self._offers.items():
                kept = await repository.of_model(connection, model_id)
                found += [decide(offer, tier, kept) for tier in self._tiers.all()]
        return found

    async def put(self, model_id: str, tier: TierName, price: ListPrice | None) -> Listed:
        """From now on this is the price; None: the settings decide again. Requests under way and quotes keep theirs.

        Raises:
            ModelUnknown: it is not on sale here.
        """
        offer = self._offers.get(model_id)
        if offer is None:
            known = ", ".join(self._offers)
            raise ModelUnknown(f"the model {model_id!r} is not on sale here; there is: {known}", param="model_id")
        async with self._database.writing() as connection:
            if price is None:
                await repository.drop(connection, model_id, tier.value)
            else:
                await repository.put(connection, model_id, tier.value, price)
            return decide(offer, self._tiers[tier], await repository.of_model(connection, model_id))
