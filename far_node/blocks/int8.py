"""8-bit matrices on a CPU.

Weights are rounded row by row, as in LLM.int8 (arXiv:2208.07339). What differs is the other factor. LLM.int8 rounds
activations to 8 bits too, and sets columns with large values aside; which columns those are depends on all rows of a
batch, and to set them aside costs more than the product. Here a row of activations becomes two rows of 8-bit codes,
the second one for what the first leaves over: together 15 bits, so the weights' rounding is the only one that counts,
large values need no care, and a row's result is the same whatever else is in its batch. Sums of products are integers
and therefore exact. Decoding reads each weight once, so the second row of codes costs next to nothing there.

oneDNN multiplies; its layout of the weights is made once, at load. Where it has no exact and quick product
(:func:`code_levels`), weights are made floats again in small parts at each product, as bitsandbytes does.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_WEIGHT_LEVELS = 127
_LEVELS = 127, 63  # of activation codes; with 63 the sum of two products fits 16 bits, as CPUs without VNNI need it
_ROWS_AT_ONCE = 128  # bounds what lies between quantising and product, and the kernels that are made for a row count
_VALUES_AT_ONCE = 1 << 16
_PACKED_STEP = 64
_ZERO_POINT = torch.zeros(1, dtype=torch.int64)


class Int8Linear(nn.Module):
    """A linear map with 8-bit weights and a scale for each row of them.

    Args:
        weight: (outputs, inputs), of any float type; not kept.
        bias: (outputs); its values may be loaded later.
    """

    weight: nn.Parameter
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        codes, scale = quantize_rows(weight)
        self._levels = code_levels() if weight.device.type == "cpu" else None
        self.weight = nn.Parameter(_packed(codes) if self._levels else codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` (…, inputs) → (…, outputs), same type."""
        rows = inputs.reshape(-1, self.in_features).float()
        if self._levels:
            parts = [self._product(part, self._levels) for part in torch.split(rows, _ROWS_AT_ONCE)]
            product = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            product = self._plain_product(rows)
        if self.bias is not None:
            product += self.bias
        return product.to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)

    def padding_bytes(self) -> int:
        """What the packed layout takes beyond a byte for each weight."""
        return int(torch.ops.mkldnn._nbytes(self.weight)) - self.weight.numel() if self._levels else 0

    def _product(self, rows: Tensor, levels: int) -> Tensor:
        codes, scale = split_rows(rows, levels)
        products = _multiply(codes, levels, self.weight, self.scale)
        coarse, fine = products[: len(rows)], products[len(rows) :]
        return coarse.add_(fine, alpha=1 / (2 * levels)).mul_(scale)

    def _plain_product(self, rows: Tensor) -> Tensor:
        at_once = max(1, _VALUES_AT_ONCE // self.in_features)
        parts = [functional.linear(rows, part.float()) for part in torch.split(self.weight, at_once)]
        return torch.cat(parts, dim=1).mul_(self.scale)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit codes (rows, columns) and scales (rows), to whose products ``weight`` is rounded."""
    codes = torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format)
    scale = weight.new_empty(len(weight), 1, dtype=torch.float32)
    # in parts that stay in the core's cache: fresh memory for each step on the whole takes most of the time
    at_once = max(1, _VALUES_AT_ONCE // weight.shape[1])
    for first in range(0, len(weight), at_once):
        rows = slice(first, first + at_once)
        part = weight[rows].float()
        scale[rows] = _step(part, _WEIGHT_LEVELS)
        codes[rows] = (part / scale[rows]).round_()
    return codes, scale[:, 0]


def packed_bytes(rows: int, columns: int) -> int:
    """What oneDNN's layout of a matrix takes: both sides in steps of 64, and a 32-bit sum for each row."""
    rows, columns = (-(-size // _PACKED_STEP) * _PACKED_STEP for size in (rows, columns))
    return rows * columns + 4 * rows


def split_rows(rows: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Codes of rows, coarse ones first, then what those leave over; and the scale (rows, 1) of the coarse ones.

    A code is unsigned with its zero at ``levels + 1``; the fine ones count in steps ``2 × levels`` times smaller.
    """
    scale = _step(rows, levels)
    parts = rows.new_empty(2, *rows.shape)
    coarse, fine = parts[0], parts[1]
    torch.div(rows, scale, out=fine)
    torch.round(fine, out=coarse)
    fine.sub_(coarse).mul_(2 * levels)
    # half a step more, for the cast cuts off what is behind the point
    return parts.add_(levels + 1.5).to(torch.uint8).flatten(0, 1), scale


def _step(rows: Tensor, levels: int) -> Tensor:
    """The step (rows, 1) by which the largest value of a row is ``levels`` steps from zero."""
    return rows.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny).div_(levels)


@functools.cache
def code_levels() -> int | None:
    """Into how many levels to each side activations may be rounded here; None where there is no fit 8-bit product.

    Some CPUs add up pairs of products in 16 bits and cut off what does not fit; others know 8-bit products only by a
    loop without vector instructions. Both are found out by trying.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-_WEIGHT_LEVELS, _WEIGHT_LEVELS + 1, (256, 1024), generator=generator, dtype=torch.int8)
    weight[:4] = torch.tensor([127, -127, 127, -127], dtype=torch.int8)[:, None]
    try:
        packed = _packed(weight)
        exact = [levels for levels in _LEVELS if _is_exact(weight, packed, levels)]
        return exact[0] if exact and _is_quick(weight, packed) else None
    except (AttributeError, RuntimeError, NotImplementedError):  # torch without oneDNN
        return None


def _is_exact(weight: Tensor, packed: Tensor, levels: int) -> bool:
    codes = torch.arange(8 * weight.shape[1]).view(8, -1).mul_(37).remainder_(2 * levels + 1).add_(1)
    expected = (codes - levels - 1) @ weight.long().t()
    product = _multiply(codes.to(torch.uint8), levels, packed, torch.ones(len(weight)))
    return bool(torch.equal(product.long(), expected))  # all below 2^24, so floats hold them


def _is_quick(weight: Tensor, packed: Tensor) -> bool:
    rows, scale = torch.ones(16, weight.shape[1]), torch.ones(len(weight))
    codes = torch.ones(16, weight.shape[1], dtype=torch.uint8)
    plain = _seconds(lambda: functional.linear(rows, weight.float()))
    return _seconds(lambda: _multiply(codes, _LEVELS[0], packed, scale)) < 2 * plain


def _seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _packed(codes: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(codes, None)
    return packed


def _multiply(codes: Tensor, levels: int, packed: Tensor, scale: Tensor) -> Tensor:
    """(codes − zero) · weightᵀ · scale, summed in integers."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, levels + 1, packed, scale, _ZERO_POINT, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return product
