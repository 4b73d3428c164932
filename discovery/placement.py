"""Which nodes should hold which blocks of models, and when one should move. Pure.

:func:`choose` says where a node goes that holds nothing yet, :func:`decide` whether one that serves should move,
:func:`advise` what single moves would do a swarm good, and :func:`place` puts machines where none is yet. All ask
:class:`discovery.balance.Balance`, which weighs speed, memory, geography, demand and price.

Nobody commands here: nodes that move by themselves all make the same plan from the same announcements, and only those
move that the plan names, so that a hole is closed by one node and not by all that see it. The plan is made of single
moves, each time the one that gains most, looked for as M. Minoux does ("Accelerated greedy algorithms for maximizing
submodular set functions", 1978); among equals the nearest and the idlest go, and then those whom a hash of node and
place puts first (rendezvous hashing: D. Thaler, C. Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998). A node
that is under way says where to (``moving_to`` in its announcement), and counts there for everybody else, though not for
long if it does not arrive (:class:`Promises`); nor is anybody waited for who is named and does not set out
(:class:`Patience`).
"""

from __future__ import annotations

import hashlib
import heapq
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from discovery.balance import Balance, Choice, Machine, Model, Seat, Span, Step
from discovery.geo import Point, distance_km
from discovery.protocol.announcement import Announcement
from discovery.protocol.ids import PeerId

WANTED_REPLICAS = 2
"""With two nodes for each block the loss of one costs a pause."""
MOST_MOVES = 16

WORTH_MOVING = 1.5
"""A node loads other blocks when it is worth this many times as much there: nobody reloads for a few percent."""
UNKNOWN_BLOCK_MS = 5.0

PROMISE_SECONDS = 600.0
"""So long in all a node is believed that it is coming; it is loading, or it lies."""
NAMED_IN_VAIN = 4
"""Who was to go so many times in a row and did not is not counted on."""
_FORGIVEN_SECONDS = 3600.0
"""After so long half of the time is forgotten in which others waited in vain."""
_FORGOTTEN_SECONDS = 6 * _FORGIVEN_SECONDS

_PARTS: Mapping[str, Point] = {
    "na": (40.0, -95.0),
    "sa": (-15.0, -58.0),
    "eu": (50.0, 12.0),
    "af": (2.0, 22.0),
    "me": (27.0, 48.0),
    "in": (20.0, 78.0),
    "sea": (3.0, 106.0),
    "asia": (35.0, 122.0),
    "oc": (-28.0, 145.0),
}
"""Parts of the world, and a point in the middle of the machines of each."""
_WORDS = {"us": "na", "ca": "na", "uk": "eu", "africa": "af", "ap": "asia", "au": "oc"}


@dataclass(frozen=True)
class Stretch:
    """Neighbouring blocks that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


@dataclass(frozen=True)
class Move:
    """A node that would do more good at ``to`` than where it is; both are equally long, so it has the memory."""

    peer_id: PeerId
    blocks: Span
    to: Span


@dataclass(frozen=True)
class Advice:
    """What a swarm has and what would be better. Per block: how many nodes serve it, ``now`` and ``after`` the moves.

    Attributes:
        wanted: how many nodes each block should have.
    """

    now: tuple[int, ...]
    wanted: int
    moves: tuple[Move, ...]
    after: tuple[int, ...]

    @property
    def thin(self) -> list[Stretch]:
        """What fewer nodes serve than should."""
        return thin(self.now, self.wanted)

    @property
    def lacking(self) -> list[Stretch]:
        """What moving cannot mend: here more nodes are needed."""
        return thin(self.after, self.wanted)

    def move_of(self, peer_id: str) -> Move | None:
        """What is advised to one node."""
        return next((move for move in self.moves if move.peer_id == peer_id), None)


def coverage(announcements: Iterable[Announcement], block_count: int, without: PeerId | None = None) -> list[int]:
    """For each block, how many nodes serve it and mean to stay; ``without`` is not counted."""
    served = [0] * block_count
    for about in announcements:
        if about.state == "ready" and about.peer_id != without and about.block_count == block_count:
            for block in range(*about.blocks):
                served[block] += 1
    return served


def stretches(covered: Sequence[int]) -> list[Stretch]:
    """Coverage in as few pieces as there are."""
    pieces, first = [], 0
    for replicas, blocks in groupby(covered):
        end = first + len(list(blocks))
        pieces.append(Stretch(first, end, replicas))
        first = end
    return pieces


def thin(covered: Sequence[int], wanted: int) -> list[Stretch]:
    """The stretches that fewer than ``wanted`` nodes serve."""
    return [piece for piece in stretches(covered) if piece.replicas < wanted]


@dataclass(frozen=True)
class Decision:
    """Whether a node should move, and in one clause why, or why not. ``others`` are those who should."""

    move: Move | None
    why: str
    others: tuple[Move, ...] = ()


@dataclass
class _Promise:
    """Where a node says it goes, since when, and for how long others waited in vain; what is older counts for less."""

    to: Span | None
    since: float
    vain: float
    at: float


class Promises:
    """What is believed of nodes that say where they go. One for each model, for as long as somebody looks.

    Who says that it moves keeps others away from where it goes to. That is believed for :data:`PROMISE_SECONDS`; then
    the node counts where it is, and as one that stays there, until it has arrived. Time that was promised in vain adds
    up, and is forgotten by halves in an hour, so that who says it again and again is believed less than one sixth of
    the time.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Promise] = {}

    def believed(self, announcements: Iterable[Announcement], now: float) -> list[Announcement]:
        """The announcements; who is not believed any more goes nowhere, and is not one that could be sent instead.

        Args:
            now: seconds of a steady clock.
        """
        stays = {"moving_to": None, "auto_place": False}
        found = [about if self._is_believed(about, now) else about.model_copy(update=stays) for about in announcements]
        for peer_id, known in list(self._known.items()):
            if now - known.at > _FORGOTTEN_SECONDS:
                del self._known[peer_id]
        return found

    def _is_believed(self, about: Announcement, now: float) -> bool:
        known = self._known.get(about.peer_id)
        if known is None:
            if about.moving_to is not None:
                self._known[about.peer_id] = _Promise(about.moving_to, now, 0.0, now)
            return True
        known.vain *= 0.5 ** (max(0.0, now - known.at) / _FORGIVEN_SECONDS)
        if known.to != about.moving_to:
            has_arrived = about.moving_to is None and about.state == "ready" and about.blocks == known.to
            if known.to is not None and not has_arrived:
                known.vain += max(0.0, now - known.since)
            known.to, known.since = about.moving_to, now
        known.at = now
        return known.to is None or known.vain + now - known.since < PROMISE_SECONDS


class Patience:
    """Whom one node waits for that plans name, from look to look. One for each model."""

    def __init__(self) -> None:
        self._named: Counter[str] = Counter()

    @property
    def in_vain(self) -> frozenset[str]:
        """Who was named :data:`NAMED_IN_VAIN` times in a row and did not go; not to be counted on (:func:`decide`)."""
        return frozenset(peer_id for peer_id, times in self._named.items() if times >= NAMED_IN_VAIN)

    def note(self, decision: Decision) -> None:
        """What was decided in one look. When there is nothing to do for anybody all are given another chance."""
        others = {move.peer_id for move in decision.others}
        still = others | self.in_vain if decision.move or others else set()
        self._named = Counter({peer_id: self._named[peer_id] + 1 for peer_id in still})


def advise(
    announcements: Iterable[Announcement],
    block_count: int,
    wanted: int = WANTED_REPLICAS,
    most_moves: int = MOST_MOVES,
    trust: Mapping[str, float] | None = None,
) -> Advice:
    """Which nodes should move where, those that do so by themselves and others alike.

    One after the other, each time the move that gains most (:class:`discovery.balance.Balance`), until no move is worth
    its loading. Where no single move closes a hole, several together that do. Nobody leaves blocks that nobody else
    has, unless the model stands still anyway. A node moves once, to as many blocks as it has now, and the same
    announcements give the same advice everywhere.

    Args:
        trust: from 0 to 1, by peer id, how much of the speed counts that a node announces, such as its score; of those
            not in it all.
    """
    there, trusted = _there(announcements, block_count), trust or {}
    machines = [
        replace(one, movable=about.moving_to is None, trust=trusted.get(about.peer_id, 1.0))
        for one, about in zip(_machines(there), there, strict=True)
    ]
    balance = Balance(machines, [Model(_ONE, block_count)], wanted)
    moves = _moves(there, plan(balance, most_moves))
    return Advice(tuple(coverage(there, block_count)), wanted, moves, tuple(balance.replicas(_ONE)))


def decide(
    peer_id: PeerId,
    announcements: Iterable[Announcement],
    block_count: int,
    excluded: Collection[str] = (),
    wanted: int = WANTED_REPLICAS,
) -> Decision:
    """Whether a node that moves by itself should do so now.

    Args:
        excluded: nodes that have been named for some time and did not go: somebody else has to.
    """
    there = _there(announcements, block_count)
    me = next((about for about in there if about.peer_id == peer_id), None)
    if me is None:
        return Decision(None, "the swarm does not know of it yet")
    balance = _of_movers(there, block_count, excluded, wanted)
    worth, option = balance.best(peer_id)
    alone = _alone(balance, me.blocks)
    moves = _plan_of_movers(balance, there)
    mine = next((move for move in moves if move.peer_id == peer_id), None)
    others = tuple(move for move in moves if move is not mine)
    if mine is not None:
        deserted = _deserted(me, mine.to, there)
        if deserted is not None:
            return Decision(None, "who is to have blocks {}:{} instead is not there yet".format(*deserted), others)
        return Decision(mine, "it is needed more at blocks {}:{}".format(*mine.to), others)
    if alone is not None:
        return Decision(None, "nobody else serves blocks {}:{}".format(*alone), others)
    if option is None or option.gain <= worth + _ROUNDING:
        return Decision(None, "it is best where it is", others)
    if option.gain <= WORTH_MOVING * worth:
        return Decision(None, "another place would be better, but is not worth loading other blocks", others)
    return Decision(None, "others go where it would be needed", others)


def planned(
    announcements: Iterable[Announcement],
    block_count: int,
    excluded: Collection[str] = (),
    wanted: int = WANTED_REPLICAS,
) -> tuple[Move, ...]:
    """The plan by which :func:`decide` goes: who should move now, of those that move by themselves."""
    there = _there(announcements, block_count)
    return _plan_of_movers(_of_movers(there, block_count, excluded, wanted), there)


def choose(
    candidates: Sequence[Span],
    announcements: Iterable[Announcement],
    block_count: int,
    site: str | None = None,
    wanted: int = WANTED_REPLICAS,
) -> Span:
    """Which of some equally long ranges a node should take that holds nothing yet; the lowest of equals.

    Args:
        announcements: of the others. How fast the node is will be known when it has loaded; it counts as usual.
        site: its part of the world, as :func:`site_at` names it.
    """
    there = _there(announcements, block_count)
    first, end = candidates[0]
    newcomer = Machine("", {_ONE: Choice(end - first, _usual_ms(there))}, site=site)
    balance = Balance([*_machines(there), newcomer], [Model(_ONE, block_count)], wanted)
    best = balance.best("", starts=[first for first, _ in candidates])[1]
    assert best is not None, "it has nothing to leave behind"
    return best.to.first, best.to.end


def place(machines: Iterable[Machine], models: Iterable[Model], wanted: int = WANTED_REPLICAS) -> Balance:
    """Where machines go that may all go anywhere, those with the most work first, and then better one by one."""
    balance = Balance(machines, models, wanted)
    for name in sorted(balance.machines, key=lambda name: (-balance.work_of(name), name)):
        if name not in balance.seats:
            _, option = balance.best(name)
            balance.put(name, None if option is None else option.to)
    for _ in range(_SWEEPS):
        if not plan(balance, len(balance.machines), _A_LITTLE):
            break
    return balance


def plan(balance: Balance, most_moves: int, worth_moving: float = WORTH_MOVING) -> list[Step]:
    """Make the moves that gain most, one after the other; where holes are left, those that close them together.

    ``most_moves`` limits those that close no hole: all that do are made at once.
    """
    order = _Order(balance, worth_moving)
    steps: dict[str, Step] = {}
    others = 0
    while (step := order.next(steps.keys(), others < most_moves)) is not None:
        others += not step.closes
        balance.put(step.machine, step.to)
        steps[step.machine] = step
    for model in balance.models:
        if balance.holes(model):
            for name, to in _shifted(balance, model).items():
                seat = steps[name].seat if name in steps else balance.seats[name]
                balance.put(name, to)
                steps[name] = Step(name, seat, to, closes=True)
    return [step for step in steps.values() if step.seat != step.to]


class _Order:
    """Whose move gains most, now. What a move gains is looked at again only when it would be the next."""

    def __init__(self, balance: Balance, worth_moving: float) -> None:
        self._balance, self._worth_moving = balance, worth_moving
        self._heap: list[tuple[tuple[float, int, float, bytes], str]] = []
        self._fill(())

    def next(self, gone: Collection[str], any_gain: bool) -> Step | None:
        """The best move of those who are not ``gone``; only one that closes a hole unless ``any_gain``."""
        for again in (False, True):
            if again:  # moves also make room where they come from
                self._fill(gone)
            while self._heap:
                _, name = heapq.heappop(self._heap)
                found = None if name in gone else self._look(name)
                if found is None or not (any_gain or found[1].closes):
                    continue
                if not self._heap or found[0] <= self._heap[0][0]:
                    return found[1]
                heapq.heappush(self._heap, (found[0], name))
        return None

    def _fill(self, gone: Collection[str]) -> None:
        machines = (machine for machine in self._balance.machines.values() if machine.movable)
        found = ((self._look(machine.name), machine.name) for machine in machines if machine.name not in gone)
        self._heap = [(one[0], name) for one, name in found if one is not None]
        heapq.heapify(self._heap)

    def _look(self, name: str) -> tuple[tuple[float, int, float, bytes], Step] | None:
        here = self._balance.seats.get(name)
        worth, option = self._balance.best(name)
        if option is None or option.to == here:
            return None
        least = worth if option.closes > 0 else self._worth_moving * worth
        if option.gain <= least + _ROUNDING:
            return None
        key = (
            -round(option.gain - worth, 6),
            -option.nearness,
            self._balance.machines[name].load,
            _lot(name, option.to),
        )
        return key, Step(name, here, option.to, closes=option.closes > 0)


def _shifted(balance: Balance, model: str) -> dict[str, Seat]:
    """Where machines of a model with holes could go so that it has none; nothing, if their memory does not suffice.

    As few as possible first, then all of them end to end. The model stands still, so nobody is disturbed.
    """
    return _laid_out(balance, model, keep=True) or _laid_out(balance, model, keep=False) or {}


def _laid_out(balance: Balance, model: str, keep: bool) -> dict[str, Seat] | None:
    """Block after block: who covers it and reaches farthest stays, if ``keep``; where nobody does, one comes whose
    blocks others have as well, or else the next moves up. None: some blocks are left."""
    mine = [(seat, name) for name, seat in balance.seats.items() if seat.model == model]
    blocks = len(balance.replicas(model))
    fixed = {
        block for seat, name in mine if not balance.machines[name].movable for block in range(seat.first, seat.end)
    }
    waiting = sorted(one for one in mine if balance.machines[one[1]].movable)
    spare: list[tuple[Seat, str]] = []
    moved: dict[str, Seat] = {}
    block = 0
    while block < blocks:
        if block in fixed:
            block += 1
            continue
        if keep:
            spare += (one for one in waiting if one[0].first <= block)
            waiting = [one for one in waiting if one[0].first > block]
            best = max(spare, key=lambda one: (one[0].end, one[1]), default=None)
            if best is not None and best[0].end > block:
                spare.remove(best)
                block = best[0].end
                continue
        if not spare and not waiting:
            return None
        seat, name = spare.pop(_longest(spare)) if spare else waiting.pop(0)
        length = seat.end - seat.first
        first = min(block, blocks - length)
        moved[name] = Seat(model, first, first + length)
        block = first + length
    return moved


def _longest(seats: Sequence[tuple[Seat, str]]) -> int:
    return max(range(len(seats)), key=lambda place: (seats[place][0].end - seats[place][0].first, seats[place]))


_ONE = ""  # the name of a model where there is one
_AT_ONCE = 50
"""Of so many nodes one moves at a time where no hole is to be closed."""
_SWEEPS = 8
_A_LITTLE = 1.02
_ROUNDING = 1e-6


def site_at(location: Point | None, region: str | None) -> str | None:
    """The part of the world of a point, or else of a region such as ``eu-west``; None: unknown."""
    if location is not None:
        return min(_PARTS, key=lambda part: distance_km(_PARTS[part], location))
    word = (region or "").partition("-")[0]
    word = _WORDS.get(word, word)
    return word if word in _PARTS else None


def _there(announcements: Iterable[Announcement], block_count: int) -> list[Announcement]:
    """Who serves a model, or is about to."""
    return [
        about
        for about in announcements
        if about.block_count == block_count and (about.state == "ready" or about.moving_to is not None)
    ]


def _usual_ms(there: Sequence[Announcement]) -> float:
    known = [about.block_ms for about in there if about.block_ms is not None]
    return statistics.median(known) if known else UNKNOWN_BLOCK_MS


def _machines(there: Sequence[Announcement]) -> list[Machine]:
    usual = _usual_ms(there)
    machines = []
    for about in there:
        first, end = about.blocks if about.moving_to is None else about.moving_to
        seat, choice = Seat(_ONE, first, end), Choice(end - first, about.block_ms or usual)
        site = site_at(about.location, about.region)
        machines.append(Machine(about.peer_id, {_ONE: choice}, seat, site, about.load))
    return machines


def _moves(there: Sequence[Announcement], steps: Iterable[Step]) -> tuple[Move, ...]:
    blocks = {about.peer_id: about.blocks for about in there}
    return tuple(Move(PeerId(step.machine), blocks[step.machine], (step.to.first, step.to.end)) for step in steps)


def _of_movers(there: Sequence[Announcement], block_count: int, excluded: Collection[str], wanted: int) -> Balance:
    machines = [
        replace(one, movable=about.auto_place and about.moving_to is None and about.peer_id not in excluded)
        for one, about in zip(_machines(there), there, strict=True)
    ]
    return Balance(machines, [Model(_ONE, block_count)], wanted)


def _plan_of_movers(balance: Balance, there: Sequence[Announcement]) -> tuple[Move, ...]:
    under_way = sum(about.moving_to is not None for about in there)
    return _moves(there, plan(balance, max(1, len(there) // _AT_ONCE) - under_way))


def _alone(balance: Balance, blocks: Span) -> Span | None:
    """From the first to the last block of a range that only one node has."""
    lonely = [block for block in range(*blocks) if balance.replicas(_ONE)[block] == 1]
    return (lonely[0], lonely[-1] + 1) if lonely else None


def _deserted(me: Announcement, to: Span, there: Sequence[Announcement]) -> Span | None:
    """Blocks of a model that works which nobody would serve for a time if we went now: who says that he comes to them
    may still load, or may never come. From the first to the last of them."""
    if min(coverage(there, me.block_count)) == 0:
        return None  # it stands still anyway
    staying = (about for about in there if about.moving_to is None)
    stay = coverage(staying, me.block_count, without=PeerId(me.peer_id))
    left = [block for block in range(*me.blocks) if not stay[block] and block not in range(*to)]
    return (left[0], left[-1] + 1) if left else None


def _lot(name: str, to: Seat) -> bytes:
    return hashlib.sha256(f"{name} {to.model} {to.first}:{to.end}".encode()).digest()
