"""A model directory that somebody else made: all of its files are there, and no manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.errors import WeightsDamaged
from discovery.registry.files import (
    CONFIG,
    MAX_SMALL_FILE_BYTES,
    is_unsafe,
    is_weights,
    loaded_weights,
    nests_too_deep,
    small_files,
    weight_files,
)
from discovery.registry.hashes import HashCache
from discovery.registry.headers import read_header
from discovery.registry.layers import block_count_of_text, find_layering
from discovery.registry.manifest import FileEntry, Manifest, make_manifest, model_digest
from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights
from far_node.models.progress import Counter, OnProgress


def hash_files(path: Path, on_progress: OnProgress) -> dict[str, str]:
    """SHA-256 of ``config.json`` and of every weight file in a directory, once their headers were checked.

    Raises:
        UnsafeWeights: there is no safetensors file.
        WeightsDamaged: one is malformed, or the index of several is, or the config is nested too deep.
        ModelNotFound: the index names a file that is not there.
    """
    weights = weight_files(path)
    if not weights:
        raise UnsafeWeights(_no_safetensors(path), path=str(path))
    if nests_too_deep((path / CONFIG).read_bytes()):
        raise WeightsDamaged(f"the config.json in {path} is nested deeper than any file of a model", file=CONFIG)
    for file in weights:
        read_header(file)
    for name in loaded_weights(path):
        if not (path / name).is_file():
            raise ModelNotFound(f"{path} lacks {name}, which its index names", model=str(path))
    files = [path / CONFIG, *weights]
    counter = Counter("verifying", path.name, sum(file.stat().st_size for file in files), on_progress)
    with HashCache() as cache:
        return {file.name: cache.sha256(file, counter) for file in files}


def digest_of(hashes: Mapping[str, str]) -> str:
    """The digest of a model by the hashes of its files."""
    return model_digest(hashes[CONFIG], {name: sha256 for name, sha256 in hashes.items() if name != CONFIG})


def describe_directory(path: Path, model_id: str, on_progress: OnProgress) -> Manifest:
    """A manifest of the model in a directory.

    Raises:
        ModelNotFound: there is no config.json, or no weights that a loader would find.
        ModelUnsupported: config.json does not say how many layers there are.
        FarError: as :func:`hash_files`.
    """
    if not (path / CONFIG).is_file():
        raise ModelNotFound(f"{path} holds no config.json, so it is not a model directory", model=str(path))
    count = block_count_of_text((path / CONFIG).read_bytes())
    if count is None:
        raise ModelUnsupported(f"the config.json in {path} does not say how many layers there are")
    hashes = hash_files(path, on_progress)
    loaded = loaded_weights(path)
    if not loaded:
        raise ModelNotFound(f"{path} holds neither model.safetensors nor an index of its files", model=str(path))
    for name in hashes:
        if name != CONFIG and not is_weights(name):
            raise WeightsDamaged(f"{name!r} in {path} is no name for a weight file", file=name)
    places = {tensor.name: name for name in loaded for tensor in read_header(path / name).tensors}
    grouping = group_by_layer(places, count)
    with HashCache() as cache:
        small = [
            FileEntry(name=file.name, size=file.stat().st_size, sha256=cache.sha256(file))
            for file in small_files(path)
            if file.stat().st_size <= MAX_SMALL_FILE_BYTES
        ]
    weights = [
        FileEntry(name=name, size=(path / name).stat().st_size, sha256=sha256)
        for name, sha256 in hashes.items()
        if name != CONFIG
    ]
    return make_manifest(
        model_id,
        files=small,
        weights=weights,
        shards=[entry for entry in weights if entry.name in loaded],
        layers=grouping.layers,
        ends=grouping.ends,
        layer_prefix=grouping.prefix,
    )


@dataclass(frozen=True)
class Grouping:
    """Which files each layer and the ends need, and how the names of the layers' weights begin, if that was found."""

    layers: tuple[frozenset[str], ...]
    ends: frozenset[str]
    prefix: str | None


def group_by_layer(places: Mapping[str, str], block_count: int) -> Grouping:
    """Sort files by layer, when ``places`` tells for each weight the file that it is in. Where the names of the weights
    tell nothing, everybody needs every file."""
    layering = find_layering(places, block_count)
    if layering is None:
        everything = frozenset(places.values())
        return Grouping((everything,) * block_count, everything, None)
    layers: list[set[str]] = [set() for _ in range(block_count)]
    ends: set[str] = set()
    for weight, file in places.items():
        layer = layering.layer_of(weight)
        if layer is None:
            ends.add(file)
        elif layer < block_count:  # what lies beyond, no block of the decoder loads
            layers[layer].add(file)
    return Grouping(tuple(frozenset(names) for names in layers), frozenset(ends), layering.prefix)


def _no_safetensors(path: Path) -> str:
    unsafe = sorted(file.name for file in path.iterdir() if is_unsafe(file.name))
    found = f" (found {', '.join(unsafe[:3])}, which can run code when loaded)" if unsafe else ""
    return f"{path} holds no .safetensors file{found}; convert the weights to safetensors"
