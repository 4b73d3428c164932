"""A range of blocks as one callable: hidden states in, hidden states out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import PassThrough, find_stack, shape_of, text_config
from far_node.blocks.linear import speed_up_linears
from far_node.blocks.slots import (
    Slab,
    SlotCache,
    SlotRows,
    batching_obstacle,
    divides,
    resumes,
    rope_types,
)

# what a decoder's loop says to a tensor that should have been a tuple
_LOOP_ERRORS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)

_PACKED_TOLERANCE = 0.02  # of the largest value: coarse types round, a wrong mask is far beyond


class Blocks:
    """Blocks ``[first, end)`` of a model on one device.

    A call keeps its state in the object, so calls must come one after the other (the executor's one thread).
    """

    def __init__(self, model: PreTrainedModel, first: int, end: int) -> None:
        self._model = model.eval()
        self.first, self.end = first, end
        self._stack = find_stack(model)
        self._inner_size = int(text_config(model.config).hidden_size)
        # kept, because each step asks: transformers looks them up in dozens of microseconds
        self._hidden_size, self._dtype = shape_of(model.config).hidden_size, model.config.dtype
        self._device = next(model.parameters()).device
        self._injected: Tensor | None = None
        self._captured: Tensor | None = None
        self._held = {index: self._stack.layers[index] for index in range(first, end)}
        self._borders: list[RemovableHandle] = []
        self._selected = (-1, -1)
        self._idle = {index: PassThrough(layer) for index, layer in self._held.items()}
        # now, while all that is held is in the stack: a call that runs a part of it takes the rest out
        self._parameter_count, self._parameter_bytes = int(model.num_parameters()), int(model.get_memory_footprint())
        self.one_by_one = batching_obstacle(model.config)
        self.resumes = resumes(model.config)
        """Whether a step of several positions can follow others in one go."""
        ropes = rope_types(model.config)
        self.divides = divides(model.config)
        """Whether a prefill is the same in chunks."""
        self._rotaries = [one for one in model.modules() if "dynamic" in ropes and hasattr(one, "max_seq_len_cached")]
        self._slots = None if self.one_by_one else SlotCache(model.config, first, end)
        speed_up_linears(model)
        self._learn_return_type()
        self.packs = False
        """Whether steps of different numbers of positions can share a pass."""
        self.packs = self._can_pack()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The compute type; some models keep parameters of another one among theirs."""
        return self._dtype

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self._hidden_size

    def parameter_count(self) -> int:
        """Parameters this process holds; a packed 4-bit weight counts each of its values."""
        return self._parameter_count

    def parameter_bytes(self) -> int:
        """Memory of the parameters and buffers."""
        return self._parameter_bytes

    @property
    def has_recurrent_state(self) -> bool:
        """Whether sessions keep a state that cannot go back, and that has no columns to take a part of."""
        return self._slots is not None and self._slots.has_recurrent_state

    def new_cache(self) -> BlockCache:
        """An empty cache for a session that runs alone."""
        return BlockCache(self._model.config, self.first, self.end)

    @torch.inference_mode()
    def run(
        self, hidden: Tensor, cache: BlockCache, first: int, end: int, left_padding: tuple[int, ...] = ()
    ) -> Tensor:
        """Run blocks ``[first, end)``, which may be a part of those held, on the next positions of ``cache``.

        Args:
            hidden: (rows, positions, hidden size).
            cache: advanced by ``positions``.
            left_padding: for each row, how many positions at its start are padding.

        Returns:
            The hidden states after block ``end - 1``, same shape.
        """
        if cache.length and hidden.shape[1] > 1 and not self.resumes:
            singles = torch.split(hidden, 1, dim=1)
            return torch.cat([self.run(one, cache, first, end, left_padding) for one in singles], dim=1)
        self._select(first, end)
        rows, count, _ = hidden.shape
        positions = torch.arange(cache.length, cache.length + count, device=hidden.device).expand(rows, -1)
        captured = self._forward(hidden, cache, self._arguments(positions, left_padding))
        cache.advance(count)
        return captured

    @torch.inference_mode()
    def run_together(
        self, parts: Sequence[tuple[Tensor, SlotRows]], first: int, end: int, left_padding: tuple[int, ...] = ()
    ) -> list[Tensor]:
        """Run blocks ``[first, end)`` on the next positions of several sessions in one pass.

        Args:
            parts: hidden states (rows, positions, hidden size), and the session's rows, which are advanced by the
                positions. Where :attr:`packs` is not set, all parts have the same number of positions.
            left_padding: for each row, how many positions at its start are padding; for one session alone.

        Returns:
            For each part the hidden states after block ``end - 1``, same shape.
        """
        assert self._slots is not None, "this model's sessions run one by one"
        if parts[0][1].length and parts[0][0].shape[1] > 1 and not self.resumes:
            return self._run_singly(parts, first, end, left_padding)
        self._select(first, end)
        if len(parts) > 1 and self.packs:
            return self._run_packed(self._slots, parts, first, end)
        # neighbours in a slab next to each other: then nothing has to be copied together
        order = sorted(range(len(parts)), key=lambda index: (id(parts[index][1].slab), parts[index][1].first))
        hidden = parts[0][0] if len(parts) == 1 else torch.cat([parts[index][0] for index in order])
        places = [parts[index][1] for index in order]
        positions = self._slots.begin(places, hidden.shape[1], hidden.device, first, end)
        captured = self._forward(hidden, self._slots, self._arguments(positions, left_padding))
        self._slots.finish()
        outputs = torch.split(captured, [place.count for place in places])
        return [output for _, output in sorted(zip(order, outputs, strict=True), key=lambda pair: pair[0])]

    def _run_singly(
        self, parts: Sequence[tuple[Tensor, SlotRows]], first: int, end: int, left_padding: tuple[int, ...]
    ) -> list[Tensor]:
        """As :meth:`run_together`, position by position."""
        turns = zip(*(torch.split(hidden, 1, dim=1) for hidden, _ in parts), strict=True)
        rows = [place for _, place in parts]
        outputs = [self.run_together(list(zip(turn, rows, strict=True)), first, end, left_padding) for turn in turns]
        return [torch.cat(of_one, dim=1) for of_one in zip(*outputs, strict=True)]

    def _run_packed(
        self, slots: SlotCache, parts: Sequence[tuple[Tensor, SlotRows]], first: int, end: int
    ) -> list[Tensor]:
        size = parts[0][0].shape[-1]
        hidden = torch.cat([part.reshape(1, -1, size) for part, _ in parts], dim=1)
        counts = [part.shape[1] for part, _ in parts]
        positions = slots.begin_packed([rows for _, rows in parts], counts, hidden.device, first, end)
        captured = self._forward(hidden, slots, self._arguments(positions, ()))
        slots.finish()
        outputs = torch.split(captured, [part.shape[0] * part.shape[1] for part, _ in parts], dim=1)
        return [output.reshape(part.shape) for output, (part, _) in zip(outputs, parts, strict=True)]

    def _can_pack(self) -> bool:
        """Whether a packed pass gives what sessions alone give, tried with two of them.

        On a CPU it is quicker; elsewhere one attention call for each session would take longer than padding.
        """
        implementation = text_config(self._model.config)._attn_implementation
        may = self.device.type == "cpu" and implementation == "sdpa" and self._stack.takes_positions
        if self._slots is None or self._slots.has_recurrent_state or not may:
            return False
        generator = torch.Generator().manual_seed(0)
        hidden = [torch.randn(1, count, self.hidden_size, generator=generator).to(self.dtype) for count in (3, 2, 1)]
        slab = Slab(8, 2)
        slab.rows = 2
        long, short, alone = SlotRows(slab, 0, 1), SlotRows(slab, 1, 1), self.new_cache()
        try:
            expected = [self.run(part, alone, self.first, self.end) for part in hidden[:2]][1]
            self.run_together([(hidden[0], long)], self.first, self.end)
            self.packs = True
            got = self.run_together([(hidden[1], long), (hidden[2], short)], self.first, self.end)[0]
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False
        finally:
            self.packs = False
        return bool((got - expected).abs().max() <= _PACKED_TOLERANCE * expected.abs().max())

    def _forward(self, hidden: Tensor, cache: Any, arguments: dict[str, Any]) -> Tensor:
        self._injected, self._captured = hidden, None
        for rotary in self._rotaries:
            _forget_longest_text(rotary)
        arguments |= {self._stack.cache_argument: cache, "use_cache": True}
        self._stack.runner(inputs_embeds=self._carrier(hidden), **arguments)
        captured, self._injected, self._captured = self._captured, None, None
        assert captured is not None
        return captured

    def _arguments(self, positions: Tensor, left_padding: tuple[int, ...]) -> dict[str, Any]:
        if not left_padding or not any(left_padding):
            return {"position_ids": positions} if self._stack.takes_positions else {}
        padding = torch.tensor(left_padding, device=positions.device)[:, None]
        seen = torch.arange(int(positions[0, -1]) + 1, device=positions.device)[None]
        arguments: dict[str, Any] = {"attention_mask": (seen >= padding).long()}
        if self._stack.takes_positions:
            arguments["position_ids"] = (positions - padding).clamp(min=0)
        return arguments

    def _carrier(self, hidden: Tensor) -> Tensor:
        """What the decoder's forward sees before our first block: only its shape and type matter."""
        return hidden.new_zeros(*hidden.shape[:2], self._inner_size)

    def _select(self, first: int, end: int) -> None:
        if (first, end) == self._selected:
            return
        for index, layer in self._held.items():
            self._stack.layers[index] = layer if first <= index < end else self._idle[index]
        for hook in self._borders:
            hook.remove()
        self._borders = [
            self._held[first].register_forward_pre_hook(self._inject, with_kwargs=True),
            self._held[end - 1].register_forward_hook(self._capture),
        ]
        self._selected = first, end

    def _inject(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": self._injected}
        return (self._injected, *args[1:]), kwargs

    def _capture(self, _: nn.Module, __: Any, output: Any) -> None:
        self._captured = output[0] if isinstance(output, tuple | list) else output

    @torch.inference_mode()
    def _learn_return_type(self) -> None:
        """Some layers return tuples; the pass-throughs beside ours must do as ours do. One dry run tells."""
        returned: list[bool] = []

        def look(_: nn.Module, __: Any, output: Any) -> None:
            returned.append(isinstance(output, tuple | list))
            raise _Seen

        self._select(self.first, self.end)
        self._injected = torch.zeros(1, 1, self.hidden_size, dtype=self.dtype, device=self.device)
        stand_ins = [layer for layer in (*self._stack.layers, *self._idle.values()) if isinstance(layer, PassThrough)]
        hook = self._held[self.first].register_forward_hook(look)
        try:
            for guess in (False, True):  # what stands before ours must please the loop as well
                for stand_in in stand_ins:
                    stand_in.returns_tuple = guess
                with suppress(_Seen, *(() if guess else _LOOP_ERRORS)):
                    self._stack.runner(inputs_embeds=self._carrier(self._injected), use_cache=False)
                if returned:
                    break
        finally:
            hook.remove()
        for stand_in in stand_ins:
            stand_in.returns_tuple = returned[0]
        self._injected = self._captured = None


def _forget_longest_text(rotary: nn.Module) -> None:
    """Bring dynamic frequencies back to the start: they are those of the longest text met, which may be another's."""
    for name, kept in list(rotary.named_buffers(recurse=False)):
        if name.endswith("original_inv_freq"):
            prefix = name.removesuffix("original_inv_freq")
            setattr(rotary, f"{prefix}inv_freq", kept)
            setattr(rotary, f"{prefix}max_seq_len_cached", rotary.original_max_seq_len)


class _Seen(Exception):
    """Ends the dry run."""
