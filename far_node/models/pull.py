"""Bring a part of a model onto this disk, and nothing else of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from discovery.protocol.errors import InvalidArgument
from discovery.registry.files import is_plain_name, is_unsafe
from discovery.registry.hashes import HashCache
from discovery.registry.manifest import FileEntry, Holding, Origin
from far_node.errors import UnsafeWeights
from far_node.models.download import Downloader, Expected, Request, part_of
from far_node.models.folder import Folder
from far_node.models.hub import HubSource, cached_file
from far_node.models.part import Part
from far_node.models.progress import Counter, OnProgress, silent
from far_node.models.sources import RegistrySource, Source
from far_node.models.store import ModelStore, Record, record_of

GGUF = ".gguf"
OnWait = Callable[[], None]


def pull(
    store: ModelStore,
    name: str,
    part: Part | None = None,
    *,
    registry: str | None = None,
    revision: str | None = None,
    model_id: str | None = None,
    on_progress: OnProgress = silent,
    on_wait: OnWait = lambda: None,
) -> Record:
    """Pull a part of a model (None: all of it) into the store, beside what is there of it already.

    What is there stays as it is, and once a model is there, more of it comes from the same commit. Several processes
    may pull at once; the second waits and finds what the first has fetched.

    Args:
        name: what the model is called here.
        registry: address of a layer registry; by default where the model came from before, or else the hub.
        revision: branch, tag or commit of the hub's repository.
        model_id: what the source calls it, if not ``name``.
        on_wait: called when another process is pulling the same model.

    Raises:
        ModelNotFound: the source has no such model for us.
        InvalidArgument: the model has no such part, or what is here under this name is another model.
        UnsafeWeights: its weights are in a format that can run code; nothing was fetched.
        WeightsDamaged: a file is not what the manifest says; it was deleted.
        DownloadFailed: the source cannot be reached or broke off; the next pull goes on from there.
        NoSpace: the disk is full, or the model does not fit into the store's limit.
    """
    with store.changing(name, on_wait) as path, Downloader() as downloader:
        known = store.get(name)
        if known is not None and (known.linked or known.file) and store.is_there(known):
            raise another(name)
        folder = Folder.at(path)
        if folder is not None and registry is None and revision is None and not folder.missing(part):
            return _noted(store, name, folder)
        source = _source(name, folder, registry, revision, model_id)
        folder = _described(path, folder, source, downloader)
        needed, missing = folder.needed(part), folder.missing(part)
        record = _record(store, name, folder)
        arrived = sum(_arrived(path, entry) for entry in missing)
        store.reserve(
            record.model_copy(update={"size_bytes": record.size_bytes + _size(missing)}), _size(missing) - arrived
        )
        counter = Counter("pulling", name, _size(needed), on_progress)
        counter(_size(needed) - _size(missing))
        for entry in missing:
            counter.file = entry.name
            _bring(entry, folder, source, downloader, counter)
        return _noted(store, name, folder)


def pull_file(
    store: ModelStore,
    name: str,
    request: Request,
    expected: Expected,
    origin: Origin,
    *,
    on_progress: OnProgress = silent,
    on_wait: OnWait = lambda: None,
) -> Record:
    """Pull a model that is one GGUF file into the store.

    Raises:
        UnsafeWeights: it is in another format; nothing was fetched.
        InvalidArgument: another model is here under this name.
        FarError: as :func:`pull`.
    """
    check_gguf(expected.name)
    with store.changing(name, on_wait) as path, Downloader() as downloader:
        known = store.get(name)
        if known is not None and (known.file, known.origin) != (expected.name, origin) and store.is_there(known):
            raise another(name)
        now, target = time.time(), path / expected.name
        record = Record(
            name=name,
            directory=str(path),
            origin=origin,
            kind="gguf",
            file=expected.name,
            size_bytes=expected.size,
            added_at=now,
            last_used_at=now,
        )
        if known is not None and target.is_file():
            return known
        store.reserve(record, max(0, expected.size - _file_size(part_of(target))))
        counter = Counter("pulling", name, expected.size, on_progress)
        counter.file = expected.name
        sha256 = downloader.fetch(request, target, expected, counter)
        record = record.model_copy(update={"sha256": sha256})
        store.note(record)
        return record


def check_gguf(name: str) -> None:
    """Check that a model in one file is in a format that is taken, by its name alone.

    Raises:
        UnsafeWeights: it is not.
    """
    if not is_plain_name(name) or not name.endswith(GGUF):
        reason = "can run code when it is loaded" if is_unsafe(name) else "is neither a GGUF file nor a model directory"
        raise UnsafeWeights(f"{name[:100]!r} {reason}; nothing was fetched")


def _source(
    name: str, folder: Folder | None, registry: str | None, revision: str | None, model_id: str | None
) -> Source:
    """Where to pull from: what is asked for, or else where the model came from before, or else the hub."""
    origin = folder.holding.origin if folder else None
    model_id = model_id or (folder.manifest.model_id if folder else name)
    if registry is None and origin is not None and origin.kind == "registry":
        registry = origin.place
    if registry is not None:
        return RegistrySource(registry, model_id)
    if origin is not None and origin.kind == "hub":
        return HubSource(origin.place, revision or origin.revision)
    if origin is not None:
        raise InvalidArgument(f"{name} was added from {origin.place}, and this is all there is of it")
    return HubSource(model_id, revision)


def _described(path: Path, folder: Folder | None, source: Source, downloader: Downloader) -> Folder:
    """The folder, once it is known what belongs into it."""
    if folder is None:
        return Folder.make(path, _holding(path, source, downloader))
    if source.origin == folder.holding.origin:
        return folder
    with tempfile.TemporaryDirectory(dir=path, prefix=".other-") as elsewhere:
        other = _holding(Path(elsewhere), source, downloader).manifest
    mine = folder.manifest
    if other.digest != mine.digest:
        raise another(folder.path.name.replace("--", "/"))
    if other.shards != mine.shards or other.layers != mine.layers:
        raise InvalidArgument(
            f"{mine.model_id} is here in files that are cut in another way, from {folder.holding.origin.place}; "
            "remove it first, or pull it under another name"
        )
    return folder


def _holding(path: Path, source: Source, downloader: Downloader) -> Holding:
    def fetch(request: Request, expected: Expected) -> Path:
        target = path / expected.name
        if not (_file_size(target) == expected.size and expected.matches(target.read_bytes())):
            downloader.fetch(request, target, expected, lambda _: None)
        return target

    manifest = source.describe(downloader, fetch)
    return Holding(origin=source.origin, manifest=manifest)


def another(name: str) -> InvalidArgument:
    return InvalidArgument(f"another model is here under the name {name}; remove it, or give this one another name")


def _bring(entry: FileEntry, folder: Folder, source: Source, downloader: Downloader, counter: Counter) -> None:
    target = folder.path / entry.name
    if not _take_from_hub_cache(entry, source.origin, target):
        expected = Expected(entry.name, entry.size, entry.sha256)
        downloader.fetch(source.request_of(entry), target, expected, counter)
    else:
        counter(entry.size)


def _take_from_hub_cache(entry: FileEntry, origin: Origin, target: Path) -> bool:
    """Whether the hub's own client had the file on this disk already: then it is shared, or copied."""
    cached = cached_file(origin, entry.name) if origin.kind == "hub" else None
    if cached is None or _file_size(cached) != entry.size:
        return False
    with HashCache() as cache:
        if cache.sha256(cached) != entry.sha256:
            return False
    fresh = part_of(target)
    fresh.unlink(missing_ok=True)
    try:
        os.link(cached.resolve(), fresh)
    except OSError:  # another disk
        shutil.copyfile(cached, fresh)
    fresh.replace(target)
    return True


def _noted(store: ModelStore, name: str, folder: Folder) -> Record:
    folder.write_index()
    record = _record(store, name, folder)
    store.note(record)
    return record


def _record(store: ModelStore, name: str, folder: Folder) -> Record:
    known = store.get(name)
    record = record_of(name, folder, time.time())
    return record.model_copy(update={"added_at": known.added_at}) if known else record


def _size(entries: Iterable[FileEntry]) -> int:
    return sum(entry.size for entry in entries)


def _arrived(path: Path, entry: FileEntry) -> int:
    return min(entry.size, _file_size(part_of(path / entry.name)))


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
