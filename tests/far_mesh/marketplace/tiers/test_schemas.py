"""What is set of the table of tiers takes the place of what is built in, and what means nothing is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import PREMIUM_TIER, STANDARD_TIER, TierTable
from tests.docs.pages import ROOT, bare, table


def test_what_is_not_set_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_TIERS", json.dumps({"premium": {"p95_ms_per_token": 150, "max_n": 2}}))
    found = Settings.read().tiers
    assert found.premium == PREMIUM_TIER.model_copy(update={"p95_ms_per_token": 150, "max_n": 2})
    assert found.standard == STANDARD_TIER
    assert [tier.name for tier in found.up_to(TierName.PREMIUM)] == ["standard", "premium"]


@pytest.mark.parametrize(
    ("tiers", "named"),
    [
        ({"premium": {"requests_per_minute": 0}}, "premium.requests_per_minute: "),
        ({"premium": {"credit_bps": 10_001}}, "premium.credit_bps: "),
        ({"standard": {"priority": "top"}}, "standard.priority: "),
        ({"enterprise": {"min_reliability": 2}}, "enterprise.min_reliability: "),
        ({"enterprise": {"node_pool": "reliable"}}, "enterprise: .*min_reliability"),
        ({"standard": {"min_reliability": 0.5}}, "standard: .*min_reliability"),
        ({"premium": {"p95_ms_per_token": None}}, "premium: .*credit_bps"),
        ({"standard": {"credit_bps": 5}}, "standard: .*p95_ms_per_token"),
        ({"premium": {"speed": 9}}, "premium.speed: "),
        ({"premium": 5}, "premium: "),
        ({"gold": {}}, "gold: "),
        ({"premium": {"name": "standard"}}, "premium: "),
        ({"standard": {"price_factor_bps": 5}}, "standard.price_factor_bps"),
        ({"standard": {"node_pool": "private"}}, "standard.node_pool"),
    ],
    ids=str,
)
def test_a_value_that_means_nothing_is_named(tiers: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"FAR_TIERS is not usable: .*{named}"):
        Settings.read(tiers=tiers)


def test_the_operators_page_has_the_table_that_is_built_in() -> None:
    rows = table(ROOT / "docs/operators.md", "| field | standard | premium | enterprise")
    told = {bare(field): values for field, *values, _ in rows}
    fields = {name for name in STANDARD_TIER.model_dump() if name != "name"}
    assert told.keys() == fields
    for name, values in told.items():
        built_in = [tier.model_dump(mode="json")[name] for tier in TierTable().all()]
        assert values == [str(value) if isinstance(value, str) else json.dumps(value) for value in built_in], name
