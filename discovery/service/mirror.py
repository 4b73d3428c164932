"""What nodes have announced, by their own signatures, as it stands now. In memory, and pure: the time is an argument.

For each node and model the newest announcement counts. It is **active** until it expires by its own word or is older
than ``expiry_seconds``, whichever comes first, and stays as a tombstone for as long as an older one could still be
live: until ``expiry_seconds`` after it was issued. So a node that said it leaves is not brought back by what it said
before, and nothing is remembered for longer than it matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from operator import attrgetter
from typing import TypeVar

from discovery.placement import coverage
from discovery.protocol.announcement import CLOCK_SKEW_SECONDS, LIFETIME_SECONDS, Announcement, SignedAnnouncement
from discovery.protocol.errors import AnnouncementInvalid
from discovery.service.errors import MirrorFull
from discovery.web.errors import ProofStale

MOST_ANNOUNCEMENTS = 100_000
MOST_PER_NODE = 64
"""Ids cost nothing, so what is kept has a bound: of all, and of one node."""

_MARK_BYTES = 16

Key = TypeVar("Key")
Value = TypeVar("Value", str, int)


class Source(StrEnum):
    """DHT: read on the DHT. SENT: brought over HTTP by the node itself."""

    DHT = "dht"
    SENT = "sent"


@dataclass(frozen=True)
class Entry:
    """An announcement that counts, or that keeps older ones from counting. It is active before ``ends_at``."""

    signed: SignedAnnouncement
    source: Source
    ends_at: int
    mark: bytes

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


@dataclass(frozen=True)
class View:
    """The active announcements of a model in the order of their nodes' ids. It is true before ``until``."""

    entries: tuple[Entry, ...]
    until: float

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """By weights, those that most nodes serve first. A name is anybody's to take; weights are what they are."""
        by_digest: dict[str, list[Announcement]] = {}
        for entry in self.entries:
            by_digest.setdefault(entry.announcement.model_digest, []).append(entry.announcement)
        found = (Variant.of(digest, nodes) for digest, nodes in by_digest.items())
        return tuple(sorted(found, key=lambda one: (-one.ready, one.model_digest)))


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

    @classmethod
    def of(cls, model_digest: str, nodes: Iterable[Announcement]) -> Variant:
        """What these announcements of one digest say together."""
        nodes = list(nodes)
        model_id = _most(about.model_id for about in nodes)
        block_count = _most(about.block_count for about in nodes)
        ready = sum(about.state == "ready" for about in nodes)
        return cls(model_digest, model_id, block_count, len(nodes), ready, tuple(coverage(nodes, block_count)))

    @property
    def is_complete(self) -> bool:
        """Whether every block has a node."""
        return min(self.replicas) > 0


class Mirror:
    """Owner of what was announced.

    Args:
        prefix: the swarm; announcements for another one are refused.
        expiry_seconds: after that an announcement that was not renewed counts no more, whatever it says itself.
    """

    def __init__(self, prefix: str, expiry_seconds: int = LIFETIME_SECONDS, most: int = MOST_ANNOUNCEMENTS) -> None:
        self._prefix, self._expiry, self._most = prefix, expiry_seconds, most
        self._entries: dict[tuple[str, str], Entry] = {}
        self._marks: set[bytes] = set()
        self._by_node: dict[str, dict[str, Entry]] = {}
        self._by_model: dict[str, dict[tuple[str, str], Entry]] = {}
        """By digest and by name; no name is taken for a digest."""
        self._views: dict[str, View] = {}

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
        entry = Entry(signed, source, min(about.expires_at, about.issued_at + self._expiry), _mark(document))
        if entry.ends_at <= now:
            raise AnnouncementInvalid("the announcement has expired")
        key = about.peer_id, about.model_digest
        before = self._entries.get(key)
        if before is None:
            self._check_room(about.peer_id)
        elif before.mark == entry.mark:
            return False
        elif entry.order <= before.order:
            raise ProofStale("an announcement that is as new is here already")
        else:
            self._drop(key, before)
        self._entries[key] = entry
        self._marks.add(entry.mark)
        self._by_node.setdefault(about.peer_id, {})[about.model_digest] = entry
        for name in _names(about):
            self._by_model.setdefault(name, {})[key] = entry
        self._forget_views(about)
        return True

    def sweep(self, now: float) -> None:
        """Forget what can make no difference any more."""
        old = [one for one in self._entries.items() if one[1].announcement.issued_at + self._expiry <= now]
        for key, entry in old:
            del self._entries[key]
            self._drop(key, entry)

    def view(self, model: str, now: float) -> View:
        """The active announcements of a model, named by its id or by the digest of its weights."""
        name = _digest_name(model) if _digest_name(model) in self._by_model else _id_name(model)
        view = self._views.get(name)
        if view is None or now >= view.until:
            active = [entry for entry in self._by_model.get(name, {}).values() if entry.ends_at > now]
            active.sort(key=attrgetter("peer_id", "announcement.model_digest"))
            until = min((entry.ends_at for entry in active), default=float("inf"))
            view = View(tuple(active), until)
            if name in self._by_model:
                self._views[name] = view
        return view

    def digests(self) -> list[str]:
        """Digests of all models that are announced, in their order."""
        return sorted(name.removeprefix(_DIGEST) for name in self._by_model if name.startswith(_DIGEST))

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

    def _drop(self, key: tuple[str, str], entry: Entry) -> None:
        """Out of the indexes."""
        self._marks.discard(entry.mark)
        peer_id, model_digest = key
        _remove(self._by_node, peer_id, model_digest)
        for name in _names(entry.announcement):
            _remove(self._by_model, name, key)
        self._forget_views(entry.announcement)

    def _forget_views(self, about: Announcement) -> None:
        for name in _names(about):
            self._views.pop(name, None)


_DIGEST, _ID = "digest/", "id/"


def _digest_name(model: str) -> str:
    return _DIGEST + model


def _id_name(model: str) -> str:
    return _ID + model


def _names(about: Announcement) -> tuple[str, str]:
    return _digest_name(about.model_digest), _id_name(about.model_id)


def _mark(document: bytes) -> bytes:
    return blake2b(document, digest_size=_MARK_BYTES).digest()


def _remove(index: dict[str, dict[Key, Entry]], name: str, key: Key) -> None:
    inner = index.get(name, {})
    inner.pop(key, None)
    if not inner:
        index.pop(name, None)


def _most(values: Iterable[Value]) -> Value:
    """The one that is said most often; of several the least."""
    said = Counter(values)
    return min(said, key=lambda value: (-said[value], value))
