"""Tiny random models of different kinds, and what plain transformers makes of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models import (
    bloom,
    falcon,
    gemma2,
    gpt2,
    llama,
    mistral,
    mixtral,
    opt,
    qwen3,
)

from far_node.blocks.source import bundled_model_path

BLOCKS = 6
VOCABULARY = 128
_GAIN = 2.5  # of the layers over the embeddings, whose own tokens they would repeat otherwise
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
_MODERN: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}

KINDS: dict[str, Callable[[dict[str, Any]], PreTrainedConfig]] = {
    "llama": lambda more: llama.LlamaConfig(**_MODERN | more),
    "gpt2": lambda more: gpt2.GPT2Config(**{"n_embd": 64, "n_layer": BLOCKS, "n_head": 4, "n_positions": 256} | more),
    "bloom": lambda more: bloom.BloomConfig(**{"hidden_size": 64, "n_layer": BLOCKS, "n_head": 4} | more),
    "mistral": lambda more: mistral.MistralConfig(**_MODERN | {"sliding_window": 8} | more),
    "gemma2": lambda more: gemma2.Gemma2Config(
        **_MODERN
        | {
            "sliding_window": 8,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 5.0,
            "tie_word_embeddings": False,
        }
        | more
    ),
    "qwen3": lambda more: qwen3.Qwen3Config(**_MODERN | more),
    "mixtral": lambda more: mixtral.MixtralConfig(
        **_MODERN | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None} | more
    ),
    "opt": lambda more: opt.OPTConfig(
        **{
            "hidden_size": 64,
            "ffn_dim": 96,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
            "word_embed_proj_dim": 64,
        }
        | more
    ),
    "falcon": lambda more: falcon.FalconConfig(
        **{
            "hidden_size": 64,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": 4,
            "multi_query": True,
            "alibi": False,
            "new_decoder_architecture": False,
            "max_position_embeddings": 256,
        }
        | more
    ),
}


def make_model(directory: Path, kind: str = "llama", *, seed: int = 0, **settings: Any) -> Path:
    """Save a random model of a kind as safetensors. The same arguments give the same weights."""
    config = KINDS[kind]({"vocab_size": VOCABULARY, **_IDS} | settings)
    generator = torch.Generator().manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _redraw(name, parameter, generator)
    model.save_pretrained(directory)
    return directory


def make_sharded_model(directory: Path, kind: str = "llama", *, shard_size: str = "60KB", **settings: Any) -> Path:
    """The same, in files of at most ``shard_size``."""
    model = AutoModelForCausalLM.from_pretrained(make_model(directory, kind, **settings))
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size=shard_size)
    return directory


def _redraw(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """As initialised, a tiny model says one token for ever, and hides what is wrong with its layers."""
    draw = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    if parameter.ndim >= 2:
        fan_in = parameter.shape[0] if _is_conv1d(name) else parameter.shape[-1]
        parameter.copy_(draw * (1.0 if "embed" in name or "wte" in name else _GAIN) / fan_in**0.5)
    elif name.endswith("bias"):
        parameter.copy_(draw * 0.1)


def _is_conv1d(name: str) -> bool:
    return any(part in name for part in ("c_attn", "c_proj", "c_fc"))  # GPT-2 keeps these as (in, out)


def with_bundled_tokenizer(directory: Path) -> Path:
    """Give a model of 2048 words the tokenizer of the bundled model, without its chat template."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_model_path() / name, directory / name)
    return directory


BUNDLED_VOCABULARY = 2048


def whole_model(path: Path | str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model in plain transformers."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    return model


def greedy(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """What transformers itself generates, token by token, after ``prompt``."""
    output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=count, pad_token_id=0)
    return [int(token) for token in output[0, len(prompt) :]]
