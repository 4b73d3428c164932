"""What a node is asked for, and when."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from discovery.probe.plan import (
    HOUR,
    PROBES_PER_HOUR,
    TOKEN_LAYERS_PER_HOUR,
    TOKEN_LAYERS_PER_PROBE,
    Budget,
    Server,
    Turns,
    cut,
    shared,
)

moments = st.lists(st.floats(0, 3 * HOUR), max_size=60).map(sorted)


@given(moments, st.integers(0, 7))
def test_within_any_hour_a_node_is_asked_for_no_more_than_the_bound(times: list[float], seed: int) -> None:
    budget, chance, asked = Budget(), random.Random(seed), list[tuple[float, int]]()
    for now in times:
        left = budget.left("node", now)
        assert left <= TOKEN_LAYERS_PER_PROBE
        if left:
            cost = chance.randint(1, left)
            budget.spend("node", cost, now)
            asked.append((now, cost))
        budget.forget(now)
        lately = [cost for at, cost in asked if now - at < HOUR]
        assert sum(lately) <= TOKEN_LAYERS_PER_HOUR
        assert len(lately) <= PROBES_PER_HOUR


def test_what_one_was_asked_for_is_not_counted_against_another() -> None:
    budget = Budget(token_layers=10)
    budget.spend("a", 10, 0.0)
    assert (budget.left("a", 1.0), budget.left("b", 1.0), budget.left("a", HOUR)) == (0, 10, 10)


def test_everybody_has_a_turn_in_time_and_nobody_knows_when() -> None:
    turns, had = Turns(600.0, random.Random(3)), dict[str, list[float]]()
    for now in range(0, 6000, 10):
        for peer_id in turns.due("abc", float(now)):
            had.setdefault(peer_id, []).append(float(now))
            turns.done(peer_id, float(now))
    assert sorted(had) == list("abc")
    for times in had.values():
        assert times[0] <= 600.0
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(300.0 <= gap <= 920.0 for gap in gaps)
        assert len(set(gaps)) > 1


def test_who_has_left_is_forgotten_and_who_has_waited_longest_comes_first() -> None:
    turns = Turns(100.0, random.Random(1))
    turns.due("ab", 0.0)
    order = turns.due("ab", 1000.0)
    assert sorted(order) == ["a", "b"]
    turns.done(order[0], 1000.0)
    assert turns.due("ab", 1000.0) == order[1:]
    turns.due("c", 1000.0)
    assert turns.due("abc", 2000.0) == ["c"], "the others are new again"
    assert sorted(turns.due("abc", 3000.0)) == ["a", "b", "c"]


@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 64), st.integers(0, 5000), st.integers(0, 3))
def test_a_part_costs_no_more_than_may_be_spent(first: int, count: int, positions: int, most: int, seed: int) -> None:
    blocks = cut((first, first + count), positions, most, random.Random(seed))
    if blocks is None:
        assert most < positions
        return
    assert first <= blocks[0] < blocks[1] <= first + count
    assert (blocks[1] - blocks[0]) * positions <= most
    assert blocks[0] == first or blocks[1] == first + count


def test_a_part_is_of_either_end() -> None:
    chance = random.Random(5)
    assert {cut((3, 20), 10, 40, chance) for _ in range(40)} == {(3, 7), (16, 20)}


def test_what_is_asked_of_several_is_what_most_blocks_of_them_share() -> None:
    node = Server("a", "a", (2, 8))
    others = [Server("b", "b", (0, 6)), Server("c", "c", (3, 8)), Server("d", "c", (2, 8)), Server("e", "a", (2, 8))]
    assert shared(node, others, 2) == (2, 6)
    assert shared(node, others[:2], 2) == (3, 6)
    assert shared(node, others[:1], 2) == (2, 8), "nobody can tell, and its speed is measured all the same"
    assert shared(node, others, 1) == (2, 8)
