"""Routes: are they the best there are, how long does planning take, and what does knowing the price save?

    python -m benchmarks.route_planning [--cases 2000] [--swarms 10] [--seed 1] [--out benchmarks/results]

Swarms are drawn in two ways (``tests/support/routes.py``): ``random``, where spans, speeds, queues, prices, places,
measured links and what the client has measured have nothing to do with each other; and ``clustered``, a few towns of
unequal size, most spans short, few replicas of some blocks, many nodes alike. Three questions:

* Is the chain the best? On swarms of up to 12 nodes it is compared with the best of all chains, found by trying them,
  for every goal, with and without limits.
* How long does planning take, from announcements to a route, for 500 nodes and 80 blocks? For spans of up to an eighth,
  a quarter and half of the model.
* How much cheaper is the cheapest route that takes at most half as long again as the fastest, than the fastest? On
  swarms in which who is faster asks for more.

Times are of this process's CPU, one thread. Other programs on the machine still show a little, in its caches.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import report
from discovery.protocol.announcement import Announcement
from far_mesh.chains import Search
from far_mesh.config import Preference
from far_mesh.costs import Known, costs_of
from far_mesh.errors import NoRoute
from far_mesh.route import bounds_of, explain, plan_route, uncovered_ranges, weights_of
from tests.support.routes import (
    Draw,
    best_by_trying,
    cases,
    clustered_swarm,
    random_known,
    random_swarm,
    weight_of,
)

NODES, BLOCKS = 500, 80
LONGEST_SPANS = (10, 20, 40)
SWARMS: dict[str, Draw] = {"random": random_swarm, "clustered": clustered_swarm}
QUESTIONS = {
    "fastest": Preference(),
    "balanced": Preference("balanced"),
    "cheapest": Preference("cheapest"),
    "fastest, max_price 500": Preference(max_price=500),
    "cheapest, max_latency 800": Preference("cheapest", max_latency=800.0),
    "fastest, max_hops 10": Preference(max_hops=10),
    "fastest, max_price 500 and max_hops 10": Preference(max_price=500, max_hops=10),
}


def compare(draw: Draw, count: int, seed: int) -> dict[str, Any]:
    """Routes beside those that trying every chain finds."""
    compared = equal = impossible = inexact = 0
    dice_seed = seed
    while compared < count:
        for swarm, blocks, known, preference in cases(dice_seed, count, draw=draw):
            if compared == count:
                break
            if uncovered_ranges(swarm, blocks):
                continue
            costs = costs_of(swarm, (0, blocks), known)
            search, bounds = Search(costs), bounds_of(preference, blocks)
            weights = weights_of(preference, costs, search)
            found, best = search.best(weights, bounds), best_by_trying(costs, weights, bounds)
            compared += 1
            impossible += best is None
            inexact += not found.exact
            if found.chain is None or best is None:
                equal += found.chain is best
            else:
                equal += weight_of(costs, weights, found.chain) == weight_of(costs, weights, best)
        dice_seed += 1
    return {"cases": compared, "equal": equal, "without_a_route": impossible, "not_exact": inexact}


def plan_times(draw: Draw, swarms: int, seed: int) -> dict[str, Any]:
    """Milliseconds for each kind of question."""
    results: dict[str, Any] = {}
    for longest in LONGEST_SPANS:
        dice = random.Random(seed)
        drawn = [covering(draw, dice, longest) for _ in range(swarms)]
        for name, preference in QUESTIONS.items():
            taken, routes = [], 0
            for swarm, known in drawn:
                for _ in range(3):
                    started = time.process_time()
                    routes += has_route(swarm, known, preference)
                    taken.append(1000 * (time.process_time() - started))
            results[f"spans to {longest}: {name}"] = {
                "median_ms": round(statistics.median(taken), 2),
                "p95_ms": round(statistics.quantiles(taken, n=20)[-1], 2),
                "with_a_route": round(routes / len(taken), 2),
            }
    return results


def covering(draw: Draw, dice: random.Random, longest: int) -> tuple[list[Announcement], Known]:
    """A random swarm that serves every block, and what a client knows of it."""
    while True:
        swarm = draw(dice, NODES, BLOCKS, longest)
        if not uncovered_ranges(swarm, BLOCKS):
            return swarm, random_known(dice, swarm)


def has_route(swarm: Sequence[Announcement], known: Known, preference: Preference) -> bool:
    try:
        return bool(plan_route(swarm, BLOCKS, preference=preference, known=known))
    except NoRoute:
        return False


def savings(swarms: int, seed: int) -> dict[str, float]:
    """What is saved where half as much time again is allowed."""
    dice, saved = random.Random(seed), []
    for _ in range(swarms):
        swarm, known = covering(random_swarm, dice, LONGEST_SPANS[0])
        priced = [with_a_fair_price(dice, node) for node in swarm]
        fastest = explain(priced, BLOCKS, known=known)
        limit = Preference("cheapest", max_latency=1.5 * fastest.ms_per_token)
        cheapest = explain(priced, BLOCKS, preference=limit, known=known)
        saved.append(1 - cheapest.price_units / fastest.price_units)
    return {"median": round(statistics.median(saved), 3), "least": round(min(saved), 3)}


def with_a_fair_price(dice: random.Random, node: Announcement) -> Announcement:
    """Who is faster asks for more, within a factor of two of the same curve."""
    block_ms = node.block_ms or 5.0
    asked = round(1000 / block_ms**0.5 * dice.uniform(0.7, 1.4))
    return node.model_copy(update={"block_ms": block_ms, "price_units": asked})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--swarms", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    commit = report.commit()
    compared = {name: compare(draw, given.cases, given.seed) for name, draw in SWARMS.items()}
    results = {
        "brute_force": compared,
        "planning": {name: plan_times(draw, given.swarms, given.seed) for name, draw in SWARMS.items()},
        "saved_at_1.5_times_the_time": savings(given.swarms, given.seed),
    }
    command = f"python -m benchmarks.route_planning --cases {given.cases} --swarms {given.swarms} --seed {given.seed}"
    report.keep(given.out, "route_planning", command, commit, results)
    print(json.dumps(results, indent=2))
    if any(outcome["equal"] < 0.999 * outcome["cases"] for outcome in compared.values()):
        sys.exit("routes are not the best")


if __name__ == "__main__":
    main()
