"""What a client finds out about nodes by itself: how far away they are, how fast, how often they break off, and whether
they lie. Scores and chances are those of :mod:`discovery.score`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from discovery.dht.ping import round_trip, smoothed
from discovery.dht.transport import Transport
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import PeerAddress
from discovery.score import HALF_LIFE_SECONDS, Observations, Outcome, chance_of_loss, score_of
from far_mesh.costs import LOST_PAUSE_MS, LOST_TOKENS, Known, claimed_block_ms, ways_ms
from far_mesh.speeds import Key, Speeds, Worked

if TYPE_CHECKING:
    from far_mesh.route import RouteHop
    from far_mesh.session import Ended

FRESH_SECONDS = 120.0
FORGET_SECONDS = 1800.0
_LIES_SECONDS = 10 * HALF_LIFE_SECONDS
PATIENCE_SECONDS = 0.15
"""The most that a session's opening waits for measurements."""
_ANSWER_SECONDS = 3.0
_MOST_AT_EACH_END = 8
_MOST_AT_ONCE = 16
_QUESTIONS = 3
_HALF_LIFE_SECONDS = 600.0
"""Of failures, for the choice of the next route: what broke off a moment ago may be gone. Lies count for longer."""
_GUESS_COUNTS, _MOST_COUNTS = 5.0, 100.0


OnSeen = Callable[[Sequence[str], Outcome, float], None]
"""Told peer ids, what went wrong there, and how sure that is, from 0 to 1."""


@dataclass
class _Distance:
    asked_at: float
    milliseconds: float | None = None


@dataclass
class _Memory:
    """What was seen of nodes; what is older counts for less."""

    half_life: float
    _seen: dict[str, tuple[Observations, float]] = field(default_factory=dict)

    def add(self, peer_id: str, outcome: Outcome, now: float, times: float = 1.0) -> None:
        seen, at = self._seen.get(peer_id, (Observations(), now))
        self._seen[peer_id] = seen.faded(now - at, self.half_life).plus(outcome, times), now

    def now(self, now: float) -> dict[str, Observations]:
        return {peer_id: seen.faded(now - at, self.half_life) for peer_id, (seen, at) in self._seen.items()}

    def forget(self, before: float) -> None:
        """Those of whom nothing was seen since."""
        self._seen = {peer_id: one for peer_id, one in self._seen.items() if one[1] >= before}


@dataclass
class _Mean:
    """A mean that begins as a guess, which counts as much as a few values; what is older counts for less."""

    value: float
    weight: float = _GUESS_COUNTS

    def add(self, value: float) -> None:
        self.weight = min(self.weight, _MOST_COUNTS) + 1.0
        self.value += (value - self.value) / self.weight


@dataclass
class Measured:
    """Round trips to nodes that may be first or last of a route, and the nodes' record. Kept for one client.

    Attributes:
        now: a steady clock, in seconds.
        listeners: told of every failure.
    """

    transport: Transport
    now: Callable[[], float] = time.monotonic
    listeners: set[OnSeen] = field(default_factory=set)
    told: Mapping[str, Observations] = field(default_factory=dict)
    """What others remember of nodes for us, such as the registry of a gateway: of weeks, and what its fellows saw."""
    speeds: Speeds = field(default_factory=Speeds)
    _distances: dict[str, _Distance] = field(default_factory=dict)
    _recent: _Memory = field(default_factory=lambda: _Memory(_HALF_LIFE_SECONDS))
    _lies: _Memory = field(default_factory=lambda: _Memory(HALF_LIFE_SECONDS))
    _pause_ms: _Mean = field(default_factory=lambda: _Mean(LOST_PAUSE_MS))
    _tokens: _Mean = field(default_factory=lambda: _Mean(LOST_TOKENS))
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def known(self, nodes: Sequence[Announcement] = ()) -> Known:
        """What has been found out, to plan a route with. Of ``nodes`` also how fast they are."""
        now = self.now()
        self._forget(now)
        recent, lies = self._recent.now(now), self._lies.now(now)
        risks = {peer_id: chance_of_loss(seen) for peer_id, seen in self.told.items() if seen.anything}
        for peer_id, seen in recent.items():
            risks[peer_id] = max(risks.get(peer_id, 0.0), chance_of_loss(seen))
        suspects = {*lies, *(peer_id for peer_id, seen in self.told.items() if seen.receipts_rejected)}
        suspects |= {peer_id for peer_id, seen in self.told.items() if seen.probes_wrong}
        nobody = Observations()
        return Known(
            round_trips={
                peer_id: distance.milliseconds
                for peer_id, distance in self._distances.items()
                if distance.milliseconds is not None
            },
            reliability={peer_id: 1.0 - risk for peer_id, risk in risks.items()},
            dishonest=frozenset(
                peer_id
                for peer_id in suspects
                if not _believed(self.told.get(peer_id, nobody), lies.get(peer_id, nobody))
            ),
            block_ms={node.peer_id: self.speeds.of(_key(node), claimed_block_ms(node), now) for node in nodes},
            pause_ms=self._pause_ms.value,
            tokens=self._tokens.value,
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
            task = self._begin(node)
            if is_news:
                asked.append(task)
        if asked:
            await asyncio.wait(asked, timeout=patience)

    def served(self, peer_ids: Iterable[str]) -> None:
        """They took a session, or one after the other's loss."""
        now = self.now()
        for peer_id in peer_ids:
            self._recent.add(peer_id, Outcome.COMPLETED, now)

    def failed(self, peer_ids: Iterable[str], outcome: Outcome = Outcome.FAILED) -> None:
        """They refused, could not be reached, or broke off."""
        failed, now = tuple(peer_ids), self.now()
        for peer_id in failed:
            self._recent.add(peer_id, outcome, now)
        self._tell(failed, outcome)

    def paused(self, seconds: float) -> None:
        """So long a session stood still until lost nodes were replaced."""
        self._pause_ms.add(1000.0 * seconds)

    def ended(self, session: Ended, known: Known) -> None:
        """A session is over; ``known`` is what is known of its nodes. Its receipts and its rounds tell of them."""
        now = self.now()
        for peer_id, sure in session.verified.blamed().items():
            self._lies.add(peer_id, Outcome.REJECTED, now, sure)
            self._tell((peer_id,), Outcome.REJECTED, sure)
        if session.steps:
            self._tokens.add(session.steps)
        if any(session.heard_ms):
            ways = ways_ms([hop.node for hop in session.route], known)
            ring = [Worked(_key(one.node), claimed_block_ms(one.node), _length(one)) for one in session.route]
            for end, heard_ms in enumerate(session.heard_ms, 1):
                if heard_ms is not None:
                    self.speeds.learn(ring[:end], ways[end - 1], heard_ms, now)

    def ask(self, nodes: Iterable[Announcement]) -> None:
        """Find out how far away they are, of whom that is not known; nobody waits for it."""
        for node in nodes:
            if self._is_due(node.peer_id) and len(self._asking) < _MOST_AT_ONCE:
                self._begin(node)

    def _begin(self, node: Announcement) -> asyncio.Task[None]:
        self._distances.setdefault(node.peer_id, _Distance(self.now())).asked_at = self.now()
        task = self._asking[node.peer_id] = asyncio.create_task(self._ask(node))
        return task

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

    def _tell(self, peer_ids: Sequence[str], outcome: Outcome, sure: float = 1.0) -> None:
        for tell in self.listeners:
            tell(peer_ids, outcome, sure)

    def _forget(self, now: float) -> None:
        """Nodes come and go, so that memory would only grow."""
        for peer_id, distance in list(self._distances.items()):
            if now - distance.asked_at > FORGET_SECONDS and peer_id not in self._asking:
                del self._distances[peer_id]
        self._recent.forget(now - FORGET_SECONDS)
        self._lies.forget(now - _LIES_SECONDS)
        self.speeds.forget(now)


def _believed(told: Observations, seen: Observations) -> bool:
    """Whether a node is honest enough. What we saw ourselves may be among what others remember, and counts once."""
    wrong = max(told.receipts_rejected, seen.receipts_rejected)
    return score_of(replace(told, receipts_rejected=wrong)).is_honest_enough


def _key(node: Announcement) -> Key:
    return node.peer_id, node.model_digest


def _length(hop: RouteHop) -> int:
    return hop.end_block - hop.first_block


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
