"""What nodes say becomes costs, within bounds that a liar cannot pass."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from discovery.protocol.announcement import MIN_BLOCK_MS, MIN_LINK_MS, Announcement
from far_mesh.costs import (
    FAR_REGION_LINK_MS,
    FASTEST_BLOCK_MS,
    HOP_MS,
    LOST_PAUSE_MS,
    LOST_TOKENS,
    NEAR_REGION_LINK_MS,
    SAME_REGION_LINK_MS,
    SHORTEST_LINK_MS,
    UNKNOWN_BLOCK_MS,
    UNKNOWN_LINK_MS,
    Known,
    costs_of,
)
from tests.support.documents import announcement, peer_of

BERLIN, PARIS, SYDNEY = (52, 13), (48, 2), (-33, 151)


def node(name: str, first: int = 0, end: int = 8, **facts: Any) -> Announcement:
    return announcement(name, first_block=first, end_block=end, **facts)


def round_trip(one: Announcement, other: Announcement) -> float:
    """Milliseconds of the link that costs are made of, back and forth."""
    costs = costs_of([one, other], (0, 8), Known())
    there, back = costs.link[0, 1] / 1e6 - HOP_MS, costs.link[1, 0] / 1e6 - HOP_MS
    assert there == pytest.approx(back)
    return float(there + back)


def test_a_link_that_both_ends_have_measured_is_as_long_as_the_slower_figure() -> None:
    for mine, yours in itertools.permutations((12.0, 30.0)):
        a = node("a", links=((peer_of("b"), mine),))
        b = node("b", links=((peer_of("a"), yours),))
        assert round_trip(a, b) == pytest.approx(30.0)


def test_a_link_that_one_end_has_measured_is_taken_at_its_word() -> None:
    assert round_trip(node("a", links=((peer_of("b"), 12.0),)), node("b")) == pytest.approx(12.0)


def test_no_link_is_shorter_than_any_link_or_than_light_in_glass() -> None:
    a, b = node("a", links=((peer_of("b"), MIN_LINK_MS),)), node("b")
    assert round_trip(a, b) == pytest.approx(SHORTEST_LINK_MS)
    far = node("a", links=((peer_of("b"), 1.0),), location=BERLIN)
    distance_km = 16_000
    assert round_trip(far, node("b", location=SYDNEY)) > 2 * (distance_km - 500) / 200
    assert round_trip(node("a", links=((peer_of("b"), 400.0),), location=BERLIN), node("b", location=SYDNEY)) == 400


def test_a_link_that_nobody_has_measured_is_guessed_from_places_then_from_regions() -> None:
    near = round_trip(node("a", location=BERLIN), node("b", location=PARIS))
    far = round_trip(node("a", location=BERLIN), node("b", location=SYDNEY))
    assert 20 < near < 40
    assert 200 < far < 350
    assert round_trip(node("a", location=BERLIN), node("b", location=BERLIN)) <= SAME_REGION_LINK_MS

    def between(one: str | None, other: str | None) -> float:
        return round_trip(node("a", region=one), node("b", region=other))

    assert between("eu-west", "eu-west") == SAME_REGION_LINK_MS
    assert between("eu-west", "eu-north") == NEAR_REGION_LINK_MS
    assert between("eu-west", "us-west") == FAR_REGION_LINK_MS
    assert between("eu-west", None) == between(None, None) == UNKNOWN_LINK_MS


def test_the_clients_own_measurements_come_before_any_guess() -> None:
    known = Known(round_trips={peer_of("a"): 7.0}, location=SYDNEY)
    costs = costs_of([node("a", location=SYDNEY), node("b", location=BERLIN)], (0, 8), known)
    assert costs.leave[0] == 3.5e6
    assert costs.enter[0] == (3.5 + HOP_MS) * 1e6
    assert costs.leave[1] > 100e6


def test_a_part_begins_and_ends_at_its_neighbours() -> None:
    a = node("a", links=((peer_of("left"), 10.0), (peer_of("right"), 40.0)))
    left = node("left", links=((peer_of("a"), 10.0),))
    known = Known(round_trips={peer_of("a"): 500.0})
    costs = costs_of([a], (2, 6), known, peer_of("left"), peer_of("right"), [left, a])
    assert costs.enter[0] == (5.0 + HOP_MS) * 1e6
    assert costs.leave[0] == 20e6, "a neighbour that announces nothing any more is still known to the others"
    to_client = costs_of([a], (2, 8), known, peer_of("left"), None, [left, a])
    assert (to_client.enter[0], to_client.leave[0]) == ((5.0 + HOP_MS) * 1e6, 250e6)
    assert (to_client.blocks, to_client.first[0], to_client.end[0]) == (6, 0, 6)


def test_speed_queue_and_reliability_are_time() -> None:
    plain, slow = node("a"), node("b", block_ms=40.0)
    waiting = node("c", queue_ms=25.0)
    known = Known(reliability={peer_of("d"): 0.5})
    costs = costs_of([plain, slow, waiting, node("d")], (0, 8), known)
    assert list(costs.block_time / 1e6) == [UNKNOWN_BLOCK_MS, 40.0, UNKNOWN_BLOCK_MS, UNKNOWN_BLOCK_MS]
    more = (costs.enter - costs.enter[0]) / 1e6
    assert more == pytest.approx([0, 0, 25.0, 0.5 * LOST_PAUSE_MS / LOST_TOKENS])
    assert math.isinf(costs.link[0, 0])
    assert (costs.link[1, 2] - costs.link[1, 0]) / 1e6 == pytest.approx(25.0)


def test_the_best_that_a_liar_can_look_like_is_the_best_that_there_can_be() -> None:
    liar = node(
        "liar",
        block_ms=MIN_BLOCK_MS,
        queue_ms=0.0,
        load=0.0,
        price_units=0,
        links=tuple((peer_of(f"n{number}"), MIN_LINK_MS) for number in range(16)),
    )
    crowd = [node(f"n{number}", links=((peer_of("liar"), 90.0),)) for number in range(16)]
    costs = costs_of([liar, *crowd], (0, 8), Known())
    assert costs.block_time[0] == FASTEST_BLOCK_MS * 1e6
    assert costs.block_price[0] == 0
    assert np.all(costs.link[1:, 0] >= (45.0 + HOP_MS) * 1e6), "those who have measured it know better"
    assert costs.enter[0] == (UNKNOWN_LINK_MS / 2 + HOP_MS) * 1e6, "nobody says how far the client is"


def test_what_a_liar_says_of_a_rivals_links_is_about_its_own_link_only() -> None:
    a, b = node("a", links=((peer_of("b"), 10.0),)), node("b", links=((peer_of("a"), 10.0),))
    liar = node("liar", links=((peer_of("a"), 10_000.0), (peer_of("b"), 10_000.0)))
    costs = costs_of([a, b, liar], (0, 8), Known())
    assert costs.link[0, 1] == costs.link[1, 0] == (5.0 + HOP_MS) * 1e6
    assert costs.link[0, 2] == (5_000.0 + HOP_MS) * 1e6


TOKYO = (35, 139)


def entering(known: Known, *nodes: Announcement) -> list[float]:
    """Milliseconds from the client to each, without what they take for themselves."""
    return [float(way) for way in costs_of(nodes, (0, 8), known).enter / 1e6 - HOP_MS]


def test_where_a_node_is_by_its_address_comes_before_its_word() -> None:
    a, b = node("a", location=BERLIN), node("b", location=BERLIN)
    costs = costs_of([a, b], (0, 8), Known(points={peer_of("b"): SYDNEY}))
    assert costs.link[0, 1] == costs.link[1, 0] > 100e6
    said_nothing = node("c", region="eu-west")
    near, far = entering(Known(points={peer_of("c"): PARIS}, location=BERLIN), said_nothing, b)
    assert 5 < near < 15, "and before its region"
    assert far <= SAME_REGION_LINK_MS / 2


def test_an_address_may_be_thought_elsewhere_so_it_shortens_and_lengthens_no_link_that_was_measured() -> None:
    known = Known(points={peer_of("a"): BERLIN, peer_of("b"): SYDNEY})
    a, b = node("a", links=((peer_of("b"), 7.0),)), node("b")
    costs = costs_of([a, b], (0, 8), known)
    assert costs.link[0, 1] == (3.5 + HOP_MS) * 1e6


def test_nobody_is_where_its_answers_could_not_have_come_from() -> None:
    known = Known(round_trips={peer_of("liar"): 8.0}, location=SYDNEY)
    liar, honest = node("liar", location=BERLIN), node("honest", location=BERLIN)
    assert (known.where(liar), known.where(honest)) == (None, BERLIN)
    costs = costs_of([liar, honest], (0, 8), known)
    assert costs.link[0, 1] == (UNKNOWN_LINK_MS / 2 + HOP_MS) * 1e6, "it gains no neighbours by its word"
    moved = Known(round_trips={peer_of("liar"): 8.0}, points={peer_of("liar"): TOKYO}, location=SYDNEY)
    assert moved.where(node("liar", location=SYDNEY)) == SYDNEY, "the address was thought elsewhere"
    assert Known(round_trips={peer_of("liar"): 8.0}).where(liar) == BERLIN, "who does not know where it is cannot tell"


def test_a_measured_way_comes_before_a_place_and_a_place_before_nothing() -> None:
    known = Known(round_trips={peer_of("a"): 30.0}, points={peer_of("a"): PARIS, peer_of("b"): PARIS}, location=BERLIN)
    measured, guessed, unknown = entering(known, node("a"), node("b"), node("c"))
    assert measured == 15.0
    assert 5 < guessed < 15
    assert unknown == UNKNOWN_LINK_MS / 2


def test_unknown_is_not_the_gulf_of_guinea() -> None:
    unknown, there = node("a"), node("b", location=(0, 0))
    assert round_trip(unknown, there) == UNKNOWN_LINK_MS
    assert entering(Known(location=(0.0, 0.0)), unknown, there) == [UNKNOWN_LINK_MS / 2, SAME_REGION_LINK_MS / 2]
