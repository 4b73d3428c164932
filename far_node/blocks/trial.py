"""Is a model that was cut still the model? A few positions of noise tell, also of an architecture nobody has tried.

Blocks are right if they use nothing but the hidden states they are given, if they make the same of a text in one go and
step by step, and if two texts at a time do not meet. All of that can be asked of a range of blocks alone, before its
node says that it is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from far_node.blocks.cut import StandIn, find_stack
from far_node.blocks.run import Blocks

_START, _LENGTH = 3, 5  # positions in the first step, and in all
# How far step by step may be from all at once, as a share of the difference that another beginning makes. What is
# forgotten or misplaced comes to 1 and more; rounding, with the experts that it chooses, to some hundredths.
_TOLERANCE = 0.3


@torch.inference_mode()
def find_obstacle(model: PreTrainedModel, blocks: Blocks) -> str | None:
    """Run noise through freshly loaded blocks: why they do not work apart from their model, or None when they do."""
    text, other = _noise(blocks, 0), _noise(blocks, 1)
    other[:, _START:] = text[:, _START:]
    try:
        with _unknown_beyond(model):
            whole = blocks.run(text, blocks.new_cache(), blocks.first, blocks.end)
    except _NeededError:
        return "its layers hand on more than the hidden states"
    if not whole.isfinite().all():
        if blocks.run(text, blocks.new_cache(), blocks.first, blocks.end).isfinite().all():
            return "its layers need more than the hidden states of the layer before"
        return None  # too much for this compute type: nothing can be learnt from it
    stepwise, after_other = _in_turns(blocks, text, other)
    effect = _distance(stepwise, after_other)[_START:].mean()
    rounding = max(1e-3, 4 * torch.finfo(blocks.dtype).eps) * _distance(whole, torch.zeros_like(whole)).mean()
    errors, allowed = _distance(stepwise, whole), _TOLERANCE * effect + rounding
    if errors[:_START].mean() > allowed:
        return "what follows a token changes what its layers make of it"
    if errors[_START:].mean() > allowed:
        return "its layers make something else of a text step by step than in one go"
    return None


def _noise(blocks: Blocks, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(1, _LENGTH, blocks.hidden_size, generator=generator)
    return drawn.to(blocks.device, blocks.dtype)


def _in_turns(blocks: Blocks, *texts: Tensor) -> list[Tensor]:
    """What comes of each text, step by step, one session beside the other."""
    sessions = [(text, blocks.new_cache(), list[Tensor]()) for text in texts]
    for start, end in [(0, _START), *((at, at + 1) for at in range(_START, _LENGTH))]:
        for text, cache, outputs in sessions:
            outputs.append(blocks.run(text[:, start:end], cache, blocks.first, blocks.end))
    return [torch.cat(outputs, dim=1) for *_, outputs in sessions]


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """How far apart the hidden states are at each position."""
    return (one.float() - other.float()).norm(dim=-1)[0]


@contextmanager
def _unknown_beyond(model: PreTrainedModel) -> Iterator[None]:
    """Let all that comes from parts which are not here be no number, so that it shows wherever it is used."""
    with ExitStack() as undo:
        carrier = find_stack(model).runner.register_forward_pre_hook(_unknown_carrier, with_kwargs=True)
        undo.callback(carrier.remove)
        for module in model.modules():
            if isinstance(module, StandIn):
                undo.callback(module.register_forward_hook(_unknown_output).remove)
        yield


def _unknown_carrier(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    return args, kwargs | {"inputs_embeds": torch.full_like(kwargs["inputs_embeds"], torch.nan)}


def _unknown_output(_: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return (_unknown(output[0]), *(_Unknown() for _ in output[1:]))
    return _unknown(output)


def _unknown(output: Any) -> Any:
    return torch.full_like(output, torch.nan) if isinstance(output, Tensor) and output.is_floating_point() else output


class _Unknown:
    """What an absent layer would hand on beside the hidden states. Who takes it apart is found out."""

    def __getattr__(self, name: str) -> Any:
        raise _NeededError

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        raise _NeededError


class _NeededError(Exception):
    """Somebody needed what is unknown."""
