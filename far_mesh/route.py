"""Which nodes run which blocks, and why. Pure: a picture of the swarm and a preference in, the best chain out.

What a chain costs is in :mod:`far_mesh.costs`, how the best one is found in :mod:`far_mesh.chains`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from discovery.geo import Point, distance_km
from discovery.location import is_in
from discovery.protocol.announcement import Announcement
from far_mesh.chains import FASTEST, Bounds, Chain, Costs, Run, Search, Weights
from far_mesh.config import Pool, Preference
from far_mesh.costs import Known, block_ms_of, costs_of
from far_mesh.errors import NoRoute

_SCALE = float(2**30)  # of weights: what a whole chain weighs, so that rounding does not show
_LEAST_OF_TIME = 1e-6  # of the weight of a cheapest chain: time decides among equals
_NS_PER_MS = 1e6
_NAMED_IN_ERRORS = 5
ANYONE = Preference()
NOTHING_KNOWN = Known()


@dataclass(frozen=True)
class RouteHop:
    """A node and the blocks ``[first, end)`` it runs, which may be a part of those it serves."""

    node: Announcement
    first_block: int
    end_block: int

    @property
    def blocks(self) -> tuple[int, int]:
        """``(first_block, end_block)``, end exclusive."""
        return self.first_block, self.end_block


@dataclass(frozen=True)
class HopEstimate:
    """What a hop is expected to take of a token, in milliseconds, and what is asked for 1,000 token-layers.

    ``link_ms`` is the way to it, with its queue and what it takes for itself; ``compute_ms`` its blocks.
    """

    hop: RouteHop
    link_ms: float
    compute_ms: float
    price_units: int


@dataclass(frozen=True)
class Reason:
    """Why a node is not in the route."""

    node: Announcement
    why: str


@dataclass(frozen=True)
class Explanation:
    """A route, what it is expected to take, and why every other node is not in it.

    Attributes:
        ms_per_token: once round; ``back_ms`` of it is the way back from the last node.
        price_units: what its blocks ask for on average, in 1e-9 FAR for 1,000 token-layers.
        exact: whether no better one was left unseen.
    """

    hops: tuple[HopEstimate, ...]
    back_ms: float
    ms_per_token: float
    price_units: float
    exact: bool
    reasons: tuple[Reason, ...]


def plan_route(
    nodes: Iterable[Announcement],
    block_count: int,
    excluded: Collection[str] = (),
    *,
    span: tuple[int, int] | None = None,
    before: str | None = None,
    after: str | None = None,
    preference: Preference = ANYONE,
    known: Known = NOTHING_KNOWN,
    offered: int | None = None,
    pool: Pool | None = None,
) -> tuple[RouteHop, ...]:
    """The chain that serves a preference best and covers ``span``: blocks ``[first, end)``, by default all of them.

    Spans may be used in part, and no node serves twice. Among equals the chain that hands over late is taken, the node
    that reaches farther, the more precise one, and the one announced last.

    Args:
        excluded: peer ids that are not used.
        before: who hands the chain its input, and ``after`` who takes its output: peer ids that are not used in
            between; ``None`` is the client. The limits of the preference are those of the part alone.
        known: what the client has measured itself.
        offered: what every node will be paid for 1,000 token-layers, in 1e-9 FAR; who asks for more is not used.
        pool: who alone may be used.

    Raises:
        NoRoute: some blocks have no node that may be used, or the limits leave no chain. The message says which, and
            whom the preference left out; ``facts["uncovered"]`` lists the blocks.
    """
    return _Plan(nodes, block_count, excluded, span, before, after, preference, known, offered, pool).route()


def explain(
    nodes: Iterable[Announcement],
    block_count: int,
    excluded: Collection[str] = (),
    *,
    span: tuple[int, int] | None = None,
    before: str | None = None,
    after: str | None = None,
    preference: Preference = ANYONE,
    known: Known = NOTHING_KNOWN,
    offered: int | None = None,
) -> Explanation:
    """The route of :func:`plan_route`, with what it takes and why it is not another.

    Raises:
        NoRoute: as :func:`plan_route` does.
    """
    return _Plan(nodes, block_count, excluded, span, before, after, preference, known, offered).explain()


class _Plan:
    """One question: who may be used, what they cost, and the best chain of them."""

    def __init__(
        self,
        nodes: Iterable[Announcement],
        block_count: int,
        excluded: Collection[str],
        span: tuple[int, int] | None,
        before: str | None,
        after: str | None,
        preference: Preference,
        known: Known,
        offered: int | None,
        pool: Pool | None = None,
    ) -> None:
        self._offered, self._pool = offered, pool
        self._all, self._span, self._preference, self._known = list(nodes), span or (0, block_count), preference, known
        self._before, self._after = before, after
        self._left_out: list[Reason] = []
        self._usable: list[Announcement] = []
        gone = {*excluded, before, after}
        for node in self._all:
            why = self._objection(node, gone)
            if why is None:
                self._usable.append(node)
            else:
                self._left_out.append(Reason(node, why))

    def route(self) -> tuple[RouteHop, ...]:
        _, _, chain, _ = self._solve()
        return tuple(self._hop(run) for run in chain)

    def explain(self) -> Explanation:
        costs, weights, chain, exact = self._solve()
        return Explanation(
            hops=tuple(self._estimate(costs, chain, place) for place in range(len(chain))),
            back_ms=float(costs.leave[chain[-1].node]) / _NS_PER_MS,
            ms_per_token=costs.time_of(chain) / _NS_PER_MS,
            price_units=costs.price_of(chain) / costs.blocks,
            exact=exact,
            reasons=(*self._why_not(costs, weights, chain), *self._left_out),
        )

    def _objection(self, node: Announcement, gone: Collection[str | None]) -> str | None:
        """Why a node may not be used at all."""
        wanted, (first, end) = self._preference, self._span
        block_ms = block_ms_of(node, self._known)
        tokens_per_second = 1000.0 / (block_ms * (node.end_block - node.first_block))
        if node.end_block <= first or end <= node.first_block:
            return "serves none of these blocks"
        if node.state != "ready":
            return "leaving"
        if node.peer_id in gone:
            return "excluded"
        if node.peer_id in self._known.dishonest:
            return "dishonest: its answers or receipts were wrong"
        if self._offered is not None and node.price_units > self._offered:
            return f"price: asks for {node.price_units} units, {self._offered} are offered"
        if self._pool is not None and not self._pool.has(node):
            return f"not of {self._pool.name}"
        if wanted.trusted_only and not {node.peer_id, node.wallet} & wanted.trusted_only:
            return "trusted_only: not one of those"
        if wanted.quantization and node.quantization not in wanted.quantization:
            return f"quantization: {node.quantization}"
        if wanted.region is not None and not is_in(node.region, wanted.region):
            return f"region: {node.region or 'says none'}"
        if wanted.near is not None and (why := self._too_far(node, wanted.near)) is not None:
            return why
        if wanted.min_tps is not None and tokens_per_second < wanted.min_tps:
            return f"min_tps: {tokens_per_second:.3g} tokens per second"
        if wanted.max_load is not None and node.load > wanted.max_load:
            return f"max_load: {node.load:.2f}"
        return None

    def _too_far(self, node: Announcement, near: Point) -> str | None:
        point = self._known.where(node)
        if point is None:
            return "max_distance_km: nobody knows where it is"
        kilometres = distance_km(near, point)
        return f"max_distance_km: {kilometres:.0f} km away" if kilometres > self._preference.max_distance_km else None

    def _solve(self) -> tuple[Costs, Weights, Chain, bool]:
        first, end = self._span
        if gaps := uncovered_ranges(self._usable, end, first):
            raise self._uncovered(gaps)
        costs = costs_of(self._usable, self._span, self._known, self._before, self._after, self._all)
        search, limits = Search(costs), bounds_of(self._preference, costs.blocks)
        weights = weights_of(self._preference, costs, search)
        found = search.best(weights, limits)
        if found.chain is None:
            raise self._out_of_bounds(costs, search, limits)
        return costs, weights, found.chain, found.exact

    def _hop(self, run: Run) -> RouteHop:
        first = self._span[0]
        return RouteHop(self._usable[run.node], first + run.first, first + run.end)

    def _estimate(self, costs: Costs, chain: Chain, place: int) -> HopEstimate:
        run = chain[place]
        way = costs.enter[run.node] if place == 0 else costs.link[chain[place - 1].node, run.node]
        computing = (run.end - run.first) * float(costs.block_time[run.node])
        asked = self._usable[run.node].price_units
        return HopEstimate(self._hop(run), float(way) / _NS_PER_MS, computing / _NS_PER_MS, asked)

    def _why_not(self, costs: Costs, weights: Weights, chain: Chain) -> Iterable[Reason]:
        chosen = {run.node for run in chain}
        through = Search(costs).best_through(weights)
        for index, node in enumerate(self._usable):
            if index not in chosen:
                yield Reason(node, self._comparison(costs, chain, through[index], index))

    def _comparison(self, costs: Costs, chain: Chain, other: Chain, index: int) -> str:
        """What is worse in the best chain through another node."""
        limits = bounds_of(self._preference, costs.blocks)
        slower = (costs.time_of(other) - costs.time_of(chain)) / _NS_PER_MS
        dearer = (costs.price_of(other) - costs.price_of(chain)) / costs.blocks
        broken = [
            name
            for name, spent, limit in (
                ("max_price", costs.price_of(other), limits.price),
                ("max_latency", costs.time_of(other), limits.time),
                ("max_hops", len(other), limits.hops),
            )
            if spent > limit
        ]
        covering = next((run for run in chain if self._covers(costs, run, index)), None)
        what = "with it "
        if covering is not None and len(other) > len(chain):
            longer = self._usable[covering.node]
            what = f"covered by the longer span of {longer.peer_id}; {what}"
        if broken:
            return f"{what}the route breaks {' and '.join(broken)}"
        if len({run.node for run in other}) < len(other):
            return f"{what}another node would be needed in two places"
        parts = [
            f"{abs(slower):.3g} ms {'slower' if slower > 0 else 'faster'}" if slower else "",
            f"{abs(dearer):.3g} units {'dearer' if dearer > 0 else 'cheaper'}" if dearer else "",
        ]
        return f"{what}the route is {' and '.join(part for part in parts if part) or 'no better'}"

    @staticmethod
    def _covers(costs: Costs, run: Run, index: int) -> bool:
        first, end = costs.first[index], costs.end[index]
        is_longer = costs.end[run.node] - costs.first[run.node] > end - first
        return bool(is_longer and costs.first[run.node] <= first and end <= costs.end[run.node])

    def _uncovered(self, gaps: list[tuple[int, int]]) -> NoRoute:
        kept_out = [
            reason
            for reason in self._left_out
            if any(reason.node.first_block < end and first < reason.node.end_block for first, end in gaps)
            and reason.why.partition(":")[0] not in ("leaving", "excluded")
        ]
        message = f"no live node serves blocks {in_words(gaps)}"
        if kept_out:
            named = ", ".join(f"{reason.node.peer_id} ({reason.why})" for reason in kept_out[:_NAMED_IN_ERRORS])
            more = f" and {len(kept_out) - _NAMED_IN_ERRORS} more" if len(kept_out) > _NAMED_IN_ERRORS else ""
            message = f"no node that may be used serves blocks {in_words(gaps)}; left out: {named}{more}"
        return NoRoute(message, uncovered=gaps, retry_after=_RETRY_SECONDS)

    def _out_of_bounds(self, costs: Costs, search: Search, limits: Bounds) -> NoRoute:
        wanted = self._preference
        least_ms = costs.time_of(search.fastest()) / _NS_PER_MS
        cheapest, hops = search.least_price()[0] / costs.blocks, int(search.fewest_hops()[0])
        said = []
        if wanted.max_latency is not None and least_ms > wanted.max_latency:
            said.append(f"the fastest takes {least_ms:.0f} ms per token, more than max_latency {wanted.max_latency:g}")
        if wanted.max_price is not None and cheapest > wanted.max_price:
            said.append(f"the cheapest asks for {cheapest:.6g} units, more than max_price {wanted.max_price}")
        if hops > limits.hops:
            said.append(f"the shortest has {hops} nodes, more than max_hops {wanted.max_hops}")
        given = [name for name in ("max_price", "max_latency", "max_hops") if getattr(wanted, name) is not None]
        detail = "; ".join(said) or f"none keeps {' and '.join(given)} with no node in two places"
        covered = in_words([self._span])
        return NoRoute(f"no route for blocks {covered}: {detail}", uncovered=[], retry_after=_RETRY_SECONDS)


_RETRY_SECONDS = 5.0


def bounds_of(preference: Preference, blocks: int) -> Bounds:
    """The limits of a preference, for a chain of so many blocks."""
    price, latency, hops = preference.max_price, preference.max_latency, preference.max_hops
    return Bounds(
        time=math.inf if latency is None else latency * _NS_PER_MS,
        price=math.inf if price is None else float(price * blocks),
        hops=math.inf if hops is None else hops,
    )


def weights_of(preference: Preference, costs: Costs, search: Search) -> Weights:
    """What a goal minimises; shares of time and price are those of the fastest chain there is."""
    if preference.goal == "fastest":
        return FASTEST
    fastest = search.fastest()
    time, price = costs.time_of(fastest), costs.price_of(fastest)
    if price == 0:  # nothing is cheaper, and nothing faster
        return FASTEST
    shares = Weights(_SCALE / time, _SCALE / price)
    return shares if preference.goal == "balanced" else Weights(shares.time * _LEAST_OF_TIME, shares.price)


def takes_sessions(nodes: Iterable[Announcement]) -> list[Announcement]:
    """Those that take new sessions: who is leaving does not."""
    return [node for node in nodes if node.state == "ready"]


def uncovered_ranges(nodes: Sequence[Announcement], end_block: int, first_block: int = 0) -> list[tuple[int, int]]:
    """Maximal ranges within ``[first_block, end_block)`` that no node serves."""
    gaps: list[tuple[int, int]] = []
    position = first_block
    for node in sorted(nodes, key=lambda node: node.first_block):
        if position < min(node.first_block, end_block):
            gaps.append((position, min(node.first_block, end_block)))
        position = max(position, node.end_block)
    if position < end_block:
        gaps.append((position, end_block))
    return gaps


def in_words(ranges: Iterable[tuple[int, int]]) -> str:
    """``3:6, 8:10``, end exclusive, as ``--blocks`` is written."""
    return ", ".join(f"{first}:{end}" for first, end in ranges)
