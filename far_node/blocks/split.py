"""A range of blocks of which some lie on one device and the rest on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from far_node.blocks.cache import BlockCache
from far_node.blocks.run import Blocks
from far_node.blocks.slots import SlotRows


class SplitBlocks(Blocks):
    """Neighbouring ranges of one model, run one after the other. What goes in and comes out is in the CPU's memory.

    They share the sessions' caches: each keeps the keys and values of its own layers on its own device.
    """

    def __init__(self, parts: Sequence[Blocks]) -> None:
        self._parts = tuple(parts)
        self.first, self.end = parts[0].first, parts[-1].end
        self.one_by_one = parts[0].one_by_one
        self.packs = all(part.packs for part in parts)

    @property
    def device(self) -> torch.device:
        """Where hidden states are taken and given."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The compute type."""
        return self._parts[0].dtype

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self._parts[0].hidden_size

    def parameter_count(self) -> int:
        """Parameters on all devices."""
        return sum(part.parameter_count() for part in self._parts)

    def parameter_bytes(self) -> int:
        """Memory of the parameters and buffers on all devices."""
        return sum(part.parameter_bytes() for part in self._parts)

    @property
    def has_recurrent_state(self) -> bool:
        """Whether a part keeps a state that cannot go back."""
        return any(part.has_recurrent_state for part in self._parts)

    def new_cache(self) -> BlockCache:
        """An empty cache for a session that runs alone."""
        return BlockCache(self._parts[0]._model.config, self.first, self.end)

    def run(
        self, hidden: Tensor, cache: BlockCache, first: int, end: int, left_padding: tuple[int, ...] = ()
    ) -> Tensor:
        """As :meth:`Blocks.run`."""
        begin = cache.length
        for part, span in self._spans(first, end):
            cache.length = begin  # each part adds the same positions to its own layers
            hidden = part.run(hidden.to(part.device), cache, *span, left_padding)
        return hidden.to(self.device)

    def run_together(
        self, parts: Sequence[tuple[Tensor, SlotRows]], first: int, end: int, left_padding: tuple[int, ...] = ()
    ) -> list[Tensor]:
        """As :meth:`Blocks.run_together`."""
        places = [place for _, place in parts]
        begins = [place.length for place in places]
        hidden = [given for given, _ in parts]
        for part, span in self._spans(first, end):
            for place, begin in zip(places, begins, strict=True):
                place.length = begin
            here = [one.to(part.device) for one in hidden]
            hidden = part.run_together(list(zip(here, places, strict=True)), *span, left_padding)
        return [one.to(self.device) for one in hidden]

    def _spans(self, first: int, end: int) -> Iterator[tuple[Blocks, tuple[int, int]]]:
        """The parts that have something of a range, and what."""
        for part in self._parts:
            span = max(first, part.first), min(end, part.end)
            if span[0] < span[1]:
                yield part, span
