"""Where a model comes from, and what makes it the same model on two machines.

A model is a local directory, the name of one in the models directory or of the bundled one, or the id of a hub
repository, of which only the wanted part is fetched. Its ``digest`` covers ``config.json`` and the SHA-256 of every
safetensors file it was published with, so two nodes can be put in one route only when their weights are the same; names
and paths do not matter, nor which of the files are on this disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from discovery.protocol.errors import WeightsDamaged
from discovery.registry.files import CONFIG, is_directory, parse_json
from discovery.registry.hashes import HashCache
from discovery.registry.layers import block_count_in
from discovery.registry.manifest import model_digest
from far_node.blocks.gguf import read_header
from far_node.errors import ModelNotFound, ModelUnsupported
from far_node.models.directory import digest_of, hash_files
from far_node.models.folder import Folder
from far_node.models.part import ENDS, Part
from far_node.models.progress import Counter, OnProgress, silent
from far_node.models.store import ModelStore, Record, is_name

__all__ = [
    "BUNDLED_MODEL",
    "ENDS",
    "ModelSource",
    "Part",
    "block_count_of",
    "bundled_model_path",
    "find_model",
    "release_model",
]

BUNDLED_MODEL = "far-demo"
GGUF = ".gguf"


@dataclass(frozen=True)
class ModelSource:
    """A model on this disk: its public ``id``, its directory and the digest of its weights (SHA-256, hex).

    ``stored_as`` is its name in the models directory, if it is there: it stays until this process ends or calls
    :func:`release_model`. ``gguf`` is the file with its weights, if they are in one, and the directory has all else.
    """

    id: str
    path: Path
    digest: str
    stored_as: str | None = None
    gguf: Path | None = None


def bundled_model_path() -> Path:
    """The directory of the small model that comes with the package."""
    return Path(str(resources.files("far_node") / "bundled" / BUNDLED_MODEL))


def find_model(
    model: str,
    model_id: str | None = None,
    part: Part | None = None,
    *,
    registry: str | None = None,
    on_progress: OnProgress = silent,
) -> ModelSource:
    """Find ``model`` and identify it. What is missing of the wanted part is pulled from where the model comes from.

    Args:
        model: a directory, a GGUF file, a name in the models directory, the bundled name, or a hub id.
        model_id: its public name, if not that.
        part: what of it will be loaded: see :class:`~far_node.models.part.Part`. None: all of it.
        registry: address of a layer registry that has it under the name ``model``.
        on_progress: told how far downloads and checks are.

    Raises:
        ModelNotFound: there is no such model, here or where it would come from.
        UnsafeWeights: no safetensors file in it.
        WeightsDamaged: a weight file is malformed or not what its manifest says.
        ModelUnsupported: a GGUF file of an architecture that transformers does not read rightly.
        InvalidArgument: the model has no such part.
        DownloadFailed: a download broke off; the next one goes on from there.
        NoSpace: there is no room for what is missing.
    """
    if registry is None and is_directory(model):
        directory = Path(model).expanduser().resolve()
        return _in_directory(directory, model_id or directory.name, part, on_progress)
    if registry is None and model == BUNDLED_MODEL:
        return _in_directory(bundled_model_path(), model_id or BUNDLED_MODEL, part, on_progress)
    if registry is None and model.endswith(GGUF) and Path(model).expanduser().is_file():
        return _in_gguf(Path(model).expanduser(), model_id, part, on_progress)
    return _in_store(model, model_id or model, part, registry, on_progress)


def release_model(source: ModelSource) -> None:
    """Nothing of a model is in memory any more, so it may be removed from the models directory."""
    if source.stored_as is not None:
        ModelStore().release(source.stored_as)


def block_count_of(source: ModelSource) -> int:
    """How many blocks the model has, read from its config.json alone, for those who need not load transformers.

    Raises:
        ModelUnsupported: the file does not say.
    """
    try:
        count = block_count_in(parse_json((source.path / CONFIG).read_bytes()))
    except (OSError, ValueError):
        count = None
    if count is None:
        raise ModelUnsupported(f"the config.json of {source.id} does not say how many layers there are")
    return count


def _in_directory(path: Path, model_id: str, part: Part | None, on_progress: OnProgress) -> ModelSource:
    """A model in a directory that is its owner's: nothing in it is changed."""
    if not (path / CONFIG).is_file():
        raise ModelNotFound(f"{path} holds no config.json, so it is not a model directory", model=str(path))
    folder = Folder.at(path)
    if folder is None:
        return ModelSource(model_id, path, digest_of(hash_files(path, on_progress)))
    missing = folder.missing(part)
    if missing:
        raise ModelNotFound(f"{path} was pulled in part and lacks {missing[0].name}", model=str(path))
    folder.verify(part, on_progress, delete=False)
    return ModelSource(model_id, path, folder.manifest.digest)


def _in_gguf(file: Path, model_id: str | None, part: Part | None, on_progress: OnProgress) -> ModelSource:
    """A model that is one file. Its name does not matter: the same file is the same model."""
    from far_node.blocks.imported import model_directory

    header = read_header(file)
    counter = Counter("verifying", file.name, file.stat().st_size, on_progress)
    with HashCache() as cache:
        sha256 = cache.sha256(file, counter)
    directory = model_directory(header, sha256, with_tokenizer=part is None or part.ends)
    return ModelSource(model_id or file.stem, directory, model_digest("", {f"model{GGUF}": sha256}), gguf=file)


def _in_store(
    model: str, model_id: str, part: Part | None, registry: str | None, on_progress: OnProgress
) -> ModelSource:
    """A model in the models directory, where it is put if it is not there."""
    store = ModelStore()
    record = store.get(model)
    if record is None and registry is None and (model.count("/") != 1 or not is_name(model)):
        raise ModelNotFound(
            f"there is no model at {model!r}: give a directory, a name in the models directory, a hub id (owner/name) "
            "or far-demo",
            model=model,
        )
    store.use(model)  # before we look at its files: nobody removes them from here on
    try:
        if record is not None and (record.linked or record.file):
            source = _added(store, record, model_id, part, on_progress)
        else:
            source = _pulled(store, model, model_id, part, registry, on_progress)
        store.touch(model)
    except BaseException:
        store.release(model)
        raise
    return source


def _added(store: ModelStore, record: Record, model_id: str, part: Part | None, on_progress: OnProgress) -> ModelSource:
    """A model that was added without copying it, or that is one file."""
    place = store.place_of(record)
    if record.file:
        with HashCache() as cache:
            if not place.is_file() or cache.sha256(place) != record.sha256:
                raise WeightsDamaged(f"{place} is not the file that was added; remove {record.name} and add it again")
    source = find_model(str(place), model_id, part, on_progress=on_progress)
    if record.digest is not None and source.digest != record.digest:
        raise WeightsDamaged(
            f"the model in {place} was changed since it was added; remove {record.name} and add it again"
        )
    return replace(source, stored_as=record.name)


def _pulled(
    store: ModelStore, model: str, model_id: str, part: Part | None, registry: str | None, on_progress: OnProgress
) -> ModelSource:
    """A model of which the wanted part is here, or is fetched now."""
    path = store.folder_of(model)
    folder = Folder.at(path)
    if folder is None or folder.missing(part):
        from far_node.models.pull import pull

        try:
            pull(store, model, part, registry=registry, on_progress=on_progress)
        except ModelNotFound:
            found = _in_hub_cache(model, model_id, part, on_progress) if folder is None and registry is None else None
            if found is None:
                raise
            return found
        folder = Folder.at(path)
    if folder is None:
        raise ModelNotFound(f"{model} was removed while it was looked for", model=model)
    folder.verify(part, on_progress)
    folder.write_index()
    return ModelSource(model_id, path, folder.manifest.digest, stored_as=model)


def _in_hub_cache(model: str, model_id: str, part: Part | None, on_progress: OnProgress) -> ModelSource | None:
    """A repository that the hub's own client has on this disk, for when the hub cannot be reached."""
    from far_node.models.hub import cached_snapshot

    snapshot = cached_snapshot(model)
    if snapshot is None or not (snapshot / CONFIG).is_file():
        return None
    return _in_directory(snapshot, model_id, part, on_progress)
