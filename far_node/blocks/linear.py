"""Matrix products of several rows on a CPU, by oneDNN where that is quicker than what torch takes by itself.

For float32 torch multiplies with MKL, which on some processors computes a batch of 16 rows at half the speed of
oneDNN (measured on a Zen core: 0.55 of the time at 16 rows, 0.47 at 64, the same weights in the same memory). Which
of the two is quicker here is measured once a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

_WORTH_MULTIPLICATIONS = 1 << 21  # below that the longer way to the kernel takes more than it gives
_GAIN = 0.9
_TRIES = 7


class _OneDnnLinear(nn.Linear):
    """A Linear that lets oneDNN multiply when there is enough to multiply."""

    def forward(self, input: Tensor) -> Tensor:
        """As :class:`torch.nn.Linear`."""
        if input.numel() * self.out_features < _WORTH_MULTIPLICATIONS:
            return functional.linear(input, self.weight, self.bias)
        return _by_onednn(input, self.weight, self.bias)


def speed_up_linears(model: nn.Module) -> None:
    """Let the plain float32 Linears of a model on a CPU take the quicker way. Their weights stay as they are."""
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    linears = [one for one in linears if one.weight.device.type == "cpu" and one.weight.dtype == torch.float32]
    if linears and onednn_is_quicker():
        for linear in linears:
            linear.__class__ = _OneDnnLinear


@cache
def onednn_is_quicker() -> bool:
    """Whether this processor multiplies 16 rows quicker with oneDNN, and with the same result."""
    rows, weight = torch.randn(16, 1024), torch.randn(1024, 1024)
    try:
        agrees = torch.allclose(_by_onednn(rows, weight, None), functional.linear(rows, weight), atol=1e-2, rtol=1e-4)
    except (RuntimeError, AttributeError):  # a build of torch without it
        return False
    ours = _best_seconds(lambda: _by_onednn(rows, weight, None))
    theirs = _best_seconds(lambda: functional.linear(rows, weight))
    return agrees and ours < _GAIN * theirs


def _by_onednn(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product


def _best_seconds(call: Callable[[], Tensor]) -> float:
    taken = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)
