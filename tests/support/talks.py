"""Sessions on one range of blocks that remember what they were told, and so what each should have been answered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows


def noise(blocks: Blocks, positions: int, *, rows: int = 1, seed: int = 0) -> Tensor:
    """Hidden states to compute with, (rows, positions, hidden size)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, positions, blocks.hidden_size, generator=generator)


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where something is not finite."""
    largest = float((got - expected).abs().max() / expected.abs().max())
    return largest if largest == largest else float("inf")


class Talk:
    """One session in slots, and all that it has been told until now."""

    def __init__(self, blocks: Blocks, rows: SlotRows, left_padding: tuple[int, ...] = ()) -> None:
        self.blocks, self.rows, self.left_padding = blocks, rows, left_padding
        self.told = torch.zeros(rows.count, 0, blocks.hidden_size)

    @property
    def length(self) -> int:
        """Positions told."""
        return self.told.shape[1]

    def expected(self, hidden: Tensor) -> Tensor:
        """What this session should be answered next: what it would be alone, told everything in one go."""
        told = torch.cat([self.told, hidden], dim=1)
        cache = self.blocks.new_cache()
        return self.blocks.run(told, cache, self.blocks.first, self.blocks.end, self.left_padding)[:, self.length :]

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on."""
        self.rows.rewind(length)
        self.told = self.told[:, :length]

    @torch.inference_mode()
    def select_rows(self, rows: Sequence[int]) -> None:
        """Continue from these rows, in this order."""
        self.rows.select_rows(torch.tensor(rows))
        self.told = self.told[list(rows)]

    def step(self, hidden: Tensor) -> float:
        """Compute alone; how far the answer is from what was expected."""
        return max(step_together([self], [hidden]))


@torch.inference_mode()
def step_together(talks: Sequence[Talk], hidden: Sequence[Tensor]) -> list[float]:
    """Compute a step of each in one pass; how far each answer is from what was expected."""
    blocks, padding = talks[0].blocks, talks[0].left_padding
    expected = [talk.expected(told) for talk, told in zip(talks, hidden, strict=True)]
    parts = [(told, talk.rows) for talk, told in zip(talks, hidden, strict=True)]
    got = blocks.run_together(parts, blocks.first, blocks.end, padding)
    for talk, told in zip(talks, hidden, strict=True):
        talk.told = torch.cat([talk.told, told], dim=1)
        assert talk.rows.length == talk.length
    return [difference(one, other) for one, other in zip(got, expected, strict=True)]


def slab_of(capacity: int, rows: int) -> Slab:
    """A slab of which all rows are promised."""
    slab = Slab(capacity, rows)
    slab.rows = rows
    return slab
