"""Small runs of the swarm simulator: swarms heal, are nearly as fast as they can be, and keep still."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.simulate_swarm import against_the_best, churn, heal, two_models
from discovery.placement import PROMISE_SECONDS
from discovery.protocol.announcement import RENEW_SECONDS


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_closed_within_two_announcements_when_memory_allows(seed: int) -> None:
    found = heal(12, 0.5, seed)
    assert found["was_covered"]
    if found["memory_allows"]:
        assert found["healed"]
        assert found["seconds_from_seen"] <= 2 * RENEW_SECONDS


@pytest.mark.parametrize("seed", [1, 3, 11])
def test_who_says_that_it_comes_and_does_not_keeps_no_hole_open_for_longer_than_it_is_believed(seed: int) -> None:
    found = heal(12, 0.5, seed, most_seconds=1800.0, liars=0.25)
    assert found["holes"]
    assert found["memory_allows"]
    assert found["healed"]
    assert found["seconds_from_seen"] <= PROMISE_SECONDS + 2 * RENEW_SECONDS


def test_throughput_is_near_that_of_the_best_placement() -> None:
    found = [share for seed in range(6) if (share := against_the_best(seed, nodes=4, blocks=6)) is not None]
    assert len(found) >= 4
    assert statistics.mean(found) >= 0.9


def test_nodes_that_come_and_go_do_not_make_the_others_move_all_the_time() -> None:
    found = churn(40, 1.0, 1, "ours", users=1)
    assert found["moves_per_node_hour"] < 1.0
    assert found["covered_minutes"] > 0.95
    assert found["ms_per_token"] is not None


@pytest.mark.parametrize("rule", ["petals", "memory"])
def test_the_rules_to_compare_with_cover_the_model(rule: str) -> None:
    found = churn(16, 0.5, 1, rule, share=0.0, users=1)
    assert found["covered_minutes"] == 1.0
    assert found["moves_per_node_hour"] < 1.0


def test_a_model_that_is_asked_for_more_gets_more() -> None:
    assert 2.0 < two_models(120, 1)["hot_over_cold"] < 4.5


def test_a_run_is_the_same_again() -> None:
    assert heal(8, 0.6, 3) == heal(8, 0.6, 3)
