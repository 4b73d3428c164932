"""The best chain of nodes over a row of blocks, by exact search. Pure: numbers in, numbers out.

A state is (block, node): the node has the input of that block. From there it computes the block and either goes on with
the next one or hands over to a node that has the next one. With additive costs the best chain is a shortest path, found
backwards from the last block. Limits make it a resource-constrained shortest path: Lagrangian bounds by LARAC (A.
Juettner, B. Szviatovszki, I. Mecs, Z. Rajko, "Lagrange relaxation based method for the QoS routing problem", INFOCOM
2001), and what they leave open is closed by best-first label setting with dominance. No node serves in two places of a
chain; where the shortest path wants that, the nodes concerned are tracked in the labels (decremental state space
relaxation: G. Righini, M. Salani, Networks 51(3), 2008).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counter
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MOST_LABELS = 20_000
"""Partial chains looked at before the best complete one so far is taken; only limits in conflict need that many."""
MOST_WEIGHT = float(2**40)
"""Of one block: what is so slow or dear is never taken where there is anything else, and sums stay exact."""
_TOLERANCE = 1e-9  # of sums that were scaled by a Lagrange multiplier


@dataclass(frozen=True)
class Run:
    """Node ``node`` (an index) computes blocks ``[first, end)``."""

    node: int
    first: int
    end: int


Chain = tuple[Run, ...]


@dataclass(frozen=True)
class Costs:
    """What chains over blocks ``[0, blocks)`` cost. Times are whole nanoseconds per token, so that sums are exact.

    Attributes:
        first, end: (nodes,) the span of each, within the row of blocks.
        block_time: (nodes,) to compute one block.
        block_price: (nodes,) for one block, whole units.
        enter: (nodes,) from where the chain begins to a node, and what the node takes for itself at each visit.
        link: (nodes, nodes) the same from one node to another; infinite on the diagonal.
        leave: (nodes,) from a node to where the chain ends.
        rank: (nodes,) among equals the lowest is taken.
    """

    blocks: int
    first: Indices
    end: Indices
    block_time: Floats
    block_price: Floats
    enter: Floats
    link: Floats
    leave: Floats
    rank: Indices

    def time_of(self, chain: Chain) -> float:
        """Nanoseconds per token through a chain."""
        links = sum(self.link[one.node, other.node] for one, other in pairwise(chain))
        computing = sum((run.end - run.first) * self.block_time[run.node] for run in chain)
        return float(self.enter[chain[0].node] + links + computing + self.leave[chain[-1].node])

    def price_of(self, chain: Chain) -> float:
        """Units for all blocks of a chain."""
        return float(sum((run.end - run.first) * self.block_price[run.node] for run in chain))


@dataclass(frozen=True)
class Weights:
    """What is minimised: ``time`` × nanoseconds + ``price`` × units."""

    time: float
    price: float


@dataclass(frozen=True)
class Bounds:
    """The most that a chain may take: nanoseconds, units, nodes."""

    time: float = math.inf
    price: float = math.inf
    hops: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """The best chain, if there is one; ``exact``: nothing better was left unseen."""

    chain: Chain | None
    exact: bool = True


FASTEST = Weights(1.0, 0.0)
Limited = Literal["price", "time", "hops"]


class Search:
    """Searches over one set of costs; every block must be in some node's span."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        blocks = np.arange(costs.blocks)[:, None]
        serves = (costs.first <= blocks) & (blocks < costs.end)
        self._active: list[Indices] = [np.flatnonzero(row) for row in serves]
        self._same = [False, *(np.array_equal(one, other) for one, other in pairwise(self._active))]

    def best(self, weights: Weights, bounds: Bounds = Bounds()) -> Outcome:  # a frozen value
        """The chain of least weight within the bounds, no node twice."""
        field = _Field.of(self, weights)
        chain = field.trace()
        if not _repeats(chain) and self._is_within(chain, bounds):
            return Outcome(chain)
        guide, known = self._bracket(field, chain, bounds)
        tracked: set[int] = set()
        while True:
            labels = _Labels(self, field, guide, bounds, known, tracked)
            found = labels.search()
            repeated = set() if found.chain is None else _repeats(found.chain)
            if not repeated:
                return found
            if not found.exact:
                return Outcome(known, exact=False)
            tracked |= repeated

    def best_through(self, weights: Weights) -> list[Chain]:
        """For each node the chain of least weight through it, where there are no limits and a node may come twice."""
        return _Field.of(self, weights).through_each()

    def fastest(self) -> Chain:
        """The chain of least time, where a node may come twice."""
        return _Field.of(self, FASTEST).trace()

    def fewest_hops(self) -> npt.NDArray[np.int_]:
        """(blocks + 1,) nodes that the blocks from each one on need at least."""
        costs = self.costs
        reach = np.zeros(costs.blocks, dtype=np.intp)
        for block, active in enumerate(self._active):
            reach[block] = costs.end[active].max()
        hops = np.zeros(costs.blocks + 1, dtype=np.int_)
        for block in range(costs.blocks - 1, -1, -1):
            hops[block] = 1 + hops[reach[block]]
        return hops

    def least_price(self) -> Floats:
        """(blocks + 1,) units that the blocks from each one on cost at least."""
        each = [self.costs.block_price[active].min() for active in self._active]
        return np.append(np.cumsum(each[::-1])[::-1], 0.0)

    def active(self, block: int) -> Indices:
        """Nodes that serve a block."""
        return self._active[block]

    def _bracket(self, field: _Field, best: Chain, bounds: Bounds) -> tuple[_Guide, Chain | None]:
        """A Lagrangian lower bound for every state, and a chain within the bounds, if one was met on the way."""
        known: Chain | None = None
        guide = _Guide(field, 0.0, "price")
        limited = next((kind for kind in get_args(Limited) if self.spent(best, kind) > getattr(bounds, kind)), None)
        if limited is None:
            return guide, known
        limit: float = getattr(bounds, limited)
        light, heavy = best, field.lightest(limited)
        if self.spent(heavy, limited) > limit:
            return guide, known  # the labels find out that there is none
        for _ in range(_MOST_MULTIPLIERS):
            if self._fits(heavy, bounds):
                known = _better(field, known, heavy)
            gained = self.spent(light, limited) - self.spent(heavy, limited)
            multiplier = (field.weigh(heavy) - field.weigh(light)) / gained
            eased = field.eased(multiplier, limited)
            guide = _Guide(eased, multiplier, limited)
            middle = eased.trace()
            if eased.weigh(middle) >= eased.weigh(light) * (1 - _TOLERANCE):
                break
            if self.spent(middle, limited) <= limit:
                heavy = middle
            else:
                light = middle
        return guide, known

    def spent(self, chain: Chain, limited: Limited) -> float:
        """Of what is limited."""
        match limited:
            case "price":
                return self.costs.price_of(chain)
            case "time":
                return self.costs.time_of(chain)
            case "hops":
                return float(len(chain))

    def _is_within(self, chain: Chain, bounds: Bounds) -> bool:
        return all(self.spent(chain, kind) <= getattr(bounds, kind) for kind in get_args(Limited))

    def _fits(self, chain: Chain, bounds: Bounds) -> bool:
        return not _repeats(chain) and self._is_within(chain, bounds)


_MOST_MULTIPLIERS = 12
_LIKELY = 8


def _better(field: _Field, one: Chain | None, other: Chain) -> Chain:
    return other if one is None or field.weigh(other) < field.weigh(one) else one


def _repeats(chain: Chain) -> set[int]:
    nodes = [run.node for run in chain]
    return {node for node in nodes if nodes.count(node) > 1}


class _Field:
    """The least weight from every state to the end, when there are no limits and a node may come twice."""

    def __init__(self, search: Search, block: Floats, enter: Floats, link: Floats, leave: Floats) -> None:
        self.search, self.block, self.enter, self.link, self.leave = search, block, enter, link, leave
        self._link_to = np.ascontiguousarray(link.T)  # by row whither: a few rows are read again and again
        self.to_go = self._to_go()

    @classmethod
    def of(cls, search: Search, weights: Weights) -> _Field:
        """Weights are rounded one by one: whole numbers have exact sums, so equals are seen to be equal."""
        costs = search.costs
        if weights == FASTEST:
            return cls(search, costs.block_time, costs.enter, costs.link, costs.leave)
        computing = np.rint(weights.time * costs.block_time)
        block = np.minimum(computing + np.rint(weights.price * costs.block_price), MOST_WEIGHT)
        return cls(search, block, *(np.rint(weights.time * times) for times in (costs.enter, costs.link, costs.leave)))

    def eased(self, multiplier: float, limited: Limited) -> _Field:
        """The same, and ``multiplier`` on what is limited."""
        costs = self.search.costs
        if limited == "price":
            block = self.block + multiplier * costs.block_price
            return _Field(self.search, block, self.enter, self.link, self.leave)
        if limited == "hops":
            return _Field(self.search, self.block, self.enter + multiplier, self.link + multiplier, self.leave)
        return _Field(
            self.search,
            self.block + multiplier * costs.block_time,
            self.enter + multiplier * costs.enter,
            self.link + multiplier * costs.link,
            self.leave + multiplier * costs.leave,
        )

    def weigh(self, chain: Chain) -> float:
        """The weight of a chain."""
        links = sum(self.link[one.node, other.node] for one, other in pairwise(chain))
        blocks = sum((run.end - run.first) * self.block[run.node] for run in chain)
        return float(self.enter[chain[0].node] + links + blocks + self.leave[chain[-1].node])

    def lightest(self, limited: Limited) -> Chain:
        """A chain that has least of what is limited."""
        costs = self.search.costs
        if limited == "time":
            return _Field.of(self.search, FASTEST).trace()
        none, link = np.zeros_like(self.block), np.zeros_like(self.link)
        np.fill_diagonal(link, np.inf)
        if limited == "price":
            return _Field(self.search, costs.block_price, none, link, none).trace()
        return _Field(self.search, none, none + 1, link + 1, none).trace()

    def trace(self) -> Chain:
        """The chain of least weight; hands over as late as it can."""
        here = self.search.active(0)
        return _runs(self._onward(0, self._pick(here, self.enter[here] + self.to_go[0, here])))

    def through_each(self) -> list[Chain]:
        """The chain of least weight through each node."""
        search, blocks, nodes = self.search, self.search.costs.blocks, len(self.block)
        reached, came = np.full((blocks, nodes), np.inf), np.zeros((blocks, nodes), dtype=np.intp)
        reached[0, search.active(0)] = self.enter[search.active(0)]
        for block in range(1, blocks):
            here, there = search.active(block - 1), search.active(block)
            done = reached[block - 1, here] + self.block[here]
            ways = done[:, None] + np.where(here[:, None] == there, 0.0, self.link[np.ix_(here, there)])
            reached[block, there], came[block, there] = ways.min(axis=0), here[ways.argmin(axis=0)]
        chains = []
        for node, block in enumerate((reached + self.to_go).argmin(axis=0)):
            backwards = [node]
            for earlier in range(int(block), 0, -1):
                backwards.append(int(came[earlier, backwards[-1]]))
            chains.append(_runs([*backwards[:0:-1], *self._onward(int(block), node)]))
        return chains

    def _onward(self, block: int, node: int) -> list[int]:
        """The nodes of ``block`` and those after it, from ``node`` on."""
        search, to_go, nodes = self.search, self.to_go, [node]
        for later in range(block + 1, search.costs.blocks):
            there = search.active(later)
            ways = self.link[node, there] + to_go[later, there]
            if to_go[later, node] > ways.min():
                node = self._pick(there, ways)
            nodes.append(node)
        return nodes

    def _pick(self, nodes: Indices, weights: Floats) -> int:
        equals = nodes[weights == weights.min()]
        return int(equals[np.argmin(self.search.costs.rank[equals])])

    def _to_go(self) -> Floats:
        """(blocks, nodes): infinite where a node does not serve a block."""
        search, costs = self.search, self.search.costs
        to_go = np.full((costs.blocks, len(costs.first)), np.inf)
        shortest_out, shortest_in = self.link.min(axis=1), self.link.min(axis=0)
        here = search.active(costs.blocks - 1)
        to_go[-1, here] = self.block[here] + self.leave[here]
        for block in range(costs.blocks - 2, -1, -1):
            here, there, after = search.active(block), search.active(block + 1), to_go[block + 1]
            onward = after[there]
            going_on = after[here]
            in_order = np.argsort(onward)
            self._hand_over(here, there[in_order[:_LIKELY]], after, going_on)
            # most of the others are too far behind to be worth even the shortest way to them
            is_near = onward[in_order[_LIKELY:]] + shortest_in[there[in_order[_LIKELY:]]] < going_on.max()
            if is_near.any():
                is_open = going_on > shortest_out[here] + onward[in_order[_LIKELY]]
                if is_open.any():
                    improved = going_on[is_open]
                    self._hand_over(here[is_open], there[in_order[_LIKELY:][is_near]], after, improved)
                    going_on[is_open] = improved
            to_go[block, here] = self.block[here] + going_on
        return to_go

    def _hand_over(self, here: Indices, there: Indices, after: Floats, going_on: Floats) -> None:
        """Lower ``going_on`` of those ``here`` to what it weighs to go on with one of those ``there``."""
        handed = self._link_to[there][:, here] + after[there][:, None]
        np.minimum(going_on, handed.min(axis=0), out=going_on)


def _runs(nodes: Sequence[int]) -> Chain:
    """A node for each block, as runs of blocks."""
    borders = [0, *(block for block in range(1, len(nodes)) if nodes[block] != nodes[block - 1]), len(nodes)]
    return tuple(Run(nodes[first], first, end) for first, end in pairwise(borders))


@dataclass(frozen=True)
class _Guide:
    """``field``'s weights are those that are minimised plus ``multiplier`` on what is ``limited``."""

    field: _Field
    multiplier: float
    limited: Limited


@dataclass(frozen=True, slots=True)
class _Label:
    """A partial chain: ``node`` has the input of ``block``; the sums are of what lies before."""

    block: int
    node: int
    weight: float
    time: float
    price: float
    hops: int
    seen: int
    parent: _Label | None


class _Labels:
    """Best-first search of partial chains, between the bounds and what is known."""

    def __init__(
        self, search: Search, field: _Field, guide: _Guide, bounds: Bounds, known: Chain | None, tracked: set[int]
    ) -> None:
        self._search, self._costs, self._field, self._guide, self._bounds = search, search.costs, field, guide, bounds
        self._time = _Field.of(search, FASTEST) if bounds.time < math.inf else None
        self._price, self._hops = search.least_price(), search.fewest_hops()
        self._best = known
        self._least = math.inf if known is None else field.weigh(known)
        self._bit = {node: 1 << place for place, node in enumerate(sorted(tracked))}
        self._heap: list[tuple[float, int, _Label]] = []
        self._numbers = counter()
        self._kept: dict[tuple[int, int], list[_Label]] = {}

    def search(self) -> Outcome:
        nodes = self._search.active(0)
        self._push(None, 0, nodes, self._field.enter[nodes], self._costs.enter[nodes], 0.0, 0, 0)
        looked_at = 0
        while self._heap:
            bound, _, label = heapq.heappop(self._heap)
            if self._is_hopeless(bound):
                break
            if self._is_dominated(label):
                continue
            looked_at += 1
            if looked_at > MOST_LABELS:
                return Outcome(self._best, exact=False)
            self._expand(label)
        return Outcome(self._best)

    def _is_hopeless(self, bound: float) -> bool:
        return bound > self._least + _TOLERANCE * abs(self._least) or (
            bound >= self._least and self._guide.field is self._field
        )

    def _expand(self, label: _Label) -> None:
        costs, field, node = self._costs, self._field, label.node
        weight = label.weight + float(field.block[node])
        time = label.time + float(costs.block_time[node])
        price = label.price + float(costs.block_price[node])
        block = label.block + 1
        if block == costs.blocks:
            weight += float(field.leave[node])
            if weight < self._least and time + costs.leave[node] <= self._bounds.time and price <= self._bounds.price:
                self._best, self._least = _chain_to(label), weight
            return
        if block < costs.end[node]:
            stay = np.array([node])
            self._push(label, block, stay, np.array([weight]), np.array([time]), price, label.hops, label.seen)
        there = self._search.active(block)
        there = there[there != node]
        seen = label.seen | self._bit.get(node, 0)
        if seen:
            there = there[[not seen & self._bit.get(int(other), 0) for other in there]]
        if label.hops < self._bounds.hops and there.size:
            weights, times = weight + field.link[node, there], time + costs.link[node, there]
            self._push(label, block, there, weights, times, price, label.hops, seen)

    def _push(
        self,
        parent: _Label | None,
        block: int,
        nodes: Indices,
        weights: Floats,
        times: Floats,
        price: float,
        hops: int,
        seen: int,
    ) -> None:
        """Labels at ``block`` for all of ``nodes`` that may still lead to something."""
        costs, bounds, guide = self._costs, self._bounds, self._guide
        onward = guide.field.to_go[block, nodes]
        promise = weights + onward
        is_new = parent is None or int(nodes[0]) != parent.node
        if guide.multiplier:
            spent = {"price": price, "time": times, "hops": hops + is_new}[guide.limited]
            promise = promise + guide.multiplier * (spent - getattr(bounds, guide.limited))
        fits = promise <= self._least * (1 + _TOLERANCE)
        if self._time is not None:
            fits &= times + self._time.to_go[block, nodes] <= bounds.time
        fits &= price + costs.block_price[nodes] + self._price[block + 1] <= bounds.price
        if bounds.hops < math.inf:
            fits &= hops + is_new + self._hops[costs.end[nodes]] <= bounds.hops
        for place in np.flatnonzero(fits):
            node = int(nodes[place])
            label = _Label(block, node, float(weights[place]), float(times[place]), price, hops + is_new, seen, parent)
            heapq.heappush(self._heap, (float(promise[place]), next(self._numbers), label))

    def _is_dominated(self, label: _Label) -> bool:
        """Whether another partial chain to the same state is as good in every way; else this one is kept."""
        kept = self._kept.setdefault((label.block, label.node), [])
        counts_time, counts_price = self._bounds.time < math.inf, self._bounds.price < math.inf
        counts_hops = self._bounds.hops < math.inf
        for other in kept:
            if (
                other.weight <= label.weight
                and (not counts_time or other.time <= label.time)
                and (not counts_price or other.price <= label.price)
                and (not counts_hops or other.hops <= label.hops)
                and not other.seen & ~label.seen
            ):
                return True
        kept.append(label)
        return False


def _chain_to(label: _Label) -> Chain:
    nodes: list[int] = []
    at: _Label | None = label
    while at is not None:
        nodes.append(at.node)
        at = at.parent
    return _runs(nodes[::-1])
