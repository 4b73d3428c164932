"""8- and 4-bit weights through bitsandbytes (LLM.int8, arXiv:2208.07339; NF4, arXiv:2305.14314)."""

from __future__ import annotations

import logging

import torch
from transformers import BitsAndBytesConfig

from discovery.protocol.announcement import Quantization

# on a CPU bitsandbytes reports a cast at every single matrix product
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """What from_pretrained needs to quantise while it loads. ``dtype`` is the compute type of nf4."""
    match kind:
        case "none":
            return None
        case "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        case "nf4":
            return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
