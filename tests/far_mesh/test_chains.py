"""The best chain is the one that trying all of them finds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from far_mesh import chains
from far_mesh.chains import FASTEST, Bounds, Chain, Costs, Run, Search, Weights
from far_mesh.costs import costs_of
from far_mesh.route import bounds_of, uncovered_ranges, weights_of
from tests.support.routes import Draw, best_by_trying, cases, clustered_swarm, random_swarm, weight_of

CASES = 600


def costs(spans: list[tuple[int, int]], block: list[float], *, link: float = 10.0, price: list[float] = []) -> Costs:  # noqa: B006
    """Nodes whose links are all alike."""
    count = len(spans)
    links = np.full((count, count), link)
    np.fill_diagonal(links, np.inf)
    return Costs(
        blocks=max(end for _, end in spans),
        first=np.array([first for first, _ in spans], dtype=np.intp),
        end=np.array([end for _, end in spans], dtype=np.intp),
        block_time=np.array(block, dtype=float),
        block_price=np.array(price or [0.0] * count, dtype=float),
        enter=np.full(count, link),
        link=links,
        leave=np.full(count, link),
        rank=np.arange(count),
    )


def runs(chain: Chain | None) -> list[tuple[int, int, int]]:
    assert chain is not None
    return [(run.node, run.first, run.end) for run in chain]


@pytest.mark.parametrize("draw", [random_swarm, clustered_swarm])
@pytest.mark.parametrize("seed", range(2))
def test_the_best_chain_is_that_of_brute_force(seed: int, draw: Draw) -> None:
    compared = limited = 0
    for swarm, blocks, known, preference in cases(seed, CASES // 4, draw=draw):
        if uncovered_ranges(swarm, blocks):
            continue
        costs = costs_of(swarm, (0, blocks), known)
        search, bounds = Search(costs), bounds_of(preference, blocks)
        weights = weights_of(preference, costs, search)
        found, best = search.best(weights, bounds), best_by_trying(costs, weights, bounds)
        assert found.exact
        assert (found.chain is None) == (best is None), preference
        compared += 1
        limited += best is None
        if found.chain is None or best is None:
            continue
        assert weight_of(costs, weights, found.chain) == weight_of(costs, weights, best), preference
        check(costs, bounds, found.chain)
    assert compared > CASES // 8
    assert limited, "limits that cannot be kept are among the cases"


def check(costs: Costs, bounds: Bounds, chain: Chain) -> None:
    """It covers every block once, with nodes that serve them, each once, and keeps the limits."""
    assert [block for run in chain for block in range(run.first, run.end)] == list(range(costs.blocks))
    assert all(costs.first[run.node] <= run.first < run.end <= costs.end[run.node] for run in chain)
    assert len({run.node for run in chain}) == len(chain) <= bounds.hops
    assert costs.time_of(chain) <= bounds.time
    assert costs.price_of(chain) <= bounds.price


def test_a_slow_node_hands_over_for_as_long_as_a_fast_one_can() -> None:
    slow_and_fast = costs([(0, 10), (2, 6), (6, 10)], [50.0, 1.0, 1.0])
    assert runs(Search(slow_and_fast).best(FASTEST).chain) == [(0, 0, 2), (1, 2, 6), (2, 6, 10)]


def test_no_node_serves_in_two_places_where_that_would_be_faster() -> None:
    wide_and_fast = costs([(0, 30), (10, 20), (18, 30)], [50.0, 1.0, 45.0])
    relaxed = Search(wide_and_fast).fastest()
    assert [run.node for run in relaxed] == [0, 1, 2] or [run.node for run in relaxed] == [0, 1, 0]
    back_and_forth = costs([(0, 30), (10, 20)], [50.0, 1.0])
    assert runs(Search(back_and_forth).fastest()) == [(0, 0, 10), (1, 10, 20), (0, 20, 30)]
    assert runs(Search(back_and_forth).best(FASTEST).chain) == [(0, 0, 30)]


def test_a_limit_that_the_best_breaks_leaves_the_best_of_the_others() -> None:
    some = costs([(0, 4), (0, 4), (0, 2), (2, 4)], [1.0, 20.0, 2.0, 2.0], price=[100.0, 0.0, 10.0, 10.0])
    search = Search(some)
    assert runs(search.best(FASTEST).chain) == [(0, 0, 4)]
    assert runs(search.best(FASTEST, Bounds(price=50)).chain) == [(2, 0, 2), (3, 2, 4)]
    assert runs(search.best(FASTEST, Bounds(price=50, hops=1)).chain) == [(1, 0, 4)]
    assert search.best(FASTEST, Bounds(price=50, hops=1, time=50)).chain is None
    assert runs(search.best(Weights(0.001, 1.0), Bounds(time=40)).chain) == [(2, 0, 2), (3, 2, 4)]


def test_half_of_a_chain_may_be_cheap_and_half_of_it_fast() -> None:
    pairs = costs([(0, 3), (0, 3), (3, 6), (3, 6)], [1.0, 30.0, 1.0, 40.0], price=[90.0, 10.0, 80.0, 10.0])
    limit = Bounds(price=3 * 90 + 3 * 10)
    expected = best_by_trying(pairs, FASTEST, limit)
    assert runs(Search(pairs).best(FASTEST, limit).chain) == runs(expected) == [(1, 0, 3), (2, 3, 6)]


def test_when_too_many_partial_chains_are_open_the_best_so_far_is_taken_and_said_to_be_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = np.random.default_rng(1)
    spans = [(first, first + 4) for first in range(0, 40, 2) for _ in range(6)]
    some = costs(spans, list(dice.integers(1, 50, len(spans))), price=list(dice.integers(1, 50, len(spans))))
    price = Search(some).least_price()[0] * 1.2
    exact = Search(some).best(FASTEST, Bounds(price=price))
    assert exact.exact
    monkeypatch.setattr(chains, "MOST_LABELS", 3)
    hasty = Search(some).best(FASTEST, Bounds(price=price))
    assert not hasty.exact
    assert exact.chain is not None
    if hasty.chain is not None:
        check(some, Bounds(price=price), hasty.chain)
        assert some.time_of(hasty.chain) >= some.time_of(exact.chain)


def test_corridors_that_are_too_wide_are_not_searched_and_the_best_so_far_is_said_to_be_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = costs([(0, 3), (0, 3), (3, 6), (3, 6)], [1.0, 30.0, 1.0, 40.0], price=[90.0, 10.0, 80.0, 10.0])
    limit = Bounds(price=3 * 90 + 3 * 10)
    monkeypatch.setattr(chains, "MOST_STEPS", 0)
    hasty = Search(pairs).best(FASTEST, limit)
    assert not hasty.exact
    if hasty.chain is not None:
        check(pairs, limit, hasty.chain)
    assert Search(pairs).best(FASTEST).exact, "no corridor is needed where nothing is limited"


def test_limits_that_work_against_each_other_leave_the_best_of_what_keeps_them_all() -> None:
    dice = np.random.default_rng(2)
    spans = [(first, first + 3) for first in range(0, 8, 2) for _ in range(2)] + [(0, 5), (4, 9)]
    some = costs(spans, list(dice.integers(1, 40, len(spans))), price=list(dice.integers(1, 40, len(spans))))
    search, cheapest = Search(some), Search(some).least_price()[0]
    limits = [Bounds(price=share * cheapest, hops=hops) for share in (1.0, 1.2, 1.5) for hops in (2, 3, 4)]
    found = [search.best(FASTEST, bounds) for bounds in limits]
    expected = [best_by_trying(some, FASTEST, bounds) for bounds in limits]
    assert all(outcome.exact for outcome in found)
    assert [outcome.chain and some.time_of(outcome.chain) for outcome in found] == [
        chain and some.time_of(chain) for chain in expected
    ]
    assert {chain is None for chain in expected} == {True, False}, "some can be kept together and some cannot"


def test_the_best_chain_through_a_node_is_the_best_that_uses_it() -> None:
    for swarm, blocks, known, _ in itertools.islice(cases(11, 60, most_nodes=6), 60):
        if uncovered_ranges(swarm, blocks):
            continue
        some = costs_of(swarm, (0, blocks), known)
        search = Search(some)
        best = weight_of(some, FASTEST, search.fastest())
        for node, chain in enumerate(search.best_through(FASTEST)):
            assert node in {run.node for run in chain}
            assert weight_of(some, FASTEST, chain) >= best
            if len({run.node for run in chain}) == len(chain):
                cheapest_with = min(
                    (
                        weight_of(some, FASTEST, other)
                        for other in every_chain(some)
                        if node in {run.node for run in other}
                    ),
                    default=math.inf,
                )
                assert weight_of(some, FASTEST, chain) == cheapest_with


def every_chain(costs: Costs, block: int = 0, used: tuple[Run, ...] = ()) -> list[Chain]:
    if block == costs.blocks:
        return [used]
    found: list[Chain] = []
    for node in range(len(costs.first)):
        if costs.first[node] <= block < costs.end[node] and node not in {run.node for run in used}:
            for end in range(block + 1, int(costs.end[node]) + 1):
                found += every_chain(costs, end, (*used, Run(node, block, end)))
    return found
