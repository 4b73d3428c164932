"""What nodes have announced, by their own signatures, as it stands now. In memory, and pure: the time is an argument.

For each node and model the newest announcement counts. It is **active** until it expires by its own word or is older
than ``expiry_seconds``, whichever comes first, and stays as a tombstone for as long as an older one could still be
live: until ``expiry_seconds`` after it was issued. So a node that said it leaves is not brought back by what it said
before, and nothing is remembered for longer than it matters.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from discovery.geo import Point, distance_km
from discovery.location import is_in
from discovery.protocol.announcement import CLOCK_SKEW_SECONDS, LIFETIME_SECONDS, Announcement, SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.service.errors import MirrorFull
from discovery.web.errors import ProofStale

MOST_ANNOUNCEMENTS = 100_000
MOST_PER_NODE = 64
"""Ids cost nothing, so what is kept has a bound: of all, and of one node."""

_MARK_BYTES = 16

Value = TypeVar("Value", str, int, Point)


class Source(StrEnum):
    """DHT: read on the DHT. SENT: brought over HTTP by the node itself."""

    DHT = "dht"
    SENT = "sent"


@dataclass(frozen=True, eq=False)
class Entry:
    """An announcement that counts, or that keeps older ones from counting. It is active before ``ends_at``.

    Attributes:
        name: of its node and model; by the names entries have an order.
        place: where its node is; None: nobody knows.
    """

    name: str
    signed: SignedAnnouncement
    source: Source
    ends_at: int
    mark: bytes
    place: Point | None

    @property
    def announcement(self) -> Announcement:
        """What was announced."""
        return self.signed.announcement

    @property
    def peer_id(self) -> str:
        """Whose it is."""
        return self.signed.announcement.peer_id

    @property
    def order(self) -> tuple[int, int]:
        """The greater one is the newer."""
        return self.announcement.issued_at, self.announcement.expires_at


Found = tuple[float, str]
"""How far an entry is from a point that was asked about, in kilometres, 0 where there is none; and its name."""


class View:
    """The active announcements of a model in the order of their nodes' ids, as they stand: it changes with the mirror.

    They are counted and put in their places as they come. Most of what comes is a renewal, which changes neither.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[Found] = []
        self._ready: list[Found] = []
        self._places: dict[Point, list[Found]] = {}
        self._regions: dict[str, list[Found]] = {}
        self._tallies: dict[str, _Tally] = {}
        self._digests: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    @property
    def entries(self) -> list[Entry]:
        """All of them."""
        return [self._entries[name] for _, name in self._order]

    @property
    def ready(self) -> Sequence[Found]:
        """Those whose nodes take requests."""
        return self._ready

    def near(self, where: Point, most_km: float) -> Sequence[Found]:
        """Of those the ones within so many kilometres, the nearest first. Who is nowhere is not near."""
        by_distance: dict[float, list[str]] = defaultdict(list)
        for point, there in self._places.items():
            apart = round(distance_km(where, point), 1)
            if apart <= most_km:
                by_distance[apart] += [name for _, name in there]
        return [(apart, name) for apart in sorted(by_distance) for name in sorted(by_distance[apart])]

    def within(self, region: str) -> Sequence[Found]:
        """Of those the ones in a region or a part of it."""
        return sorted(chain.from_iterable(there for named, there in self._regions.items() if is_in(named, region)))

    @property
    def digests(self) -> Sequence[tuple[float, str]]:
        """By weights, those that most nodes serve first: minus how many do, and the digest. A name is anybody's to
        take; weights are what they are."""
        return self._digests

    def variant(self, model_digest: str) -> Variant:
        """The model by one of these."""
        return self._tallies[model_digest].variant(model_digest)

    def put(self, entry: Entry) -> None:
        """Somebody came, or has renewed what it said."""
        before = self._entries.get(entry.name)
        if before is None or _counted(before) != _counted(entry):
            self.remove(entry.name)
            self._count(entry)
        self._entries[entry.name] = entry

    def remove(self, name: str) -> bool:
        """Somebody is gone; whether it was there."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._count(entry, gone=True)
        return entry is not None

    def _count(self, entry: Entry, gone: bool = False) -> None:
        about, one = entry.announcement, (0.0, entry.name)
        into = _cut if gone else insort
        into(self._order, one)
        tally = self._tallies.setdefault(about.model_digest, _Tally())
        if tally.nodes:
            _cut(self._digests, (-tally.ready, about.model_digest))
        tally.count(about, -1 if gone else 1)
        if tally.nodes:
            insort(self._digests, (-tally.ready, about.model_digest))
        else:
            del self._tallies[about.model_digest]
        if about.state == "ready":
            into(self._ready, one)
            _into(self._places, entry.place, one, gone)
            _into(self._regions, about.region, one, gone)


@dataclass(frozen=True)
class Variant:
    """A model by its weights. Its name and its number of blocks are what most of its nodes say.

    Attributes:
        nodes: how many announce it, ``ready`` how many of them take requests.
        replicas: for each block, how many nodes serve it and mean to stay.
    """

    model_digest: str
    model_id: str
    block_count: int
    nodes: int
    ready: int
    replicas: tuple[int, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every block has a node."""
        return min(self.replicas) > 0


@dataclass
class _Tally:
    """What is said of one digest, counted. ``steps``: by number of blocks, at which block how many more nodes serve."""

    names: Counter[str] = field(default_factory=Counter)
    block_counts: Counter[int] = field(default_factory=Counter)
    steps: dict[int, Counter[int]] = field(default_factory=dict)
    nodes: int = 0
    ready: int = 0

    def count(self, about: Announcement, times: int) -> None:
        self.nodes += times
        _add(self.names, about.model_id, times)
        _add(self.block_counts, about.block_count, times)
        if about.state == "ready":
            self.ready += times
            steps = self.steps.setdefault(about.block_count, Counter())
            _add(steps, about.first_block, times)
            _add(steps, about.end_block, -times)
            if not steps:
                del self.steps[about.block_count]

    def variant(self, model_digest: str) -> Variant:
        block_count = _most(self.block_counts)
        replicas: list[int] = []
        serving = 0
        for block, more in sorted(self.steps.get(block_count, Counter[int]()).items()):
            replicas += [serving] * (block - len(replicas))
            serving += more
        replicas += [serving] * (block_count - len(replicas))
        return Variant(model_digest, _most(self.names), block_count, self.nodes, self.ready, tuple(replicas))


class Mirror:
    """Owner of what was announced.

    Args:
        prefix: the swarm; announcements for another one are refused.
        expiry_seconds: after that an announcement that was not renewed counts no more, whatever it says itself.
        where: says where the node of an announcement is; asked once for each.
    """

    def __init__(
        self,
        prefix: str,
        expiry_seconds: int = LIFETIME_SECONDS,
        most: int = MOST_ANNOUNCEMENTS,
        where: Callable[[Announcement], Point | None] = attrgetter("location"),
    ) -> None:
        self._prefix, self._expiry, self._most, self._where = prefix, expiry_seconds, most, where
        self._entries: dict[str, Entry] = {}
        self._marks: set[bytes] = set()
        self._by_node: dict[str, dict[str, Entry]] = {}
        self._by_model: dict[str, View] = {}
        """What is active, by digest and by name; no name is taken for a digest."""
        self._digests: list[str] = []
        self._ends: list[tuple[int, str]] = []
        """A heap of when entries end; those that were renewed meanwhile end later."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def swarm(self) -> str:
        """Whose announcements count."""
        return self._prefix

    @property
    def expiry_seconds(self) -> int:
        """After that an announcement that was not renewed counts no more."""
        return self._expiry

    def knows(self, document: bytes) -> bool:
        """Whether exactly this document was taken and still matters: it need not be checked again."""
        return _mark(document) in self._marks

    def take(self, signed: SignedAnnouncement, now: float, source: Source) -> bool:
        """An announcement whose signature was checked. False: it was known already.

        Raises:
            AnnouncementInvalid: it is for another swarm, expired, or from the future.
            ProofStale: it is not newer than what its node said last.
            MirrorFull: there are as many as may be.
        """
        about, document = signed.announcement, signed.to_bytes()
        if about.swarm != self._prefix:
            raise AnnouncementInvalid("the announcement is meant for another swarm")
        if about.issued_at > now + CLOCK_SKEW_SECONDS:
            raise AnnouncementInvalid("the announcement is from the future: is the node's clock right?")
        ends_at = min(about.expires_at, about.issued_at + self._expiry)
        if ends_at <= now:
            raise AnnouncementInvalid("the announcement has expired")
        name = f"{about.peer_id}/{about.model_digest}"
        entry = Entry(name, signed, source, ends_at, _mark(document), self._where(about))
        before = self._entries.get(name)
        if before is None:
            self._check_room(about.peer_id)
        elif before.mark == entry.mark:
            return False
        elif entry.order <= before.order:
            raise ProofStale("an announcement that is as new is here already")
        else:
            self._marks.discard(before.mark)
            if before.announcement.model_id != about.model_id:
                self._unlist(before)
        self._entries[name] = entry
        self._marks.add(entry.mark)
        self._by_node.setdefault(about.peer_id, {})[about.model_digest] = entry
        self._list(entry)
        return True

    def sweep(self, now: float) -> None:
        """Forget what can make no difference any more."""
        self._expire(now)
        for entry in [one for one in self._entries.values() if one.announcement.issued_at + self._expiry <= now]:
            del self._entries[entry.name]
            self._marks.discard(entry.mark)
            mine = self._by_node[entry.peer_id]
            del mine[entry.announcement.model_digest]
            if not mine:
                del self._by_node[entry.peer_id]

    def view(self, model: str, now: float) -> View:
        """The active announcements of a model, named by its id or by the digest of its weights."""
        self._expire(now)
        return self._by_model.get(_DIGEST + model) or self._by_model.get(_ID + model) or View()

    def digests(self, now: float) -> Sequence[str]:
        """Digests of all models that are announced, in their order."""
        self._expire(now)
        return self._digests

    def node(self, peer_id: str, now: float) -> list[Entry]:
        """The active announcements of a node, one for each model."""
        entries = self._by_node.get(peer_id, {}).values()
        return sorted((one for one in entries if one.ends_at > now), key=attrgetter("announcement.model_digest"))

    def active(self, now: float) -> Iterator[Entry]:
        """All that is active."""
        return (entry for entry in self._entries.values() if entry.ends_at > now)

    def worth_keeping(self) -> list[Entry]:
        """What the DHT would not tell again after a restart: what was sent here, and who is leaving."""
        return [
            entry
            for entry in self._entries.values()
            if entry.source is Source.SENT or entry.announcement.state == "leaving"
        ]

    def _check_room(self, peer_id: str) -> None:
        if len(self._entries) >= self._most:
            raise MirrorFull(f"{self._most} announcements are here already, and there is no room for more")
        if len(self._by_node.get(peer_id, ())) >= MOST_PER_NODE:
            raise MirrorFull(f"{peer_id} announces {MOST_PER_NODE} models already")

    def _expire(self, now: float) -> None:
        """Take off the lists what has ended."""
        while self._ends and self._ends[0][0] <= now:
            entry = self._entries.get(heappop(self._ends)[1])
            if entry is not None and entry.ends_at <= now:
                self._unlist(entry)

    def _list(self, entry: Entry) -> None:
        heappush(self._ends, (entry.ends_at, entry.name))
        about = entry.announcement
        if _DIGEST + about.model_digest not in self._by_model:
            insort(self._digests, about.model_digest)
        for name in _names(about):
            self._by_model.setdefault(name, View()).put(entry)

    def _unlist(self, entry: Entry) -> None:
        about = entry.announcement
        for name in _names(about):
            view = self._by_model.get(name)
            if view is not None and view.remove(entry.name) and not view:
                del self._by_model[name]
                if name == _DIGEST + about.model_digest:
                    del self._digests[bisect_left(self._digests, about.model_digest)]


_DIGEST, _ID = "digest/", "id/"


def _names(about: Announcement) -> tuple[str, str]:
    return _DIGEST + about.model_digest, _ID + about.model_id


def _mark(document: bytes) -> bytes:
    return blake2b(document, digest_size=_MARK_BYTES).digest()


_SAID = attrgetter("model_id", "block_count", "first_block", "end_block", "state", "region")


def _counted(entry: Entry) -> tuple[object, ...]:
    """What decides in which places of a view an entry stands."""
    return entry.place, _SAID(entry.announcement)


def _cut(found: list[Found], one: Found) -> None:
    del found[bisect_left(found, one)]


def _into(index: dict[Value, list[Found]], key: Value | None, one: Found, gone: bool) -> None:
    if key is None:
        return
    if not gone:
        insort(index.setdefault(key, []), one)
        return
    _cut(index[key], one)
    if not index[key]:
        del index[key]


def _add(counts: Counter[Value], key: Value, times: int) -> None:
    counts[key] += times
    if not counts[key]:
        del counts[key]


def _most(said: Counter[Value]) -> Value:
    """The one that is said most often; of several the least."""
    return min(said, key=lambda value: (-said[value], value))
