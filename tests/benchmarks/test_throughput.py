"""What machines can pass through a model at most."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from benchmarks.support.throughput import Placed, best_placement, most_tokens


@pytest.mark.parametrize(
    ("machines", "tokens"),
    [
        ([], 0.0),
        ([(0, 4, 8.0)], 2.0),
        ([(0, 3, 8.0)], 0.0),
        ([(0, 2, 2.0), (2, 4, 6.0)], 1.0),
        ([(0, 2, 2.0), (0, 4, 6.0)], 2.0),
        ([(0, 1, 9.0), (1, 4, 3.0), (2, 4, 1.0)], 4 / 3),
    ],
    ids=["nobody", "one", "a hole", "the slower half", "one helps the other", "three"],
)
def test_the_most_there_can_be(machines: list[Placed], tokens: float) -> None:
    assert most_tokens(machines, 4) == pytest.approx(tokens)


def _by_all_sets_of_blocks(machines: list[Placed], blocks: int) -> float:
    """What those compute that hold one of some blocks, for each of these blocks; the least of all sets."""
    sets = (chosen for count in range(1, blocks + 1) for chosen in combinations(range(blocks), count))
    return min(
        sum(speed for first, end, speed in machines if any(first <= block < end for block in chosen)) / len(chosen)
        for chosen in sets
    )


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_least_of_all_sets_of_blocks(seed: int) -> None:
    dice = random.Random(seed)
    machines: list[Placed] = []
    for _ in range(dice.randint(1, 9)):
        first = dice.randint(0, 6)
        machines.append((first, dice.randint(first + 1, 7), dice.uniform(0.5, 5.0)))
    assert most_tokens(machines, 7) == pytest.approx(_by_all_sets_of_blocks(machines, 7))


def test_the_best_of_all_placements() -> None:
    assert best_placement([2, 2, 4], [1.0, 1.0, 2.0], 4) == pytest.approx(1.0)
    assert best_placement([2, 2], [1.0, 3.0], 4) == pytest.approx(0.5)
    assert best_placement([1, 2], [1.0, 3.0], 4) == 0.0
    assert best_placement([1, 1, 2, 2], [1 / 0.7, 1 / 0.3, 1 / 1.1, 1 / 0.9], 7) == 0.0, "rounding is no throughput"
