"""Tensors as bytes: hidden states in the session's wire type."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from discovery.protocol.announcement import Codec
from discovery.protocol.codec import INT8_BLOCK, WireTensor

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


_LEVELS = 127


def to_wire(hidden: Tensor, codec: Codec) -> WireTensor:
    """``hidden`` (rows, positions, size), written as ``codec`` says."""
    if codec == "int8":
        return WireTensor(codec, tuple(hidden.shape), _to_int8(hidden.detach().to("cpu", torch.float32)))
    flat = hidden.detach().to(device="cpu", dtype=TORCH_DTYPES[codec]).contiguous()
    data = flat.view(torch.uint8).numpy().tobytes()
    return WireTensor(codec, tuple(flat.shape), data)


def from_wire(wire: WireTensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor, in our own compute type. ``wire`` has been checked when it was decoded."""
    if wire.dtype == "int8":
        return _from_int8(wire).to(device=device, dtype=dtype)
    flat = torch.frombuffer(bytearray(wire.data), dtype=TORCH_DTYPES[wire.dtype])
    return flat.view(wire.shape).to(device=device, dtype=dtype)


def can_carry(hidden: Tensor, codec: Codec) -> bool:
    """Whether all values are finite as ``codec`` writes them."""
    return all_finite(hidden if codec == "int8" else hidden.to(TORCH_DTYPES[codec]))


def all_finite(values: Tensor) -> bool:
    """Whether no value is infinite or NaN.

    A sum is one pass over the values, and finite only if they all are; one that is not may have been too large itself.
    """
    return math.isfinite(values.sum(dtype=torch.float32).item()) or bool(values.isfinite().all())


def _to_int8(hidden: Tensor) -> bytes:
    """Codes of a position, then a scale for each block; where a number is not finite, nor is its block's scale."""
    *positions, size = hidden.shape
    blocks = functional.pad(hidden, (0, -size % INT8_BLOCK)).view(*positions, -1, INT8_BLOCK)
    # what is rounded to bfloat16 may come out too small by 2^-9, so that a code could be 128
    scales = (blocks.abs().amax(dim=-1) * (1.01 / _LEVELS)).to(torch.bfloat16)
    steps = scales.float().clamp(min=torch.finfo(torch.float32).tiny)
    codes = (blocks / steps[..., None]).round_().nan_to_num_().to(torch.int8).view(*positions, -1)[..., :size]
    return torch.cat((codes.view(torch.uint8), scales.view(torch.uint8)), dim=-1).numpy().tobytes()


def _from_int8(wire: WireTensor) -> Tensor:
    *positions, size = wire.shape
    values = torch.frombuffer(bytearray(wire.data), dtype=torch.uint8).view(*positions, -1)
    codes = values[..., :size].contiguous().view(torch.int8).float()
    scales = values[..., size:].clone(memory_format=torch.contiguous_format).view(torch.bfloat16).float()
    return codes * scales.repeat_interleave(INT8_BLOCK, dim=-1)[..., :size]
