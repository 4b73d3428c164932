"""Is a model that was cut still the model? A few positions of noise tell, also of an architecture nobody has tried.

Blocks are right if they use nothing but the hidden states they are given, if they make the same of a text in one go and
step by step, and if two texts at a time do not meet. All of that can be asked of a range of blocks alone, before its
node says that it is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import StandIn, find_stack
from far_node.blocks.run import Blocks

_START, _LENGTH = 3, 5  # positions in the first step, and in all
# How far step by step may be from all at once, as a share of the difference that another beginning makes. What is
# forgotten or misplaced comes to 1 and more, rounding to some hundredths. It can choose another expert, and that comes
# to more; but not with one noise after another.
_TOLERANCE = 0.3
_ATTEMPTS = 3


@torch.inference_mode()
def find_obstacle(model: PreTrainedModel, blocks: Blocks) -> str | None:
    """Run noise through freshly loaded blocks: why they do not work apart from their model, or None when they do.

    One by one, as a route may use a part of a range, and as differences would grow from block to block.
    """
    for index in range(blocks.first, blocks.end):
        obstacle = _find_in(model, blocks, index)
        if obstacle:
            return obstacle
    return None


def _find_in(model: PreTrainedModel, blocks: Blocks, index: int) -> str | None:
    def run(hidden: Tensor, cache: BlockCache | None = None) -> Tensor:
        return blocks.run(hidden, blocks.new_cache() if cache is None else cache, index, index + 1)

    text = _noise(blocks, 0)
    try:
        with _unknown_beyond(model):
            whole = run(text)
    except _NeededError:
        return "its layers hand on more than the hidden states"
    if not whole.isfinite().all():
        if run(text).isfinite().all():
            return "its layers need more than the hidden states of the layer before"
        return None  # too much for this compute type: nothing can be learnt from it
    obstacle = _compare(run, blocks.new_cache, text, whole, _noise(blocks, 1))
    for attempt in range(1, _ATTEMPTS):
        if obstacle is None:
            break
        text = _noise(blocks, 2 * attempt)
        obstacle = _compare(run, blocks.new_cache, text, run(text), _noise(blocks, 2 * attempt + 1))
    return obstacle


def _compare(
    run: Callable[..., Tensor], new_cache: Callable[[], BlockCache], text: Tensor, whole: Tensor, other: Tensor
) -> str | None:
    """What came of a text in one go against the same step by step, beside another text that has the same end."""
    other[:, _START:] = text[:, _START:]
    kept, beside = new_cache(), new_cache()
    stepwise, after_other = [], []
    for start, end in [(0, _START), *((at, at + 1) for at in range(_START, _LENGTH))]:
        stepwise.append(run(text[:, start:end], kept))
        after_other.append(run(other[:, start:end], beside))
    errors = _distance(torch.cat(stepwise, dim=1), whole)
    effect = _distance(torch.cat(stepwise, dim=1), torch.cat(after_other, dim=1))[_START:].mean()
    rounding = max(1e-3, 4 * torch.finfo(whole.dtype).eps) * _distance(whole, torch.zeros_like(whole)).mean()
    if errors[:_START].mean() > _TOLERANCE * effect + rounding:
        return "what follows a token changes what its layers make of it"
    if errors[_START:].mean() > _TOLERANCE * effect + rounding:
        return "its layers make something else of a text step by step than in one go"
    return None


def _noise(blocks: Blocks, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(1, _LENGTH, blocks.hidden_size, generator=generator)
    return drawn.to(blocks.device, blocks.dtype)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """How far apart the hidden states are at each position."""
    return (one.float() - other.float()).norm(dim=-1)[0]


@contextmanager
def _unknown_beyond(model: PreTrainedModel) -> Iterator[None]:
    """Let all that comes from parts which do not run be no number, so that it shows wherever it is used."""
    with ExitStack() as undo:

        def hide(runner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
            for module in runner.modules():  # by now what does not run has been taken out
                if isinstance(module, StandIn):
                    undo.callback(module.register_forward_hook(_unknown_output).remove)
            return args, kwargs | {"inputs_embeds": torch.full_like(kwargs["inputs_embeds"], torch.nan)}

        undo.callback(find_stack(model).runner.register_forward_pre_hook(hide, with_kwargs=True).remove)
        yield


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
