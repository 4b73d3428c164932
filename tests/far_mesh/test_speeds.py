"""A claim about speed counts for less with every round, and honest nodes are not blamed for others."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from far_mesh.speeds import HALF_LIFE_SECONDS, Key, Speeds, Worked

MS = st.floats(0.02, 1000.0)


def key(name: str) -> Key:
    return name, "model"


def rounds(speeds: Speeds, claims: dict[str, float], truth: dict[str, float], ring: list[str], times: int = 1) -> None:
    """Rounds of eight blocks at each node, with 40 ms of ways that are known within a tenth."""
    dice = random.Random(" ".join(ring))
    for _ in range(times):
        ways = 40.0 * dice.uniform(0.95, 1.05)
        took = ways + sum(8 * truth[name] for name in ring)
        speeds.learn([Worked(key(name), claims[name], 8) for name in ring], 40.0, took, 0.0)


def test_of_whom_nothing_is_known_the_claim_counts() -> None:
    assert Speeds().of(key("a"), 3.0, 0.0) == 3.0


def test_a_claim_of_ten_times_the_speed_is_gone_after_a_few_dozen_rounds_and_others_are_not_blamed() -> None:
    truth = {"liar": 2.0, "a": 1.0, "b": 1.5, "c": 0.5}
    claims = truth | {"liar": 0.2}
    speeds = Speeds()
    for _ in range(25):
        rounds(speeds, claims, truth, ["liar", "a"])
        rounds(speeds, claims, truth, ["b", "liar"])
        rounds(speeds, claims, truth, ["a", "c"])
        rounds(speeds, claims, truth, ["a", "b"])
        rounds(speeds, claims, truth, ["c", "b"])
    assert 1.6 < speeds.of(key("liar"), 0.2, 0.0) < 2.4
    for name in "abc":
        assert speeds.of(key(name), claims[name], 0.0) < truth[name] + 0.3


def test_the_claim_counts_for_less_with_every_round() -> None:
    truth, claims, speeds = {"liar": 2.0, "a": 1.0}, {"liar": 0.2, "a": 1.0}, Speeds()
    seen = [0.2]
    for _ in range(40):
        rounds(speeds, claims, truth, ["a"])
        rounds(speeds, claims, truth, ["liar"])
        seen.append(speeds.of(key("liar"), 0.2, 0.0))
    assert 0.2 < seen[1] < seen[-1]
    assert abs(seen[-1] - 2.0) < 0.3


def test_whatever_was_claimed_the_same_rounds_lead_to_the_same() -> None:
    found = []
    for claim in (0.2, 2.0, 6.0):
        truth, claims, speeds = {"one": 2.0, "a": 1.0}, {"one": claim, "a": 1.0}, Speeds()
        for _ in range(60):
            rounds(speeds, claims, truth, ["a"])
            rounds(speeds, claims, truth, ["one"])
        found.append(speeds.of(key("one"), claim, 0.0))
    assert max(found) - min(found) < 0.6


def test_ways_that_are_longer_for_all_are_no_node_s_fault() -> None:
    speeds, nodes = Speeds(), [Worked(key(str(number)), 1.0, 8) for number in range(12)]
    dice = random.Random(1)
    for _ in range(100):
        ring = dice.sample(nodes, dice.randint(1, 4))
        speeds.learn(ring, 100.0, 100.0 + 10.0 + 8.0 * len(ring) + dice.uniform(-1, 1), 0.0)
    assert all(abs(speeds.of(one.key, 1.0, 0.0) - 1.0) < 0.4 for one in nodes)


def test_a_new_claim_does_not_wipe_out_what_was_seen() -> None:
    speeds = Speeds()
    rounds(speeds, {"liar": 0.2}, {"liar": 2.0}, ["liar"], times=30)
    before = speeds.of(key("liar"), 0.2, 0.0)
    assert before > 0.5
    assert speeds.of(key("liar"), 0.1, 0.0) == before
    assert speeds.of(("liar", "other model"), 0.2, 0.0) == 0.2


def test_what_is_not_confirmed_fades_back_to_the_claim_and_is_forgotten() -> None:
    speeds = Speeds()
    rounds(speeds, {"a": 0.2}, {"a": 2.0}, ["a"], times=30)
    now, later = speeds.of(key("a"), 0.2, 0.0), speeds.of(key("a"), 0.2, HALF_LIFE_SECONDS)
    assert abs((later - 0.2) - (now - 0.2) / 2) < 1e-9
    speeds.forget(HALF_LIFE_SECONDS)
    assert speeds.of(key("a"), 0.2, 0.0) == now
    speeds.forget(10 * HALF_LIFE_SECONDS)
    assert speeds.of(key("a"), 0.2, 0.0) == 0.2


def test_one_round_that_stood_still_does_not_ruin_a_node() -> None:
    truth = {"a": 1.0, "b": 1.0}
    speeds = Speeds()
    rounds(speeds, truth, truth, ["a", "b"], times=20)
    before = speeds.of(key("a"), 1.0, 0.0)
    speeds.learn([Worked(key("a"), 1.0, 8), Worked(key("b"), 1.0, 8)], 40.0, 30_000.0, 0.0)
    assert speeds.of(key("a"), 1.0, 0.0) < 3 * before


@given(st.lists(st.tuples(MS, st.integers(1, 80)), min_size=1, max_size=8), st.floats(0, 1e4), st.floats(0, 1e6))
def test_whatever_is_claimed_and_seen_speeds_are_numbers(
    ring: list[tuple[float, int]], ways: float, took: float
) -> None:
    speeds = Speeds()
    nodes = [Worked(key(str(number)), claimed, blocks) for number, (claimed, blocks) in enumerate(ring)]
    for at in (0.0, 60.0, 1e6):
        speeds.learn(nodes, ways, took, at)
    for one in nodes:
        assert 0.0 <= speeds.of(one.key, one.claimed_ms, 1e6) < 1e9
