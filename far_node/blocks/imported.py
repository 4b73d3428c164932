"""A GGUF file as a model directory: config and tokenizer in the files that transformers knows, made once and kept.

The weights stay in the file. transformers reads what llama.cpp's converter wrote for some architectures rightly, for
others not quite; only those are taken that a test compares with the model before it was converted.
"""

from __future__ import annotations

import math
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import structlog
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from discovery.registry.files import CONFIG
from discovery.registry.hashes import cache_directory
from far_node.blocks.gguf import Header, read_floats
from far_node.errors import ModelUnsupported

log = structlog.get_logger(__name__)

SUPPORTED = ("llama", "qwen2", "qwen3", "qwen3moe")
"""llama.cpp's names. Mistral's files are llama's."""

_FORMAT = 1  # of what is kept
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_CANNOT_READ = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, NotImplementedError)


def model_directory(header: Header, sha256: str) -> Path:
    """Where the config and the tokenizer of a file are; they are made if they are not there.

    Raises:
        ModelUnsupported: its architecture, or something it asks of it.
    """
    if header.architecture not in SUPPORTED:
        raise ModelUnsupported(
            f"GGUF files of {header.architecture[:80]!r} are not supported, only of {', '.join(SUPPORTED)}; "
            "serve the model from its safetensors files"
        )
    place = cache_directory() / "gguf" / f"{sha256}-{_FORMAT}-{version('transformers')}"
    if not (place / CONFIG).is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            _make(header, Path(scratch))
            try:
                os.rename(scratch, place)
            except OSError:  # somebody else has just made it
                if not (place / CONFIG).is_file():
                    raise
            else:
                Path(scratch).mkdir()
    return place


def _make(header: Header, directory: Path) -> None:
    link = directory / "model.gguf"
    link.symlink_to(header.path.resolve())  # alone in here, so that nothing beside the file is read
    try:
        config = AutoConfig.from_pretrained(directory, gguf_file=link.name, trust_remote_code=False)
        _complete(config, header)
    except _CANNOT_READ as error:
        raise ModelUnsupported(f"{header.path.name} cannot be read: {_reason(error)}") from error
    try:
        AutoTokenizer.from_pretrained(directory, gguf_file=link.name, trust_remote_code=False).save_pretrained(
            directory
        )
    except _CANNOT_READ as error:  # a node needs none; a client is told that there is none
        log.warning("gguf_without_tokenizer", file=header.path.name, reason=_reason(error))
    link.unlink()
    config.save_pretrained(directory)


def _complete(config: PreTrainedConfig, header: Header) -> None:
    """What transformers does not take over."""
    for setting, name in (
        ("attention.key_length", "head_dim"),
        ("expert_feed_forward_length", "moe_intermediate_size"),
    ):
        value = header.get(setting)
        if value is not None and hasattr(config, name):
            setattr(config, name, value)
    if header.get("expert_count") and not getattr(config, "num_experts", None):
        raise ModelUnsupported(f"{header.path.name} has experts, which its architecture has not in transformers")
    config.bos_token_id = header.find("tokenizer.ggml.bos_token_id")
    config.pad_token_id = header.find("tokenizer.ggml.padding_token_id")
    ends = [header.find(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    config.eos_token_id = sorted({end for end in ends if end is not None}) or None
    _complete_rope(config, header)


def _complete_rope(config: PreTrainedConfig, header: Header) -> None:
    """Rotary frequencies that are scaled: llama.cpp writes those of Llama 3 as a tensor of divisors."""
    scaling = header.get("rope.scaling.type") or "none"
    tensors = [tensor for tensor in header.tensors if tensor.name.startswith(("rope_freqs", "rope_factors"))]
    if not tensors and scaling == "none":
        return
    if [tensor.name for tensor in tensors] == ["rope_freqs.weight"] and scaling == "none":
        divisors = read_floats(header, tensors[0])
        theta = config.rope_parameters["rope_theta"]
        config.rope_parameters = {"rope_theta": theta, **_LLAMA3_ROPE, "factor": max(divisors)}
        frequencies = ROPE_INIT_FUNCTIONS["llama3"](config, None)[0].tolist()
        plain = [theta ** (-index / len(frequencies)) for index in range(len(frequencies))]
        if len(divisors) == len(plain) and all(
            math.isclose(was / divisor, now, rel_tol=1e-4)
            for was, divisor, now in zip(plain, divisors, frequencies, strict=True)
        ):
            return
    raise ModelUnsupported(f"{header.path.name} scales its rotary frequencies in a way that is not Llama 3's")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
