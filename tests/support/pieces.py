"""A model in three pieces and its two ends, chained in the open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from far_mesh.model.ends import ModelEnds
from far_node.blocks.cache import BlockCache
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.source import find_model

CUTS = ((0, 1), (1, 4), (4, 6))  # uneven, and one of a single block


class Pieces:
    """Three spans of a model of six blocks, and the client's ends."""

    def __init__(self, path: Path) -> None:
        source = self.source = find_model(str(path))
        self.spans = [load_blocks(source, first, end) for first, end in CUTS]
        self.ends = ModelEnds(load_client_model(source))

    def start(self, left_padding: tuple[int, ...] = ()) -> Walk:
        """A fresh text."""
        return Walk(self, left_padding)


class Walk:
    """One text on its way through the pieces."""

    def __init__(self, pieces: Pieces, left_padding: tuple[int, ...] = ()) -> None:
        self.pieces, self.left_padding = pieces, left_padding
        self.caches: list[BlockCache] = [span.new_cache() for span in pieces.spans]

    @property
    def length(self) -> int:
        """Positions seen."""
        return self.caches[0].length

    def step(self, ids: Tensor) -> Tensor:
        """Logits (rows, positions, vocabulary) of the next ``ids`` (rows, positions)."""
        start = self.length
        hidden = self._embed(ids, start)
        for span, cache in zip(self.pieces.spans, self.caches, strict=True):
            hidden = span.run(hidden, cache, span.first, span.end, self.left_padding)
        return self.pieces.ends.logits(hidden, start)

    def _embed(self, ids: Tensor, start: int) -> Tensor:
        """Row by row where rows are padded, so that absolute positions begin where the text does."""
        hidden = self.pieces.ends.embed(ids, start)
        for row, padding in enumerate(self.left_padding):
            skipped = max(0, padding - start)
            hidden[row, skipped:] = self.pieces.ends.embed(ids[row : row + 1, skipped:], start + skipped - padding)[0]
        return hidden

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on."""
        for cache in self.caches:
            cache.rewind(length)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Continue from these rows, in this order."""
        for cache in self.caches:
            cache.select_rows(torch.tensor(rows))
