"""The route that a preference asks for, and why; the gaps, against counting."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.announcement import Announcement
from far_mesh.config import Goal, Preference
from far_mesh.costs import Known
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, explain, plan_route, uncovered_ranges
from tests.support.documents import announcement, peer_of, wallet_of

BLOCKS = 10


def node(name: str, first: int, end: int, **facts: object) -> Announcement:
    return announcement(name, block_count=64, first_block=first, end_block=end, **facts)


@st.composite
def swarms(draw: st.DrawFn) -> list[Announcement]:
    spans = draw(st.lists(st.tuples(st.integers(0, BLOCKS + 1), st.integers(1, 6)), max_size=7))
    states = st.sampled_from(["ready", "ready", "ready", "leaving"])
    return [
        node(
            f"n{number}",
            first,
            first + size,
            state=draw(states),
            quantization=draw(st.sampled_from(["none", "int8", "nf4"])),
        )
        for number, (first, size) in enumerate(spans)
    ]


def fewest_hops(nodes: list[Announcement]) -> int | None:
    """By trying every chain."""
    usable = [node for node in nodes if node.state == "ready"]
    for count in range(1, len(usable) + 1):
        for chain in itertools.permutations(usable, count):
            position = 0
            for hop in chain:
                if hop.first_block <= position < hop.end_block:
                    position = hop.end_block
            if position >= BLOCKS:
                return count
    return None


@settings(max_examples=300)
@given(swarms())
def test_a_route_covers_every_block_once_with_the_fewest_hops_there_can_be(nodes: list[Announcement]) -> None:
    fewest = fewest_hops(nodes)
    if fewest is None:
        with pytest.raises(NoRoute):
            plan_route(nodes, BLOCKS)
        return
    route = plan_route(nodes, BLOCKS)
    assert len(route) == fewest
    assert [block for hop in route for block in range(*hop.blocks)] == list(range(BLOCKS))
    for hop in route:
        assert hop.node.state == "ready"
        assert hop.node.first_block <= hop.first_block < hop.end_block <= hop.node.end_block
    assert len({hop.node.peer_id for hop in route}) == len(route)


@settings(max_examples=300)
@given(swarms())
def test_the_uncovered_ranges_are_the_blocks_that_nobody_serves(nodes: list[Announcement]) -> None:
    missing = set(range(BLOCKS)) - {block for node in nodes for block in range(node.first_block, node.end_block)}
    ranges = uncovered_ranges(nodes, BLOCKS)
    assert {block for first, end in ranges for block in range(first, end)} == missing
    assert all(first < end for first, end in ranges)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges)), "in order, and as long as can be"


@settings(max_examples=200)
@given(swarms(), st.sets(st.integers(0, 6)))
def test_what_is_missing_is_named_in_the_error(nodes: list[Announcement], excluded: set[int]) -> None:
    names = {peer_of(f"n{number}") for number in excluded}
    left = [node for node in nodes if node.state == "ready" and node.peer_id not in names]
    gaps = uncovered_ranges(left, BLOCKS)
    if not gaps:
        assert not names & {hop.node.peer_id for hop in plan_route(nodes, BLOCKS, names)}
        return
    with pytest.raises(NoRoute) as failure:
        plan_route(nodes, BLOCKS, names)
    assert failure.value.facts["uncovered"] == gaps
    assert all(f"{first}:{end}" in failure.value.message for first, end in gaps)
    assert failure.value.retry


def test_an_empty_swarm_misses_everything() -> None:
    with pytest.raises(NoRoute, match="no live node serves blocks 0:10") as failure:
        plan_route([], BLOCKS)
    assert failure.value.code == "no_route"
    assert failure.value.retry_after is not None


def test_every_gap_is_named() -> None:
    nodes = [node("a", 2, 4), node("b", 7, 9)]
    with pytest.raises(NoRoute, match="blocks 0:2, 4:7, 9:10"):
        plan_route(nodes, BLOCKS)


def test_a_span_is_used_in_part_where_the_one_before_reaches_into_it() -> None:
    nodes = [node("a", 0, 6), node("b", 4, 10)]
    assert [(hop.node.peer_id, hop.blocks) for hop in plan_route(nodes, BLOCKS)] == [
        (peer_of("a"), (0, 6)),
        (peer_of("b"), (6, 10)),
    ]


def test_a_node_that_serves_more_blocks_than_the_model_has_is_cut_at_the_end() -> None:
    assert plan_route([node("a", 0, 20)], BLOCKS) == (RouteHop(node("a", 0, 20), 0, BLOCKS),)


def test_among_equals_the_more_precise_is_taken_and_then_the_one_heard_of_last() -> None:
    nf4, int8, exact = (node(kind, 0, 10, quantization=kind) for kind in ("nf4", "int8", "none"))
    for swarm in itertools.permutations((nf4, int8, exact)):
        assert plan_route(swarm, BLOCKS)[0].node is exact
    for swarm in itertools.permutations((nf4, int8)):
        assert plan_route(swarm, BLOCKS)[0].node is int8
    old, new = (node(name, 0, 10, issued_at=at, expires_at=at + 60) for name, at in (("old", 1000), ("new", 1001)))
    assert plan_route([new, old], BLOCKS)[0].node is new
    assert plan_route([old, new], BLOCKS)[0].node is new


def test_a_node_that_is_leaving_is_not_routed() -> None:
    staying = [node("a", 0, 5), node("b", 5, 10)]
    assert len(plan_route([*staying, node("c", 0, 10, state="leaving")], BLOCKS)) == 2


def test_a_part_of_the_chain_is_planned_between_the_nodes_that_stay() -> None:
    swarm = [node("a", 0, 4), node("lost", 4, 8), node("b", 8, 10), node("c", 3, 6), node("d", 5, 9)]
    part = plan_route(swarm, BLOCKS, {peer_of("lost")}, span=(4, 8), before=peer_of("a"), after=peer_of("b"))
    assert [(hop.node.peer_id, hop.blocks) for hop in part] == [(peer_of("c"), (4, 6)), (peer_of("d"), (6, 8))]


def test_neither_neighbour_of_a_part_serves_in_it() -> None:
    swarm = [node("a", 0, 10), node("b", 0, 10)]
    with pytest.raises(NoRoute) as failure:
        plan_route(swarm, BLOCKS, span=(4, 8), before=peer_of("a"), after=peer_of("b"))
    assert failure.value.facts["uncovered"] == [(4, 8)]


def near_and_far() -> list[Announcement]:
    """A dear and fast half and a cheap and slow half, twice."""
    return [
        node("fast0", 0, 5, block_ms=1.0, price_units=900, region="eu-west"),
        node("slow0", 0, 5, block_ms=20.0, price_units=100, region="us-east", quantization="int8"),
        node("fast1", 5, 10, block_ms=1.0, price_units=900, region="eu-north", load=0.9),
        node("slow1", 5, 10, block_ms=20.0, price_units=100, region="eu-west", quantization="nf4"),
    ]


def names(route: Iterable[RouteHop]) -> list[str]:
    known: dict[str, str] = {peer_of(name): name for name in ("fast0", "slow0", "fast1", "slow1", "a", "b", "c")}
    return [known[hop.node.peer_id] for hop in route]


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (Preference(), ["fast0", "fast1"]),
        (Preference("cheapest"), ["slow0", "slow1"]),
        (Preference(max_price=500), ["fast0", "slow1"]),
        (Preference(max_price=100), ["slow0", "slow1"]),
        (Preference("cheapest", max_latency=200), ["fast0", "slow1"]),
        (Preference("cheapest", max_latency=75), ["fast0", "fast1"]),
        (Preference(region="eu"), ["fast0", "fast1"]),
        (Preference(region="eu", max_load=0.8), ["fast0", "slow1"]),
        (Preference(quantization=frozenset({"int8", "nf4"})), ["slow0", "slow1"]),
        (Preference(trusted_only=frozenset({peer_of("slow0"), wallet_of("fast1")})), ["slow0", "fast1"]),
        (Preference("cheapest", min_tps=100.0), ["fast0", "fast1"]),
    ],
    ids=[
        *("fastest", "cheapest", "for 500", "for 100", "cheapest in 200 ms", "cheapest in 75 ms"),
        *("there", "there and idle", "coarse", "trusted", "cheapest that is quick"),
    ],
)
def test_the_preference_decides(preference: Preference, expected: list[str]) -> None:
    client = Known(round_trips={peer_of(name): 20.0 for name in ("fast0", "fast1", "slow1")})
    assert names(plan_route(near_and_far(), BLOCKS, preference=preference, known=client)) == expected


def test_balanced_is_neither_the_dearest_nor_the_slowest() -> None:
    swarm = [
        node("a", 0, 10, block_ms=1.0, price_units=1000),
        node("b", 0, 10, block_ms=2.0, price_units=300),
        node("c", 0, 10, block_ms=100.0, price_units=200),
    ]
    goals = {goal: names(plan_route(swarm, BLOCKS, preference=Preference(goal))) for goal in get_args(Goal)}
    assert goals == {"fastest": ["a"], "cheapest": ["c"], "balanced": ["b"]}


def test_of_two_that_cost_nothing_the_faster_is_the_cheapest() -> None:
    swarm = [node("a", 0, 10, block_ms=3.0), node("b", 0, 10, block_ms=2.0), node("c", 0, 10, block_ms=4.0)]
    for goal in get_args(Goal):
        assert names(plan_route(swarm, BLOCKS, preference=Preference(goal))) == ["b"]
    priced = [one.model_copy(update={"price_units": 7}) for one in swarm]
    assert names(plan_route(priced, BLOCKS, preference=Preference("cheapest"))) == ["b"]


def test_one_absurd_price_does_not_make_the_others_alike() -> None:
    swarm = [node("a", 0, 10, price_units=11), node("b", 0, 10, price_units=10), node("c", 0, 10, price_units=10**12)]
    for preference in (Preference("cheapest"), Preference("balanced")):
        assert names(plan_route(swarm, BLOCKS, preference=preference)) == ["b"]


def test_who_asks_for_more_than_is_offered_is_not_used() -> None:
    assert names(plan_route(near_and_far(), BLOCKS, offered=100)) == ["slow0", "slow1"]
    with pytest.raises(NoRoute, match="asks for 100 units, 99 are offered"):
        plan_route(near_and_far(), BLOCKS, offered=99)


def test_a_node_near_its_neighbours_takes_the_place_of_a_lost_one() -> None:
    swarm = [
        node("a", 0, 4, links=((peer_of("b"), 300.0), (peer_of("c"), 5.0))),
        node("b", 4, 8, block_ms=1.0),
        node("c", 4, 8, block_ms=2.0, links=((peer_of("d"), 5.0),)),
        node("d", 8, 10, links=((peer_of("b"), 300.0),)),
    ]
    client = Known(round_trips={peer_of("b"): 1.0})
    part = plan_route(swarm, BLOCKS, span=(4, 8), before=peer_of("a"), after=peer_of("d"), known=client)
    assert names(part) == ["c"]
    alone = plan_route(swarm, BLOCKS, span=(4, 8), known=client)
    assert names(alone) == ["b"]


def test_blocks_that_only_unwanted_nodes_serve_are_named_with_them_and_why() -> None:
    with pytest.raises(NoRoute) as failure:
        plan_route(near_and_far(), BLOCKS, {peer_of("slow1")}, preference=Preference(max_load=0.5))
    assert failure.value.facts["uncovered"] == [(5, 10)]
    assert f"{peer_of('fast1')} (max_load: 0.90)" in failure.value.message
    assert peer_of("slow1") not in failure.value.message, "that it failed is another story"
    with pytest.raises(NoRoute) as failure:
        plan_route(near_and_far(), BLOCKS, preference=Preference(region="asia"))
    assert failure.value.facts["uncovered"] == [(0, 10)]
    assert "region: us-east" in failure.value.message
    crowd = [node(f"n{number}", 0, 10) for number in range(8)]
    with pytest.raises(NoRoute, match="and 3 more"):
        plan_route(crowd, BLOCKS, preference=Preference(region="asia"))


@pytest.mark.parametrize(
    ("preference", "words"),
    [
        (Preference(max_price=99), "the cheapest asks for 100 units, more than max_price 99"),
        (Preference(max_latency=20), "ms per token, more than max_latency 20"),
        (Preference(max_hops=1), "the shortest has 2 nodes, more than max_hops 1"),
        (Preference(max_price=100, max_latency=250), "none keeps max_price and max_latency"),
    ],
    ids=str,
)
def test_limits_that_leave_nothing_are_named(preference: Preference, words: str) -> None:
    with pytest.raises(NoRoute, match=re.escape(words)) as failure:
        plan_route(near_and_far(), BLOCKS, preference=preference)
    assert failure.value.facts["uncovered"] == []
    assert failure.value.retry


def test_every_node_that_is_not_in_the_route_has_a_reason() -> None:
    swarm = [
        *near_and_far(),
        node("a", 0, 3, block_ms=1.0, price_units=900),
        node("b", 0, 10, state="leaving"),
        node("c", 12, 14),
    ]
    told = explain(swarm, BLOCKS, preference=Preference(max_load=0.95))
    assert names(each.hop for each in told.hops) == ["fast0", "fast1"]
    why = {reason.node.peer_id: reason.why for reason in told.reasons}
    assert set(why) == {node.peer_id for node in swarm} - {peer_of("fast0"), peer_of("fast1")}
    assert why[peer_of("slow0")].startswith("with it the route is ")
    assert "ms slower and 80 units cheaper" in why[peer_of("slow0")]
    assert why[peer_of("a")].startswith(f"covered by the longer span of {peer_of('fast0')}; with it the route is ")
    assert why[peer_of("b")] == "leaving"
    assert why[peer_of("c")] == "serves none of these blocks"
    limited = explain(swarm, BLOCKS, {peer_of("slow0")}, preference=Preference("cheapest", max_latency=130))
    why = {reason.node.peer_id: reason.why for reason in limited.reasons}
    assert why[peer_of("slow0")] == "excluded"
    assert why[peer_of("slow1")] == "with it the route breaks max_latency"


def test_the_estimate_adds_up() -> None:
    told = explain(near_and_far(), BLOCKS, known=Known(round_trips={peer_of("fast1"): 8.0}))
    assert told.exact
    assert told.back_ms == 4.0
    assert [each.compute_ms for each in told.hops] == [5.0, 5.0]
    parts = sum(each.link_ms + each.compute_ms for each in told.hops) + told.back_ms
    assert told.ms_per_token == pytest.approx(parts)
    assert told.price_units == 900
    assert plan_route(near_and_far(), BLOCKS) == tuple(each.hop for each in told.hops)


def test_only_nodes_that_are_near_are_used_and_who_is_nowhere_is_not() -> None:
    berlin, paris, sydney = (52, 13), (48, 2), (-33, 151)
    nodes = [
        node("berlin", 0, BLOCKS, location=berlin, block_ms=9.0),
        node("paris", 0, BLOCKS, location=paris, block_ms=8.0),
        node("sydney", 0, BLOCKS, location=sydney, block_ms=1.0),
        node("nowhere", 0, BLOCKS, block_ms=1.0),
    ]

    def taken(km: float, **known: Any) -> str:
        (hop,) = plan_route(
            nodes, BLOCKS, preference=Preference(near=(52.5, 13.4), max_distance_km=km), known=Known(**known)
        )
        return next(name for name in ("berlin", "paris", "sydney", "nowhere") if peer_of(name) == hop.node.peer_id)

    assert taken(500) == "berlin"
    assert taken(1_000) == "paris"
    assert taken(20_100) == "sydney"
    assert taken(500, points={peer_of("nowhere"): (52.5, 13.3)}) == "nowhere", "its address is near"
    with pytest.raises(NoRoute) as failure:
        plan_route(nodes, BLOCKS, preference=Preference(near=(0.0, 0.0), max_distance_km=100))
    assert "max_distance_km: nobody knows where it is" in failure.value.message
    assert re.search(r"max_distance_km: 5\d{3} km away", failure.value.message)


def test_whose_answers_were_wrong_is_not_used_even_where_there_is_nobody_else() -> None:
    liar, honest = node("liar", 0, BLOCKS, block_ms=0.1), node("honest", 0, BLOCKS, block_ms=50.0)
    known = Known(dishonest={liar.peer_id})
    assert [hop.node for hop in plan_route([liar, honest], BLOCKS, known=known)] == [honest]
    with pytest.raises(NoRoute, match="dishonest: its answers or receipts were wrong"):
        plan_route([liar], BLOCKS, known=known)


def test_a_node_is_as_fast_as_it_was_seen_to_be_and_no_longer_as_it_claims() -> None:
    boaster, honest = node("boaster", 0, BLOCKS, block_ms=0.1), node("honest", 0, BLOCKS, block_ms=1.0)
    assert [hop.node for hop in plan_route([boaster, honest], BLOCKS)] == [boaster]
    known = Known(block_ms={boaster.peer_id: 3.0})
    assert [hop.node for hop in plan_route([boaster, honest], BLOCKS, known=known)] == [honest]
    slow = Preference(min_tps=20.0)
    with pytest.raises(NoRoute, match="min_tps: "):
        plan_route([node("one", 0, 20, block_ms=0.1)], 20, preference=slow, known=Known(block_ms={peer_of("one"): 3.0}))
