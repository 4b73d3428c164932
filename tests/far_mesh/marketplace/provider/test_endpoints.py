"""``/api/provider`` through the door: shapes, pages, and who may see what."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from eth_account import Account

from far_mesh.marketplace.chain.client import address_of
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.house import House, sign_in
from tests.far_mesh.marketplace.provider.works import PAID, settle, share, work
from tests.support.documents import peer_of

AMOUNTS = ("earned", "waiting", "in_flight", "paid", "credit", "unclaimed", "withdrawn")
PATHS = (
    "/api/provider/rewards",
    "/api/provider/history",
    "/api/provider/claims",
    "/api/provider/stats",
    "/api/provider/nodes",
    "/api/provider/earnings/history",
)


def asked(http: httpx.Client, path: str, **query: Any) -> Any:
    answer = http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


class Worked:
    """A marketplace in which two providers have worked for three requests, of which the first is paid."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ann_key, self.bob_key = (str(Account.create().key.to_0x_hex()) for _ in range(2))
        self.ann, self.bob = address_of(self.ann_key), address_of(self.bob_key)
        self.payer = house.user(deposit=10_000).wallet
        for name in ("r1", "r2", "r3"):
            done = [share("ann", self.ann, 240), share("bob", self.bob, 80)]
            house.loop.do(work(house.rooms.database, name, done, user=self.payer))
            if name == "r1":
                house.loop.do(settle(house.rooms.database))

    def signed_in(self, key: str | None = None) -> httpx.Client:
        """The owner of ``key``, or somebody who has nothing to do with it."""
        http = httpx.Client(base_url=self.house.url, timeout=20)
        http.headers["authorization"] = f"Bearer {sign_in(http, key or Account.create().key.to_0x_hex())['token']}"
        return http


def open_worked(open_house: OpenHouse, **changes: Any) -> Worked:
    return Worked(open_house(settle_seconds=86_400, reconcile_seconds=0, **changes))


def test_what_each_provider_sees(open_house: OpenHouse, database_url: str) -> None:
    worked = open_worked(open_house, database_url=database_url)
    ann, bob = worked.signed_in(worked.ann_key), worked.signed_in(worked.bob_key)
    found = asked(ann, "/api/provider/rewards", days=3)
    assert [found[f"{name}_units"] for name in AMOUNTS] == [900, 600, 0, 300, 300, 0, 0]
    assert found["earned_far"] == 9e-7
    assert [(node["node_id"], node["earned_units"], node["token_layers"]) for node in found["per_node"]] == [
        (peer_of("ann"), 900, 720)
    ]
    assert [day["earned_units"] for day in found["per_day"]] == [0, 0, 900]
    assert [day["nodes"] for day in found["per_day"]] == [{}, {}, {peer_of("ann"): 900}]
    [standing] = found["scores"]
    assert (standing["node_id"], standing["score"]["completed"]) == (peer_of("ann"), 3.0)
    assert standing["score"]["value"] == pytest.approx(0.76, abs=0.01), "(1 + 3) / (2 + 3), less in the first hour"
    assert [sentence.partition(" ")[0] for sentence in standing["advice"]] == ["not", "it"]
    [node] = asked(ann, "/api/provider/nodes")["nodes"]
    assert (node["node_id"], node["registered"]) == (peer_of("ann"), False), "it served, and nobody claimed it"
    assert node["score"] == standing["score"]
    assert found["escrow_address"] == worked.house.live.deployment.escrow

    lines: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = asked(ann, "/api/provider/history", limit=1, **cursor)
        lines += page["lines"]
        cursor = {"cursor": page["next_cursor"]}
    assert page["next_cursor"] is None
    assert [(line["request_id"], line["state"]) for line in lines] == [
        ("r3", "waiting"),
        ("r2", "waiting"),
        ("r1", "paid"),
    ]
    assert {line["units"] for line in lines} == {300}
    assert lines[0]["receipt"] is None
    assert asked(ann, "/api/provider/history", receipts=True)["lines"][0]["receipt"].startswith("{")

    its_batch = f"/api/provider/batches/{lines[-1]['batch_number']}"
    batch = asked(bob, its_batch)
    assert (batch["payout_units"], [line["units"] for line in batch["lines"]]) == (100, [100])
    assert (batch["total_units"], batch["requests"], batch["kind"], batch["status"]) == (PAID, 1, "batch", "confirmed")
    assert batch["tx_hash"] == lines[-1]["tx_hash"]
    assert batch["lines"][0]["wei"] == str(100 * 10**9)

    # neither sees the other, and nobody sees the user
    for http, other in ((ann, worked.bob), (bob, worked.ann)):
        everything = "".join(str(asked(http, path)) for path in (*PATHS, its_batch)).lower()
        assert other.lower() not in everything
        assert worked.payer.lower() not in everything
        assert http.get(f"/api/nodes/earnings/{other}").status_code == 404
    nobody = worked.signed_in()
    assert asked(nobody, "/api/provider/rewards")["scores"] == []
    assert asked(nobody, "/api/provider/history") == {"lines": [], "next_cursor": None}
    assert nobody.get(its_batch).json()["error"]["code"] == "not_found"


def test_the_shapes_of_the_specification(open_house: OpenHouse) -> None:
    worked = open_worked(open_house)
    ann = worked.signed_in(worked.ann_key)
    assert asked(ann, "/api/provider/stats") == {
        "totalTokensServed": 90,
        "totalEarnedFar": 9e-7,
        "activeRequests": 0,
        "uptime": None,
        "avgLatencyMs": 120,
    }
    days = asked(ann, "/api/provider/earnings/history")
    assert len(days) == 30
    assert set(days[0]) == {"date", "amount"}
    assert days[-1]["amount"] == 9e-7
    glance = asked(ann, f"/api/nodes/earnings/{worked.ann.lower()}")
    history = glance.pop("earnings_history")
    assert glance == {
        "wallet_address": worked.ann,
        "total_earned_far": 9e-7,
        "total_tokens_served": 90,
        "active_nodes": 0,
        "avg_uptime_percent": None,
        "pending_payout_far": 6e-7,
    }
    assert set(history[0]) == {"date", "amount_far"}


def test_what_means_nothing_is_refused(open_house: OpenHouse) -> None:
    house = open_house(reconcile_seconds=0)
    ann = house.user(deposit=0).http
    for path in (
        "/api/provider/rewards?days=0",
        "/api/provider/rewards?days=367",
        "/api/provider/earnings/history?days=-1",
        "/api/provider/history?limit=0",
        "/api/provider/history?limit=201",
        "/api/provider/history?cursor=1",
        "/api/provider/claims?cursor=x",
        "/api/provider/claims?limit=21",
        "/api/provider/batches/-1",
        "/api/provider/batches/one",
        "/api/provider/batches/9223372036854775808",
    ):
        answer = ann.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_argument"), path
    for path in (*PATHS, "/api/provider/batches/1", "/api/nodes/earnings/x"):
        answer = httpx.get(house.url + path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
