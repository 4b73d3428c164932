"""Blocks that the client keeps to itself, at the beginning and at the end of a model: private ends.

What leaves the client then is not an embedding any more, from which each token can be looked up, but the hidden states
after its own first blocks; and what comes back is not one step away from the answer. It makes reading along harder, not
impossible: docs/security-and-privacy.md has figures.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from discovery.protocol.errors import InvalidArgument
from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import shape_of
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows
from far_node.blocks.source import find_model
from far_node.models.part import Part


class LocalBlocks:
    """The client's own blocks of one model. Calls on their texts come one after the other."""

    def __init__(self, first: Blocks | None = None, last: Blocks | None = None) -> None:
        self.first, self.last = first, last

    @classmethod
    def load(
        cls, model: str, config: PreTrainedConfig, first: int, last: int, model_id: str | None = None
    ) -> LocalBlocks:
        """Load the ``first`` blocks and the ``last`` ones of a model, in float32 on the CPU.

        Args:
            model: as :func:`~far_node.blocks.source.find_model` takes it.

        Raises:
            InvalidArgument: nothing would be left for the nodes, or a number is below 0.
            FarError: the model cannot be found or cut.
        """
        count = shape_of(config).block_count
        if first < 0 or last < 0 or first + last >= count:
            raise InvalidArgument(
                f"{first} first and {last} last blocks cannot be kept of {count}: at least one is the swarm's",
                param="local_blocks_first",
            )
        spans = ((0, first), (count - last, count))
        return cls(*(_load(model, model_id, *span) if span[0] < span[1] else None for span in spans))

    @property
    def counts(self) -> tuple[int, int]:
        """How many first and how many last blocks are here."""
        return (
            self.first.end - self.first.first if self.first else 0,
            self.last.end - self.last.first if self.last else 0,
        )

    def new_text(self, max_length: int, rows: int = 1, left_padding: tuple[int, ...] = ()) -> LocalText:
        """Room for a text of ``rows`` × ``max_length`` positions."""
        stretches = [
            None if blocks is None else _Stretch(blocks, max_length, rows, left_padding)
            for blocks in (self.first, self.last)
        ]
        return LocalText(*stretches)


class LocalText:
    """What the client's own blocks remember of one text: :meth:`before` its nodes and :meth:`after` them."""

    def __init__(self, first: _Stretch | None, last: _Stretch | None) -> None:
        self._first, self._last = first, last

    @property
    def needs_all(self) -> bool:
        """Whether every position must come back from the nodes, because blocks here have to remember it."""
        return self._last is not None

    def before(self, hidden: Tensor, start: int) -> Tensor:
        """Embeddings (rows, positions, size) at ``start`` and on, as they leave for the nodes.

        Raises:
            BadPosition: ``start`` lies ahead of what was computed, or the model cannot go back to it.
        """
        return hidden if self._first is None else self._first.run(hidden, start)

    def after(self, hidden: Tensor, start: int) -> Tensor:
        """What came back for the positions from ``start`` on, as it goes into the final norm.

        Raises:
            BadPosition: as for :meth:`before`.
        """
        return hidden if self._last is None else self._last.run(hidden, start)

    def select_rows(self, rows: tuple[int, ...]) -> None:
        """Continue from these rows, in this order (beam search)."""
        for stretch in (self._first, self._last):
            if stretch is not None:
                stretch.select_rows(rows)


class _Stretch:
    """Neighbouring blocks, and their attention cache for one text."""

    def __init__(self, blocks: Blocks, max_length: int, rows: int, left_padding: tuple[int, ...]) -> None:
        self._blocks, self._left_padding = blocks, left_padding
        self._cache: SlotRows | BlockCache = blocks.new_cache()
        if blocks.one_by_one is None:  # in slots every attention layer can go back, those with windows too
            slab = Slab(max_length, rows)
            slab.rows = rows
            self._cache = SlotRows(slab, 0, rows)

    @torch.inference_mode()
    def run(self, hidden: Tensor, start: int) -> Tensor:
        blocks, cache = self._blocks, self._cache
        cache.rewind(start)
        if isinstance(cache, SlotRows):
            parts = [(hidden, cache)]
            return blocks.run_together(parts, blocks.first, blocks.end, self._left_padding)[0]
        return blocks.run(hidden, cache, blocks.first, blocks.end, self._left_padding)

    @torch.inference_mode()
    def select_rows(self, rows: tuple[int, ...]) -> None:
        self._cache.select_rows(torch.tensor(rows))


def _load(model: str, model_id: str | None, first: int, end: int) -> Blocks:
    return load_blocks(find_model(model, model_id, Part(first, end)), first, end)
