"""From what the owner asked for to blocks that compute: find the model, see what fits, load."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging as transformers_logging

from discovery.protocol.announcement import Dtype, Quantization
from discovery.protocol.errors import InvalidArgument
from far_node.blocks.cut import ModelShape, read_config, shape_of
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.source import ModelSource, find_model
from far_node.capacity import Plan, Range, Room, Wish, divide, plan_blocks
from far_node.config import ModelOptions

Progress = Callable[[int, int], None]
"""How many of how many tensors have been read; called from the thread that loads."""


@dataclass(frozen=True)
class Found:
    """A model that is here, and what each kind of its weights would take: bytes of every block."""

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

    def bytes_of(self, kind: Quantization, blocks: Range) -> int:
        """Memory of the weights of a range."""
        return sum(self.sizes[kind][slice(*blocks)])


def find(options: ModelOptions, device: str) -> Found:
    """Find the model and read its config. It may be downloaded, so this can take long.

    Raises:
        FarError: there is no such model, it cannot be cut, or it does not have the blocks asked for.
    """
    if options.cpu_offload and device == "cpu":
        raise InvalidArgument("--cpu-offload is for nodes with a GPU; this one computes on the CPU anyway")
    source = find_model(options.model, options.model_id)
    config = read_config(source)
    shape = shape_of(config)
    _check_blocks(options, shape)
    dtype: Dtype = options.dtype or ("float32" if device == "cpu" else "bfloat16")
    kinds = (options.quantization,) if options.quantization else usual_kinds(device)
    return Found(options, source, shape, device, dtype, {kind: block_sizes(config, kind, dtype) for kind in kinds})


def usual_kinds(device: str) -> tuple[Quantization, ...]:
    """Kinds of weights that suit a device, the finest first: int8 is the fastest on a CPU, and 4 bits the slowest."""
    if device.startswith("cuda"):
        return "int8", "nf4"
    return ("none",) if device == "mps" else ("int8",)


def load(found: Found, plan: Plan, blocks: Range, progress: Progress) -> Blocks:
    """Load a range of blocks, as planned.

    Raises:
        FarError: the weights are missing, damaged, or the architecture cannot be cut.
    """
    with _watched(progress):
        return load_blocks(
            found.source, *blocks, dtype=found.dtype, quantization=plan.quantization, device=found.device
        )


def block_sizes(config: Any, kind: Quantization, dtype: Dtype) -> tuple[int, ...]:
    """Interim."""
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from far_node.blocks.cut import find_stack, node_class
    count = shape_of(config).block_count
    with torch.device("meta"):
        layers = find_stack(node_class(config, 0, count)(config)).layers
    size = {"float32": 4}.get(dtype, 2)
    sizes = []
    for layer in layers:
        total = 0
        for module in layer.modules():
            for name, p in module.named_parameters(recurse=False):
                n = p.numel()
                if kind != "none" and isinstance(module, nn.Linear | Conv1D) and name == "weight":
                    total += n + p.shape[0] * 4 if kind == "int8" else n // 2 + n // 16
                else:
                    total += n * size
        sizes.append(total)
    return tuple(sizes)


def _check_blocks(options: ModelOptions, shape: ModelShape) -> None:
    count = shape.block_count
    if options.blocks is not None and options.blocks[1] > count:
        raise InvalidArgument("blocks {}:{} are not within this model's 0:{}".format(*options.blocks, count))
    if options.num_blocks is not None and options.num_blocks > count:
        raise InvalidArgument(f"--num-blocks {options.num_blocks} is more than this model's {count}")
    longest = shape.context_length
    if options.context_length is not None and longest is not None and options.context_length > longest:
        raise InvalidArgument(f"--context-length {options.context_length} is more than this model's {longest}")


@contextlib.contextmanager
def _watched(progress: Progress) -> Iterator[None]:
    """transformers tells of each tensor it has loaded, to whoever stands in for its progress bar."""

    def count(tensors: Sequence[Any]) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            progress(done, len(tensors))
            yield tensor
        progress(len(tensors), len(tensors))

    def stand_in(make: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        if settings.get("desc") == "Loading weights":
            return count(list(arguments[0]))
        return make(*arguments, **settings)

    former = transformers_logging.set_tqdm_hook(stand_in)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(former)
