"""``/api/operator/prices``: what is asked for a token, without a restart."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from far_mesh.marketplace.auth.door import Operator
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.pricing.answers import ListedPrice, PriceList, PriceRequest
from far_mesh.marketplace.pricing.listing import PriceListing
from far_mesh.marketplace.pricing.schemas import Listed, ListPrice
from far_mesh.marketplace.tiers.answers import TierPrices

router = APIRouter(tags=["operators"])


async def price_listing(request: Request) -> PriceListing:
    """The room's service, made by the app."""
    service: PriceListing = request.app.state.rooms.prices
    return service


Service = Annotated[PriceListing, Depends(price_listing)]


@router.get("/api/operator/prices")
async def list_prices(service: Service, _: Operator) -> PriceList:
    """What a token of each model costs in each tier, before demand, and who says so."""
    return PriceList(prices=[_listed(one) for one in await service.all()])


@router.put("/api/operator/prices", responses=errors(404))
async def put_price(service: Service, _: Operator, body: PriceRequest) -> ListedPrice:
    """Change the price of a model in a tier, or let the settings decide again. Requests under way and quotes keep
    theirs."""
    price = None
    if body.price is not None:
        price = ListPrice(body.price.prompt_price_units, body.price.completion_price_units)
    return _listed(await service.put(body.model_id, body.tier, price))


def _listed(found: Listed) -> ListedPrice:
    price = None
    if found.price is not None:
        price = TierPrices(prompt_price_units=found.price.prompt, completion_price_units=found.price.completion)
    return ListedPrice(model_id=found.model_id, tier=found.tier, price=price, source=found.source)
