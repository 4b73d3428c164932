"""Tiers over HTTP: the public table, what operators set, and what a request of each tier gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from discovery.protocol.messages import Priority
from discovery.score import Outcome
from far_mesh.config import Pool
from far_mesh.marketplace.chain.anvil import dev_key
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.tables import node_registry
from far_mesh.marketplace.tiers.names import TierName
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, User
from tests.far_mesh.marketplace.test_http import error
from tests.support.documents import peer_of, wallet_of

BOSS = dev_key(7)
ANYWHERE = {"node_pool": "any", "min_reliability": None}
LENT = {"unsettled_limit_units": 10**8, "settle_seconds": 3_600.0, "auth_cache_seconds": 0.0}


class Slow(asyncio.Event):
    """A gate that holds every token back for a moment."""

    async def wait(self) -> Any:
        await asyncio.sleep(0.01)
        return True


def is_in(user: User, tier: TierName) -> User:
    user.house.loop.do(user.house.rooms.tiers.put(user.wallet, tier))
    return user


def fails(user: User, name: str) -> None:
    """The mesh tells of a node that did, and it is written down."""
    for listener in user.house.mesh.listeners:  # type: ignore[attr-defined]
        listener([peer_of(name)], Outcome.PAUSED, 1.0)
    user.house.loop.do(user.house.rooms.tiers.reliability.flush())


async def a_day_passes(user: User) -> None:
    """For those who are known."""
    yesterday = now() - timedelta(days=1)
    async with user.house.rooms.database.writing() as connection:
        await connection.execute(update(node_registry).values(registered_at=yesterday))


def asks_v1(user: User, tier: str) -> Any:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "tier": tier}
    return user.http.post("/v1/chat/completions", json=body)


def asks_for_vectors(user: User, tier: str) -> Any:
    return user.http.post("/v1/embeddings", json={"model": MODEL, "input": "hi", "tier": tier})


DOORS: dict[str, Callable[[User, str], Any]] = {
    "generate": lambda user, tier: user.generate(tier=tier),
    "quote": lambda user, tier: user.http.post(
        "/api/inference/quote", json={"model_id": MODEL, "prompt_tokens": 4, "tier": tier}
    ),
    "chat": asks_v1,
    "embeddings": asks_for_vectors,
}


def test_the_table_is_public(open_house: OpenHouse) -> None:
    user = open_house(tiers={"premium": {"price_factor_bps": 25_000}}).user(deposit=0)
    del user.http.headers["authorization"]
    standard, premium, enterprise = user.http.get("/api/tiers").json()["tiers"]
    assert (standard["name"], premium["name"], enterprise["name"]) == ("standard", "premium", "enterprise")
    assert (premium["p95_ms_per_token"], premium["credit_bps"], standard["p95_ms_per_token"]) == (200, 1_000, None)
    assert standard["prices"][MODEL]["completion_price_units"] == COMPLETION_PRICE
    assert premium["prices"][MODEL] == {
        "prompt_price_units": PROMPT_PRICE * 25 // 10,
        "completion_price_units": COMPLETION_PRICE * 25 // 10,
    }
    assert enterprise["prices"] == {}


def test_a_tier_that_the_account_may_not_use_is_refused_at_every_door(open_house: OpenHouse) -> None:
    user = open_house(tiers={"premium": ANYWHERE}, **LENT).user()
    for name, door in DOORS.items():
        refused = door(user, "premium")
        assert error(refused, 403, "tier_forbidden")["param"] == "tier", name
        assert "may use: standard" in refused.text
        assert error(door(user, "imperial"), 400, "unsupported_parameter")["param"] == "tier"
    is_in(user, TierName.PREMIUM)
    for name, door in DOORS.items():
        assert door(user, "premium").status_code == door(user, "standard").status_code == 200, name


def test_what_a_tier_is_worth_is_what_the_request_gets(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = is_in(open_house(mesh, tiers={"premium": ANYWHERE}, **LENT).user(), TierName.PREMIUM)
    own, lower = user.generate().json(), user.generate(tier="standard").json()
    assert own["cost_units"] // 10 == pytest.approx(lower["cost_units"], rel=1e-4)
    assert [treatment.priority for treatment in mesh.treatments] == [Priority.HIGH, Priority.NORMAL]
    assert mesh.pools == [None, None]
    assert error(user.generate(priority="high"), 400, "unsupported_parameter")["param"] == "priority"
    told = user.request(own["request_id"])
    assert (told["tier"], told["promised_p95_ms"], told["service_level_met"]) == ("premium", 200, True)
    assert (user.request(lower["request_id"])["tier"], lower["service_level_met"]) == ("standard", None)
    quoted = user.http.post("/api/inference/quote", json={"model_id": MODEL, "prompt_tokens": 4}).json()
    assert (quoted["tier"], quoted["completion_price_units"]) == ("premium", 10 * COMPLETION_PRICE)
    assert user.generate(quote_id=quoted["quote_id"]).status_code == 200
    assert error(user.generate(quote_id=quoted["quote_id"], tier="standard"), 400, "quote_invalid")


def test_limits_of_an_answer_are_those_of_the_tier(open_house: OpenHouse) -> None:
    tiers = {"standard": {"max_tokens": 5, "max_n": 1}, "premium": ANYWHERE | {"max_n": 3}}
    user = open_house(tiers=tiers, **LENT).user()
    assert (
        "1 to 5, the most in the tier standard"
        in error(user.generate(max_tokens=6), 400, "invalid_argument")["message"]
    )
    assert user.generate(max_tokens=None).json()["completion_tokens"] == 5
    body = {"model": MODEL, "prompt": "Once", "n": 3, "max_tokens": 4}
    refused = error(user.http.post("/v1/completions", json=body), 400, "invalid_argument")
    assert (refused["param"], "in the tier standard" in refused["message"]) == ("n", True)
    is_in(user, TierName.PREMIUM)
    assert user.http.post("/v1/completions", json=body).status_code == 200
    assert user.generate(max_tokens=6).status_code == 200


def test_a_promise_that_was_missed_is_credited_by_itself(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(gate=Slow()), tiers={"premium": ANYWHERE | {"p95_ms_per_token": 1}}, **LENT)
    user = is_in(house.user(), TierName.PREMIUM)
    quick = user.generate(tier="standard").json()
    done = user.events()[-1]
    assert (done["service_level_met"], quick["service_level_met"], quick["credit_units"]) == (False, None, 0)
    gross = done["cost_units"] + done["credit_units"]
    assert done["credit_units"] == gross // 10
    assert done["credit_far"] == pytest.approx(done["credit_units"] / 10**9)
    paid = sum(node["paid_units"] for node in done["nodes_used"])
    assert paid + done["fee_units"] + done["refund_units"] == done["held_units"]
    told = user.request(done["request_id"])
    assert told["credit_units"] == done["credit_units"]
    assert (told["service_level_met"], told["promised_p95_ms"]) == (False, 1)
    assert told["p95_token_ms"] >= 10
    assert user.balance()["available_units"] == 10**9 - quick["cost_units"] - done["cost_units"]
    over_chain = user.generate(payment="escrow").json()
    assert (over_chain["service_level_met"], over_chain["credit_units"]) == (False, over_chain["cost_units"] // 10)
    assert user.balance()["credit_units"] == over_chain["credit_units"]
    chat = asks_v1(user, "premium").json()["far"]
    assert (chat["service_level_met"], chat["credit_units"] > 0) == (False, True)
    assert user.balance()["credit_units"] < over_chain["credit_units"]


def test_a_pool_that_does_not_serve_all_blocks_is_named(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = is_in(
        open_house(mesh, tiers={"enterprise": {"price_factor_bps": 20_000}}, **LENT).user(), TierName.ENTERPRISE
    )
    refused = user.generate()
    assert refused.headers["retry-after"] == "10"
    assert "the private pool of your account serves blocks 0:8" in error(refused, 503, "no_route")["message"]
    pools = user.house.rooms.tiers.pools
    user.house.loop.do(pools.put(user.wallet, [peer_of("ann"), peer_of("bob"), wallet_of("cid")]))
    assert "blocks 6:8" in error(user.generate(), 503, "no_route")["message"]
    assert error(user.http.post("/api/inference/quote", json={"model_id": MODEL, "prompt": "a"}), 503, "no_route")
    assert user.balance()["held_units"] == 0
    members = user.house.loop.do(pools.put(user.wallet, [peer_of("ann"), peer_of("bob"), peer_of("cid")]))
    assert user.generate().status_code == 200
    assert mesh.pools == [Pool("the private pool of your account", frozenset(members))]
    assert user.generate(tier="premium").status_code == 503, "nobody was seen often enough"
    for _ in range(20):
        assert user.generate(tier="standard").status_code == 200
    fails(user, "stranger")  # and what was read before is read again
    assert user.generate(tier="premium").status_code == 503, "nobody has a name in the first hour"
    user.house.loop.do(a_day_passes(user))
    fails(user, "stranger")
    assert user.generate(tier="premium").status_code == 200
    fails(user, "ann")
    assert "serves blocks 0:3" in error(user.generate(tier="premium"), 503, "no_route")["message"]


def test_operators_put_accounts_into_tiers_and_name_their_nodes(open_house: OpenHouse) -> None:
    house = open_house(operators=(address_of(BOSS),), auth_cache_seconds=0.0)
    boss, user = User(house, BOSS), house.user(deposit=0)
    path, pool = f"/api/operator/tiers/{user.wallet}", f"/api/operator/pools/{user.wallet}"
    standard = {"wallet_address": user.wallet, "tier": "standard", "until": None, "allowed": ["standard"]}
    assert boss.http.get(path).json() == user.http.get("/api/account/tier").json() == standard
    until = "2100-01-01T00:00:00Z"
    premium = standard | {"tier": "premium", "until": until, "allowed": ["standard", "premium"]}
    assert boss.http.put(path, json={"tier": "premium", "until": until}).json() == premium
    assert user.http.get("/api/account/tier").json() == premium
    assert boss.http.get("/api/operator/tiers").json() == {"accounts": [premium]}
    members = sorted([peer_of("ann"), wallet_of("bob")])
    assert boss.http.put(pool, json={"members": members}).json() == {"wallet_address": user.wallet, "members": members}
    assert boss.http.get(pool).json()["members"] == members
    assert boss.http.put(path, json={"tier": "standard"}).json() == standard
    for body in (
        {"tier": "gold"},
        {"tier": "premium", "until": "2020-01-01T00:00:00Z"},
        {"tier": "premium", "until": 5},
        {},
    ):
        assert error(boss.http.put(path, json=body), 400, "invalid_argument")
    assert error(boss.http.put(pool, json={"members": ["me"]}), 400, "invalid_argument")["param"] == "members"
    assert error(boss.http.get("/api/operator/tiers/0x12"), 400, "invalid_wallet")
    assert user.http.put(path, json={"tier": "enterprise"}).status_code == 403
    assert boss.http.get(path).json() == standard
