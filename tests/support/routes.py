"""Random swarms to plan routes in, and the best route by trying every chain there is."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from discovery.protocol.announcement import LIFETIME_SECONDS, Announcement
from far_mesh.chains import Bounds, Chain, Costs, Run, Weights
from far_mesh.config import Goal, Preference
from far_mesh.costs import Known
from tests.support.documents import announcement, peer_of

_GOALS: tuple[Goal, ...] = ("fastest", "cheapest", "balanced")
_CITIES = ((52, 13), (48, 2), (41, -74), (35, 139), (-33, 151), (-23, -46), (1, 103))


Draw = Callable[[random.Random, int, int, int], list[Announcement]]
"""Chance, nodes, blocks and the longest span, to a swarm."""


@lru_cache(maxsize=4096)
def _peer(number: int) -> str:
    return peer_of(f"random {number}")


def random_swarm(dice: random.Random, nodes: int, blocks: int, longest: int) -> list[Announcement]:
    """Announcements of ``nodes`` nodes with spans of up to ``longest`` blocks, as different as they may be."""
    swarm = []
    now = int(time.time())
    for number in range(nodes):
        size = dice.randint(1, min(longest, blocks))
        first = dice.randint(0, blocks - size)
        others = [other for other in range(nodes) if other != number]
        swarm.append(
            announcement_of(
                number,
                block_count=blocks,
                first_block=first,
                end_block=first + size,
                quantization=dice.choice(["none", "int8", "int8", "nf4"]),
                price_units=dice.choice([0, 100, dice.randint(1, 5_000)]),
                block_ms=dice.choice([None, dice.uniform(0.05, 30.0)]),
                queue_ms=dice.choice([0.0, dice.uniform(0.0, 50.0)]),
                load=dice.random(),
                region=dice.choice([None, "eu-west", "eu-north", "us-east"]),
                location=dice.choice([None, dice.choice(_CITIES)]),
                links=tuple(
                    (_peer(other), dice.uniform(0.2, 300.0))
                    for other in dice.sample(others, min(len(others), dice.randint(0, 16)))
                ),
                issued_at=now,
                expires_at=now + LIFETIME_SECONDS,
            )
        )
    return swarm


_TOWNS = ("eu-west", "eu-north", "us-east", "us-west", "asia-east")
_CARDS = ((0.1, 4_000), (0.3, 1_500), (0.3, 900), (1.2, 400), (6.0, 100))  # of some kinds: a block's ms, and its price


def clustered_swarm(dice: random.Random, nodes: int, blocks: int, longest: int) -> list[Announcement]:
    """Nodes in a few towns of unequal size, near to each other there and far from the others.

    Most spans are short and a few long; there are many replicas of some blocks and hardly any of others; many nodes are
    exactly alike.
    """
    now = int(time.time())
    town_of = dice.choices(range(len(_TOWNS)), weights=(8, 4, 3, 1, 1), k=nodes)
    swarm = []
    for number in range(nodes):
        size = min(dice.choice((1, 2, 3, dice.randint(2, 8), dice.randint(1, longest))), longest, blocks)
        first = round((blocks - size) * dice.betavariate(0.6, 0.9))
        block_ms, price_units = dice.choice(_CARDS)
        others = [other for other in range(nodes) if other != number]
        measured = dice.sample(others, min(len(others), 8))
        swarm.append(
            announcement_of(
                number,
                block_count=blocks,
                first_block=first,
                end_block=first + size,
                price_units=price_units,
                block_ms=block_ms,
                queue_ms=dice.choice([0.0, 0.0, 5.0]),
                region=_TOWNS[town_of[number]],
                location=_CITIES[town_of[number]],
                links=tuple(
                    (_peer(other), 2.0 if town_of[other] == town_of[number] else dice.uniform(60.0, 180.0))
                    for other in measured
                ),
                issued_at=now,
                expires_at=now + LIFETIME_SECONDS,
            )
        )
    return swarm


_TEMPLATE = announcement("template")


def announcement_of(number: int, **facts: object) -> Announcement:
    """An announcement of the peer of this number; its facts are taken as they are."""
    return _TEMPLATE.model_copy(update={"peer_id": _peer(number), **facts})


def random_known(dice: random.Random, swarm: Sequence[Announcement]) -> Known:
    """What a client might have measured."""
    return Known(
        round_trips={node.peer_id: dice.uniform(1.0, 300.0) for node in swarm if dice.random() < 0.5},
        reliability={node.peer_id: dice.random() for node in swarm if dice.random() < 0.2},
        location=dice.choice([None, dice.choice(_CITIES)]),
    )


def random_preference(dice: random.Random) -> Preference:
    """Any goal, with or without limits that may or may not be kept."""
    return Preference(
        goal=dice.choice(_GOALS),
        max_price=dice.choice([None, None, dice.randint(0, 2_500)]),
        max_latency=dice.choice([None, None, dice.uniform(50.0, 800.0)]),
        max_hops=dice.choice([None, None, None, dice.randint(1, 5)]),
    )


def best_by_trying(costs: Costs, weights: Weights, bounds: Bounds) -> Chain | None:
    """The chain of least weight within the bounds, by depth-first search of all chains in which no node comes twice."""
    best: tuple[float, Chain | None] = (math.inf, None)
    least = _least_weights(costs, weights)

    def walk(block: int, chain: list[Run], time: float, price: float, weight: float) -> None:
        nonlocal best
        if weight + least[block] >= best[0] or time > bounds.time or price > bounds.price:
            return
        if block == costs.blocks:
            last = chain[-1].node
            total, whole = weight + _weight(weights, costs.leave[last]), time + costs.leave[last]
            if total < best[0] and whole <= bounds.time:
                best = (total, tuple(chain))
            return
        if len(chain) >= bounds.hops:
            return
        used = {run.node for run in chain}
        for node in range(len(costs.first)):
            if node in used or not costs.first[node] <= block < costs.end[node]:
                continue
            way = costs.link[chain[-1].node, node] if chain else costs.enter[node]
            for end in range(int(costs.end[node]), block, -1):
                each = _weight(weights, costs.block_time[node]) + round(weights.price * costs.block_price[node])
                walk(
                    end,
                    [*chain, Run(node, block, end)],
                    time + way + (end - block) * costs.block_time[node],
                    price + (end - block) * costs.block_price[node],
                    weight + _weight(weights, way) + (end - block) * each,
                )

    walk(0, [], 0.0, 0.0, 0.0)
    return best[1]


def weight_of(costs: Costs, weights: Weights, chain: Chain) -> float:
    """What a chain weighs, summed up piece by piece."""
    total = _weight(weights, costs.enter[chain[0].node]) + _weight(weights, costs.leave[chain[-1].node])
    for one, other in pairwise(chain):
        total += _weight(weights, costs.link[one.node, other.node])
    for run in chain:
        each = _weight(weights, costs.block_time[run.node]) + round(weights.price * costs.block_price[run.node])
        total += (run.end - run.first) * each
    return total


def _weight(weights: Weights, nanoseconds: float) -> float:
    return round(weights.time * nanoseconds)


def _least_weights(costs: Costs, weights: Weights) -> list[float]:
    """What the blocks from each one on weigh at least."""
    least = [0.0]
    for block in reversed(range(costs.blocks)):
        serving = [node for node in range(len(costs.first)) if costs.first[node] <= block < costs.end[node]]
        least.append(
            least[-1]
            + min(
                _weight(weights, costs.block_time[node]) + round(weights.price * costs.block_price[node])
                for node in serving
            )
        )
    return least[::-1]


def cases(
    seed: int, count: int, *, most_nodes: int = 12, draw: Draw = random_swarm
) -> Iterator[tuple[list[Announcement], int, Known, Preference]]:
    """Swarms of up to ``most_nodes`` nodes, the blocks of their model, what the client knows and what it wants."""
    dice = random.Random(seed)
    for _ in range(count):
        blocks = dice.randint(1, 8)
        swarm = draw(dice, dice.randint(1, most_nodes), blocks, dice.randint(1, 8))
        yield swarm, blocks, random_known(dice, swarm), random_preference(dice)
