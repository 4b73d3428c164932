"""A hundred requests in one moment: none is charged twice, and no more is held than there is.

``benchmarks/concurrent_money.py`` does the same with a thousand.
"""

from __future__ import annotations

import asyncio

import pytest

from far_mesh.marketplace.ledger.schemas import Account, Book
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.inference.test_endpoints import PRICE
from tests.support.at_once import holds, same_key

COUNT, COVERED = 100, 10
BODY = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": False}
# Nothing is settled meanwhile, and prices do not rise with demand.
LENT = {
    "unsettled_limit_units": 10**12,
    "settle_seconds": 3_600.0,
    "settle_threshold_units": 10**15,
    "requests_per_node": 0,
    "tiers": {"standard": dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrent_requests"))},
    "queue_size_per_account": 1000,
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_hundred_requests_with_one_key_are_one_request(
    open_house: OpenHouse, kind: str, request: pytest.FixtureRequest
) -> None:
    house = open_house(database_url=request.getfixturevalue(f"{kind}_url"), **LENT)
    user = house.user(COVERED * PRICE)
    assert house.loop.do(same_key(house.app, user.token, BODY, COUNT)) == {"served": 1, "conflict": COUNT - 1}
    balance = user.balance()
    assert balance["held_units"] == 0
    assert 0 <= balance["available_units"] - (COVERED - 1) * PRICE <= 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_hundred_requests_hold_no_more_than_there_is(
    open_house: OpenHouse, kind: str, request: pytest.FixtureRequest
) -> None:
    gate = asyncio.Event()
    house = open_house(MeshDouble(gate=gate), database_url=request.getfixturevalue(f"{kind}_url"), **LENT)
    user = house.user(COVERED * PRICE + PRICE - 1)
    ends = house.loop.do(holds(house.app, user.token, BODY, COUNT, COUNT - COVERED, gate.set))
    assert ends == {"served": COVERED, "insufficient_balance": COUNT - COVERED}
    assert 0 <= user.balance()["available_units"] - (PRICE - 1) <= COVERED
    assert house.books()[Account(Book.USER_HOLD, user.wallet)] == 0
