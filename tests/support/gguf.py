"""GGUF files of tiny models, as llama.cpp's converter makes them, with the tokenizer of the bundled model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from safetensors.numpy import load_file

from far_node.blocks.source import bundled_model_path

NAMES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
"""Model types of transformers, and what llama.cpp calls them."""

_Weight = np.ndarray[Any, Any]


def write_gguf(
    model: Path, file: Path, kind: str = "Q8_0", edit: Callable[[gguf.GGUFWriter], None] | None = None
) -> Path:
    """Write a model directory as one file.

    Args:
        kind: of the matrices: ``F32``, ``F16``, ``Q8_0``, ``Q4_0`` …; vectors are kept as they are.
        edit: adds what else the file should hold.
    """
    config = json.loads((model / "config.json").read_text())
    name = NAMES[config["model_type"]]
    writer = gguf.GGUFWriter(file, name)
    _write_settings(writer, config)
    _write_tokenizer(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(_architecture(name), config["num_hidden_layers"])
    for key, weight in _stack_experts(load_file(model / "model.safetensors")).items():
        stem, _, suffix = key.rpartition(".")
        place = names.get_name(stem)
        assert place is not None, key
        _add(writer, f"{place}.{suffix}", _as_llama_cpp(name, key, weight.astype(np.float32), config), kind)
    if edit is not None:
        edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _architecture(name: str) -> gguf.MODEL_ARCH:
    return next(one for one, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def _write_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if "num_local_experts" in config:
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def _stack_experts(weights: dict[str, _Weight]) -> dict[str, _Weight]:
    """llama.cpp keeps a kind of matrix of all experts of a layer in one tensor."""
    stacked: dict[str, list[_Weight]] = {}
    for key in sorted(weights, key=lambda one: [int(part) if part.isdigit() else -1 for part in one.split(".")]):
        before, found, after = key.partition(".experts.")
        name = f"{before}.experts.{after.partition('.')[2]}" if found else key
        stacked.setdefault(name, []).append(weights[key])
    return {name: np.stack(parts) if ".experts." in name else parts[0] for name, parts in stacked.items()}


def _write_tokenizer(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    tokenizer = json.loads((bundled_model_path() / "tokenizer.json").read_text())["model"]
    words = sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__)
    words += [f"<unused{index}>" for index in range(len(words), vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words[:vocabulary])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word.startswith("<|") else gguf.TokenType.NORMAL for word in words[:vocabulary]]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)


def _as_llama_cpp(name: str, key: str, weight: _Weight, config: dict[str, Any]) -> _Weight:
    """Its converter lays out rotary dimensions in another order for llama."""
    if name == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config["num_attention_heads" if "q_proj" in key else "num_key_value_heads"]
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight


def _add(writer: gguf.GGUFWriter, name: str, weight: _Weight, kind: str) -> None:
    if weight.ndim < 2 or kind == "F32":
        writer.add_tensor(name, np.ascontiguousarray(weight))
    elif kind == "F16":
        writer.add_tensor(name, weight.astype(np.float16))
    else:
        quantization = GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(weight, quantization), raw_dtype=quantization)
