"""Attention cache in slots, so that the steps of many sessions run in one forward pass.

A :class:`Slab` holds keys and values of some rows, ``[rows, heads, capacity, size]`` a layer; a position of a row is a
column. A session owns one row or more of a slab (:class:`SlotRows`) and its own length, so rows of different lengths
stand in one batch: each writes at its own columns and the mask lets each see its own past only. transformers' own
forward and its mask functions do the rest (continuous batching as in Orca, OSDI 2022, over slots instead of pages).
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING as LAYER_TYPES
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
    get_layer_types_and_kwargs,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, eager_mask, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from far_node.blocks.cut import text_config
from far_node.errors import BadPosition

# Batched with others they come out wrong, each for its own reason; alone they are right.
_ONE_BY_ONE = {
    "gpt_neo": "its local attention makes its own mask",
    "moshi": "its window is in its cache and not in its mask",
}
_HELD, _MASKS = "far_held", "far_masks"  # attributes by which a packed pass passes through a model that knows nothing
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
# Recurrent models whose layers were seen to go on from a kept state by several positions as they do one by one. Others
# may begin anew without a word, as the selective scan of the first Mamba does.
_RESUMING = {
    "bailing_hybrid",
    "bamba",
    "falcon_h1",
    "granitemoehybrid",
    "inkling_text",
    "kimi_linear",
    "lfm2",
    "lfm2_moe",
    "lfm3",
    "mamba2",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
}
_NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux, which Python names from 3.13 on
# private, so that pages can be given back; not reserved, because most of a slab is never written
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE} if sys.platform == "linux" else {}
)


def batching_obstacle(config: PreTrainedConfig) -> str | None:
    """Why sessions of this model cannot share a forward pass, or None when they can."""
    text = text_config(config)
    if text.model_type in _ONE_BY_ONE:
        return _ONE_BY_ONE[text.model_type]
    if rope_types(config) & LENGTH_DEPENDENT_ROPE:
        return "its rotary frequencies depend on the longest row of the batch"
    if getattr(text, "attn_temperature_tuning", None):
        return "its attention temperature is one for the whole batch"
    for kind in get_layer_types_and_kwargs(text)[0]:
        if LAYER_TYPES.get(kind) not in (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, DummyLayer):
            return f"its {kind.replace('_', ' ')} layers keep a cache of their own kind"
    return None


def resumes(config: PreTrainedConfig) -> bool:
    """Whether a step of several positions may follow others; if not, it must be given position by position."""
    text = text_config(config)
    kinds = (LAYER_TYPES.get(kind) for kind in get_layer_types_and_kwargs(text)[0])
    recurrent = any(kind is not None and issubclass(kind, LinearAttentionLayer) for kind in kinds)
    return not recurrent or text.model_type in _RESUMING


def divides(config: PreTrainedConfig) -> bool:
    """Whether a prompt is the same in parts. Not where angles depend on how long the text is at that moment, nor where
    transformers' indexer chooses among the positions of one pass.
    """
    has_indexer = getattr(text_config(config), "index_topk", None) is not None
    return resumes(config) and not has_indexer and not rope_types(config) & LENGTH_DEPENDENT_ROPE


def rope_types(config: PreTrainedConfig) -> set[str]:
    """The kinds of rotary embedding a config names, also where each kind of layer has its own."""
    text = text_config(config)
    found: set[str] = set()
    pending: list[Any] = [getattr(text, "rope_parameters", None), getattr(text, "rope_scaling", None)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found.update(str(value[key]) for key in ("rope_type", "type") if key in value)
            pending.extend(value.values())
    return found


class Slab:
    """Keys and values of up to ``max_rows`` sessions' rows, ``capacity`` positions each, for the layers of one range.

    ``rows`` is how many are promised: whoever admits sessions sets it, from another thread. The tensors grow with it
    when a row is first used, and shrink with it when one is given back, so never in the middle of a pass. On a CPU they
    are anonymous maps, whose pages cost memory only once they are written and go back when a row is cleared; elsewhere
    they are as large as they say.
    """

    def __init__(self, capacity: int, max_rows: int) -> None:
        self.capacity, self.max_rows, self.rows = capacity, max_rows, 0
        self._made = 0
        self._tensors: dict[int, tuple[_Plane, _Plane]] = {}

    def grow(self, rows: int) -> None:
        """Have room for so many rows at least, and for all that are promised."""
        self._made = max(self._made, self.rows, rows)

    def fit(self) -> None:
        """Have room for those that are promised, and no more."""
        self._made = self.rows
        self.all_held()

    def of(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The tensors of a layer, made like the first (rows, heads, positions, size) that it meets."""
        planes = self._tensors.get(layer)
        if planes is None:
            planes = self._tensors[layer] = _Plane(self, keys), _Plane(self, values)
        return planes[0].tensor(self._made), planes[1].tensor(self._made)

    def row(self, row: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values, (heads, capacity, size), of every layer that has been computed here."""
        held = {layer: [plane.tensor(self._made)[row] for plane in planes] for layer, planes in self._tensors.items()}
        return {layer: (keys, values) for layer, (keys, values) in held.items()}

    def all_held(self) -> list[Tensor]:
        """Keys and values of every layer that has been computed here."""
        return [plane.tensor(self._made) for planes in self._tensors.values() for plane in planes]

    def put(self, layer: int, row: int, keys: Tensor, values: Tensor) -> None:
        """Write (heads, positions, size) at the beginning of a row."""
        held_keys, held_values = self.of(layer, keys[None], values[None])
        held_keys[row, :, : keys.shape[1]] = keys
        held_values[row, :, : values.shape[1]] = values

    def clear(self, row: int) -> None:
        """Forget a row, so that nothing in it, not even a NaN, meets its next owner."""
        for planes in self._tensors.values():
            for plane in planes:
                plane.clear(row)


class _Plane:
    """The keys, or the values, of one layer in a slab."""

    def __init__(self, slab: Slab, like: Tensor) -> None:
        _, heads, _, size = like.shape
        self._row_shape = heads, slab.capacity, size
        self._dtype, self._device = like.dtype, like.device
        self._row_bytes = heads * slab.capacity * size * like.element_size()
        self._memory: mmap.mmap | None = None
        if like.device.type == "cpu":
            self._memory = mmap.mmap(-1, slab.max_rows * self._row_bytes, **_PRIVATE)
            self._whole = torch.frombuffer(self._memory, dtype=like.dtype).view(slab.max_rows, *self._row_shape)
        else:
            self._whole = torch.zeros(0, *self._row_shape, dtype=like.dtype, device=like.device)

    def tensor(self, rows: int) -> Tensor:
        """(rows or more, heads, capacity, size)."""
        if self._memory is None and len(self._whole) != rows:
            fresh = torch.zeros(rows, *self._row_shape, dtype=self._dtype, device=self._device)
            kept = min(rows, len(self._whole))
            fresh[:kept] = self._whole[:kept]
            self._whole = fresh
        return self._whole

    def clear(self, row: int) -> None:
        if row >= len(self._whole):
            return
        page, start, end = mmap.PAGESIZE, row * self._row_bytes, (row + 1) * self._row_bytes
        if self._memory is None or start % page or end % page or sys.platform != "linux":
            self._whole[row].zero_()
        else:
            self._memory.madvise(mmap.MADV_DONTNEED, start, self._row_bytes)  # zero pages again, and given back


@dataclass
class SlotRows:
    """A session's cache: ``count`` rows of a slab from ``first`` on, and how far they are filled."""

    slab: Slab
    first: int
    count: int
    length: int = 0
    states: dict[int, dict[str, dict[int, Tensor]]] = field(default_factory=dict)
    clean: bool = False

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on.

        Raises:
            BadPosition: it is ahead of the cache, or the model keeps a recurrent state, which cannot go back.
        """
        if length > self.length:
            raise BadPosition(f"the step starts at position {length}, but only {self.length} have been computed")
        if length < self.length and self.states:
            if length:
                raise BadPosition(f"this model cannot go back from position {self.length} to {length}")
            self.states = {}
        self.length = length

    def select_rows(self, rows: Tensor) -> None:
        """Continue from these rows of the session, in this order (beam search)."""
        if not self.length:
            return  # nor need there be tensors yet
        for tensor in self.slab.all_held():
            own = tensor[self.first : self.first + self.count, :, : self.length]
            own.copy_(own[rows])
        for layer in self.states.values():
            for kind in layer.values():
                for index, state in kind.items():
                    kind[index] = state[rows]

    def prepare(self) -> None:
        """Before the first use: what the rows' former owner left goes."""
        if not self.clean:
            self.slab.grow(self.first + self.count)
            self._forget()
            self.clean = True

    def clear(self) -> None:
        """After the last use: forget what is in the rows, and give their memory back."""
        self._forget()
        self.slab.fit()

    def _forget(self) -> None:
        for row in range(self.first, self.first + self.count):
            self.slab.clear(row)


@dataclass(frozen=True)
class _Rows:
    """The batch as a mask function is given it, in the place of one offset for all rows."""

    positions: Tensor
    """(rows, positions) of the queries."""


class _Batch:
    """Which rows of which slabs are in the forward pass that runs now, and where each stands."""

    def __init__(self, parts: Sequence[SlotRows], positions: int, device: torch.device) -> None:
        self.parts, self.positions = parts, positions
        self.positions_of = [positions] * len(parts)
        self.lengths = [part.length for part in parts]
        self.longest, self.shortest = max(self.lengths), min(self.lengths)
        self.count = sum(part.count for part in parts)
        slab = parts[0].slab
        following = all(a.first + a.count == b.first for a, b in pairwise(parts))
        self.slab = slab if all(part.slab is slab for part in parts) else None
        self.view = slice(parts[0].first, parts[0].first + self.count) if self.slab and following else None
        self.rows: Tensor | None = None
        self.query_positions: Tensor | None = None
        if self.longest != self.shortest:
            starts = [part.length for part in parts for _ in range(part.count)]
            offsets = torch.arange(positions, device=device)
            self.query_positions = torch.tensor(starts, device=device)[:, None] + offsets
            self.rows = torch.tensor(
                [row for part in parts for row in range(part.first, part.first + part.count)], device=device
            )

    @property
    def end(self) -> int:
        """Columns in use after this pass."""
        return self.longest + self.positions

    def offset(self, window: int | None) -> int:
        """The first column that any row still sees through a window."""
        return max(self.shortest - window + 1, 0) if window else 0

    def write_and_read(self, layer: int, keys: Tensor, values: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Put new keys and values where they belong; give all that the mask may let through."""
        offset = self.offset(window)
        if self.slab is not None:
            held = self.slab.of(layer, keys, values)
            if self.view is not None:
                for tensor, fresh in zip(held, (keys, values), strict=True):
                    self._write(tensor, fresh)
                return held[0][self.view, :, offset : self.end], held[1][self.view, :, offset : self.end]
        return self._scattered(layer, keys, values, offset)

    def _write(self, tensor: Tensor, fresh: Tensor) -> None:
        if self.query_positions is None:
            tensor[self.view, :, self.longest : self.end] = fresh
        else:
            assert self.rows is not None
            tensor[self.rows[:, None], :, self.query_positions] = fresh.transpose(1, 2)

    def _scattered(self, layer: int, keys: Tensor, values: Tensor, offset: int) -> tuple[Tensor, Tensor]:
        """Rows that do not stand side by side are copied together."""
        shape = self.count, keys.shape[1], self.end - offset
        gathered = keys.new_zeros(*shape, keys.shape[-1]), values.new_zeros(*shape, values.shape[-1])
        at = 0
        for part in self.parts:
            mine, here = slice(part.first, part.first + part.count), slice(at, at + part.count)
            end = part.length + self.positions
            for tensor, fresh, copy in zip(part.slab.of(layer, keys, values), (keys, values), gathered, strict=True):
                tensor[mine, :, part.length : end] = fresh[here]
                copy[here, :, : end - offset] = tensor[mine, :, offset:end]
            at += part.count
        return gathered


@dataclass(frozen=True)
class _Segment:
    """One row of a session in a packed pass: its tokens there, its row in the slab and how far that is filled."""

    tokens: slice
    slab: Slab
    row: int
    length: int

    @property
    def positions(self) -> int:
        return int(self.tokens.stop - self.tokens.start)

    @property
    def end(self) -> int:
        return self.length + self.positions


class _PackedBatch:
    """Steps of any number of positions behind one another in a single row of tokens, nothing padded, nothing copied.

    All but the attention looks at each token by itself. The attention is told of the segments by attributes of the
    keys and of the mask; a model that does something of its own with either loses them, and cannot run this way: the
    mask has a shape that fits nothing, so this is an error and never a wrong result.
    """

    query_positions: Tensor

    def __init__(self, parts: Sequence[SlotRows], positions: Sequence[int], device: torch.device) -> None:
        self.parts, self.positions_of = parts, positions
        self.longest = max(part.length for part in parts)
        self.segments: list[_Segment] = []
        at, where = 0, []
        for part, count in zip(parts, positions, strict=True):
            for row in range(part.first, part.first + part.count):
                self.segments.append(_Segment(slice(at, at + count), part.slab, row, part.length))
                where.append(torch.arange(part.length, part.length + count, device=device))
                at += count
        self.tokens = at
        self.query_positions = torch.cat(where)[None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Put new keys and values, (1, heads, tokens, size), where they belong, and mark them with it."""
        held = []
        for segment in self.segments:
            own_keys, own_values = segment.slab.of(layer, keys, values)
            columns = slice(segment.length, segment.end)
            own_keys[segment.row, :, columns] = keys[0, :, segment.tokens]
            own_values[segment.row, :, columns] = values[0, :, segment.tokens]
            held.append((segment, own_keys, own_values))
        setattr(keys, _HELD, held)
        setattr(values, _HELD, held)

    def masks(self, mask_function: Callable[..., Tensor], window: int | None, device: torch.device | str) -> Tensor:
        """A mask of a shape that fits nothing, with those of the segments and their first columns as an attribute."""
        mask = torch.zeros((), dtype=torch.bool, device=device).expand(1, 1, self.tokens, self.tokens + 1)
        setattr(mask, _MASKS, [self._mask_of(segment, mask_function, window, device) for segment in self.segments])
        return mask

    def _mask_of(
        self,
        segment: _Segment,
        mask_function: Callable[..., Tensor],
        window: int | None,
        device: torch.device | str,
    ) -> tuple[Tensor | None, int]:
        offset = max(segment.length - window + 1, 0) if window else 0
        if mask_function is causal_mask_function and (segment.positions == 1 or segment.length == 0):
            return None, offset  # everything is seen, or torch's own causal mask says it all
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
        queries = torch.arange(segment.length, segment.end, device=device)[None, None, :, None]
        columns = torch.arange(offset, segment.end, device=device)[None, None, None]
        seen = mask_function(zero, zero, queries, columns)
        return seen.expand(1, 1, segment.positions, segment.end - offset), offset


class _SlotLayer(CacheLayerMixin):
    """A layer's keys and values, in the slabs of the batch."""

    is_croppable = True

    def __init__(self, index: int, window: int | None) -> None:
        super().__init__()
        self.index, self.sliding_window, self.is_sliding = index, window, window is not None
        self.batch: _Batch | _PackedBatch | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the slab's tensors are made when they are first written."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """As :meth:`transformers.Cache.update`."""
        assert self.batch is not None
        if isinstance(self.batch, _PackedBatch):
            self.batch.write(self.index, key_states, value_states)
            return key_states, value_states
        return self.batch.write_and_read(self.index, key_states, value_states, self.sliding_window)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """``(kv_length, kv_offset)``."""
        assert self.batch is not None
        if isinstance(self.batch, _PackedBatch):
            return self.batch.tokens, 0
        offset = self.batch.offset(self.sliding_window)
        return self.batch.longest + query_length - offset, offset

    def get_seq_length(self) -> int:
        """Positions of the longest row."""
        return self.batch.longest if self.batch else 0

    def get_max_length(self) -> int:
        """No bound of its own."""
        return -1


class _StateLayer(LinearAttentionLayer):
    """A recurrent or convolutional state: put together from the sessions' own before a pass, taken apart after it."""

    _KINDS = ("conv", "recurrent")

    def __init__(self, index: int, number_of_states: int) -> None:
        super().__init__(number_of_states=number_of_states)
        self.index = index

    def begin(self, parts: Sequence[SlotRows]) -> None:
        """Load the states of these sessions, all of them fresh or none."""
        continues = self.index in parts[0].states
        for state in range(self.number_of_states):
            self.has_previous_state[state] = continues
            for kind in self._KINDS:
                held = [part.states[self.index][kind].get(state) for part in parts] if continues else [None]
                tensors = [tensor for tensor in held if tensor is not None]
                getattr(self, f"{kind}_states")[state] = torch.cat(tensors) if tensors else None
                getattr(self, f"is_{kind}_states_initialized")[state] = bool(tensors)
                if kind == "conv" and tensors:
                    self.conv_kernel_size[state] = tensors[0].shape[-1]

    def end(self, parts: Sequence[SlotRows]) -> None:
        """Give each session its own back."""
        at = 0
        for part in parts:
            part.states[self.index] = {
                kind: {
                    state: tensor[at : at + part.count].clone()
                    for state, tensor in getattr(self, f"{kind}_states").items()
                    if tensor is not None
                }
                for kind in self._KINDS
            }
            at += part.count


class SlotCache(Cache):
    """What a hollow model is given as its cache: the rows of the sessions in the present pass."""

    def __init__(self, config: PreTrainedConfig, first: int, end: int) -> None:
        kinds, settings = get_layer_types_and_kwargs(text_config(config))
        layers: list[Any] = []
        for index, (kind, more) in enumerate(zip(kinds, settings, strict=True)):
            known = LAYER_TYPES[kind]
            if known is LinearAttentionLayer:
                layers.append(_StateLayer(index, more.get("number_of_states", 1)))
            elif known is DummyLayer:
                layers.append(DummyLayer())
            else:
                layers.append(_SlotLayer(index, more.get("sliding_window")))
        super().__init__(layers=layers)
        self.has_recurrent_state = any(isinstance(layers[index], _StateLayer) for index in range(first, end))
        """Whether a layer held keeps a state that cannot go back."""
        self._running = range(0)
        self._batch: _Batch | _PackedBatch | None = None

    def begin(self, parts: Sequence[SlotRows], positions: int, device: torch.device, first: int, end: int) -> Tensor:
        """Make a pass ready over these sessions, ``positions`` each, through blocks ``[first, end)``.

        Returns:
            The position of each query, (rows, positions).
        """
        for part in parts:
            part.prepare()
        batch = _Batch(parts, positions, device)
        self._set(batch, first, end)
        if batch.query_positions is not None:
            return batch.query_positions
        return torch.arange(batch.longest, batch.end, device=device).expand(batch.count, -1)

    def begin_packed(
        self, parts: Sequence[SlotRows], positions: Sequence[int], device: torch.device, first: int, end: int
    ) -> Tensor:
        """Make a pass ready over these sessions, each with its own number of positions, behind one another.

        Returns:
            The position of each token, (1, tokens).
        """
        for part in parts:
            part.prepare()
        batch = _PackedBatch(parts, positions, device)
        self._set(batch, first, end)
        return batch.query_positions

    def _set(self, batch: _Batch | _PackedBatch, first: int, end: int) -> None:
        self._batch, self._running = batch, range(first, end)
        for index, layer in enumerate(self.layers):
            if isinstance(layer, _SlotLayer):
                layer.batch = batch
            elif isinstance(layer, _StateLayer) and index in self._running:
                layer.begin(batch.parts)

    def finish(self) -> None:
        """The pass is done: sessions are longer, and nothing of them is kept here."""
        batch, self._batch = self._batch, None
        assert batch is not None
        for index, layer in enumerate(self.layers):
            if isinstance(layer, _SlotLayer):
                layer.batch = None
            elif isinstance(layer, _StateLayer) and index in self._running:
                layer.end(batch.parts)
        for part, positions in zip(batch.parts, batch.positions_of, strict=True):
            part.length += positions

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions of the longest row, whichever layer is asked."""
        return self._batch.longest if self._batch else 0

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        """Where the queries begin; where rows differ, the rows themselves, for :func:`_by_rows`."""
        batch = self._batch
        if isinstance(batch, _PackedBatch):
            return batch
        if batch is None or batch.query_positions is None:
            return self.get_seq_length()
        return _Rows(batch.query_positions)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """``(kv_length, kv_offset)``; layers without attention report what a full one would."""
        layer = self.layers[layer_idx]
        if isinstance(layer, _SlotLayer):
            return layer.get_mask_sizes(query_length)
        return self.get_seq_length() + query_length, 0

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        """Whether recurrent layers continue."""
        return self.get_seq_length() > 0


def _by_rows(original: Callable[..., Tensor | None], as_numbers: bool) -> Callable[..., Tensor | None]:
    """``original``, which knows one offset for the whole batch, and beside it masks where each row has its own."""

    def mask(
        *,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: Any = 0,
        kv_offset: int = 0,
        mask_function: Callable[..., Tensor] = causal_mask_function,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **more: Any,
    ) -> Tensor | None:
        if isinstance(q_offset, _PackedBatch) and not as_numbers:
            return q_offset.masks(mask_function, more.get("local_size"), device)
        if not isinstance(q_offset, _Rows):
            if as_numbers:
                more["dtype"] = dtype
            return original(
                batch_size=batch_size,
                q_length=q_length,
                kv_length=kv_length,
                q_offset=q_offset,
                kv_offset=kv_offset,
                mask_function=mask_function,
                device=device,
                **more,
            )
        row = torch.arange(batch_size, device=device)[:, None, None, None]
        head = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
        columns = torch.arange(kv_offset, kv_offset + kv_length, device=device)[None, None, None]
        seen = mask_function(row, head, q_offset.positions[:, None, :, None], columns)
        seen = seen.expand(batch_size, 1, q_length, kv_length)
        if not as_numbers:
            return seen
        return torch.where(seen, torch.zeros((), dtype=dtype, device=device), torch.finfo(dtype).min)

    return mask


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, Any]:
    """transformers' own attention; in a packed pass once for each segment, on its own columns of the slab."""
    held = getattr(key, _HELD, None)
    if held is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    masks, untouched = getattr(attention_mask, _MASKS, None), getattr(value, _HELD, None) is held
    if masks is None or not untouched:
        raise RuntimeError("this model does something of its own with masks, keys or values")
    outputs = []
    for (segment, keys, values), (mask, offset) in zip(held, masks, strict=True):
        own = query[:, :, segment.tokens]
        seen = (slice(segment.row, segment.row + 1), slice(None), slice(offset, segment.end))
        outputs.append(sdpa_attention_forward(module, own, keys[seen], values[seen], mask, **more)[0])
    return torch.cat(outputs, dim=1), None


AttentionInterface.register("sdpa", _attention)
AttentionMaskInterface.register("sdpa", _by_rows(sdpa_mask, as_numbers=False))
AttentionMaskInterface.register("eager", _by_rows(eager_mask, as_numbers=True))
