"""Take a model that somebody has already into the models directory: a directory, a GGUF file, or the address of one."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry.files import real_file
from discovery.registry.hashes import HashCache, OnBytes, file_key
from discovery.registry.manifest import FileEntry, Holding, Origin
from far_node.errors import ModelNotFound
from far_node.models.directory import describe_directory
from far_node.models.download import Downloader, Expected, Request, check_format, disk_error, part_of, sync_directory
from far_node.models.folder import Folder
from far_node.models.progress import Counter, OnProgress, silent
from far_node.models.pull import another, check_gguf, pull_file
from far_node.models.sources import check_url
from far_node.models.store import ModelStore, Record, check_name, record_of

_PIECE = 1 << 20


def add(
    store: ModelStore,
    name: str,
    source: str,
    *,
    link: bool = False,
    sha256: str | None = None,
    on_progress: OnProgress = silent,
) -> Record:
    """Check a model and put it into the store under ``name``.

    Args:
        source: a model directory, a directory that was pulled (in part, too), a GGUF file, or its http(s) address.
        link: leave the files where they are and only write down where. The store never changes or deletes them.
        sha256: what the GGUF file must have; without it the file is taken as it is, and its hash written down.

    Raises:
        InvalidArgument: there is a model of this name already, or the arguments do not go together.
        FarError: as :func:`~far_node.models.pull.pull`.
    """
    check_name(name)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InvalidArgument("--sha256 takes 64 hexadecimal digits in lower case")
    _check_free(store, name)
    if urlsplit(source).scheme in ("http", "https"):
        if link:
            raise InvalidArgument("a file that is elsewhere cannot be linked")
        return _add_url(store, name, source, sha256, on_progress)
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        if sha256 is not None:
            raise InvalidArgument("--sha256 is for a single file")
        return _add_directory(store, name, path, link, on_progress)
    check_gguf(path.name)
    if not path.is_file():
        raise ModelNotFound(f"there is no file or directory {source!r}", model=source)
    return _add_file(store, name, path, link, sha256, on_progress)


def _add_url(store: ModelStore, name: str, url: str, sha256: str | None, on_progress: OnProgress) -> Record:
    place, _, _ = url.partition("?")  # what follows may be a key, which is nobody's business later
    file = unquote(urlsplit(place).path.rpartition("/")[2])
    check_gguf(file)
    check_url(place)
    request = Request(url)
    with Downloader() as downloader:
        expected = Expected(file, downloader.size_of(request), sha256)
    return pull_file(store, name, request, expected, Origin(kind="url", place=place), on_progress=on_progress)


def _add_directory(store: ModelStore, name: str, path: Path, link: bool, on_progress: OnProgress) -> Record:
    pulled = Folder.at(path)
    if pulled is not None:
        pulled.verify(None, on_progress, delete=False)
        holding = pulled.holding
    else:
        holding = Holding(
            origin=Origin(kind="local", place=str(path)), manifest=describe_directory(path, name, on_progress)
        )
    here = Folder(path, holding)
    record = record_of(name, here, time.time())
    with store.changing(name) as target:
        _check_free(store, name)
        if link:
            record = record.model_copy(update={"linked": True, "size_bytes": 0})
            store.note(record)
            return record
        store.reserve(record.model_copy(update={"directory": str(target)}), record.size_bytes)
        entries = [entry for entry in here.needed(None) if here.has(entry)]
        counter = Counter("copying", name, sum(entry.size for entry in entries), on_progress)
        for entry in entries:
            counter.file = entry.name
            _copy(real_file(path / entry.name), target / entry.name, entry, counter)
        made = Folder.make(target, holding)
        made.write_index()
        record = record_of(name, made, time.time())
        store.note(record)
        return record


def _add_file(
    store: ModelStore, name: str, path: Path, link: bool, sha256: str | None, on_progress: OnProgress
) -> Record:
    check_format(path, path.name)
    entry_size, now = path.stat().st_size, time.time()
    counter = Counter("verifying", name, entry_size, on_progress)
    with HashCache() as cache:
        found = cache.sha256(path, counter)
    if sha256 not in (None, found):
        raise WeightsDamaged(f"{path} has the SHA-256 {found}, and not the one that was asked for", file=path.name)
    record = Record(
        name=name,
        directory=str(path.parent),
        origin=Origin(kind="local", place=str(path)),
        kind="gguf",
        linked=link,
        file=path.name,
        sha256=found,
        size_bytes=0 if link else entry_size,
        added_at=now,
        last_used_at=now,
    )
    with store.changing(name) as target:
        _check_free(store, name)
        if not link:
            record = record.model_copy(update={"directory": str(target)})
            store.reserve(record, entry_size)
            entry = FileEntry(name=path.name, size=entry_size, sha256=found)
            _copy(path, target / path.name, entry, Counter("copying", name, entry_size, on_progress))
        store.note(record)
        return record


def _check_free(store: ModelStore, name: str) -> None:
    record = store.get(name)
    if record is not None and store.is_there(record):
        raise another(name)


def _copy(file: Path, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
    """Copy a file, which must still be what it was when it was described."""
    fresh = part_of(target)
    try:
        sha256 = _copied(file, fresh, on_bytes)
        if sha256 != entry.sha256:
            raise WeightsDamaged(f"{file} was changed while it was copied", file=entry.name)
        fresh.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise disk_error(error, target) from None
    finally:
        fresh.unlink(missing_ok=True)
    with HashCache() as cache:
        cache.keep(file_key(target), entry.sha256)


def _copied(file: Path, target: Path, on_bytes: OnBytes) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as source, target.open("wb", buffering=0) as written:
        while piece := source.read(_PIECE):
            digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[written.write(view) :]
            on_bytes(len(piece))
        os.fsync(written.fileno())
    return digest.hexdigest()
