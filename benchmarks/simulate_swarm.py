"""Do swarms heal, stay fast and keep still, placed by our rule, by Petals' and in proportion to memory?

    python -m benchmarks.simulate_swarm [--nodes 300] [--hours 6] [--heals 20] [--small 40] [--seed 1]
                                        [--rules ours,petals,memory] [--out benchmarks/results]
    python -m benchmarks.simulate_swarm liars [--heals 20] [--seed 1] [--out benchmarks/results]

Nodes are data (``benchmarks/support/placed_swarm.py``); who goes where is asked of the functions that real nodes and
clients ask: placement, routes, scores. The questions:

* **healing**: 30 % of the nodes of a settled swarm are gone in one moment, without a word, while what is left has just
  enough memory or plenty. How long after the swarm can know of it is every block served again? (Announcements are
  renewed every 30 s; the last ones of the lost expire 90 to 120 s after the loss.)
* **liars**: the same, where a fifth of the nodes say that they go wherever there is a hole, and never come. Alone with
  the first word ``liars``.
* **small**: in swarms of five nodes all placements are tried. What share of the best throughput has the one that comes
  about when nodes come one after the other and move by themselves?
* **churn**: hours in which 5 % of the nodes leave every hour and as many come. Coverage, throughput as a share of what
  all nodes could do if work could be divided at will, moves for each node and hour, and the time lost to loading.
* **routes**: users in eight cities plan their routes in these swarms, with what nodes announce and the scores of what
  was seen of them; nodes earn for the blocks they run. Time for a token, requests without a route, and how equally a
  second of computing is paid (Gini coefficient).
* **models**: two models of which one is asked for three times as much.

Throughput is a maximal flow, not a promise: ``benchmarks/support/throughput.py``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.geo_routing import CITIES, LAST_MILE_MS, City, between
from benchmarks.support import report
from benchmarks.support.lines import lines
from benchmarks.support.placed_swarm import ByMemory, Ours, Petals, Rule, Scene, SimNode, Swarm
from benchmarks.support.throughput import best_placement
from discovery.balance import Choice, Machine, Model
from discovery.placement import PROMISE_SECONDS, place
from discovery.protocol.announcement import RENEW_SECONDS
from discovery.score import Observations, Outcome, chance_of_loss
from far_mesh.costs import HOP_MS, Known
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, plan_route

RULES: dict[str, Callable[[], Rule]] = {"ours": Ours, "petals": Petals, "memory": ByMemory}
BLOCKS = 32
LOST = 0.3
USERS_SECONDS = 600.0
SETTLE_SECONDS = 3600.0
TOKENS = 256
"""Of a session, for which nodes are paid by the block."""


# ---- healing


def heal(
    nodes: int, per_gb: float, seed: int, rule: str = "ours", most_seconds: float = 900.0, liars: float = 0.0
) -> dict[str, Any]:
    """One loss: seconds from the loss, and from when all of it could be seen, to when every block is served."""
    scene = Scene(nodes, BLOCKS, per_gb=per_gb, churn=0.0, tick=1.0, liars=liars)
    swarm = Swarm(scene, RULES[rule](), seed)
    swarm.populate()
    swarm.run(SETTLE_SECONDS / 2)
    covered = swarm.holes() == 0
    swarm.lose(LOST)
    left = sum(node.length for node in swarm.nodes.values() if node.alive)
    holes, lost_at, seen_at = swarm.holes(), swarm.now, swarm.now
    while swarm.holes() and swarm.now < lost_at + most_seconds:
        if any(not node.alive for node in swarm.nodes.values()):
            seen_at = swarm.now
        swarm.run(scene.tick)
    return {
        "was_covered": covered,
        "memory_allows": left >= BLOCKS,
        "memory_over_need": round(left / BLOCKS, 2),
        "holes": holes,
        "healed": swarm.holes() == 0,
        "seconds_from_loss": swarm.now - lost_at,
        "seconds_from_seen": max(0.0, swarm.now - seen_at),
        "moves": swarm.moves,
    }


def healing(count: int, seed: int) -> dict[str, Any]:
    """Many losses, for small and large swarms."""
    results: dict[str, Any] = {}
    for nodes, per_gb in ((10, 0.6), (30, 0.25), (100, 0.25)):
        losses = [heal(nodes, per_gb, seed + number) for number in range(count)]
        torn = [one for one in losses if one["was_covered"] and one["holes"] and one["memory_allows"]]
        healed = [one["seconds_from_seen"] for one in torn if one["healed"]]
        results[f"{nodes} nodes, {per_gb} blocks per GB"] = {
            "losses": len(losses),
            "with_holes_and_memory_enough": len(torn),
            "healed": len(healed),
            "within_two_periods": sum(seconds <= 2 * RENEW_SECONDS for seconds in healed),
            "seconds_from_seen": _spread(healed),
            "seconds_from_loss": _spread([one["seconds_from_loss"] for one in torn if one["healed"]]),
            "memory_over_need": _spread([one["memory_over_need"] for one in torn]),
        }
    return results


def healing_beside_liars(count: int, seed: int) -> dict[str, Any]:
    """Many losses in swarms in which a fifth of the nodes say that they close every hole, and never come."""
    losses = [heal(30, 0.25, seed + number, most_seconds=1800.0, liars=0.2) for number in range(count)]
    torn = [one for one in losses if one["was_covered"] and one["holes"] and one["memory_allows"]]
    healed = [one["seconds_from_seen"] for one in torn if one["healed"]]
    return {
        "losses": len(losses),
        "with_holes_and_memory_enough": len(torn),
        "healed": len(healed),
        "within_belief_and_two_periods": sum(seconds <= PROMISE_SECONDS + 2 * RENEW_SECONDS for seconds in healed),
        "seconds_from_seen": _spread(healed),
    }


# ---- small swarms and the best there is


def against_the_best(seed: int, nodes: int = 5, blocks: int = 8, rule: str = "ours") -> float | None:
    """The share of the best throughput that comes about; None: these nodes cannot serve the model at all."""
    scene = Scene(nodes, blocks, per_gb=0.25, churn=0.0, look_seconds=60.0)
    swarm = Swarm(scene, RULES[rule](), seed)
    swarm.populate()
    there = list(swarm.nodes.values())
    best = best_placement([node.length for node in there], [1000.0 / node.block_ms for node in there], blocks)
    if best == 0.0:
        return None
    swarm.run(SETTLE_SECONDS)
    return swarm.throughput() / best


def small(count: int, seed: int, rules: Sequence[str]) -> dict[str, Any]:
    """Many small swarms."""
    results = {}
    for rule in rules:
        shares = [against_the_best(seed + number, rule=rule) for number in range(count)]
        found = [share for share in shares if share is not None]
        results[rule] = {
            "swarms": len(found),
            "mean": round(statistics.mean(found), 3),
            "least": round(min(found), 3),
            "at_least_0.9": sum(share >= 0.9 for share in found),
            "spread": _spread(found),
        }
    return results


# ---- hours of churn


@dataclass
class Users:
    """Who asks the swarm for tokens from time to time, and what they saw."""

    dice: random.Random
    ms_per_token: list[float] = field(default_factory=list)
    failed: int = 0
    asked: int = 0
    hops: list[int] = field(default_factory=list)
    seen: dict[str, Observations] = field(default_factory=dict)

    def ask(self, swarm: Swarm, each: int) -> None:
        """So many of every city plan a route and run a session on it."""
        sessions: dict[str, int] = {}
        announced = [about for about in swarm.visible() if about.state == "ready"]
        reliable = {peer_id: 1.0 - chance_of_loss(seen) for peer_id, seen in self.seen.items()}
        for city in CITIES:
            known = Known(location=city.point, reliability=reliable)
            for _ in range(each):
                self.asked += 1
                try:
                    route = plan_route(announced, swarm.scene.blocks, known=known)
                except NoRoute:
                    self.failed += 1
                    continue
                self._run(swarm, city, route, sessions)
        for peer_id, node in swarm.nodes.items():
            open_now = sessions.get(peer_id, 0)
            queue_ms = node.block_ms * node.length * max(0, open_now - 1)
            load = round(min(1.0, open_now / 16), 3)
            if (node.said.queue_ms, node.said.load) != (queue_ms, load):
                node.said = node.said.model_copy(update={"queue_ms": queue_ms, "load": load})
                swarm.version += 1

    def _run(self, swarm: Swarm, city: City, route: Sequence[RouteHop], sessions: dict[str, int]) -> None:
        nodes = [swarm.nodes[hop.node.peer_id] for hop in route]
        for node in nodes:
            outcome = Outcome.COMPLETED if node.alive and node.serving else Outcome.FAILED
            self.seen[node.said.peer_id] = self.seen.get(node.said.peer_id, Observations()).plus(outcome)
        if not all(node.alive and node.serving for node in nodes):
            self.failed += 1
            return
        stops = [city, *(node.city for node in nodes), city]
        ways = sum((between(*ends) + sum(LAST_MILE_MS)) / 2 for ends in pairwise(stops))
        own = sum(
            HOP_MS + (hop.end_block - hop.first_block) * node.block_ms for hop, node in zip(route, nodes, strict=True)
        )
        self.ms_per_token.append(ways + own)
        self.hops.append(len(route))
        for hop, node in zip(route, nodes, strict=True):
            node.earned += TOKENS * (hop.end_block - hop.first_block)
            sessions[node.said.peer_id] = sessions.get(node.said.peer_id, 0) + 1


def churn(nodes: int, hours: float, seed: int, rule: str, share: float = 0.05, users: int = 2) -> dict[str, Any]:
    """Hours of a swarm in which nodes come and go; ``minutes`` for a chart."""
    scene = Scene(nodes, BLOCKS, per_gb=0.25, churn=share)
    swarm, asking = Swarm(scene, RULES[rule](), seed), Users(random.Random(seed))
    started = time.process_time()
    swarm.populate()
    swarm.run(SETTLE_SECONDS)
    swarm.moves, swarm.loading_seconds, settled = 0, 0.0, len(swarm.minutes)
    passed = 0.0
    while passed < hours * 3600:
        swarm.run(USERS_SECONDS)
        passed += USERS_SECONDS
        asking.ask(swarm, users)
    minutes = swarm.minutes[settled:]
    node_hours = sum(minute.nodes for minute in minutes) / 60
    wages = [node.earned * node.block_ms for node in swarm.nodes.values() if _is_old(node, nodes)]
    return {
        "nodes": nodes,
        "hours": hours,
        "covered_minutes": round(statistics.mean(minute.covered == 1.0 for minute in minutes), 4),
        "throughput_over_ideal": _spread([minute.throughput / minute.ideal for minute in minutes]),
        "moves_per_node_hour": round(swarm.moves / node_hours, 4),
        "loading_share_of_time": round(swarm.loading_seconds / (3600 * node_hours), 5),
        "ms_per_token": _spread(asking.ms_per_token),
        "hops": round(statistics.mean(asking.hops), 2) if asking.hops else None,
        "requests_failed": round(asking.failed / max(1, asking.asked), 4),
        "gini_of_earnings_per_second_of_computing": round(_gini(wages), 3),
        "cpu_seconds": round(time.process_time() - started, 1),
        "minutes": [
            [round(minute.at / 60), round(minute.covered, 4), round(minute.throughput / minute.ideal, 4), minute.moves]
            for minute in minutes
        ],
    }


def _is_old(node: SimNode, at_first: int) -> bool:
    return node.number < at_first


# ---- two models


def two_models(nodes: int, seed: int) -> dict[str, Any]:
    """How machines that could serve either are divided between two models, one asked for three times as much."""
    dice = random.Random(seed)
    machines = []
    for number in range(nodes):
        block_ms = 0.2 * 10 ** dice.random()
        choices = {"hot": Choice(dice.randint(2, 8), block_ms), "cold": Choice(dice.randint(2, 8), block_ms)}
        machines.append(Machine(f"m{number}", choices))
    balance = place(machines, [Model("hot", BLOCKS, demand=3.0), Model("cold", BLOCKS)])
    tokens = {name: [0.0] * BLOCKS for name in ("hot", "cold")}
    for name, seat in balance.seats.items():
        choice = balance.machines[name].choices[seat.model]
        for block in range(seat.first, seat.end):
            tokens[seat.model][block] += 1000.0 / (choice.block_ms * (seat.end - seat.first))
    return {
        "nodes": nodes,
        "tokens_of_the_scarcest_block": {name: round(min(found), 1) for name, found in tokens.items()},
        "hot_over_cold": round(min(tokens["hot"]) / min(tokens["cold"]), 2),
    }


def planning_seconds(seed: int) -> dict[str, float]:
    """CPU seconds to place 500 nodes on 80 blocks from nothing."""
    dice, taken = random.Random(seed), []
    for _ in range(3):
        machines = [
            Machine(f"m{number}", {"one": Choice(dice.randint(2, 20), dice.uniform(0.2, 2.0))}) for number in range(500)
        ]
        started = time.process_time()
        place(machines, [Model("one", 80)])
        taken.append(time.process_time() - started)
    return {"median": round(statistics.median(taken), 3), "most": round(max(taken), 3)}


def _spread(values: Iterable[float]) -> dict[str, float] | None:
    found = sorted(values)
    if len(found) < 2:
        return None
    quarters = statistics.quantiles(found, n=4, method="inclusive")
    names = ("least", "quarter", "median", "three_quarters", "most")
    return dict(zip(names, (round(value, 3) for value in (found[0], *quarters, found[-1])), strict=True))


def _gini(values: Sequence[float]) -> float:
    found, total = sorted(values), sum(values)
    if not total:
        return 0.0
    return sum((2 * rank - len(found) + 1) * value for rank, value in enumerate(found)) / (len(found) * total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "liars"), default="all")
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--heals", type=int, default=20)
    parser.add_argument("--small", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rules", default="ours,petals,memory", help=f"of {', '.join(RULES)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    commit, rules = report.commit(), given.rules.split(",")
    if given.what == "liars":
        beside = healing_beside_liars(given.heals, given.seed)
        command = f"python -m benchmarks.simulate_swarm liars --heals {given.heals} --seed {given.seed}"
        report.keep(given.out, "simulate_swarm_liars", command, commit, beside)
        print(json.dumps(beside, indent=2))
        return
    runs = {rule: churn(given.nodes, given.hours, given.seed, rule) for rule in rules}
    drawn = {
        rule: {"coverage": [(at, covered) for at, covered, _, _ in run["minutes"]]}
        | {"throughput": [(at, share) for at, _, share, _ in run["minutes"]]}
        | {"moves per node": [(at, moves / given.nodes) for at, _, _, moves in run["minutes"]]}
        for rule, run in runs.items()
    }
    results = {
        "blocks": BLOCKS,
        "place_500_on_80_cpu_seconds": planning_seconds(given.seed),
        "healing": healing(given.heals, given.seed),
        "healing_beside_liars": healing_beside_liars(given.heals, given.seed),
        "small": small(given.small, given.seed, rules),
        "churn": {rule: {key: value for key, value in run.items() if key != "minutes"} for rule, run in runs.items()},
        "models": two_models(given.nodes, given.seed),
    }
    command = (
        f"python -m benchmarks.simulate_swarm --nodes {given.nodes} --hours {given.hours:g} --heals {given.heals} "
        f"--small {given.small} --seed {given.seed} --rules {given.rules}"
    )
    report.keep(given.out, "simulate_swarm", command, commit, results)
    panels = {
        name: {rule: drawn[rule][name] for rule in rules} for name in ("coverage", "throughput", "moves per node")
    }
    (given.out / "simulate_swarm.svg").write_text(lines(f"{given.nodes} nodes, minutes", panels))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
