"""Sessions in one pass against each of them alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows

_PROMPTS = (12, 5, 9, 3)
_PASSES = 14
_ROWS = (1, 1, 2, 1)


class Company:
    """Four sessions of different lengths, one of them with two rows, in two slabs, with gaps between them."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        near, far = Slab(64, 8), Slab(96, 4)
        near.rows, far.rows = 8, 4
        self.together = [SlotRows(near, 0, 1), SlotRows(near, 1, 1), SlotRows(near, 3, 2), SlotRows(far, 1, 1)]
        self.alone = [blocks.new_cache() for _ in self.together]
        self._generator = torch.Generator().manual_seed(1)

    def step(self, sessions: Sequence[int], positions: Sequence[int]) -> float:
        """The next ``positions`` of these sessions; how far the outputs are from alone, relative, as norms."""
        blocks, span = self.blocks, (self.blocks.first, self.blocks.end)
        inputs = [self._noise(_ROWS[session], count) for session, count in zip(sessions, positions, strict=True)]
        rows = [self.together[session] for session in sessions]
        outputs = blocks.run_together(list(zip(inputs, rows, strict=True)), *span)
        worst = 0.0
        for session, hidden, output in zip(sessions, inputs, outputs, strict=True):
            expected = blocks.run(hidden, self.alone[session], *span)
            worst = max(worst, float((output - expected).norm() / expected.norm()))
        return worst

    def subset(self) -> list[int]:
        """Two sessions or more, in any order."""
        count = int(torch.randint(2, 1 + len(_PROMPTS), (1,), generator=self._generator))
        return torch.randperm(len(_PROMPTS), generator=self._generator)[:count].tolist()

    def _noise(self, rows: int, positions: int) -> Tensor:
        return torch.randn(rows, positions, self.blocks.hidden_size, generator=self._generator)


@torch.inference_mode()
def error_together(blocks: Blocks) -> float:
    """Prompts one after the other, then decode steps of any of them in one pass: the largest relative error."""
    company = Company(blocks)
    worst = max(company.step([session], [count]) for session, count in enumerate(_PROMPTS))
    for _ in range(_PASSES):
        sessions = company.subset()
        worst = max(worst, company.step(sessions, [1] * len(sessions)))
    return worst


@contextmanager
def unpacked(blocks: Blocks) -> Iterator[None]:
    """Batch them as on a GPU, and as models are batched that cannot be packed."""
    former, blocks.packs = blocks.packs, False
    try:
        yield
    finally:
        blocks.packs = former
