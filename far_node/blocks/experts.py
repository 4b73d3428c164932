"""Experts of mixture-of-experts layers with quantized weights.

transformers keeps the weights of all experts of a layer in one parameter of three dimensions. Quantized, each expert's
matrix is a linear map of its own, in a list that takes the parameter's place; biases stay where they are. The module's
forward is replaced by one that calls those of the experts that were chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Linear = Callable[[Tensor], nn.Module]
"""Makes a quantized linear map from a weight (outputs, inputs)."""

_GATED, _PLAIN = ("gate_up_proj", "down_proj"), ("up_proj", "down_proj")


def expert_weights(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's parameters that hold the experts' weights; none where we know no forward for them."""
    names, _ = _experts(module)
    return tuple(name for name in names if isinstance(getattr(module, name, None), nn.Parameter))


def expert_shape(module: nn.Module, name: str) -> tuple[tuple[int, int], int]:
    """``(outputs, inputs)`` of an expert's matrix in a parameter of :func:`expert_weights`, and how many there are."""
    count, outputs, inputs = getattr(module, name).shape
    return ((inputs, outputs) if _is_transposed(module) else (outputs, inputs)), count


def quantize_experts(module: nn.Module, name: str, weight: Tensor, linear: Linear) -> None:
    """Put quantized maps in the place of the parameter ``name``, whose value is ``weight`` (experts, …, …)."""
    maps = [linear(matrix.t() if _is_transposed(module) else matrix) for matrix in weight]
    delattr(module, name)
    setattr(module, name, nn.ModuleList(maps))
    _, forward = _experts(module)
    module.forward = MethodType(forward, module)


def _experts(module: nn.Module) -> tuple[tuple[str, ...], Callable[..., Tensor]]:
    """Where a module keeps its experts' weights, and the forward that calls quantized ones."""
    match type(module).__name__:
        case "Llama4TextExperts":
            return _GATED, _sorted_forward
        case "JetMoeParallelExperts":
            return ("weight",), _split_forward
    # what transformers' use_experts_implementation gives to a class, whose contract this follows
    if all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "_apply_gate")):
        return (_GATED if module.has_gate else _PLAIN), _routed_forward
    return (), _routed_forward


def _is_transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", type(module).__name__ == "Llama4TextExperts"))


def _routed_forward(self: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """``hidden`` (tokens, size), the experts ``chosen`` (tokens, k) for each and their ``weights`` (tokens, k)."""
    first_name, last_name = _GATED if self.has_gate else _PLAIN
    outputs: Tensor | None = None
    for expert in torch.unique(chosen).tolist():
        token, place = torch.where(chosen == expert)
        inner = _apply(self, first_name, expert, hidden[token])
        inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
        result = _apply(self, last_name, expert, inner)
        if getattr(self, "has_post_expert_norm", False):
            result = self.post_expert_norm(result)
        result = result * weights[token, place, None]
        if outputs is None:
            outputs = result.new_zeros(*chosen.shape, result.shape[-1])
        outputs[token, place] = result
    # added up in the order of the choice, so a token's result does not depend on its company
    return torch.zeros_like(hidden) if outputs is None else outputs.sum(dim=1).to(hidden.dtype)


def _apply(self: Any, name: str, expert: int, rows: Tensor) -> Tensor:
    output = _map(self, name, expert, rows)
    return output + getattr(self, f"{name}_bias")[expert] if self.has_bias else output


def _map(self: Any, name: str, expert: int, rows: Tensor) -> Tensor:
    """By a quantized map, or by a matrix of a shape that cannot be quantized."""
    its = getattr(self, name)[expert]
    if isinstance(its, nn.Module):
        output: Tensor = its(rows)
        return output
    return functional.linear(rows, its.t() if _is_transposed(self) else its)


def _sorted_forward(self: Any, hidden: Tensor) -> Tensor:
    """``hidden`` (experts × tokens, size): every token for every expert, zero where it was not chosen."""
    by_expert = hidden.view(len(self.gate_up_proj), -1, hidden.shape[-1])
    outputs = torch.zeros_like(by_expert)
    chosen = by_expert.any(dim=-1)
    for expert in torch.where(chosen.any(dim=1))[0].tolist():
        rows = chosen[expert]
        gate, up = _map(self, "gate_up_proj", expert, by_expert[expert][rows]).chunk(2, dim=-1)
        outputs[expert][rows] = _map(self, "down_proj", expert, up * self.act_fn(gate))
    return outputs.view(-1, hidden.shape[-1])


def _split_forward(self: Any, inputs: Tensor, expert_size: list[int]) -> Tensor:
    """``inputs`` (rows, size), sorted by expert; ``expert_size`` says how many are whose."""
    parts = torch.split(inputs, expert_size)
    return torch.cat([linear(part) for linear, part in zip(self.weight, parts, strict=True) if len(part)])
