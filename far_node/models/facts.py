"""What a model is and what serving it takes, read from its config and the headers of its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from discovery.registry.files import CONFIG, loaded_weights, parse_json
from discovery.registry.headers import BITS, TensorEntry, read_header
from discovery.registry.layers import Layering, block_count_in, find_layering
from far_node.blocks.source import BUNDLED_MODEL, bundled_model_path, find_model
from far_node.errors import ModelNotFound, ModelUnsupported
from far_node.models.folder import Folder
from far_node.models.part import Part
from far_node.models.progress import OnProgress, silent
from far_node.models.store import ModelStore, Record

_NF4_GROUP = 64  # elements that share one absolute maximum in bitsandbytes' 4-bit formats
_FLOATS = {name for name in BITS if name.startswith(("F", "BF"))}


@dataclass(frozen=True)
class Memory:
    """Bytes in memory, by kind of weights: as ``float32`` or ``bfloat16`` (float16 takes the same), or quantised to
    ``int8`` or ``nf4`` with the rest as bfloat16. An estimate from the shapes, as on a GPU: a CPU packs 8-bit weights
    in tiles and rounds small ones up. The cache comes on top."""

    float32: int
    bfloat16: int
    int8: int
    nf4: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(mine + theirs for mine, theirs in zip(self.all, other.all, strict=True)))

    @property
    def all(self) -> tuple[int, int, int, int]:
        """In the order of the fields."""
        return self.float32, self.bfloat16, self.int8, self.nf4


NO_MEMORY = Memory(0, 0, 0, 0)


@dataclass(frozen=True)
class BlockFacts:
    """A block that is here: bytes on the disk and in memory."""

    number: int
    disk_bytes: int
    memory: Memory


@dataclass(frozen=True)
class ModelFacts:
    """A model. ``blocks`` are those that are here; ``context_length`` is None where the config names none."""

    architecture: str
    block_count: int
    hidden_size: int | None
    context_length: int | None
    stored_dtypes: tuple[str, ...]
    blocks: tuple[BlockFacts, ...]
    ends_disk_bytes: int


@dataclass(frozen=True)
class Description:
    """A model by its name here. ``record``: None for one that is not in the store; ``facts``: None for a GGUF file."""

    name: str
    digest: str | None
    facts: ModelFacts | None
    record: Record | None


def describe(store: ModelStore, name: str, on_progress: OnProgress = silent) -> Description:
    """What is known of a model that is here: one of the store, a directory, or the bundled one.

    Raises:
        ModelNotFound: there is none.
        FarError: it is damaged, or cannot be understood.
    """
    record = store.get(name)
    if record is not None and record.file is not None:
        return Description(name, record.digest, None, record)
    place = store.place_of(record) if record is not None else Path(name).expanduser()
    if record is None and name == BUNDLED_MODEL:
        place = bundled_model_path()
    elif not place.is_dir():
        raise ModelNotFound(f"{name} is not here; far-node models pull {name} brings it", model=name)
    source = find_model(str(place), part=Part(), on_progress=on_progress)
    folder = Folder.at(source.path)
    if folder is None:
        files = [source.path / file for file in loaded_weights(source.path)]
        return Description(name, source.digest, facts_of(source.path, files), record)
    files = [source.path / entry.name for entry in folder.manifest.shards if folder.has(entry)]
    facts = facts_of(source.path, files, folder.manifest.layer_prefix)
    whole = {number for first, end in folder.blocks() for number in range(first, end)}
    blocks = tuple(block for block in facts.blocks if block.number in whole)
    return Description(name, source.digest, replace(facts, blocks=blocks), record)


def facts_of(directory: Path, weights: Iterable[Path], layer_prefix: str | None = None) -> ModelFacts:
    """The facts of the model in a directory, of which the safetensors files ``weights`` are here.

    Args:
        layer_prefix: how the names of the layers' weights begin; must be given where not all files are here.

    Raises:
        ModelUnsupported: its config does not say how many layers there are, or the names of its weights do not tell
            to which layer they belong.
        WeightsDamaged: a file is malformed.
    """
    config = _config(directory)
    count = block_count_in(config)
    if count is None:
        raise ModelUnsupported(f"the config.json in {directory} does not say how many layers there are")
    tensors = [tensor for file in weights for tensor in read_header(file).tensors]
    layering = Layering(layer_prefix) if layer_prefix else find_layering((tensor.name for tensor in tensors), count)
    by_layer: dict[int | None, list[TensorEntry]] = {}
    for tensor in tensors:
        by_layer.setdefault(layering.layer_of(tensor.name) if layering else None, []).append(tensor)
    decoder = config.get("text_config", config)
    return ModelFacts(
        architecture=str((config.get("architectures") or [config.get("model_type", "unknown")])[0]),
        block_count=count,
        hidden_size=_first_number(decoder, "hidden_size", "n_embd", "d_model"),
        context_length=_first_number(decoder, "max_position_embeddings", "n_positions", "max_seq_len"),
        stored_dtypes=tuple(sorted({tensor.dtype for tensor in tensors})),
        blocks=tuple(_block(number, by_layer[number]) for number in range(count) if number in by_layer),
        ends_disk_bytes=sum(tensor.size for tensor in by_layer.get(None, [])),
    )


def memory_of(tensor: TensorEntry) -> Memory:
    """What a weight of a block takes.

    Matrices, also those of fused experts, are quantised: int8 keeps a float32 scale for each row (arXiv:2208.07339),
    nf4 one for each 64 elements (arXiv:2305.14314). Vectors, convolutions and integers stay as they are.
    """
    elements = math.prod(tensor.shape)
    if tensor.dtype not in _FLOATS:
        return Memory(tensor.size, tensor.size, tensor.size, tensor.size)
    wide, narrow = 4 * elements, 2 * elements
    if len(tensor.shape) < 2 or min(tensor.shape[-2:]) < 2:
        return Memory(wide, narrow, narrow, narrow)
    rows = elements // tensor.shape[-1]
    return Memory(wide, narrow, elements + 4 * rows, -(-elements // 2) + 4 * -(-elements // _NF4_GROUP))


def _block(number: int, tensors: Iterable[TensorEntry]) -> BlockFacts:
    held = [(tensor.size, memory_of(tensor)) for tensor in tensors]
    return BlockFacts(number, sum(size for size, _ in held), sum((memory for _, memory in held), NO_MEMORY))


def _config(directory: Path) -> dict[str, Any]:
    try:
        config = parse_json((directory / CONFIG).read_bytes())
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelUnsupported(f"the config.json in {directory} cannot be read")
    return config


def _first_number(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)
