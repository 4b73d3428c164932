"""A swarm as data: nodes that come, serve, move and go, placed by rules, with the functions that real nodes ask.

Time goes in ticks. A node announces itself every 30 s, and what it announced stays visible until it expires, 120 s
after the last time, if it does not say goodbye. A node that moves says where to, serves nothing while it loads, and is
then there. Sessions are not simulated one by one: a placement is judged by the tokens a second that it can pass at most
(:func:`benchmarks.support.throughput.most_tokens`), and by routes that the real planner finds in it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.geo_routing import CITIES, City
from benchmarks.support.throughput import most_tokens
from discovery.placement import Decision, Move, Patience, Promises, choose, decide, planned, site_at
from discovery.protocol.announcement import LIFETIME_SECONDS, RENEW_SECONDS, Announcement
from discovery.protocol.ids import PeerId
from far_node.capacity import share_blocks
from far_node.errors import DoesNotFit
from far_node.placement import HOLE_SECONDS, TELL_SECONDS
from tests.support.routes import announcement_of

BLOCK_MS = (0.2, 2.0)
MEMORY = (6, 8, 10, 11, 12, 16, 24, 32)
"""GB of the cards that people have; of these 2 stay free."""
RESERVE = 2
_BELIEVED_AGAIN = 10.0  # seconds after which it is looked again who is believed


@dataclass(frozen=True)
class Scene:
    """What happens to a swarm. Times are seconds.

    Attributes:
        per_gb: blocks that fit into a GB.
        churn: share of nodes that leave in an hour; as many come.
        polite: share of those that say goodbye.
        load_seconds: from the end of the old blocks to serving the new ones.
        look_seconds: between two looks of a node at everything.
        liars: share of nodes that say that they go wherever there is a hole, and never do.
    """

    nodes: int
    blocks: int
    per_gb: float = 0.5
    churn: float = 0.05
    polite: float = 0.5
    load_seconds: float = 20.0
    look_seconds: float = 600.0
    liars: float = 0.0
    tick: float = 5.0
    cities: tuple[City, ...] = CITIES


@dataclass
class SimNode:
    """One machine. ``said`` is what the swarm has of it; ``serving`` whether it serves these blocks now."""

    number: int
    memory: int
    city: City
    said: Announcement
    expires: float
    alive: bool = True
    serving: bool = True
    loads: tuple[float, tuple[int, int]] | None = None
    confirms: float | None = None
    next_hole: float = 0.0
    next_look: float = 0.0
    lies: bool = False
    earned: float = 0.0
    patience: Patience = field(default_factory=Patience)

    @property
    def block_ms(self) -> float:
        assert self.said.block_ms is not None
        return self.said.block_ms

    @property
    def length(self) -> int:
        return self.said.end_block - self.said.first_block


@dataclass
class Minute:
    """What was seen in a minute of a run."""

    at: float
    nodes: int
    covered: float
    throughput: float
    ideal: float
    moves: int
    loading: int


class Swarm:
    """A run: a scene, a rule, and chance."""

    def __init__(self, scene: Scene, rule: Rule, seed: int) -> None:
        self.scene, self.rule, self.dice = scene, rule, random.Random(seed)
        self.now, self.moves, self.loading_seconds = 0.0, 0, 0.0
        self.nodes: dict[str, SimNode] = {}
        self.version = 0
        """Counts what changes what can be seen."""
        self.minutes: list[Minute] = []
        self._number = 0
        self._seen: tuple[int, list[Announcement]] = (-1, [])

    # ---- what the rules see and do

    def visible(self) -> list[Announcement]:
        """What everybody sees; the same list until something changes."""
        if self._seen[0] != self.version:
            self._seen = (self.version, [node.said for node in self.nodes.values()])
        return self._seen[1]

    def set_out(self, node: SimNode, to: tuple[int, int] | None) -> None:
        """It says where it goes, or that it does not."""
        node.said = node.said.model_copy(update={"moving_to": to})
        self.version += 1

    def load(self, node: SimNode, to: tuple[int, int], *, first: bool = False) -> None:
        """It gives up its blocks and loads others."""
        node.serving, node.confirms = False, None
        node.loads = (self.now + self.scene.load_seconds, to)
        node.said = node.said.model_copy(update={"state": "leaving", "moving_to": to})
        self.version += 1
        self.moves += not first

    # ---- what happens

    def populate(self) -> None:
        """The nodes come one after the other, and serve at once."""
        for _ in range(self.scene.nodes):
            self._arrive()
        for node in self.nodes.values():
            if node.loads is not None:
                self._finish(node)
        self.moves = 0

    def lose(self, share: float) -> None:
        """A share of the nodes is gone without a word."""
        for peer_id in self.dice.sample(sorted(self.nodes), round(share * len(self.nodes))):
            self._crash(self.nodes[peer_id])

    def run(self, seconds: float) -> None:
        """Let time pass."""
        scene, until = self.scene, self.now + seconds
        while self.now < until - 1e-9:
            self.now += scene.tick
            leaving = scene.churn * scene.tick / 3600
            for node in list(self.nodes.values()):
                if node.alive and self.dice.random() < leaving:
                    self._leave(node)
            for _ in range(_poisson(self.dice, scene.nodes * leaving)):
                self._arrive()
            for node in list(self.nodes.values()):
                if not node.alive and self.now >= node.expires:
                    del self.nodes[node.said.peer_id]
                    self.version += 1
                elif node.loads is not None and self.now >= node.loads[0]:
                    self._finish(node)
            self.rule.act(self)
            self.loading_seconds += scene.tick * sum(node.loads is not None for node in self.nodes.values())
            if self.now % 60 < scene.tick:
                self._note()

    def holes(self) -> int:
        """Blocks that nobody serves."""
        return int((self.served() == 0).sum())

    def served(self) -> np.ndarray:
        """(blocks,) how many nodes serve each, in truth."""
        found = np.zeros(self.scene.blocks, dtype=int)
        for node in self.nodes.values():
            if node.alive and node.serving:
                found[node.said.first_block : node.said.end_block] += 1
        return found

    def throughput(self) -> float:
        """Tokens a second at most, in truth."""
        return most_tokens(
            [
                (node.said.first_block, node.said.end_block, 1000.0 / node.block_ms)
                for node in self.nodes.values()
                if node.alive and node.serving
            ],
            self.scene.blocks,
        )

    def ideal(self) -> float:
        """Tokens a second if the work of all could be divided at will."""
        return sum(1000.0 / node.block_ms for node in self.nodes.values() if node.alive) / self.scene.blocks

    def _note(self) -> None:
        alive = sum(node.alive for node in self.nodes.values())
        covered = 1 - self.holes() / self.scene.blocks
        loading = sum(node.loads is not None for node in self.nodes.values())
        self.minutes.append(Minute(self.now, alive, covered, self.throughput(), self.ideal(), self.moves, loading))

    def _arrive(self) -> None:
        scene, dice, number = self.scene, self.dice, self._number
        self._number += 1
        city, memory = dice.choice(scene.cities), dice.choice(MEMORY)
        low, high = BLOCK_MS
        length = max(1, min(scene.blocks, int((memory - RESERVE) * scene.per_gb)))
        said = announcement_of(
            number,
            block_count=scene.blocks,
            first_block=0,
            end_block=length,
            block_ms=low * (high / low) ** dice.random(),
            location=(round(city.point[0]), round(city.point[1])),
            auto_place=True,
        )
        node = SimNode(number, memory, city, said, expires=float("inf"))
        node.lies = scene.liars > 0 and dice.random() < scene.liars
        node.next_hole = self.now + HOLE_SECONDS * dice.uniform(0.5, 1.5)
        node.next_look = self.now + scene.look_seconds * dice.uniform(0.5, 1.5)
        to = self.rule.first_place(self, node)
        self.nodes[said.peer_id] = node
        self.version += 1
        if to is None:
            node.serving = False
            node.said = node.said.model_copy(update={"state": "leaving"})
        else:
            self.load(node, to, first=True)

    def _finish(self, node: SimNode) -> None:
        assert node.loads is not None
        first, end = node.loads[1]
        node.loads, node.serving = None, True
        changes = {"first_block": first, "end_block": end, "state": "ready", "moving_to": None}
        node.said = node.said.model_copy(update=changes)
        self.version += 1

    def _leave(self, node: SimNode) -> None:
        if self.dice.random() < self.scene.polite:
            del self.nodes[node.said.peer_id]
            self.version += 1
        else:
            self._crash(node)

    def _crash(self, node: SimNode) -> None:
        node.alive = node.serving = False
        node.loads = node.confirms = None
        node.expires = self.now + LIFETIME_SECONDS - self.dice.uniform(0, RENEW_SECONDS)


class Rule(ABC):
    """Where nodes go."""

    @abstractmethod
    def first_place(self, swarm: Swarm, node: SimNode) -> tuple[int, int] | None:
        """Of a node that comes; None: it waits."""

    @abstractmethod
    def act(self, swarm: Swarm) -> None:
        """After each tick."""


@dataclass
class Ours(Rule):
    """:mod:`discovery.placement`, as :class:`far_node.placement.Mover` asks it.

    All nodes see the same here, so that the plan is made once for all who count on the same ones.
    """

    _plans: dict[frozenset[str], tuple[Move, ...]] = field(default_factory=dict)
    _made_at: tuple[int, int] = (-1, -1)
    _believed: list[Announcement] = field(default_factory=list)
    _promises: Promises = field(default_factory=Promises)

    def first_place(self, swarm: Swarm, node: SimNode) -> tuple[int, int] | None:
        blocks = swarm.scene.blocks
        candidates = [(first, first + node.length) for first in range(blocks - node.length + 1)]
        return choose(candidates, swarm.visible(), blocks, site_at(node.said.location, None))

    def act(self, swarm: Swarm) -> None:
        named: dict[str, tuple[int, int]] = {}
        for peer_id, node in swarm.nodes.items():
            if not node.alive or not node.serving:
                continue
            if node.lies:
                self._lie(swarm, node)
                continue
            if node.confirms is not None:
                if swarm.now >= node.confirms:
                    self._confirm(swarm, node)
                continue
            if self._is_due(swarm, node) and (move := self._look(swarm, node).move) is not None:
                named[peer_id] = move.to
        for peer_id, to in named.items():  # within a tick nobody hears of the others
            node = swarm.nodes[peer_id]
            swarm.set_out(node, to)
            node.confirms = swarm.now + TELL_SECONDS * swarm.dice.uniform(0.5, 1.5)

    def _seen(self, swarm: Swarm) -> list[Announcement]:
        """What is believed of what can be seen."""
        made_at = swarm.version, int(swarm.now // _BELIEVED_AGAIN) if swarm.scene.liars else 0
        if self._made_at != made_at:
            self._made_at, self._plans = made_at, {}
            self._believed = self._promises.believed(swarm.visible(), swarm.now)
        return self._believed

    def _look(self, swarm: Swarm, node: SimNode) -> Decision:
        """What a node decides that has not set out."""
        peer_id, seen, in_vain = PeerId(node.said.peer_id), self._seen(swarm), node.patience.in_vain
        if in_vain not in self._plans:
            self._plans[in_vain] = planned(seen, swarm.scene.blocks, in_vain)
        moves = self._plans[in_vain]
        if any(move.peer_id == peer_id for move in moves):
            decision = decide(peer_id, seen, swarm.scene.blocks, in_vain)
        else:  # as it would decide, without planning again
            decision = Decision(None, "others go", moves)
        node.patience.note(decision)
        return decision

    @staticmethod
    def _lie(swarm: Swarm, node: SimNode) -> None:
        holes = np.flatnonzero(swarm.served() == 0)
        if len(holes) and node.said.moving_to is None:
            first = int(min(holes[0], swarm.scene.blocks - node.length))
            swarm.set_out(node, (first, first + node.length))
        elif not len(holes) and node.said.moving_to is not None:
            swarm.set_out(node, None)

    def _is_due(self, swarm: Swarm, node: SimNode) -> bool:
        """Whether it looks now, and sees what it looks for."""
        due = False
        if swarm.now >= node.next_look:
            node.next_look = swarm.now + swarm.scene.look_seconds * swarm.dice.uniform(0.5, 1.5)
            due = True
        if swarm.now >= node.next_hole:
            node.next_hole = swarm.now + HOLE_SECONDS * swarm.dice.uniform(0.5, 1.5)
            due = due or has_hole(swarm)
        return due

    def _confirm(self, swarm: Swarm, node: SimNode) -> None:
        to = node.said.moving_to
        assert to is not None
        mine = node.said.model_copy(update={"moving_to": None})
        seen = [mine if about.peer_id == mine.peer_id else about for about in self._seen(swarm)]
        decision = decide(PeerId(mine.peer_id), seen, swarm.scene.blocks, node.patience.in_vain)
        node.patience.note(decision)
        node.confirms = None
        if decision.move is not None and decision.move.to == to:
            swarm.load(node, to)
        else:
            swarm.set_out(node, None)


def has_hole(swarm: Swarm) -> bool:
    """Whether there are blocks that nobody is seen to serve."""
    return bool((_seen_tokens(swarm.visible(), swarm.scene.blocks) == 0).any())


def _seen_tokens(seen: Sequence[Announcement], blocks: int) -> np.ndarray:
    """(blocks,) tokens a second that can be seen."""
    found = np.zeros(blocks)
    for about in seen:
        if about.state == "ready":
            first, end = about.blocks
            found[first:end] += 1000.0 / ((about.block_ms or 1.0) * (end - first))
    return found


@dataclass
class Petals(Rule):
    """As published: a server takes the interval whose sorted throughputs are the least, and moves when it is not there
    and everybody's moving after it would raise the least throughput by a third (arXiv:2209.01188, 2312.08361 and
    the program's default ``balance_quality`` of 0.75). It announces that it joins when it begins to load.
    """

    quality: float = 0.75
    sweeps: int = 10

    def first_place(self, swarm: Swarm, node: SimNode) -> tuple[int, int] | None:
        tokens = _expected(swarm)
        first = _least(tokens, node.length)
        return first, first + node.length

    def act(self, swarm: Swarm) -> None:
        for node in list(swarm.nodes.values()):
            if node.alive and node.serving and swarm.now >= node.next_look:
                node.next_look = swarm.now + swarm.scene.look_seconds * swarm.dice.uniform(0.0, 2.0)
                to = self._place_of(swarm, node)
                if to is not None:
                    swarm.load(node, to)

    def _place_of(self, swarm: Swarm, node: SimNode) -> tuple[int, int] | None:
        me = node.said.peer_id
        spans = {about.peer_id: _going_to(about) for about in swarm.visible() if _counts(about)}
        rates = {
            about.peer_id: 1000.0 / ((about.block_ms or 1.0) * (about.end_block - about.first_block))
            for about in swarm.visible()
            if _counts(about)
        }
        tokens = _expected(swarm)
        before, little = float(tokens.min()), 1 + 1e-3
        first, end = spans[me]
        tokens[first:end] -= rates[me] * little
        if before > 1e-3 and tokens.min() <= 0:
            return None
        best = _least(tokens, end - first)
        if best == first:
            return None
        tokens[first:end] += rates[me] * (little - 1)
        to = best, best + end - first
        spans[me] = to
        tokens[slice(*to)] += rates[me]
        for _ in range(self.sweeps):
            moved = False
            for peer_id in swarm.dice.sample(sorted(spans), len(spans)):
                first, end = spans[peer_id]
                tokens[first:end] -= rates[peer_id] * little
                best = _least(tokens, end - first)
                tokens[first:end] += rates[peer_id] * (little - 1)
                spans[peer_id] = best, best + end - first
                moved |= best != first
                tokens[best : best + end - first] += rates[peer_id]
            if not moved:
                break
        after = float(tokens.min())
        if after < before or after < 1e-3:
            return None
        return to if before / after < self.quality - 1e-3 else None


def _counts(about: Announcement) -> bool:
    return about.state == "ready" or about.moving_to is not None


def _going_to(about: Announcement) -> tuple[int, int]:
    return about.blocks if about.moving_to is None else about.moving_to


def _expected(swarm: Swarm) -> np.ndarray:
    """(blocks,) tokens a second that can be seen, those who load among them."""
    found = np.zeros(swarm.scene.blocks)
    for about in swarm.visible():
        if _counts(about):
            first, end = _going_to(about)
            found[first:end] += 1000.0 / ((about.block_ms or 1.0) * (end - first))
    return found


def _least(tokens: np.ndarray, length: int) -> int:
    """The first of the intervals whose sorted values are the least."""
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(tokens, length), axis=1)
    return int(np.lexsort(windows.T[::-1])[0])


@dataclass
class ByMemory(Rule):
    """Shares in proportion to memory (:func:`far_node.capacity.share_blocks`), as schedulers of clusters do: machines
    form groups that hold the model once; a group that loses one divides the model anew, with those that wait.
    """

    groups: list[list[str]] = field(default_factory=list)
    _version: int = -1

    def first_place(self, swarm: Swarm, node: SimNode) -> tuple[int, int] | None:
        return None

    def act(self, swarm: Swarm) -> None:
        if self._version == swarm.version:
            return
        there = {peer_id for peer_id in swarm.nodes}
        whole: list[list[str]] = []
        broken: list[list[str]] = []
        for group in self.groups:
            left = [peer_id for peer_id in group if peer_id in there]
            (whole if len(left) == len(group) else broken).append(left)
        grouped = {peer_id for group in (*whole, *broken) for peer_id in group}
        waiting = sorted(peer_id for peer_id, node in swarm.nodes.items() if peer_id not in grouped and node.alive)
        self.groups = whole
        for group in broken:
            waiting = self._form(swarm, group, waiting)
        while True:
            before = len(self.groups)
            waiting = self._form(swarm, [], waiting)
            if len(self.groups) == before:
                break
        self._version = swarm.version

    def _form(self, swarm: Swarm, group: list[str], waiting: list[str]) -> list[str]:
        """Divide the model among a group and as few as are needed of those who wait; who still waits then."""
        group, waiting = list(group), list(waiting)
        while not self._divide(swarm, group):
            if not waiting:
                for peer_id in group:
                    node = swarm.nodes[peer_id]
                    node.serving, node.loads = False, None
                    node.said = node.said.model_copy(update={"state": "leaving", "moving_to": None})
                return sorted(group)
            group.append(waiting.pop(0))
        self.groups.append(group)
        return waiting

    def _divide(self, swarm: Swarm, group: Sequence[str]) -> bool:
        free = [int((swarm.nodes[peer_id].memory - RESERVE) * swarm.scene.per_gb) for peer_id in group]
        try:
            shares = share_blocks(free, swarm.scene.blocks, 1)
        except DoesNotFit:
            return False
        first = 0
        for peer_id, share in zip(group, shares, strict=True):
            node, to = swarm.nodes[peer_id], (first, first + share)
            first += share
            holds = node.loads[1] if node.loads is not None else node.said.blocks if node.serving else None
            if share and holds != to:
                swarm.load(node, to, first=holds is None)
        return True


def _poisson(dice: random.Random, mean: float) -> int:
    count, product = 0, dice.random()
    limit = np.exp(-mean)
    while product > limit:
        count, product = count + 1, product * dice.random()
    return count
