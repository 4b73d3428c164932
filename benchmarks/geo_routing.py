"""What is it worth to know where nodes are, before anybody has measured, and after?

    python -m benchmarks.geo_routing [--swarms 40] [--seed 1] [--out benchmarks/results]

Users and nodes in eight cities on three continents, with the round trips that are measured between data centres there,
and on top of them a last mile for each machine. The planner is the real one, and is told different things:

* ``nothing``: how fast nodes are and no more, as if all links were alike;
* ``regions``: the owners' words (``na``, ``eu``, ``asia``);
* ``places``: where nodes are in whole degrees, and where the user is;
* ``half the places``: those of every second node, the rest unknown;
* ``measured``: what nodes announce of up to 16 neighbours, and the user's own round trips to up to eight nodes that may
  come first and eight that may come last, no places;
* ``measured, places``: both, as a client with a city database plans;
* ``everything``: all round trips as they are, which nobody can know.

Each route is then timed with all round trips as they are. ``near`` is not a guess but a filter: no node farther than
1,000 km from the user, whatever it costs.

Round trips: IBM Cloud's documentation, *Network latency* of VPC, averages of 31 August to 29 September 2024 between
regions (github.com/ibm-cloud-docs/vpc, ``_include-segments/network-latency.md``), the mean of both directions. Between
zones of one region the same source has 2 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from benchmarks.support import report
from benchmarks.support.bars import bars
from discovery.geo import Point
from discovery.protocol.announcement import LIFETIME_SECONDS, Announcement, Location, PeerLink
from far_mesh.config import Preference
from far_mesh.costs import HOP_MS, Known, claimed_block_ms, costs_of
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, plan_route, uncovered_ranges
from far_node.links import nearest
from tests.support.routes import announcement_of

BLOCKS = 32
SIZES = (24, 60, 150)
SAME_CITY_MS = 2.0
LAST_MILE_MS = (1.0, 10.0)
"""Of a round trip, for each end."""
BLOCK_MS = (0.2, 2.0)
SPANS = (6, 16)
MEASURED_AT_EACH_END = 8
NEAR_KM = 1000.0
CLIENT = "client"


@dataclass(frozen=True)
class City:
    """Where machines are."""

    name: str
    continent: str
    point: Point


CITIES = (
    City("Dallas", "na", (32.8, -96.8)),
    City("Toronto", "na", (43.7, -79.4)),
    City("Washington DC", "na", (38.9, -77.0)),
    City("Frankfurt", "eu", (50.1, 8.7)),
    City("London", "eu", (51.5, -0.1)),
    City("Madrid", "eu", (40.4, -3.7)),
    City("Osaka", "asia", (34.7, 135.5)),
    City("Tokyo", "asia", (35.7, 139.7)),
)
_PUBLISHED = {
    "Dallas": (0, 34, 31, 123, 113, 116, 149, 143),
    "Toronto": (34, 0, 19, 93, 82, 108, 168, 162),
    "Washington DC": (31, 20, 0, 91, 76, 88, 174, 166),
    "Frankfurt": (123, 93, 91, 0, 13, 29, 233, 228),
    "London": (113, 83, 76, 13, 0, 27, 243, 243),
    "Madrid": (119, 108, 89, 29, 27, 0, 257, 257),
    "Osaka": (150, 168, 175, 233, 244, 258, 0, 9),
    "Tokyo": (142, 162, 166, 230, 243, 258, 9, 0),
}
"""Milliseconds from the city of the row to those of :data:`CITIES`, in order."""


def between(one: City, other: City) -> float:
    """Milliseconds of a round trip between two cities."""
    if one is other:
        return SAME_CITY_MS
    there, back = _PUBLISHED[one.name][CITIES.index(other)], _PUBLISHED[other.name][CITIES.index(one)]
    return (there + back) / 2


@dataclass(frozen=True)
class World:
    """A swarm and one user of it, with all that is true of them."""

    nodes: tuple[Announcement, ...]
    cities: dict[str, City]
    last_mile: dict[str, float]

    def round_trip(self, one: str, other: str) -> float:
        """Milliseconds between two machines."""
        return between(self.cities[one], self.cities[other]) + self.last_mile[one] + self.last_mile[other]

    def ms_per_token(self, route: Sequence[RouteHop]) -> float:
        """What a token takes once round."""
        stops = [CLIENT, *(hop.node.peer_id for hop in route), CLIENT]
        ways = sum(self.round_trip(*ends) / 2 for ends in pairwise(stops))
        return ways + sum(HOP_MS + (hop.end_block - hop.first_block) * claimed_block_ms(hop.node) for hop in route)

    def of_user(self, city: City, last_mile: float) -> World:
        """The same swarm, and a user there."""
        return replace(self, cities=self.cities | {CLIENT: city}, last_mile=self.last_mile | {CLIENT: last_mile})


def draw_world(dice: random.Random, count: int) -> World:
    """Nodes that serve the whole model, in cities that chance chooses."""
    now = int(time.time())
    while True:
        nodes = []
        for number in range(count):
            size = dice.randint(*SPANS)
            first = dice.randint(0, BLOCKS - size)
            low, high = BLOCK_MS
            nodes.append(
                announcement_of(
                    number,
                    block_count=BLOCKS,
                    first_block=first,
                    end_block=first + size,
                    block_ms=low * (high / low) ** dice.random(),
                    issued_at=now,
                    expires_at=now + LIFETIME_SECONDS,
                )
            )
        if not uncovered_ranges(nodes, BLOCKS):
            cities = {node.peer_id: dice.choice(CITIES) for node in nodes}
            return World(tuple(nodes), cities, {node.peer_id: dice.uniform(*LAST_MILE_MS) for node in nodes})


Told = tuple[list[Announcement], Known]
"""What the planner gets."""


def nothing(world: World, _dice: random.Random) -> Told:
    return list(world.nodes), Known()


def regions(world: World, _dice: random.Random) -> Told:
    return [node.model_copy(update={"region": world.cities[node.peer_id].continent}) for node in world.nodes], Known()


def places(world: World, _dice: random.Random, share: int = 1) -> Told:
    placed = [
        node if number % share else node.model_copy(update={"location": _degrees(world.cities[node.peer_id])})
        for number, node in enumerate(world.nodes)
    ]
    return placed, Known(location=world.cities[CLIENT].point)


def half_the_places(world: World, dice: random.Random) -> Told:
    return places(world, dice, share=2)


def measured(world: World, dice: random.Random) -> Told:
    told = [node.model_copy(update={"links": _links(world, node, nearest(node, world.nodes))}) for node in world.nodes]
    asked = {
        node.peer_id: world.round_trip(CLIENT, node.peer_id)
        for block in (0, BLOCKS - 1)
        for node in _some(dice, [node for node in world.nodes if node.first_block <= block < node.end_block])
    }
    return told, Known(round_trips=asked)


def measured_and_places(world: World, dice: random.Random) -> Told:
    told, known = measured(world, dice)
    placed = {node.peer_id: node.location for node in places(world, dice)[0]}
    both = [node.model_copy(update={"location": placed[node.peer_id]}) for node in told]
    return both, replace(known, location=world.cities[CLIENT].point)


def everything(world: World, _dice: random.Random) -> Told:
    told = [node.model_copy(update={"links": _links(world, node, world.nodes)}) for node in world.nodes]
    return told, Known(round_trips={node.peer_id: world.round_trip(CLIENT, node.peer_id) for node in world.nodes})


TOLD: dict[str, Callable[[World, random.Random], Told]] = {
    "nothing": nothing,
    "regions": regions,
    "half the places": half_the_places,
    "places": places,
    "measured": measured,
    "measured, places": measured_and_places,
    "everything": everything,
}


def _degrees(city: City) -> Location:
    return round(city.point[0]), round(city.point[1])


def _links(world: World, node: Announcement, others: Iterable[Announcement]) -> tuple[PeerLink, ...]:
    return tuple(
        (other.peer_id, world.round_trip(node.peer_id, other.peer_id)) for other in others if other is not node
    )


def _some(dice: random.Random, nodes: list[Announcement]) -> list[Announcement]:
    return dice.sample(nodes, min(len(nodes), MEASURED_AT_EACH_END))


def compare(count: int, swarms: int, seed: int) -> dict[str, Any]:
    """Milliseconds per token of every user of every swarm, by what the planner was told."""
    dice = random.Random(seed)
    random.seed(seed)  # which neighbours nodes measure
    taken: dict[str, list[float]] = {name: [] for name in TOLD}
    hops: dict[str, list[int]] = {name: [] for name in TOLD}
    near: list[float | None] = []
    for _ in range(swarms):
        world = draw_world(dice, count)
        for city in CITIES:
            user = world.of_user(city, dice.uniform(*LAST_MILE_MS))
            for name, tell in TOLD.items():
                nodes, known = tell(user, dice)
                route = plan_route(nodes, BLOCKS, known=known)
                taken[name].append(user.ms_per_token(route))
                hops[name].append(len(route))
            near.append(_near(user, dice))
    blind = taken["nothing"]
    found = [(one, other) for one, other in zip(near, blind, strict=True) if one is not None]
    return {
        "users": len(blind),
        "told": {
            name: {
                "ms_per_token": _spread(times),
                "hops": round(statistics.mean(hops[name]), 2),
                "less_than_nothing": _spread([1 - one / other for one, other in zip(times, blind, strict=True)]),
            }
            for name, times in taken.items()
        },
        "near": {
            "share_of_users_with_a_route": round(len(found) / len(near), 3),
            "less_than_nothing": round(statistics.median(1 - one / other for one, other in found), 3)
            if found
            else None,
        },
    }


def _near(user: World, dice: random.Random) -> float | None:
    nodes, known = measured_and_places(user, dice)
    wanted = Preference(near=user.cities[CLIENT].point, max_distance_km=NEAR_KM)
    try:
        return user.ms_per_token(plan_route(nodes, BLOCKS, preference=wanted, known=known))
    except NoRoute:
        return None


def _spread(values: list[float]) -> dict[str, float]:
    quarters = statistics.quantiles(values, n=4)
    return dict(zip(("quarter", "median", "three_quarters"), (round(value, 3) for value in quarters), strict=True))


def guesses() -> dict[str, float]:
    """Guesses from places over what is published and a mean last mile at each end, for all pairs of cities."""
    ratios, last_miles = [], sum(LAST_MILE_MS)
    for one, other in combinations(CITIES, 2):
        ends = [announcement_of(number, location=_degrees(city)) for number, city in enumerate((one, other))]
        costs = costs_of(ends, (0, ends[0].block_count), Known())
        ratios.append((2 * float(costs.link[0, 1]) / 1e6 - 2 * HOP_MS) / (between(one, other) + last_miles))
    return {
        "least": round(min(ratios), 2),
        "median": round(statistics.median(ratios), 2),
        "most": round(max(ratios), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swarms", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    commit = report.commit()
    sizes = {str(count): compare(count, given.swarms, given.seed) for count in SIZES}
    results = {"blocks": BLOCKS, "near_km": NEAR_KM, "guess_over_truth": guesses(), "nodes": sizes}
    command = f"python -m benchmarks.geo_routing --swarms {given.swarms} --seed {given.seed}"
    report.keep(given.out, "geo_routing", command, commit, results)
    chart = {
        f"{count} nodes": {name: one["ms_per_token"] for name, one in found["told"].items()}
        for count, found in sizes.items()
    }
    (given.out / "geo_routing.svg").write_text(bars("Milliseconds per token, by what the planner is told", chart))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
