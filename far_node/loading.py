"""From what the owner asked for to blocks that compute: find the model, see what fits, load."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging as transformers_logging

from discovery.protocol.announcement import Dtype, Quantization
from discovery.protocol.errors import InvalidArgument
from far_node.blocks.cut import ModelShape, read_config, shape_of
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.sizes import block_sizes
from far_node.blocks.source import ModelSource, find_model, release_model
from far_node.blocks.split import SplitBlocks
from far_node.capacity import Plan, Range, Room, Wish, divide, plan_blocks
from far_node.config import ModelOptions
from far_node.models.part import Part
from far_node.models.progress import Progress

Watch = Callable[..., None]
"""``watch(event, **facts)``: what is going on while a model is loaded."""

_PROGRESS_SECONDS = 0.3


@dataclass(frozen=True)
class Found:
    """A model whose config is here, and what each kind of its weights would take: bytes of every block.

    Whoever finds one lets go of it in the end: until then nobody removes it from the models directory.
    """

    options: ModelOptions
    source: ModelSource
    shape: ModelShape
    device: str
    dtype: Dtype
    sizes: Mapping[Quantization, Sequence[int]]

    def plan(self, rooms: Sequence[Room]) -> Plan:
        """What to hold of it.

        Raises:
            DoesNotFit: not what was asked for, or not even one block.
        """
        wish = Wish(tuple(self.sizes), self.options.blocks, self.options.num_blocks)
        return plan_blocks(self.sizes, wish, rooms)

    def fits(self, plan: Plan, rooms: Sequence[Room]) -> bool:
        """Whether a plan that was made for other rooms fits in these, and leaves their reserve alone."""
        first, end = plan.candidates[0]
        return divide(self.sizes[plan.quantization][first:end], [room.spare for room in rooms]) is not None

    def places(self, plan: Plan, blocks: Range) -> list[tuple[str, Range]]:
        """Which part of a planned range lies on which device: what does not fit on ours is for the CPU."""
        counts = divide(self.sizes[plan.quantization][slice(*blocks)], plan.room_bytes)
        assert counts is not None, "it was planned so that it fits"
        borders = itertools.accumulate(counts, initial=blocks[0])
        spans = zip((self.device, "cpu"), itertools.pairwise(borders), strict=False)
        return [(device, span) for device, span in spans if span[0] < span[1]]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Unless this goes well, the model's files are not needed any longer."""
        try:
            yield
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """The model's files may be removed from the models directory."""
        release_model(self.source)

    def bytes_of(self, kind: Quantization, blocks: Range) -> int:
        """Memory of the weights of a range."""
        return sum(self.sizes[kind][slice(*blocks)])


def find(options: ModelOptions, device: str) -> Found:
    """Find the model and read its config, which may be downloaded for that. Weights are not looked at yet.

    Raises:
        FarError: there is no such model, it cannot be cut, or it does not have the blocks asked for.
    """
    if options.cpu_offload and device == "cpu":
        raise InvalidArgument("--cpu-offload is for nodes with a GPU; this one computes on the CPU anyway")
    source = find_model(options.model, options.model_id, Part(), registry=options.registry)
    try:
        shape = shape_of(read_config(source))
        _check_blocks(options, shape)
        dtype: Dtype = options.dtype or ("float32" if device == "cpu" else "bfloat16")
        kinds = (options.quantization,) if options.quantization else usual_kinds(device)
        sizes = {kind: block_sizes(source, kind, dtype, device) for kind in kinds}
    except BaseException:
        release_model(source)
        raise
    return Found(options, source, shape, device, dtype, sizes)


def usual_kinds(device: str) -> tuple[Quantization, ...]:
    """Kinds of weights that suit a device, the finest first: int8 is the fastest on a CPU, and 4 bits the slowest."""
    if device.startswith("cuda"):
        return "int8", "nf4"
    return ("none",) if device == "mps" else ("int8",)


def fetch(found: Found, blocks: Range, watch: Watch) -> None:
    """Download what is not on this disk of a range, and check what is.

    Raises:
        FarError: the weights are missing, damaged or cannot be fetched.
    """
    pace = _Pace(watch)

    def progress(now: Progress) -> None:
        pace(now.work, now.done, now.total, unit="bytes", file=now.file)

    options, part = found.options, Part(*blocks)
    fetched = find_model(options.model, options.model_id, part, registry=options.registry, on_progress=progress)
    release_model(fetched)  # its model is in use as long as ``found`` is


def load(found: Found, plan: Plan, blocks: Range, watch: Watch) -> Blocks:
    """Load a range of blocks that are on this disk, as planned.

    Raises:
        FarError: weights of these blocks are missing or damaged, or the architecture cannot be cut.
    """
    with _watched(_Pace(watch)):
        parts = [
            load_blocks(
                found.source,
                *span,
                dtype=found.dtype,
                quantization=plan.quantization,
                device=device,
                attention=found.options.attention,
            )
            for device, span in found.places(plan, blocks)
        ]
    return parts[0] if len(parts) == 1 else SplitBlocks(parts)


def _check_blocks(options: ModelOptions, shape: ModelShape) -> None:
    count = shape.block_count
    if options.blocks is not None and options.blocks[1] > count:
        raise InvalidArgument("blocks {}:{} are not within this model's 0:{}".format(*options.blocks, count))
    if options.num_blocks is not None and options.num_blocks > count:
        raise InvalidArgument(f"--num-blocks {options.num_blocks} is more than this model's {count}")
    longest = shape.context_length
    if options.context_length is not None and longest is not None and options.context_length > longest:
        raise InvalidArgument(f"--context-length {options.context_length} is more than this model's {longest}")


class _Pace:
    """Tells how far some work is, but not so often that telling becomes work."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._last = watch, time.monotonic()

    def __call__(self, work: str, done: int, total: int, **more: Any) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self._watch("progress", work=work, done=done, total=total, **more)


@contextlib.contextmanager
def _watched(pace: _Pace) -> Iterator[None]:
    """transformers tells of each tensor it has loaded, to whoever stands in for its progress bar."""

    def count(tensors: Sequence[Any]) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            pace("reading", done, len(tensors), unit="tensors")
            yield tensor

    def stand_in(make: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        if settings.get("desc") == "Loading weights":
            return count(list(arguments[0]))
        return make(*arguments, **settings)

    former = transformers_logging.set_tqdm_hook(stand_in)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(former)
