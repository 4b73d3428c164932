"""Which nodes a tier runs on: named by the operator, or seen to be reliable."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import PeerId, Wallet
from discovery.score import HALF_LIFE_SECONDS, Observations, Outcome, score_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.nodes import repository as nodes
from far_mesh.marketplace.nodes.schemas import Hardware
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, PaidShare, Share
from far_mesh.marketplace.tables import node_registry
from far_mesh.marketplace.tiers.reliability import Reliability, weight
from far_mesh.marketplace.tiers.schemas import ENTERPRISE_TIER, PREMIUM_TIER, STANDARD_TIER, TierTable
from far_mesh.marketplace.tiers.service import TierService
from tests.support.documents import peer_of, signed_announcement, wallet_of

USER = wallet_of("user")
AGE = timedelta(days=100)
ANN, BOB = peer_of("ann"), peer_of("bob")


@pytest.fixture
def tiers(database: Database) -> TierService:
    return TierService(database, TierTable(), 0.0)


async def registered(database: Database, **completed: int) -> None:
    rows = [
        {
            "node_id": peer_of(name), "wallet_address": wallet_of(name), "model_id": "m", "registered_at": now() - AGE,
            "is_active": True, "total_tokens_served": 0, "total_earned_units": 0,
            "seen_completed": times * weight(now()),
        }
        for name, times in completed.items()
    ]  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(insert(node_registry), rows)


async def test_standard_runs_anywhere(tiers: TierService) -> None:
    assert await tiers.pools.of(USER, STANDARD_TIER) is None


async def test_a_reliable_pool_is_of_those_that_were_seen_to_be(tiers: TierService, database: Database) -> None:
    await registered(database, ann=19, bob=17, cid=100, new=0)
    tiers.reliability.seen([peer_of("cid"), peer_of("cid"), peer_of("stranger")])  # at once, so it is one failure
    for outcome in (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.PAUSED, Outcome.PAUSED, Outcome.FAILED):
        tiers.reliability.seen([peer_of("cid")], outcome)
    await tiers.reliability.flush()
    expected = {ANN: 20 / 21, BOB: 18 / 19, peer_of("cid"): 101 / 108}
    assert await tiers.reliability.scores() == pytest.approx(expected, rel=1e-4)
    pool = await tiers.pools.of(USER, PREMIUM_TIER)
    assert pool is not None
    assert pool.members == {ANN}
    assert pool.has(signed_announcement("ann").announcement)
    assert not pool.has(signed_announcement("new").announcement)


async def test_work_that_was_proven_counts_for_each_node(tiers: TierService, database: Database) -> None:
    await served(database, "s", (ANN, wallet_of("ann")), (BOB, wallet_of("bob")), (ANN, wallet_of("ann")))
    seen = await tiers.reliability.observations()
    assert seen[ANN].completed == pytest.approx(2.0, rel=1e-4)
    assert seen[BOB].completed == pytest.approx(1.0, rel=1e-4)
    assert (await tiers.reliability.scores())[BOB] < 2 / 3, "nobody has a name in the first hour"


async def test_what_was_seen_is_forgotten_while_nobody_writes(tiers: TierService, database: Database) -> None:
    await registered(database, ann=8)
    a_week_ago = weight(now() - timedelta(seconds=HALF_LIFE_SECONDS))
    async with database.writing() as connection:
        await connection.execute(
            update(node_registry).values(seen_completed=8 * a_week_ago, seen_failed=4 * a_week_ago)
        )
    tiers.reliability.seen([ANN])
    await tiers.reliability.flush()
    seen = (await tiers.reliability.observations())[ANN]
    assert (seen.completed, seen.failed) == pytest.approx((4.0, 3.0), rel=1e-4)


async def test_who_signs_what_is_not_true_is_no_longer_trusted(tiers: TierService, database: Database) -> None:
    await registered(database, ann=30, bob=30)
    told: list[Mapping[str, Observations]] = []
    tiers.reliability.listeners.add(told.append)
    tiers.reliability.seen([ANN], Outcome.REJECTED, 1.0)
    tiers.reliability.seen([BOB], Outcome.REJECTED, 0.25)
    await tiers.reliability.flush()
    await tiers.reliability.tell()
    honesty = {node: score_of(seen).is_honest_enough for node, seen in told[0].items()}
    assert honesty == {ANN: False, BOB: True}
    assert (await tiers.pools.of(USER, PREMIUM_TIER)).members == frozenset()  # type: ignore[union-attr]


async def test_failures_wait_for_a_database_that_is_gone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await registered(database, ann=8)
    reliability = Reliability(database, 0.0)
    reliability.seen([ANN])

    def gone() -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(database, "writing", gone)
        with pytest.raises(DatabaseUnavailable):
            await reliability.flush()
    await reliability.flush()
    await reliability.flush()
    assert await reliability.scores() == pytest.approx({ANN: 9 / 11}, rel=1e-4)


async def test_a_private_pool_is_what_the_operator_has_named(tiers: TierService) -> None:
    empty = await tiers.pools.of(USER, ENTERPRISE_TIER)
    assert empty is not None
    assert not empty.has(signed_announcement("ann").announcement)
    assert await tiers.pools.put(USER, [ANN, BOB, ANN]) == sorted([ANN, BOB])
    pool = await tiers.pools.of(USER, ENTERPRISE_TIER)
    assert pool is not None
    assert [pool.has(signed_announcement(name).announcement) for name in ("ann", "bob", "cid")] == [True, True, False]
    assert await tiers.pools.put(USER, [BOB]) == await tiers.pools.members(USER) == [BOB]
    assert await tiers.pools.members(wallet_of("other")) == []


async def test_what_names_no_node_is_refused_and_nothing_changes(tiers: TierService) -> None:
    await tiers.pools.put(USER, [ANN])
    for member in ("", "ann", "0x12", "0x" + "aB" * 20, "12D3KooW"):
        with pytest.raises(InvalidArgument, match="neither a peer id nor a wallet"):
            await tiers.pools.put(USER, [BOB, member])
    assert await tiers.pools.members(USER) == [ANN]


async def test_a_wallet_in_a_pool_stands_for_the_nodes_that_it_has_signed_for(
    tiers: TierService, database: Database
) -> None:
    owner = wallet_of("bob")
    await registered(database, bob=3)
    await tiers.pools.put(USER, [ANN, owner])
    assert await nodes_of_the_pool(tiers) == {ANN}, "bob's node has only said for whom it earns"
    async with database.writing() as connection:
        assert await nodes.register(connection, BOB, owner, "m", Hardware(), now(), now())
    assert await nodes_of_the_pool(tiers) == {ANN, BOB}
    assert await tiers.pools.members(USER) == sorted([ANN, owner])


async def test_who_was_paid_for_another_wallet_has_not_proven_that_one(tiers: TierService, database: Database) -> None:
    owner = wallet_of("bob")
    async with database.writing() as connection:
        assert await nodes.register(connection, BOB, wallet_of("mallory"), "m", Hardware(), now(), now())
    await tiers.pools.put(USER, [owner])
    await served(database, "before", (BOB, wallet_of("mallory")))
    async with database.reading() as connection:
        row = await nodes.find(connection, BOB)
    assert row is not None
    assert row.proven_at is not None
    await served(database, "after", (BOB, owner))  # as its announcement said
    assert await nodes_of_the_pool(tiers) == frozenset()


async def served(database: Database, name: str, *nodes_for_wallets: tuple[str, str]) -> None:
    session = NewSession(name, f"request {name}", USER, "m", "standard", 1, 1, 1, 1, 2_000, 10)
    shares = [
        PaidShare(Share(Wallet(wallet), PeerId(node), 0, 3, "none", 1, 3, "{}"), 1)
        for node, wallet in nodes_for_wallets
    ]
    async with database.writing() as connection:
        await sessions.add(connection, session, Gateway("here", "life"))
        await sessions.add_contributions(connection, session, shares)


async def nodes_of_the_pool(tiers: TierService) -> frozenset[str]:
    pool = await tiers.pools.of(USER, ENTERPRISE_TIER)
    assert pool is not None
    return pool.members
