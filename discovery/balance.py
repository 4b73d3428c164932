"""How well machines are spread over the blocks of models, as a number, and what one move would change. Pure.

A machine that holds k blocks and takes t milliseconds for each passes ``1000 / (k t)`` tokens a second; a block has
what all machines that hold it pass together, as Petals counts (arXiv:2312.08361). Against what each block would have if
all were spread evenly, that is its **share** ``s``, and the block costs the swarm ``(s + 0.02)**-2``: about 1 with an
even share, 4 with half of it, 2,500 with none. Sums of such convex costs fall with every move from where there is
plenty to where there is little, so that moves one by one come to an end, and the scarcest block, on which the
throughput of the whole model depends, counts most (alpha-fair sharing with alpha = 3: J. Mo, J. Walrand, IEEE/ACM
Transactions on Networking 8(5), 2000). A block that fewer than ``wanted`` machines hold costs more, because the loss of
one would stop the model.

Demand: an even share of a model is in proportion to the tokens that are asked of it, and its blocks weigh what is paid
for these. Geography: shares are counted in each part of the world, where machines of other parts count half, so that
each part comes to have whole models when there are machines enough.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]
"""Blocks ``[first, end)``."""
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

UNKNOWN_BLOCK_MS = 5.0
BELIEVED_FASTER = 8.0
"""Nobody counts as more than so many times as fast as the median: who claims more would empty the blocks around it."""
ELSEWHERE = 0.5
"""What a machine counts in another part of the world, and :data:`SOMEWHERE` where it is not known in which it is."""
SOMEWHERE = 0.75
_NOTHING = 0.02  # of a share, so that the cost of a block that nobody has is finite
_MISSING = 1.0  # what a block costs more for each machine that it lacks to ``wanted``
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Model:
    """What machines can hold parts of.

    Attributes:
        demand: tokens a second that are asked of it, in proportion to other models.
        price: what is paid for a token and block, in proportion to other models.
    """

    name: str
    blocks: int
    demand: float = 1.0
    price: float = 1.0


class Choice(NamedTuple):
    """How many blocks of a model a machine could hold, by its memory and the kind of weights, and milliseconds for a
    token in one of them."""

    length: int
    block_ms: float


class Seat(NamedTuple):
    """Blocks ``[first, end)`` of a model that one machine holds."""

    model: str
    first: int
    end: int


@dataclass(frozen=True)
class Machine:
    """A node as it is placed.

    Attributes:
        choices: by the name of a model; what is not in it the machine cannot hold.
        seat: what it holds; None: nothing yet.
        site: its part of the world, None: unknown.
        load: how busy it is, 0 to 1. Where machines are busy others are needed, and it is the idle that go.
        trust: from 0 to 1, how much of its speed counts (a score of its reliability).
        movable: whether it may be told to move.
    """

    name: str
    choices: Mapping[str, Choice]
    seat: Seat | None = None
    site: str | None = None
    load: float = 0.0
    trust: float = 1.0
    movable: bool = True


class Step(NamedTuple):
    """A move that is made, and whether it closes a hole."""

    machine: str
    seat: Seat | None
    to: Seat
    closes: bool


class Option(NamedTuple):
    """A place: by how much the cost falls when a machine that is nowhere comes there, how near it is to where the
    machine is (negative blocks), and how many holes there are less then than now."""

    gain: float
    nearness: int
    to: Seat
    closes: int


@dataclass
class _Field:
    """One model: ``capacity`` (sites, blocks) tokens a second, ``even`` and ``weight`` (sites,), ``replicas`` and how
    much more a block counts for being busy, ``heat`` (blocks,)."""

    model: Model
    even: Floats
    weight: Floats
    capacity: Floats
    replicas: Counts
    heat: Floats
    wanted: int

    def costs(self, capacity: Floats, replicas: Counts) -> Floats:
        """(blocks,) what each costs."""
        shares = capacity / self.even[:, None] + _NOTHING
        spread = self.heat * (self.weight @ (1.0 / (shares * shares)))
        missing = np.maximum(self.wanted - replicas, 0)
        lack: Floats = spread + _MISSING * float(self.weight.sum()) * missing
        return lack

    @property
    def holes(self) -> int:
        return int((self.replicas == 0).sum())


class Balance:
    """Where machines are, what that costs, and what each of them could do about it. Moves are made with :meth:`put`.

    Args:
        wanted: how many machines each block should have.
    """

    def __init__(self, machines: Iterable[Machine], models: Iterable[Model], wanted: int) -> None:
        self.machines = {machine.name: machine for machine in machines}
        known = [choice.block_ms for machine in self.machines.values() for choice in machine.choices.values()]
        self._fastest_ms = statistics.median(known) / BELIEVED_FASTER if known else 0.0
        sites = sorted({machine.site for machine in self.machines.values() if machine.site is not None})
        self._sites: list[str | None] = [*sites] or [None]
        self.seats: dict[str, Seat] = {}
        self._fields = {model.name: self._field(model, wanted) for model in models}
        total = sum(one.model.demand * one.model.blocks for one in self._fields.values())
        work = self._work()
        for one in self._fields.values():
            one.even = np.maximum(work.sum(axis=0) * one.model.demand / total, 1e-12)
            at_home = np.array([self._home(site) for site in self._sites])
            one.weight = one.model.demand * one.model.price * at_home / at_home.sum()
        paid = sum(float(one.weight.sum()) for one in self._fields.values())
        for one in self._fields.values():
            one.weight = one.weight / paid if paid else np.full(len(self._sites), 1.0 / len(self._sites))
        for machine in self.machines.values():
            if machine.seat is not None and machine.seat.model in self._fields:
                self._sit(machine, machine.seat)
        for one in self._fields.values():
            one.heat = self._heat(one)

    def _heat(self, one: _Field) -> Floats:
        """(blocks,) what the machines of a block could do is halved when all of them are full."""
        able, busy = np.full(one.model.blocks, 1e-12), np.zeros(one.model.blocks)
        for name, seat in self.seats.items():
            machine = self.machines[name]
            if seat.model == one.model.name and seat.model in machine.choices:
                rate = self._rate(machine, seat.model, seat.end - seat.first)
                able[seat.first : seat.end] += rate
                busy[seat.first : seat.end] += rate * machine.load
        heat: Floats = (1.0 + busy / able) ** 2
        return heat

    def _field(self, model: Model, wanted: int) -> _Field:
        count = len(self._sites)
        nothing = np.zeros((count, model.blocks))
        replicas = np.zeros(model.blocks, dtype=np.int64)
        return _Field(model, np.ones(count), np.ones(count), nothing, replicas, np.ones(model.blocks), wanted)

    def _work(self) -> Floats:
        """(machines, sites) blocks a second that count there."""
        rows = [self._reach[m.site] * self._blocks_per_second(m) for m in self.machines.values()]
        return np.array(rows).reshape(-1, len(self._sites))

    def _home(self, site: str | None) -> float:
        """How much of the swarm is there, which stands for how many of its users are."""
        return 1e-9 + sum(
            self._blocks_per_second(machine) for machine in self.machines.values() if machine.site in (site, None)
        )

    @cached_property
    def _reach(self) -> dict[str | None, Floats]:
        """(sites,) what a machine of a site counts in each."""
        unknown = np.full(len(self._sites), SOMEWHERE if self._sites != [None] else 1.0)
        near = {site: np.array([1.0 if site == other else ELSEWHERE for other in self._sites]) for site in self._sites}
        return {**near, None: unknown}

    def _blocks_per_second(self, machine: Machine) -> float:
        if not machine.choices:
            return 0.0
        fastest = min(choice.block_ms for choice in machine.choices.values())
        return 1000.0 * machine.trust / max(fastest, self._fastest_ms)

    def _rate(self, machine: Machine, model: str, length: int) -> float:
        """Tokens a second that a machine passes through so many blocks."""
        return 1000.0 * machine.trust / (max(machine.choices[model].block_ms, self._fastest_ms) * length)

    # ---- what is

    def replicas(self, model: str) -> list[int]:
        """For each block, how many machines hold it."""
        found: list[int] = self._fields[model].replicas.tolist()
        return found

    def cost(self) -> float:
        """Of everything: lower is better."""
        return sum(float(one.costs(one.capacity, one.replicas).sum()) for one in self._fields.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._fields)

    def work_of(self, name: str) -> float:
        """Blocks a second that a machine computes."""
        return self._blocks_per_second(self.machines[name])

    def holes(self, model: str) -> int:
        """How many blocks nobody holds."""
        return self._fields[model].holes

    # ---- what could be

    def put(self, name: str, seat: Seat | None) -> None:
        """A machine goes there; None: it holds nothing more."""
        machine = self.machines[name]
        former = self.seats.pop(name, None)
        if former is not None:
            self._count(machine, former, -1)
        if seat is not None:
            self._sit(machine, seat)

    def best(self, name: str, starts: Sequence[int] | None = None) -> tuple[float, Option | None]:
        """What a machine is worth where it is, and the best place for it that leaves no hole; None: there is none.

        Args:
            starts: first blocks of the places that are open to it; None: all.
        """
        machine, here = self.machines[name], self.seats.get(name)
        if here is None:
            return 0.0, self._best(machine, None, 0, 0, starts)
        before = self.holes(here.model)
        self._count(machine, here, -1)
        try:
            opened = self.holes(here.model) - before
            worth = float(self._worth(machine, here.model, here.end - here.first)[here.first])
            return worth, self._best(machine, here, before, opened, starts)
        finally:
            self._count(machine, here, +1)

    def _best(
        self, machine: Machine, here: Seat | None, before: int, opened: int, starts: Sequence[int] | None
    ) -> Option | None:
        """The best place of a machine that was taken away from ``here``, which had left ``opened`` holes."""
        found = None
        for model, choice in machine.choices.items():
            one = self._fields.get(model)
            if one is None or (opened and here is not None and here.model != model):
                continue
            length = min(choice.length, one.model.blocks)
            worth, closed = self._worth(machine, model, length), _windows(one.replicas == 0, length)
            allowed = np.ones(len(worth), dtype=np.bool_) if starts is None else np.isin(np.arange(len(worth)), starts)
            closed -= opened
            if opened:  # the model stands still anyway, and has fewer holes afterwards; or this is no place to go
                allowed &= (closed > 0) & (before > 0)
            if allowed.any():
                option = _option(np.where(allowed, worth, -np.inf), closed, model, length, here)
                if found is None or option[:2] > found[:2]:
                    found = option
        return found

    def _worth(self, machine: Machine, model: str, length: int) -> Floats:
        """(starts,) by how much the cost falls when a machine that is nowhere comes to each place."""
        one = self._fields[model]
        more = self._reach[machine.site][:, None] * self._rate(machine, model, length)
        now = one.costs(one.capacity, one.replicas)
        then = one.costs(one.capacity + more, one.replicas + 1)
        return _windows(now - then, length)

    def _sit(self, machine: Machine, seat: Seat) -> None:
        self.seats[machine.name] = seat
        self._count(machine, seat, +1)

    def _count(self, machine: Machine, seat: Seat, sign: int) -> None:
        one, blocks = self._fields[seat.model], slice(seat.first, seat.end)
        one.replicas[blocks] += sign
        rate = self._rate(machine, seat.model, seat.end - seat.first) if seat.model in machine.choices else 0.0
        one.capacity[:, blocks] += sign * self._reach[machine.site][:, None] * rate
        if sign < 0:
            one.capacity[:, one.replicas == 0] = 0.0  # what rounding has left


def _windows(values: npt.NDArray[np.generic], length: int) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    found: Floats = sums[length:] - sums[:-length]
    return found


def _option(worth: Floats, closed: Floats, model: str, length: int, here: Seat | None) -> Option:
    """The best of some places; of equals the nearest, else the lowest."""
    top = float(worth.max())
    equal = np.flatnonzero(worth >= top - _ROUNDING * max(1.0, abs(top)))
    at = here.first if here is not None and here.model == model else 0
    first = int(equal[np.argmin(np.abs(equal - at))])
    return Option(top, -abs(first - at), Seat(model, first, first + length), int(closed[first]))
