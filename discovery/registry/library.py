"""The models a registry has: read once, then ready to be handed out layer by layer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.registry.errors import ModelNotPrepared, ModelNotServed
from discovery.registry.files import MAX_SMALL_FILE_BYTES, real_file, small_files, weight_files
from discovery.registry.hashes import HashCache, OnBytes, file_key
from discovery.registry.manifest import FileEntry, Manifest, make_manifest, read_holding
from discovery.registry.shards import CUT, Segment, Shard, cut_model

State = Literal["waiting", "preparing", "ready", "failed"]
OnPrepared = Callable[[str, "Status"], None]


@dataclass(frozen=True)
class Status:
    """How far a model is. Bytes are those that must be read before it can be handed out."""

    state: State
    done_bytes: int = 0
    total_bytes: int = 0
    manifest: Manifest | None = None
    error: FarError | None = None


@dataclass(frozen=True)
class _Prepared:
    """A model whose files are known. ``keys``: by those we see that a file was changed since."""

    manifest: Manifest
    shards: Mapping[str, Shard]
    keys: Mapping[Path, str]


@dataclass
class _Model:
    directory: Path
    status: Status = field(default_factory=lambda: Status("waiting"))
    prepared: _Prepared | None = None


class _Closed(Exception):
    pass


@dataclass(frozen=True)
class Served:
    """A file as it is handed out."""

    shard: Shard
    sha256: str


class Library:
    """Models by their public names. To prepare one its bytes are read twice, once in its life: the hashes stay."""

    def __init__(self, models: Mapping[str, Path], on_prepared: OnPrepared = lambda _id, _status: None) -> None:
        self._models = {model_id: _Model(directory) for model_id, directory in models.items()}
        self._on_prepared = on_prepared
        self._reading = asyncio.Lock()
        self._closed = False

    @property
    def model_ids(self) -> list[str]:
        """What is here."""
        return list(self._models)

    def status(self, model_id: str) -> Status:
        """How far a model is.

        Raises:
            ModelNotServed: it is not here.
        """
        return self._model(model_id).status

    async def prepare(self, model_id: str) -> None:
        """Read a model's files anew, one model at a time. What is wrong with them is in its status afterwards.

        Raises:
            ModelNotServed: it is not here.
        """
        model = self._model(model_id)
        model.prepared, model.status = None, Status("waiting")
        async with self._reading:
            model.status = Status("preparing")
            try:
                prepared = await asyncio.to_thread(_prepare, model_id, model.directory, self._progress_of(model))
                total = model.status.total_bytes
                model.prepared, model.status = prepared, Status("ready", total, total, prepared.manifest)
            except _Closed:
                return
            except FarError as error:
                model.status = Status("failed", error=error)
            except OSError as error:
                reason = f"{model.directory} cannot be read: {error.strerror}"
                model.status = Status("failed", error=InvalidArgument(reason))
        self._on_prepared(model_id, model.status)

    def close(self) -> None:
        """Stop reading; what was read so far need not be read again."""
        self._closed = True

    def _progress_of(self, model: _Model) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if self._closed:
                raise _Closed
            model.status = Status("preparing", done, total)

        return tell

    def manifest(self, model_id: str) -> Manifest:
        """What a model consists of.

        Raises:
            ModelNotServed: it is not here.
            ModelNotPrepared: not yet, or it cannot be used.
        """
        return self._prepared(model_id).manifest

    def open(self, model_id: str, name: str) -> Served:
        """A file of a model by its name in the manifest.

        Raises:
            ModelNotServed: no such model or file.
            ModelNotPrepared: not yet, or the files were changed since.
        """
        prepared = self._prepared(model_id)
        entries = (*prepared.manifest.files, *prepared.manifest.shards)
        entry = next((entry for entry in entries if entry.name == name), None)
        if entry is None:
            raise ModelNotServed(f"{model_id} has no file {name[:80]!r}", model_id=model_id)
        shard = prepared.shards[name]
        for file in {segment.file for segment in shard.segments}:
            if _key_now(file) != prepared.keys[file]:
                raise ModelNotPrepared(f"the files of {model_id} were changed; its operator must shard it again")
        return Served(shard, entry.sha256)

    def _model(self, model_id: str) -> _Model:
        if model_id not in self._models:
            raise ModelNotServed(f"this registry has no model {model_id[:MAX_MODEL_ID_LENGTH]!r}")
        return self._models[model_id]

    def _prepared(self, model_id: str) -> _Prepared:
        model = self._model(model_id)
        if model.prepared is not None:
            return model.prepared
        if model.status.error is not None:
            raise ModelNotPrepared(f"{model_id} cannot be handed out: {model.status.error.message}", retry_after=60)
        raise ModelNotPrepared(f"{model_id} is still being prepared", retry_after=5)


def _prepare(model_id: str, directory: Path, tell: Callable[[int, int], None]) -> _Prepared:
    cut = cut_model(directory)
    small = [_whole(file) for file in small_files(directory)]
    small = [shard for shard in small if shard.size <= MAX_SMALL_FILE_BYTES]
    originals = [_whole(file) for file in weight_files(directory)]
    published = _published_elsewhere(directory, originals)
    read = [*small, *([] if published else originals), *cut.shards]
    files = {segment.file for shard in (*read, *originals) for segment in shard.segments}
    keys = {file: file_key(file) for file in files}
    done, total = 0, sum(shard.size for shard in read)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    with HashCache() as cache:
        hashes = {}
        for shard in read:
            hashes[shard.name] = _sha256(shard, cache, keys, advance)
            cache.save()  # an interruption must not cost hours
    if keys != {file: _key_now(file) for file in files}:
        raise InvalidArgument(f"the files in {directory} were changed while they were read")
    manifest = make_manifest(
        model_id,
        files=_entries(small, hashes),
        weights=published or _entries(originals, hashes),
        shards=_entries(cut.shards, hashes),
        layers=[[shard.name] for shard in cut.layers],
        ends=[cut.ends.name],
        layer_prefix=cut.prefix,
    )
    return _Prepared(manifest, {shard.name: shard for shard in (*small, *cut.shards)}, keys)


def _whole(file: Path) -> Shard:
    """A file as it lies there."""
    real = real_file(file)
    return Shard(file.name, b"", (Segment(real, 0, real.stat().st_size),))


def _published_elsewhere(directory: Path, originals: list[Shard]) -> tuple[FileEntry, ...]:
    """The files that a model was published with, where the directory has it in another form: pulled by layers."""
    holding = read_holding(directory)
    if holding is None:
        return ()
    published = holding.manifest.weights
    return () if {entry.name for entry in published} == {shard.name for shard in originals} else published


def _sha256(shard: Shard, cache: HashCache, keys: Mapping[Path, str], on_bytes: OnBytes) -> str:
    """The hash of a shard, kept under all that it depends on."""
    if not shard.head:
        return cache.sha256(shard.segments[0].file, on_bytes)
    parts = [f"{keys[segment.file]}:{segment.offset}:{segment.length}" for segment in shard.segments]
    text = "\n".join((CUT, hashlib.sha256(shard.head).hexdigest(), *parts))
    key = f"shard:{hashlib.sha256(text.encode()).hexdigest()}"
    known = cache.get(key)
    if known is None:
        known = shard.sha256(on_bytes)
        cache.keep(key, known)
    else:
        on_bytes(shard.size)
    return known


def _entries(shards: Iterable[Shard], hashes: Mapping[str, str]) -> list[FileEntry]:
    return [FileEntry(name=shard.name, size=shard.size, sha256=hashes[shard.name]) for shard in shards]


def _key_now(file: Path) -> str | None:
    try:
        return file_key(file)
    except OSError:
        return None
