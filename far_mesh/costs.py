"""What nodes say and what the client has measured, as numbers to plan a route with.

Nodes' words are claims, so a false one must gain little. Round trips that the client measured itself come before them;
of a link that both ends have measured the slower figure counts; no link is shorter than :data:`SHORTEST_LINK_MS`, or
than light in glass needs for the distance where both ends say where they are; nobody is where its answers could not
have come from in the time they took; nobody is faster than :data:`FASTEST_BLOCK_MS`, waits less than not at all or asks
for less than nothing. So a liar looks at best like the best honest node there could be, and what it says of a rival's
links counts for its own link to that rival only. How fast it says it is counts for less with every round that went
through it (:mod:`far_mesh.speeds`).

Of a link that nobody has measured the round trip is guessed: from where both ends are, by their addresses before by
their word, else from their regions. Who is guessed too near is chosen before those who were measured, so guesses are
rather long (``benchmarks/geo_routing.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from discovery.geo import EARTH_KM, Point, distance_km
from discovery.protocol.announcement import Announcement
from far_mesh.chains import Costs, Floats

UNKNOWN_BLOCK_MS = 5.0
FASTEST_BLOCK_MS = 0.02
SHORTEST_LINK_MS = 0.1
UNKNOWN_LINK_MS = 80.0
FAR_REGION_LINK_MS = 160.0
NEAR_REGION_LINK_MS = 40.0
SAME_REGION_LINK_MS = 15.0
HOP_MS = 1.0
"""What each node takes for itself, beside its blocks."""
LOST_PAUSE_MS, LOST_TOKENS = 3_000.0, 128.0
"""A node that is lost costs a pause, shared out over the tokens of a session: how long both are until it was seen."""

_PRECISION = {"none": 0, "int8": 1, "nf4": 2}
_KM_PER_MS = 2 / 3 * 299.792458  # light in glass
_DETOUR = 1.5  # of cables, against the great circle
_LAST_MILE_MS = 15.0  # of a round trip between homes, whatever the distance; rather more than less, see below
_COARSE_KM = 160.0  # two places in whole degrees may be nearer to each other by this
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Known:
    """What the client has found out by itself, by peer id.

    Attributes:
        round_trips: milliseconds between the client and a node.
        reliability: the chance that a node does not break a session off, from 0 to 1; those not in it count as 1.
        dishonest: whose answers or receipts were wrong (:attr:`discovery.score.Score.is_honest_enough`): not used.
        block_ms: milliseconds that a node was seen to take for a block.
        pause_ms: how long a session stands still for a node that is lost; ``tokens``: how many tokens sessions have.
        points: where nodes are by the addresses at which they are reached.
        location: of the client, where it says so; for links to nodes it has not measured.
    """

    round_trips: Mapping[str, float] = field(default_factory=dict)
    reliability: Mapping[str, float] = field(default_factory=dict)
    dishonest: Collection[str] = frozenset()
    block_ms: Mapping[str, float] = field(default_factory=dict)
    pause_ms: float = LOST_PAUSE_MS
    tokens: float = LOST_TOKENS
    points: Mapping[str, Point] = field(default_factory=dict)
    location: Point | None = None

    def where(self, node: Announcement) -> Point | None:
        """Where a node is: by its address, else as it says; None if neither is known, or can be true."""
        return self._if_it_can_be(self.points.get(node.peer_id), node) or self.said(node)

    def said(self, node: Announcement) -> Point | None:
        """Where a node says it is, if that can be true."""
        return self._if_it_can_be(node.location, node)

    def _if_it_can_be(self, point: Point | None, node: Announcement) -> Point | None:
        """An answer that was here sooner than light could have brought it came from somewhere nearer."""
        round_trip = self.round_trips.get(node.peer_id)
        if point is None or self.location is None or round_trip is None:
            return point
        return point if _least_ms(distance_km(self.location, point)) <= round_trip else None


def _least_ms(kilometres: float) -> float:
    return 2 * (kilometres - _COARSE_KM) / _KM_PER_MS


def claimed_block_ms(node: Announcement) -> float:
    """Milliseconds that a token takes in one block of a node, as it says."""
    return UNKNOWN_BLOCK_MS if node.block_ms is None else max(node.block_ms, FASTEST_BLOCK_MS)


def block_ms_of(node: Announcement, known: Known) -> float:
    """Milliseconds that a token is expected to take in one block of a node."""
    seen = known.block_ms.get(node.peer_id)
    return claimed_block_ms(node) if seen is None else max(seen, FASTEST_BLOCK_MS)


def ways_ms(nodes: Sequence[Announcement], known: Known) -> list[float]:
    """For each node of a ring, milliseconds until the client hears of a token that it gave on, without what blocks
    take: the ways to it, queues, and the way back."""
    costs, found, so_far = costs_of(nodes, (0, nodes[0].block_count), replace(known, reliability={})), [], 0.0
    for index in range(len(nodes)):
        so_far += float(costs.link[index - 1, index] if index else costs.enter[0])
        found.append((so_far + float(costs.leave[index])) / _NS_PER_MS)
    return found


def costs_of(
    nodes: Sequence[Announcement],
    span: tuple[int, int],
    known: Known,
    before: str | None = None,
    after: str | None = None,
    others: Iterable[Announcement] = (),
) -> Costs:
    """The costs of chains of ``nodes`` over blocks ``[first, end)``.

    Args:
        before: who hands over the input; ``after``: who takes the output. Peer ids; None is the client.
        others: announcements among which those two may be.
    """
    neighbours = [_find(peer_id, others) for peer_id in (before, after)]
    places = [_Place.of(node, known) for node in nodes]
    for peer_id, node in zip((before, after), neighbours, strict=True):
        if node is not None:
            places.append(_Place.of(node, known))
        elif peer_id is not None:
            places.append(_Place(peer_id, None, None, None, ()))
        else:
            places.append(_Place("", None, known.location, known.location, ()))
    delays = _one_way(places)
    count = len(nodes)
    link, enter, leave = delays[:count, :count], delays[count, :count], delays[:count, count + 1]
    for index, node in enumerate(nodes):
        measured = known.round_trips.get(node.peer_id)
        if measured is not None:
            if before is None:
                enter[index] = round(measured / 2 * _NS_PER_MS)
            if after is None:
                leave[index] = round(measured / 2 * _NS_PER_MS)
    own = _whole_ns(np.array([_own_ms(node, known) for node in nodes]))
    link += own
    np.fill_diagonal(link, np.inf)
    first, end = span
    by_preference = sorted(
        range(count),
        key=lambda index: (
            -nodes[index].end_block,
            _PRECISION[nodes[index].quantization],
            -nodes[index].issued_at,
            nodes[index].peer_id,
        ),
    )
    rank = np.empty(count, dtype=np.intp)
    rank[by_preference] = np.arange(count)
    return Costs(
        blocks=end - first,
        first=np.array([max(node.first_block - first, 0) for node in nodes], dtype=np.intp),
        end=np.array([min(node.end_block, end) - first for node in nodes], dtype=np.intp),
        block_time=_whole_ns(np.array([block_ms_of(node, known) for node in nodes])),
        block_price=np.array([node.price_units for node in nodes], dtype=np.float64),
        enter=enter + own,
        link=link,
        leave=leave.copy(),
        rank=rank,
    )


def _own_ms(node: Announcement, known: Known) -> float:
    lost = (1.0 - known.reliability.get(node.peer_id, 1.0)) * known.pause_ms / known.tokens
    return HOP_MS + node.queue_ms + lost


def _whole_ns(milliseconds: Floats) -> Floats:
    return np.rint(milliseconds * _NS_PER_MS)


@dataclass(frozen=True)
class _Place:
    peer_id: str
    region: str | None
    point: Point | None
    said: Point | None
    """What light is held against: no more than the node's own word, for an address may be thought to be elsewhere."""
    links: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, node: Announcement, known: Known) -> _Place:
        return cls(node.peer_id, node.region, known.where(node), known.said(node), node.links)

    @property
    def site(self) -> _Site:
        return self.region, self.point, self.said


def _find(peer_id: str | None, nodes: Iterable[Announcement]) -> Announcement | None:
    return next((node for node in nodes if node.peer_id == peer_id), None) if peer_id is not None else None


def _one_way(places: Sequence[_Place]) -> Floats:
    """(places, places) nanoseconds: half the round trips, measured or guessed."""
    sites = {place.site: None for place in places}
    number = {site: index for index, site in enumerate(sites)}
    guessed, shortest = _between_sites(list(sites))
    site_of = np.array([number[place.site] for place in places], dtype=np.intp)
    delays: Floats = np.take(np.take(_whole_ns(guessed / 2), site_of, axis=0), site_of, axis=1)
    index_of = {place.peer_id: index for index, place in enumerate(places)}
    here, there, said = [], [], []
    for index, place in enumerate(places):
        for peer_id, round_trip in place.links:
            other = index_of.get(peer_id)
            if other is not None:
                here.append(index)
                there.append(other)
                said.append(round_trip)
    if said:
        ends, round_trips = np.array([here + there, there + here]), np.array(said + said)
        in_order = np.argsort(round_trips)  # where both ends have measured, the slower figure is written last
        one, other_end = ends[:, in_order]
        measured = np.maximum(round_trips[in_order], shortest[site_of[one], site_of[other_end]])
        delays[one, other_end] = _whole_ns(measured / 2)
    return delays


_Site = tuple[str | None, Point | None, Point | None]


def _between_sites(sites: Sequence[_Site]) -> tuple[Floats, Floats]:
    """(sites, sites) milliseconds: what a round trip is guessed to take, and the least it can take."""
    names = sorted({region for region, _, _ in sites if region is not None})
    number = {name: index for index, name in enumerate([None, *names])}
    table = np.full((len(number), len(number)), UNKNOWN_LINK_MS)
    for one in names:
        for other in names:
            is_near = one.partition("-")[0] == other.partition("-")[0]
            guess = SAME_REGION_LINK_MS if one == other else NEAR_REGION_LINK_MS if is_near else FAR_REGION_LINK_MS
            table[number[one], number[other]] = guess
    region_of = np.array([number[region] for region, _, _ in sites], dtype=np.intp)
    guessed = table[region_of[:, None], region_of]
    shortest = np.full_like(guessed, SHORTEST_LINK_MS)
    pairs, distances = _distances([point for _, point, _ in sites])
    guessed[pairs] = _DETOUR * 2 * distances / _KM_PER_MS + _LAST_MILE_MS
    pairs, distances = _distances([said for _, _, said in sites])
    shortest[pairs] = np.maximum(2 * (distances - _COARSE_KM) / _KM_PER_MS, SHORTEST_LINK_MS)
    return guessed, shortest


def _distances(points: Sequence[Point | None]) -> tuple[tuple[np.ndarray, ...], Floats]:
    """Where two points are known, as an index, and the kilometres between them along great circles.

    As :func:`discovery.geo.distance_km`, for all pairs at once; of near points a few metres are lost.
    """
    known = [point for point in points if point is not None]
    pairs = np.ix_(*[[index for index, point in enumerate(points) if point is not None]] * 2)
    latitude, longitude = np.radians(np.array(known, dtype=np.float64).reshape(-1, 2)).T
    across = np.cos(latitude)
    vectors = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
    angles: Floats = np.arccos(np.clip(vectors.T @ vectors, -1.0, 1.0))
    return pairs, EARTH_KM * angles
