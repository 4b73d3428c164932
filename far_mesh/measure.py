"""What a client finds out about nodes by itself: how far away they are, and how often they break off."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from discovery.dht.ping import round_trip, smoothed
from discovery.dht.transport import Transport
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import PeerAddress
from far_mesh.costs import Known

FRESH_SECONDS = 120.0
FORGET_SECONDS = 1800.0
PATIENCE_SECONDS = 0.15
"""The most that a session's opening waits for measurements."""
_ANSWER_SECONDS = 3.0
_MOST_AT_EACH_END = 8
_MOST_AT_ONCE = 16
_QUESTIONS = 3
_HALF_LIFE_SECONDS = 600.0
_GOOD_SESSIONS_ASSUMED = 5.0


OnFailed = Callable[[Sequence[str]], None]
"""Told the peer ids of nodes that could not be reached or broke off."""


@dataclass
class _Distance:
    asked_at: float
    milliseconds: float | None = None


@dataclass
class _Record:
    """Sessions that went well and that did not; what is older counts for less."""

    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0

    def add(self, now: float, *, good: bool) -> None:
        faded = _faded(now - self.at)
        self.good, self.bad, self.at = self.good * faded + good, self.bad * faded + (not good), now

    def reliability(self, now: float) -> float:
        faded = _faded(now - self.at)
        return 1.0 - self.bad * faded / ((self.good + self.bad) * faded + _GOOD_SESSIONS_ASSUMED)


def _faded(seconds: float) -> float:
    return math.exp2(-seconds / _HALF_LIFE_SECONDS)


@dataclass
class Measured:
    """Round trips to nodes that may be first or last of a route, and the nodes' record. Kept for one client.

    Attributes:
        now: a steady clock, in seconds.
        listeners: told of every failure.
    """

    transport: Transport
    now: Callable[[], float] = time.monotonic
    listeners: set[OnFailed] = field(default_factory=set)
    _distances: dict[str, _Distance] = field(default_factory=dict)
    _records: dict[str, _Record] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def known(self) -> Known:
        """What has been found out, to plan a route with."""
        now = self.now()
        self._forget(now)
        return Known(
            round_trips={
                peer_id: distance.milliseconds
                for peer_id, distance in self._distances.items()
                if distance.milliseconds is not None
            },
            reliability={peer_id: record.reliability(now) for peer_id, record in self._records.items()},
        )

    async def look(
        self, nodes: Sequence[Announcement], span: tuple[int, int], patience: float = PATIENCE_SECONDS
    ) -> None:
        """Ask nodes that could be first or last of a route through blocks ``[first, end)``.

        Waits for ``patience`` seconds at most, and not at all when all it asks are known; answers that come later are
        taken all the same.
        """
        now = self.now()
        self._forget(now)
        asked = []
        for node in _candidates(nodes, span, self._is_due):
            if len(self._asking) >= _MOST_AT_ONCE:
                break
            is_news = self._distances.get(node.peer_id) is None
            self._distances.setdefault(node.peer_id, _Distance(now)).asked_at = now
            task = self._asking[node.peer_id] = asyncio.create_task(self._ask(node))
            if is_news:
                asked.append(task)
        if asked:
            await asyncio.wait(asked, timeout=patience)

    def served(self, peer_ids: Iterable[str]) -> None:
        """They took a session, or one after the other's loss."""
        self._note(peer_ids, good=True)

    def failed(self, peer_ids: Iterable[str]) -> None:
        """They refused, could not be reached, or broke off."""
        failed = tuple(peer_ids)
        self._note(failed, good=False)
        for tell in self.listeners:
            tell(failed)

    async def close(self) -> None:
        """Ask nobody any more."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _is_due(self, peer_id: str) -> bool:
        distance = self._distances.get(peer_id)
        return peer_id not in self._asking and (distance is None or self.now() - distance.asked_at > FRESH_SECONDS)

    async def _ask(self, node: Announcement) -> None:
        address, distance = PeerAddress(PeerId(node.peer_id), node.maddrs), self._distances[node.peer_id]
        try:
            for _ in range(_QUESTIONS):
                taken = await round_trip(self.transport, address, node.model_digest, _ANSWER_SECONDS)
                distance.milliseconds = smoothed(distance.milliseconds, taken)
        except FarError:  # it stays unknown; opening a session there will tell
            return
        finally:
            self._asking.pop(node.peer_id, None)

    def _note(self, peer_ids: Iterable[str], *, good: bool) -> None:
        now = self.now()
        for peer_id in peer_ids:
            self._records.setdefault(peer_id, _Record(at=now)).add(now, good=good)

    def _forget(self, now: float) -> None:
        """Nodes come and go, so that memory would only grow."""
        for peer_id, distance in list(self._distances.items()):
            if now - distance.asked_at > FORGET_SECONDS and peer_id not in self._asking:
                del self._distances[peer_id]
        for peer_id, record in list(self._records.items()):
            if now - record.at > FORGET_SECONDS:
                del self._records[peer_id]


def _candidates(
    nodes: Sequence[Announcement], span: tuple[int, int], is_due: Callable[[str], bool]
) -> Iterable[Announcement]:
    """Some of those that could be first or last, by chance; others come the next time."""
    ready = [node for node in nodes if node.state == "ready"]
    chosen: dict[str, Announcement] = {}
    for block in (span[0], span[1] - 1):
        serving = [node for node in ready if node.first_block <= block < node.end_block]
        due = [node for node in serving if is_due(node.peer_id)]
        some = random.sample(due, min(len(due), _MOST_AT_EACH_END))
        chosen |= {node.peer_id: node for node in some}
    return chosen.values()
