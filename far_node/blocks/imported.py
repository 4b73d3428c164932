"""A GGUF file as a model directory: config and tokenizer in the files that transformers knows, made once and kept.

The weights stay in the file. transformers reads what llama.cpp's converter wrote for some architectures rightly, for
others not quite; only those are taken that a test compares with the model before it was converted.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from discovery.registry.hashes import cache_directory
from far_node.blocks.gguf import Header, read_floats, write_part
from far_node.errors import ModelUnsupported

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


def model_directory(header: Header, sha256: str, *, with_tokenizer: bool) -> Path:
    """Where the config of a file is, and its tokenizer if that is wanted; they are made if they are not there.

    Raises:
        ModelUnsupported: its architecture, or something it asks of it.
    """
    if header.architecture not in SUPPORTED:
        raise ModelUnsupported(
            f"GGUF files of {header.architecture[:80]!r} are not supported, only of {', '.join(SUPPORTED)}; "
            "serve the model from its safetensors files"
        )
    name = "-".join([sha256, str(_FORMAT), version("transformers"), "client" if with_tokenizer else "node"])
    place = cache_directory() / "gguf" / name
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=place.parent))
        except OSError as error:
            raise ModelUnsupported(f"the config of {header.path.name} cannot be kept: {_reason(error)}") from error
        try:
            _make_config(header, scratch)
            if with_tokenizer:
                _make_tokenizer(header, scratch)
            with contextlib.suppress(OSError):  # somebody else has just made it
                scratch.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


def _make_config(header: Header, directory: Path) -> None:
    # of a file with nothing else in it: transformers would take seconds to read a vocabulary that it does not need
    bare = directory / "config.gguf"
    write_part(header, bare, lambda tensor: False)
    try:
        config = AutoConfig.from_pretrained(directory, gguf_file=bare.name, trust_remote_code=False)
        _complete(config, header)
        _complete_rope(config, header)
    except _CANNOT_READ as error:
        raise ModelUnsupported(f"{header.path.name} cannot be read: {_reason(error)}") from error
    bare.unlink()
    config.save_pretrained(directory)


def _make_tokenizer(header: Header, directory: Path) -> None:
    link = directory / "model.gguf"
    link.symlink_to(header.path.resolve())
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=link.name, trust_remote_code=False)
        tokenizer.save_pretrained(directory)
    except _CANNOT_READ as error:
        raise ModelUnsupported(f"the tokenizer in {header.path.name} cannot be used: {_reason(error)}") from error
    finally:
        link.unlink()


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
    tensors = {tensor.name: tensor for tensor in header.tensors}
    config.tie_word_embeddings = "output.weight" not in tensors
    if "token_embd.weight" in tensors:
        config.vocab_size = tensors["token_embd.weight"].sizes[-1]


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
