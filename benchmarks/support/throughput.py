"""How many tokens a second machines can pass through all blocks of a model at most, however routes are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

Placed = tuple[int, int, float]
"""Blocks ``[first, end)`` and how many blocks a second the machine computes."""


def most_tokens(machines: Sequence[Placed], blocks: int) -> float:
    """Tokens a second.

    Each machine divides its time among the blocks that it holds as is best for the whole, so this is a flow from
    machines to blocks, and the most there can be is the least, over all sets of blocks, of what those can compute
    that hold one of them, for each block of the set (max-flow min-cut; L. Ford, D. Fulkerson, 1956). The set is found
    by Dinkelbach's iteration (Management Science 13(7), 1967), each step of it by dynamic programming over the gaps.
    """
    if not machines:
        return 0.0
    ends = np.array([(first, end) for first, end, _ in machines])
    speeds = np.array([speed for _, _, speed in machines])
    inside = np.zeros((blocks + 2, blocks + 2))  # [after block i - 1, before block j]: those that lie in between
    np.add.at(inside, (ends[:, 0], ends[:, 1]), speeds)
    inside = np.cumsum(np.cumsum(inside[::-1], axis=0)[::-1], axis=1)
    total = float(speeds.sum())
    most = total / blocks
    while True:
        chosen, left_out = _dearest(inside, blocks, most)
        found = (total - left_out) / chosen
        if found >= most - 1e-9 * max(1.0, most):
            return most if most > 1e-9 * total else 0.0
        most = found


def _dearest(inside: np.ndarray, blocks: int, each: float) -> tuple[int, float]:
    """The set of blocks whose owners have the least to spare when each block takes so much: how many blocks, and what
    the machines compute that hold none of them."""
    values = np.zeros(blocks + 2)  # of the best set whose last block this is; block j is number j + 1
    taken, out = np.zeros(blocks + 2, dtype=int), np.zeros(blocks + 2)
    for number in range(1, blocks + 2):
        options = values[:number] + inside[np.arange(number), number - 1]
        if number == blocks + 1:
            options[0] = -np.inf  # no block at all is no set
        last = int(np.argmax(options))
        is_block = number <= blocks
        values[number] = options[last] + (each if is_block else 0.0)
        taken[number], out[number] = taken[last] + is_block, out[last] + inside[last, number - 1]
    return int(taken[-1]), float(out[-1])


def best_placement(lengths: Sequence[int], speeds: Sequence[float], blocks: int) -> float:
    """Tokens a second of the best of all placements, found by trying them."""
    starts = [range(max(1, blocks - length + 1)) for length in lengths]

    def placed(firsts: Sequence[int]) -> list[Placed]:
        ends = (min(first + length, blocks) for first, length in zip(firsts, lengths, strict=True))
        return list(zip(firsts, ends, speeds, strict=True))

    return max(most_tokens(placed(firsts), blocks) for firsts in product(*starts))
