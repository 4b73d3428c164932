"""Tensors as bytes: hidden states in the session's wire type."""

from __future__ import annotations

import torch
from torch import Tensor

from discovery.protocol.announcement import Dtype
from discovery.protocol.messages import WireTensor

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def to_wire(hidden: Tensor, codec: Dtype) -> WireTensor:
    """``hidden`` (rows, positions, size) in the type ``codec``."""
    flat = hidden.detach().to(device="cpu", dtype=TORCH_DTYPES[codec]).contiguous()
    data = flat.view(torch.uint8).numpy().tobytes()
    return WireTensor(codec, tuple(flat.shape), data)


def from_wire(wire: WireTensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor, in our own compute type. ``wire`` has been checked when it was decoded."""
    flat = torch.frombuffer(bytearray(wire.data), dtype=TORCH_DTYPES[wire.dtype])
    return flat.view(wire.shape).to(device=device, dtype=dtype)
