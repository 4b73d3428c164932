"""The best chain of nodes over a row of blocks, by exact search. Pure: numbers in, numbers out.

A state is (block, node): the node has the input of that block. From there it computes the block and either goes on with
the next one or hands over to a node that has the next one. With additive costs the best chain is a shortest path, found
backwards from the last block. Limits make it a resource-constrained shortest path: Lagrangian bounds by LARAC (A.
Juettner, B. Szviatovszki, I. Mecs, Z. Rajko, "Lagrange relaxation based method for the QoS routing problem", INFOCOM
2001). What they leave open is closed by best-first label setting with dominance, in a corridor of the steps that chains
near the bound can take. No node serves in two places of a chain; where the shortest path wants that, the nodes
concerned are tracked in the labels (decremental state space relaxation: G. Righini, M. Salani, Networks 51(3), 2008).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count as counter
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MOST_LABELS = 20_000
"""Partial chains looked at before the best complete one so far is taken; only limits in conflict need that many."""
MOST_WEIGHT = float(2**40)
"""Of one block: what is so slow or dear is never taken where there is anything else, and sums stay exact."""
MOST_STEPS = 50_000
"""In a corridor; wider ones are not searched, for the same reason."""
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
        self.windows = _windows_of(costs)

    def best(self, weights: Weights, bounds: Bounds = Bounds()) -> Outcome:  # a frozen value
        """The chain of least weight within the bounds, no node twice."""
        guide = self.fastest_field if weights == FASTEST else _Field(_Terms(self, weights))
        chain = guide.trace()
        if not _repeats(chain) and self._is_within(chain, bounds):
            return Outcome(chain)
        guides, known = [guide], None
        for kind in (*_KINDS, *_KINDS):  # twice: what keeps one limit may break another
            limit: float = getattr(bounds, kind)
            if self.spent(chain, kind) > limit:
                if self._least(kind) > limit:
                    return Outcome(None)
                eased, known = self._eased(guides[-1], chain, kind, bounds, known)
                guides += eased
                chain = guides[-1].trace()
        return self._closed(guides, bounds, known)

    def best_through(self, weights: Weights) -> list[Chain]:
        """For each node the chain of least weight through it, where there are no limits and a node may come twice."""
        return _Field(_Terms(self, weights)).through_each()

    def fastest(self) -> Chain:
        """The chain of least time, where a node may come twice."""
        return self.fastest_field.trace()

    @cached_property
    def fastest_field(self) -> _Field:
        """The least time from every state to the end."""
        return _Field(_Terms(self, FASTEST))

    def fewest_hops(self) -> npt.NDArray[np.int_]:
        """(blocks + 1,) nodes that the blocks from each one on need at least."""
        costs = self.costs
        reach = np.zeros(costs.blocks, dtype=np.intp)
        np.maximum.at(reach, costs.first, costs.end)
        reach = np.maximum.accumulate(reach)
        hops = np.zeros(costs.blocks + 1, dtype=np.int_)
        for block in range(costs.blocks - 1, -1, -1):
            hops[block] = 1 + hops[reach[block]]
        return hops

    def least_price(self) -> Floats:
        """(blocks + 1,) units that the blocks from each one on cost at least."""
        price = self.costs.block_price
        each = np.concatenate([(price[window.nodes] + window.shut[:-1]).min(axis=1) for window in self.windows])
        return np.append(np.cumsum(each[::-1])[::-1], 0.0)

    def spent(self, chain: Chain, limited: Limited) -> float:
        """Of what is limited."""
        match limited:
            case "price":
                return self.costs.price_of(chain)
            case "time":
                return self.costs.time_of(chain)
            case "hops":
                return float(len(chain))

    def _least(self, limited: Limited) -> float:
        """What any chain has to spend, where a node may come twice."""
        match limited:
            case "price":
                return float(self.least_price()[0])
            case "time":
                return self.costs.time_of(self.fastest())
            case "hops":
                return float(self.fewest_hops()[0])

    def _is_within(self, chain: Chain, bounds: Bounds) -> bool:
        return all(self.spent(chain, kind) <= getattr(bounds, kind) for kind in _KINDS)

    def _eased(
        self, guide: _Field, light: Chain, kind: Limited, bounds: Bounds, known: Chain | None
    ) -> tuple[list[_Field], Chain | None]:
        """LARAC: the guide with better and better tolls on one limit, and the lightest chain known by then.

        Args:
            light: the guide's own chain, which breaks that limit.
            known: a chain within all bounds, if one was met.
        """
        limit: float = getattr(bounds, kind)
        terms, heavy = guide.terms, None
        toll = _STEEP * max(guide.weigh(light), 1.0) / max(limit, 1.0)
        tried: list[_Field] = []
        for _ in range(_MOST_TOLLS):
            eased = guide.eased(kind, toll)
            tried.append(eased)
            middle = eased.trace()
            if not _repeats(middle) and self._is_within(middle, bounds):
                known = _lighter(terms, known, middle)
            bound = eased.weigh(middle)
            if heavy is not None and bound >= eased.weigh(light) * (1 - _TOLERANCE):
                break
            if known is not None and terms.weigh(known) <= (1 + _NARROW) * (bound - eased.allowance(bounds)):
                break
            if self.spent(middle, kind) <= limit:
                heavy = middle
            else:
                light = middle
            if heavy is None:
                toll *= _STEEPER
            else:
                saved = self.spent(light, kind) - self.spent(heavy, kind)
                toll = max(guide.weigh(heavy) - guide.weigh(light), 0.0) / saved
        return tried, known

    def _closed(self, guides: list[_Field], bounds: Bounds, known: Chain | None) -> Outcome:
        """The best chain between the guide's bound and what is known, looked for in wider and wider corridors."""
        guide = guides[-1]
        bound = guide.weigh(guide.trace())
        least = bound - guide.allowance(bounds)
        worst = math.inf if known is None else guide.terms.weigh(known)
        room = _NARROW * max(bound, 1.0)
        tracked: set[int] = set()
        while True:
            corridor = _Corridor(guide, bounds, min(least + room, worst))
            if corridor.is_too_wide:
                return Outcome(known, exact=False)
            ceiling = corridor.ceiling if corridor.is_cut else worst
            found = _Labels(corridor, tracked, ceiling, guides).search()
            while found.chain is not None and (repeated := _repeats(found.chain)):
                if not found.exact:
                    return Outcome(known, exact=False)
                tracked |= repeated
                found = _Labels(corridor, tracked, ceiling, guides).search()
            if found.chain is not None:
                return found
            if not found.exact or ceiling == worst:
                return Outcome(known, found.exact)
            room *= _WIDER


_KINDS: tuple[Limited, ...] = get_args(Limited)
_MOST_TOLLS = 12
_STEEP, _STEEPER = 4.0, 64.0  # the first toll: what is allowed costs this many times the lightest chain; and the next
_NARROW, _WIDER = 2.0**-7, 2.0  # the first corridor, of the bound's weight; and the next
_WINDOW = 5  # blocks


def _lighter(terms: _Terms, one: Chain | None, other: Chain) -> Chain:
    return other if one is None or terms.weigh(other) < terms.weigh(one) else one


def _repeats(chain: Chain) -> set[int]:
    nodes = [run.node for run in chain]
    return {node for node in nodes if nodes.count(node) > 1}


@dataclass(frozen=True)
class _Window:
    """Some blocks, and the nodes that serve one of them or the one after: small matrices that are whole in memory.

    Attributes:
        first, end: the blocks.
        nodes: (nodes,) in ascending order.
        link: (nodes, nodes) nanoseconds to the node of a row from that of a column.
        shut: (blocks + 1, nodes) infinite where a node does not serve the block.
    """

    first: int
    end: int
    nodes: Indices
    link: Floats
    shut: Floats


def _windows_of(costs: Costs) -> list[_Window]:
    windows = []
    for first in range(0, costs.blocks, _WINDOW):
        end = min(first + _WINDOW, costs.blocks)
        nodes = np.flatnonzero((costs.first <= end) & (first < costs.end))
        blocks = np.arange(first, end + 1)[:, None]
        shut = np.where((costs.first[nodes] <= blocks) & (blocks < costs.end[nodes]), 0.0, np.inf)
        windows.append(_Window(first, end, nodes, np.ascontiguousarray(costs.link[nodes][:, nodes].T), shut))
    return windows


class _Terms:
    """What chains weigh. Weights are rounded one by one: whole numbers have exact sums, so equals are seen to be equal.

    Attributes:
        block, enter, leave: (nodes,) as those of the costs.
        links: as those of the windows.
    """

    def __init__(self, search: Search, weights: Weights) -> None:
        costs = search.costs
        self.search, self._weights = search, weights
        self.enter, self.leave = self._of_times(costs.enter), self._of_times(costs.leave)
        prices = np.rint(weights.price * costs.block_price)
        self.block = np.minimum(self._of_times(costs.block_time) + prices, MOST_WEIGHT)
        self.links = [self._of_times(window.link) for window in search.windows]

    def weigh(self, chain: Chain) -> float:
        """The weight of a chain."""
        costs = self.search.costs
        ways = np.array([costs.link[one.node, other.node] for one, other in pairwise(chain)])
        blocks = sum((run.end - run.first) * self.block[run.node] for run in chain)
        return float(self.enter[chain[0].node] + self._of_times(ways).sum() + blocks + self.leave[chain[-1].node])

    def _of_times(self, times: Floats) -> Floats:
        return times if self._weights.time == 1.0 else np.rint(self._weights.time * times)


class _Field:
    """The least weight from every state to the end, when there are no limits and a node may come twice.

    With ``tolls`` it is that of a relaxed problem: they are Lagrange multipliers on what is limited, weight for each
    nanosecond, unit and node.

    Attributes:
        block, enter, leave, links: as those of the terms, with their tolls; ``on_hops`` is not in ``links`` yet.
        to_go: (blocks, nodes) infinite where a node does not serve a block.
    """

    def __init__(self, terms: _Terms, tolls: Mapping[Limited, float] = MappingProxyType({})) -> None:
        costs, windows = terms.search.costs, terms.search.windows
        self.terms, self.tolls = terms, tolls
        on_time, on_price, self.on_hops = self.rates()
        self.block = terms.block + on_time * costs.block_time + on_price * costs.block_price
        self.enter = terms.enter + on_time * costs.enter + self.on_hops
        self.leave = terms.leave + on_time * costs.leave
        self.links = terms.links
        if on_time:
            self.links = [link + on_time * window.link for link, window in zip(terms.links, windows, strict=True)]
        self.to_go = self._to_go()

    def rates(self) -> tuple[float, float, float]:
        """The tolls on time, price and hops."""
        return self.tolls.get("time", 0.0), self.tolls.get("price", 0.0), self.tolls.get("hops", 0.0)

    def eased(self, kind: Limited, toll: float) -> _Field:
        """The same, with more toll."""
        return _Field(self.terms, {**self.tolls, kind: self.tolls.get(kind, 0.0) + toll})

    def weigh(self, chain: Chain) -> float:
        """The weight of a chain with its tolls."""
        spent = self.terms.search.spent
        return self.terms.weigh(chain) + sum(toll * spent(chain, kind) for kind, toll in self.tolls.items())

    def allowance(self, bounds: Bounds) -> float:
        """The tolls on all that may be spent."""
        return float(sum(toll * getattr(bounds, kind) for kind, toll in self.tolls.items()))

    def trace(self) -> Chain:
        """The chain of least weight; hands over as late as it can."""
        here = self.terms.search.windows[0].nodes
        return tuple(self._onward(0, self._pick(here, self.enter[here] + self.to_go[0, here])))

    def through_each(self) -> list[Chain]:
        """The chain of least weight through each node."""
        search = self.terms.search
        blocks, nodes = self.to_go.shape
        reached, came = np.full((blocks, nodes), np.inf), np.zeros((blocks, nodes), dtype=np.intp)
        start = search.windows[0]
        reached[0, start.nodes] = self.enter[start.nodes] + start.shut[0]
        for window, link in zip(search.windows, self.links, strict=True):
            here = window.nodes
            for block in range(window.first, min(window.end, blocks - 1)):
                done = reached[block, here] + self.block[here]
                ways = link + done + self.on_hops
                handed = ways.min(axis=1)
                came[block + 1, here] = np.where(handed < done, here[ways.argmin(axis=1)], here)
                reached[block + 1, here] = np.minimum(handed, done) + window.shut[block + 1 - window.first]
        chains = []
        for node, block in enumerate((reached + self.to_go).argmin(axis=0)):
            backwards = [node]
            for earlier in range(int(block), 0, -1):
                backwards.append(int(came[earlier, backwards[-1]]))
            onward = [run.node for run in self._onward(int(block), node) for _ in range(run.first, run.end)]
            chains.append(_runs([*backwards[:0:-1], *onward]))
        return chains

    def _onward(self, block: int, node: int) -> Iterator[Run]:
        """The runs from ``block`` on, the first of them of ``node``."""
        search, to_go = self.terms.search, self.to_go
        while True:
            last = int(search.costs.end[node]) - 1
            is_kept = to_go[block:last, node] == self.block[node] + to_go[block + 1 : last + 1, node]
            end = last + 1 if is_kept.all() else block + 1 + int(is_kept.argmin())
            yield Run(node, block, end)
            if end == search.costs.blocks:
                return
            place = (end - 1) // _WINDOW
            there = search.windows[place].nodes
            ways = self.links[place][:, np.searchsorted(there, node)] + to_go[end, there]
            block, node = end, self._pick(there, ways)

    def _pick(self, nodes: Indices, weights: Floats) -> int:
        equals = nodes[weights == weights.min()]
        return int(equals[np.argmin(self.terms.search.costs.rank[equals])])

    def _to_go(self) -> Floats:
        search = self.terms.search
        to_go = np.full((search.costs.blocks, len(self.block)), np.inf)
        for window, link in zip(reversed(search.windows), reversed(self.links), strict=True):
            here, each = window.nodes, self.block[window.nodes]
            ways = np.empty_like(link)
            for block in range(window.end - 1, window.first - 1, -1):
                if block + 1 == search.costs.blocks:
                    going_on = self.leave[here]
                else:
                    after = to_go[block + 1, here]
                    np.add(link, after[:, None], out=ways)
                    going_on = np.minimum(after, ways.min(axis=0) + self.on_hops)
                to_go[block, here] = each + going_on + window.shut[block - window.first]
        return to_go


def _runs(nodes: Sequence[int]) -> Chain:
    """A node for each block, as runs of blocks."""
    borders = [0, *(block for block in range(1, len(nodes)) if nodes[block] != nodes[block - 1]), len(nodes)]
    return tuple(Run(nodes[first], first, end) for first, end in pairwise(borders))


class _Step(NamedTuple):
    """From a node that has the input of a block to ``node``, which may be itself, with that of the next one."""

    node: int
    weight: float
    time: float


class _Corridor:
    """The steps of all chains that weigh no more than a ceiling, as far as the guide can tell; found block by block.

    Attributes:
        starts: the nodes they may begin with.
        steps: for each block but the last, by node.
        is_cut: whether there are steps beyond the ceiling.
        is_too_wide: whether there are more than :data:`MOST_STEPS`; then some are missing.
    """

    def __init__(self, guide: _Field, bounds: Bounds, ceiling: float) -> None:
        self.guide, self.bounds, self.ceiling = guide, bounds, ceiling
        self.steps: list[dict[int, list[_Step]]] = []
        self.is_too_wide = False
        costs, most = guide.terms.search.costs, _tolerant(ceiling) + _tolerant(guide.allowance(bounds))
        start = guide.terms.search.windows[0]
        promise = guide.enter[start.nodes] + guide.to_go[0, start.nodes]
        is_open = promise <= most
        here = start.nodes[is_open]
        self.starts: list[int] = here.tolist()
        self.is_cut = bool((promise[~is_open] < np.inf).any())
        reached, count = guide.enter[here], 0
        for block in range(costs.blocks - 1):
            here, reached, found = self._sweep(block, here, reached, most)
            count += found
            if count > MOST_STEPS:
                self.is_too_wide = True
                break

    def _sweep(self, block: int, here: Indices, reached: Floats, most: float) -> tuple[Indices, Floats, int]:
        """The steps from one block to the next; then who has the next one's input, for how much, and how many steps."""
        guide, terms, place = self.guide, self.guide.terms, block // _WINDOW
        costs, window = terms.search.costs, terms.search.windows[place]
        there, at = window.nodes, np.searchsorted(window.nodes, here)
        done = reached + guide.block[here]
        ways = guide.links[place][:, at] + (done + guide.on_hops)
        ways[at, np.arange(len(at))] = done
        promise = ways + guide.to_go[block + 1, there][:, None]
        is_open = promise <= most
        row, column = np.nonzero(is_open)
        self.is_cut = self.is_cut or bool(np.count_nonzero(promise < np.inf) > len(row))
        stays, nodes = row == at[column], here[column]
        weights = terms.block[nodes] + np.where(stays, 0.0, terms.links[place][row, at[column]])
        times = costs.block_time[nodes] + np.where(stays, 0.0, window.link[row, at[column]])
        steps: dict[int, list[_Step]] = {}
        for node, *step in zip(nodes.tolist(), there[row].tolist(), weights.tolist(), times.tolist(), strict=True):
            steps.setdefault(node, []).append(_Step(*step))
        self.steps.append(steps)
        is_reached = is_open.any(axis=1)
        least = np.where(is_open[is_reached], ways[is_reached], np.inf).min(axis=1)
        return there[is_reached], least, len(row)


class _Label(NamedTuple):
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
    """Best-first search in a corridor for the best chain up to a ceiling. Each of the ``tracked`` nodes serves once.

    Every one of the guides bounds from below what a partial chain leads to; the highest bound counts.
    """

    def __init__(self, corridor: _Corridor, tracked: set[int], ceiling: float, guides: list[_Field]) -> None:
        search = corridor.guide.terms.search
        self._corridor, self._guide, self._bounds = corridor, corridor.guide, corridor.bounds
        self._guides = [(*guide.rates(), guide.allowance(corridor.bounds), guide.to_go) for guide in guides]
        self._price, self._end = search.costs.block_price.tolist(), search.costs.end.tolist()
        self._price_to_go, self._hops_to_go = search.least_price().tolist(), search.fewest_hops().tolist()
        self._time_to_go = search.fastest_field.to_go if corridor.bounds.time < math.inf else None
        self._bit = {node: 1 << place for place, node in enumerate(sorted(tracked))}
        self._best: Chain | None = None
        self._least = ceiling
        self._heap: list[tuple[float, int, _Label]] = []
        self._numbers = counter()
        self._kept: dict[tuple[int, int], list[_Label]] = {}

    def search(self) -> Outcome:
        terms = self._guide.terms
        for node in self._corridor.starts:
            weight, time = float(terms.enter[node]), float(terms.search.costs.enter[node])
            self._push(_Label(0, node, weight, time, 0.0, 1, 0, None))
        looked_at = 0
        while self._heap:
            promise, _, label = heapq.heappop(self._heap)
            if promise > _tolerant(self._least):
                break
            if self._is_dominated(label):
                continue
            looked_at += 1
            if looked_at > MOST_LABELS:
                return Outcome(self._best, exact=False)
            if label.block + 1 < len(self._guide.to_go):
                self._expand(label)
            else:
                self._finish(label)
        return Outcome(self._best)

    def _expand(self, label: _Label) -> None:
        block, price = label.block + 1, label.price + self._price[label.node]
        seen = label.seen | self._bit.get(label.node, 0)
        for node, weight, time in self._corridor.steps[label.block].get(label.node, ()):
            weight, time = label.weight + weight, label.time + time
            if node == label.node:
                self._push(_Label(block, node, weight, time, price, label.hops, label.seen, label))
            elif not seen & self._bit.get(node, 0):
                self._push(_Label(block, node, weight, time, price, label.hops + 1, seen, label))

    def _push(self, label: _Label) -> None:
        """Keep it for later, if it may still lead to something."""
        block, node, weight, time, price, hops, _, _ = label
        bounds = self._bounds
        promise = weight + max(
            on_time * time + on_price * price + on_hops * hops - allowance + float(to_go[block, node])
            for on_time, on_price, on_hops, allowance, to_go in self._guides
        )
        if (
            promise <= _tolerant(self._least)
            and price + self._price[node] + self._price_to_go[block + 1] <= bounds.price
            and hops + self._hops_to_go[self._end[node]] <= bounds.hops
            and (self._time_to_go is None or time + self._time_to_go[block, node] <= bounds.time)
        ):
            heapq.heappush(self._heap, (promise, next(self._numbers), label))

    def _finish(self, label: _Label) -> None:
        terms = self._guide.terms
        weight = label.weight + float(terms.block[label.node] + terms.leave[label.node])
        if weight < self._least or (weight == self._least and self._best is None):
            self._best, self._least = _chain_to(label), weight

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


def _tolerant(weight: float) -> float:
    return weight + _TOLERANCE * abs(weight)


def _chain_to(label: _Label) -> Chain:
    nodes: list[int] = []
    at: _Label | None = label
    while at is not None:
        nodes.append(at.node)
        at = at.parent
    return _runs(nodes[::-1])
