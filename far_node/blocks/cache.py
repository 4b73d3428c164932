"""The attention cache of one session in one hollow model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

from far_node.blocks.cut import cache_layers, shape_of
from far_node.errors import BadPosition


class BlockCache(DynamicCache):
    """A DynamicCache whose absent layers report the same length as the ones held.

    transformers sizes its masks by whichever layer it finds first, which may not be ours. ``first`` and ``end`` are
    the layers held; with none held (a client) it only keeps count.
    """

    layers: list[Any]
    layer_class_to_replicate: type[Any] | None

    def __init__(self, config: PreTrainedConfig, first: int, end: int) -> None:
        super().__init__(config=config)
        if self.layer_class_to_replicate is not None:  # models without layer types: one plain layer each
            self.layers = [DynamicLayer() for _ in range(shape_of(config).block_count)]
            self.layer_class_to_replicate = None
        self._held = cache_layers(config, first, end)
        self._per_block = [cache_layers(config, block, block + 1) for block in range(first, end)]
        self.length = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions seen so far, whichever layer is asked."""
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """``(kv_length, kv_offset)`` of a layer, from the count of positions instead of the layer's own tensors."""
        window = getattr(self.layers[layer_idx], "sliding_window", None)
        if not window:
            return self.length + query_length, 0
        return min(self.length, window - 1) + query_length, max(self.length - window + 1, 0)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether a recurrent layer continues; absent layers follow the count of positions."""
        if layer_idx is None or layer_idx not in self._held:
            return self.length > 0
        return bool(super().has_previous_state(layer_idx, state_idx))

    def advance(self, positions: int) -> None:
        """Count positions that were just computed."""
        self.length += positions

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on.

        Raises:
            BadPosition: it is ahead of the cache, or a layer has already let those positions go.
        """
        if length == self.length:
            return
        if length > self.length:
            raise BadPosition(f"the step starts at position {length}, but only {self.length} have been computed")
        held = [self.layers[index] for index in self._held]
        before = [dict(vars(layer)) for layer in held]
        try:
            for layer in held:
                layer.crop(length - self.length)
        except (RuntimeError, NotImplementedError):
            for layer, state in zip(held, before, strict=True):  # all or none: others had gone back already
                vars(layer).update(state)
            raise BadPosition(f"this model cannot go back from position {self.length} to {length}") from None
        self.length = length

    def select_rows(self, rows: torch.Tensor) -> None:
        """Continue from these rows, in this order (beam search)."""
        for index in self._held:
            self.layers[index].reorder_cache(rows)

    def held_bytes(self) -> list[int]:
        """Memory of the tensors of each block held, recurrent states included."""
        return [sum(_tensor_bytes(vars(self.layers[index])) for index in layers) for layers in self._per_block]


def _tensor_bytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_tensor_bytes(item) for item in value.values())
    return 0
