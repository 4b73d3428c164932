"""The chain with the fewest hops, against brute force; and the gaps, against counting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.announcement import Announcement
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, plan_route, uncovered_ranges
from tests.support.documents import announcement, peer_of

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
