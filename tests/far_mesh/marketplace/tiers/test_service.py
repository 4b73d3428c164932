"""Which tier an account is in, and which it may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import TierForbidden, UnsupportedParameter
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import TierTable
from far_mesh.marketplace.tiers.service import TierService
from tests.support.documents import wallet_of

USER = wallet_of("user")


@pytest.fixture
async def tiers(sqlite_url: str) -> AsyncIterator[TierService]:
    database = Database(sqlite_url)
    yield TierService(database, TierTable(), 60.0)
    await database.close()


async def test_everybody_is_in_standard_until_somebody_says_otherwise(tiers: TierService) -> None:
    assert (await tiers.tier_of(USER)).name is TierName.STANDARD
    await tiers.put(USER, TierName.PREMIUM)
    assert (await tiers.tier_of(USER)).name is TierName.PREMIUM
    await tiers.put(USER, TierName.ENTERPRISE)
    assert [one.tier for one in await tiers.all_of_them()] == [TierName.ENTERPRISE]
    await tiers.put(USER, TierName.STANDARD)
    assert (await tiers.tier_of(USER)).name is TierName.STANDARD
    assert await tiers.all_of_them() == []


async def test_a_tier_may_end(tiers: TierService, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = now() + timedelta(days=1)
    await tiers.put(USER, TierName.PREMIUM, ends)
    assert (await tiers.tier_of(USER)).name is TierName.PREMIUM
    monkeypatch.setattr("far_mesh.marketplace.tiers.service.now", lambda: ends)
    assert (await tiers.tier_of(USER)).name is TierName.STANDARD, "though it was read a moment ago"
    assert (await tiers.membership(USER), await tiers.all_of_them()) == (None, [])


async def test_an_end_is_in_the_future_and_not_of_standard(tiers: TierService) -> None:
    for tier, until in ((TierName.PREMIUM, now()), (TierName.STANDARD, now() + timedelta(days=1))):
        with pytest.raises(InvalidArgument):
            await tiers.put(USER, tier, until)
    assert await tiers.all_of_them() == []


async def test_a_request_runs_in_the_accounts_own_tier_or_in_a_lower_one(tiers: TierService) -> None:
    await tiers.put(USER, TierName.PREMIUM)
    assert (await tiers.choose(USER, None)).name == "premium"
    assert (await tiers.choose(USER, "premium")).name == "premium"
    assert (await tiers.choose(USER, "standard")).name == "standard"
    with pytest.raises(TierForbidden, match="may use: standard, premium") as refused:
        await tiers.choose(USER, "enterprise")
    assert refused.value.facts["tiers"] == ["standard", "premium"]
    with pytest.raises(UnsupportedParameter, match="there is: standard, premium, enterprise"):
        await tiers.choose(USER, "imperial")
