"""How many blocks fit on this machine, in which kind of weights, on which of its devices. Pure: facts in, plan out.

A node takes what fits after a reserve and the budget of its attention cache. The reserve is for what cannot be counted
beforehand: torch itself, the values in flight between layers, and whatever else the machine is used for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery.protocol.announcement import Quantization
from far_node.errors import DoesNotFit

GIB = 1 << 30

Range = tuple[int, int]
"""Blocks ``(first, end)``, end exclusive."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device; ``name`` is what a person is told, such as ``cuda:0``."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Room:
    """Bytes of a device that weights may take: ``spare`` after reserve and cache, ``most`` without leaving either."""

    memory: Memory
    spare: int
    most: int


@dataclass(frozen=True)
class Wish:
    """What the owner asked for. Neither: as many blocks as fit. ``kinds`` are tried in this order, the finest first."""

    kinds: tuple[Quantization, ...]
    blocks: Range | None = None
    count: int | None = None


@dataclass(frozen=True)
class Plan:
    """What to hold.

    Attributes:
        candidates: equally long ranges that fit; one is to be chosen.
        room_bytes: what the weights may take of each device.
        tight: whether that uses up the reserve.
    """

    quantization: Quantization
    candidates: tuple[Range, ...]
    room_bytes: tuple[int, ...]
    tight: bool


def readable_bytes(count: int) -> str:
    """For people."""
    return f"{count / GIB:.2f} GiB" if count >= GIB // 10 else f"{count / (1 << 20):.2f} MiB"


def room_on(
    memory: Memory, *, reserve_bytes: int, cache_bytes: int, fraction: float = 1.0, held_bytes: int = 0
) -> Room:
    """What weights may take of a device.

    Args:
        fraction: of the device's total memory, the most that weights and cache of all models may take together.
        held_bytes: what those that are there already take.
    """
    limit = int(memory.total_bytes * fraction) - held_bytes
    spare = min(memory.free_bytes - reserve_bytes, limit) - cache_bytes
    return Room(memory, max(0, spare), max(0, min(memory.free_bytes, limit)))


def plan_blocks(sizes: Mapping[Quantization, Sequence[int]], wish: Wish, rooms: Sequence[Room]) -> Plan:
    """Decide how many blocks to hold, in which kind of weights.

    What the owner names is held when it fits at all; a number that we choose leaves reserve and cache alone.

    Args:
        sizes: for each kind of the wish, the bytes of every block of the model.
        rooms: in the order in which they are filled: the first blocks of a range go to the first device.

    Raises:
        DoesNotFit: not what was asked for, or not even one block.
    """
    spare, most = tuple(room.spare for room in rooms), tuple(room.most for room in rooms)
    for limit, tight in ((spare, False), (most, True)) if wish.blocks or wish.count else ((spare, False),):
        for kind in wish.kinds:
            candidates = _wished(sizes[kind], wish, limit)
            if candidates:
                return Plan(kind, candidates, limit, tight)
    kind = wish.kinds[-1]
    if not wish.blocks and not wish.count:
        longest = _longest_ranges(sizes[kind], spare)
        if longest:
            return Plan(kind, longest, spare, tight=False)
    raise _does_not_fit(kind, sizes[kind], wish, rooms)


def divide(sizes: Sequence[int], room_bytes: Sequence[int]) -> tuple[int, ...] | None:
    """How many blocks each device holds when they are filled one after the other; None if they do not all fit."""
    counts, done = [], 0
    for room in room_bytes:
        taken = _how_many(sizes[done:], room)
        counts.append(taken)
        done += taken
    return tuple(counts) if done == len(sizes) else None


def share_blocks(free_bytes: Sequence[int], block_count: int, block_bytes: int) -> tuple[int, ...]:
    """Divide a model among machines in proportion to what each has free after its reserve.

    From the largest machine to the smallest each takes its share of what is left, rounded down; the smallest takes the
    rest. What a machine cannot hold goes to those with room, the largest first.

    Returns:
        For each machine, in the order given, how many blocks.

    Raises:
        DoesNotFit: all together have too little.
    """
    most = [max(0, free) // block_bytes for free in free_bytes]
    if sum(most) < block_count:
        size = readable_bytes(block_bytes)
        raise DoesNotFit(
            f"{block_count} blocks of {size} each are needed, these machines have room for {sum(most)}",
            needed_bytes=block_count * block_bytes,
            free_bytes=sum(max(0, free) for free in free_bytes),
        )
    by_size = sorted(range(len(free_bytes)), key=lambda machine: -free_bytes[machine])
    shares, left = [0] * len(free_bytes), block_count
    weight = sum(max(0, free) for free in free_bytes)
    for machine in by_size:
        free = max(0, free_bytes[machine])
        shares[machine] = min(left * free // weight if weight else 0, most[machine])
        left, weight = left - shares[machine], weight - free
    for machine in by_size:
        more = min(left, most[machine] - shares[machine])
        shares[machine], left = shares[machine] + more, left - more
    return tuple(shares)


def _wished(sizes: Sequence[int], wish: Wish, room_bytes: Sequence[int]) -> tuple[Range, ...]:
    """The ranges that are all that was asked for and fit."""
    if wish.blocks is not None:
        first, end = wish.blocks
        return (wish.blocks,) if divide(sizes[first:end], room_bytes) is not None else ()
    count = wish.count or len(sizes)
    starts = range(len(sizes) - count + 1)
    ranges = ((first, first + count) for first in starts)
    return tuple(one for one in ranges if divide(sizes[one[0] : one[1]], room_bytes) is not None)


def _longest_ranges(sizes: Sequence[int], room_bytes: Sequence[int]) -> tuple[Range, ...]:
    longest = []
    for first in range(len(sizes)):
        end = first
        for room in room_bytes:
            end += _how_many(sizes[end:], room)
        longest.append((first, end))
    best = max(end - first for first, end in longest)
    return tuple(one for one in longest if one[1] - one[0] == best) if best else ()


def _how_many(sizes: Sequence[int], room: int) -> int:
    """How many of the first blocks fit."""
    return sum(1 for _ in itertools.takewhile(lambda total: total <= room, itertools.accumulate(sizes)))


def _does_not_fit(kind: Quantization, sizes: Sequence[int], wish: Wish, rooms: Sequence[Room]) -> DoesNotFit:
    where = " and ".join(room.memory.name for room in rooms)
    free = sum(room.memory.free_bytes for room in rooms)
    if wish.blocks or wish.count:
        count = wish.count or 0
        windows = [sizes[slice(*wish.blocks)]] if wish.blocks else [sizes[i : i + count] for i in range(len(sizes))]
        needed = min(sum(window) for window in windows if not count or len(window) == count)
        usable = sum(room.most for room in rooms)
        asked = "blocks {}:{}".format(*wish.blocks) if wish.blocks else f"{count} blocks"
    else:
        needed, usable, asked = min(sizes), sum(room.spare for room in rooms), "even one block"
    coarser = {"none": "--quantization int8 or nf4", "int8": "--quantization nf4", "nf4": ""}[kind]
    ways = [coarser, "fewer blocks" if wish.blocks or wish.count else "a smaller --cache-mb or --reserve-gb"]
    return DoesNotFit(
        f"{asked} of this model ({'not quantized' if kind == 'none' else kind}) needs {readable_bytes(needed)}; "
        f"{where} has {readable_bytes(free)} free, of which {readable_bytes(usable)} may be used: "
        f"try {' or '.join(filter(None, ways))}",
        needed_bytes=needed,
        free_bytes=free,
        usable_bytes=usable,
    )
