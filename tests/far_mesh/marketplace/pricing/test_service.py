"""What a token costs: the database before the settings, times demand."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.ledger.split import Prices
from far_mesh.marketplace.pricing import repository
from far_mesh.marketplace.pricing.schemas import ListPrice, PriceNow
from far_mesh.marketplace.pricing.service import Pricing, Terms
from far_mesh.marketplace.settings import ModelOffer, TierPrice
from far_mesh.marketplace.tables import inference_sessions
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import TierTable
from tests.support.documents import signed_announcement

OFFER = ModelOffer(
    model="org/tiny",
    prompt_price_units=10,
    completion_price_units=70,
    tiers={"premium": TierPrice(prompt_price_units=100, completion_price_units=700)},
)
NODES = [signed_announcement("ann", first_block=0, end_block=8).announcement]
TERMS = Terms(fee_bps=2_000, cached_discount_bps=5_000, requests_per_node=10)


async def busy_with(database: Database, requests: int) -> None:
    """So many open requests, and one that is over."""
    rows = [
        {
            "id": f"{index}", "request_id": f"r{index}", "user_wallet": "0xUser", "model_id": "org/tiny",
            "tier": "standard", "status": "completed" if index == requests else ("pending", "active")[index % 2],
            "gateway": "g", "incarnation": "i", "started_at": now(), "prompt_tokens": 1, "token_count": 0,
            "prompt_price_units": 1, "completion_price_units": 1, "held_units": 1,
        }
        for index in range(requests + 1)
    ]  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(inference_sessions.delete())
        await connection.execute(insert(inference_sessions), rows)


async def price(pricing: Pricing, tier: str = "standard", offer: ModelOffer = OFFER) -> PriceNow:
    return await pricing.now(offer, TierTable()[TierName(tier)], NODES, 8)


async def test_the_settings_say_the_price_of_each_tier(database: Database) -> None:
    pricing = Pricing(database, TERMS)
    assert (await price(pricing)).prices == Prices(prompt=10, completion=70, cached=5, fee_bps=2_000)
    assert (await price(pricing, "premium")).prices == Prices(prompt=100, completion=700, cached=50, fee_bps=2_000)
    with pytest.raises(UnsupportedParameter, match="enterprise"):
        await price(pricing, "enterprise")


async def test_a_tier_without_a_price_of_its_own_is_a_multiple_of_standard(database: Database) -> None:
    pricing, plain = Pricing(database, TERMS), OFFER.model_copy(update={"tiers": {}})
    assert (await price(pricing, "premium", plain)).prices == Prices(100, 700, cached=50, fee_bps=2_000)
    async with database.writing() as connection:
        await repository.put(connection, "org/tiny", "standard", ListPrice(1, 2))
    assert (await price(pricing, "premium", plain)).prices == Prices(10, 20, cached=5, fee_bps=2_000)
    assert await pricing.listed(plain, TierTable().all()) == {
        TierName.STANDARD: ListPrice(1, 2),
        TierName.PREMIUM: ListPrice(10, 20),
    }


async def test_the_database_comes_before_the_settings_until_it_is_cleared(database: Database) -> None:
    pricing = Pricing(database, TERMS)
    for listed in (ListPrice(1, 2), ListPrice(3, 4)):
        async with database.writing() as connection:
            await repository.put(connection, "org/tiny", "standard", listed)
        assert (await price(pricing)).prices == Prices(listed.prompt, listed.completion, listed.prompt // 2, 2_000)
    async with database.writing() as connection:
        assert await repository.all_prices(connection) == {("org/tiny", "standard"): ListPrice(3, 4)}
        assert await repository.drop(connection, "org/tiny", "standard")
        assert not await repository.drop(connection, "org/tiny", "standard")
    assert (await price(pricing)).prices.completion == 70


async def test_the_price_follows_open_requests_and_comes_down_later(database: Database) -> None:
    pricing, seen = Pricing(database, TERMS), []
    for requests in (0, 5, 6, 5, 9, 8, 7, 4, 0):
        await busy_with(database, requests)
        found = await price(pricing)
        assert found.utilisation == requests / 10
        seen.append((found.multiplier_bps, found.prices.completion))
    low, middle, high = (10_000, 70), (12_000, 84), (15_000, 105)
    assert seen == [low, low, middle, middle, high, high, middle, low, low]


async def test_without_a_capacity_per_node_prices_stand_still(database: Database) -> None:
    await busy_with(database, 50)
    found = await price(Pricing(database, Terms(2_000, 5_000, requests_per_node=0)))
    assert (found.multiplier_bps, found.prices.completion) == (10_000, 70)


@pytest.mark.parametrize(("discount", "cached"), [(0, 10), (10_000, 0), (2_500, 7)])
async def test_the_discount_for_known_tokens_is_settable(database: Database, discount: int, cached: int) -> None:
    found = await price(Pricing(database, Terms(2_000, discount, 10)))
    assert found.prices.cached == cached
