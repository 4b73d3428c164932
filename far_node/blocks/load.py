"""Load one block range through transformers' own loader, so that key renames and fused weights are right."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from discovery.protocol.announcement import Dtype, Quantization
from discovery.protocol.errors import InvalidArgument
from discovery.registry.files import loaded_weights
from far_node.blocks.cut import client_class, find_stack, node_class, read_config, shape_of
from far_node.blocks.gguf import read_header, write_part
from far_node.blocks.memory import return_freed_memory
from far_node.blocks.quantize import WeightsConfig, finish_quantizing
from far_node.blocks.run import Blocks
from far_node.blocks.source import ModelSource
from far_node.blocks.trial import find_obstacle
from far_node.blocks.wire import TORCH_DTYPES
from far_node.errors import ModelUnsupported

_CANNOT_BUILD = (AttributeError, TypeError, ValueError, KeyError, RuntimeError, NotImplementedError)
_ALONE = threading.Lock()  # transformers changes what is one for the whole process while it loads


def load_blocks(
    source: ModelSource,
    first: int,
    end: int,
    *,
    dtype: Dtype = "float32",
    quantization: Quantization = "none",
    device: str = "cpu",
    attention: str | None = None,
) -> Blocks:
    """Load blocks ``[first, end)`` of a model; nothing else of it is read or held.

    Args:
        attention: ``sdpa`` or ``eager``; None: what transformers takes for this architecture.

    Raises:
        InvalidArgument: the range is not within the model.
        ModelUnsupported: the architecture cannot be cut, or weights of these blocks are missing or damaged.
    """
    config = read_config(source)
    count = shape_of(config).block_count
    if not 0 <= first < end <= count:
        raise InvalidArgument(f"blocks {first}:{end} are not within this model's 0:{count}")
    options: dict[str, Any] = {
        "dtype": TORCH_DTYPES[dtype],
        **({"attn_implementation": attention} if attention else {}),
    }
    held = range(first, end)
    try:
        if quantization == "none":
            model = _load(source, config, held, **options).to(device)
        elif source.gguf is None and getattr(config, "quantization_config", None) is None:
            options |= {"quantization_config": WeightsConfig(quantization), "device_map": {"": device}}
            model = _load(source, config, held, **options)
        else:
            model = _load_by_layers(source, config, held, quantization, device, **options)
        if quantization != "none":
            finish_quantizing(model, quantization)
        return_freed_memory()
        blocks = Blocks(model, first, end)
        obstacle = find_obstacle(model, blocks)
    except _CANNOT_BUILD as error:
        raise _unsupported(source, config, error) from error
    if obstacle:
        raise ModelUnsupported(f"{source.id} ({config.model_type}) cannot be cut into blocks: {obstacle}")
    return blocks


def load_client_model(
    source: ModelSource, dtype: Dtype = "float32", model_class: type[PreTrainedModel] | None = None
) -> PreTrainedModel:
    """Load a model's embeddings, final norm and head, and none of its blocks.

    Args:
        model_class: what to make of it, where it is more than :func:`~far_node.blocks.cut.client_class`.

    Raises:
        ModelUnsupported: the architecture cannot be cut, or weights of the ends are missing or damaged.
    """
    config = read_config(source)
    wanted = model_class or client_class(config)
    with _weights(source, None) as (path, more):
        return _from_pretrained(wanted, source, path, config, dtype=TORCH_DTYPES[dtype], **more).eval()


def _load_by_layers(
    source: ModelSource, config: PreTrainedConfig, held: range, kind: Quantization, device: str, **options: Any
) -> PreTrainedModel:
    """Load weights that transformers must first make whole, and quantize each layer before the next is loaded."""
    whole: PreTrainedModel | None = None
    for index in held:
        model = _load(source, config, range(index, index + 1), **options).to(device)
        if not finish_quantizing(model, kind):
            raise ModelUnsupported(f"the weights of {source.id} cannot be made {kind}: use --quantization none")
        if whole is None:
            whole = model
        else:
            find_stack(whole).layers[index] = find_stack(model).layers[index]
    assert whole is not None
    return whole


def _load(source: ModelSource, config: PreTrainedConfig, held: range, **options: Any) -> PreTrainedModel:
    try:
        with _weights(source, held) as (path, more):
            return _from_pretrained(node_class(config, held.start, held.stop), source, path, config, **options, **more)
    except (SafetensorError, OSError) as error:
        raise _unsupported(source, config, error) from error


@contextlib.contextmanager
def _weights(source: ModelSource, held: range | None) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Where transformers finds weights of these layers, or of the ends of the model, and what it must be told.

    By itself it maps files into memory, where what was read stays beside what is made of it, and where a file that
    somebody cuts short ends the process; so for a node's layers it is given tensors that are read one by one. Of a GGUF
    file it would make all weights whole to keep some, so it is given a file with no others.
    """
    if source.gguf is None and held is None:
        yield source.path, {}
        return
    if source.gguf is None:
        with contextlib.ExitStack() as opened:
            yield None, {"state_dict": _tensors(source.path, opened)}
        return
    with tempfile.TemporaryDirectory(dir=source.path.parent) as scratch:
        part = Path(scratch) / "part.gguf"
        write_part(
            read_header(source.gguf), part, lambda tensor: (tensor.block in held) if held else tensor.block is None
        )
        yield Path(scratch), {"gguf_file": part.name}


def _tensors(directory: Path, opened: contextlib.ExitStack) -> dict[str, Any]:
    """The tensors of a directory's weight files by name; each is read where it is sliced."""
    tensors: dict[str, Any] = {}
    for name in loaded_weights(directory):
        file = opened.enter_context(safe_open(directory / name, framework="pt", backend="pread"))
        tensors |= {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    return tensors


def _from_pretrained(
    model_class: type[PreTrainedModel], source: ModelSource, path: Path | None, config: PreTrainedConfig, **options: Any
) -> PreTrainedModel:
    with _ALONE, _without_warnings():
        try:
            model, report = model_class.from_pretrained(
                path,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (*_CANNOT_BUILD, SafetensorError, OSError) as error:
            raise _unsupported(source, config, error) from error
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        raise ModelUnsupported(f"{source.id} lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}")
    loaded: PreTrainedModel = model
    return loaded


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Weights that nobody expected are the point of a hollow model, so transformers need not warn of them."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _unsupported(source: ModelSource, config: PreTrainedConfig, error: Exception) -> ModelUnsupported:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelUnsupported(f"{source.id} ({config.model_type}) cannot be cut into blocks: {reason}")
