"""The models directory: one folder for each model, a registry file (``models.json``), locks, and a size limit.

Whoever uses a model holds a lock on it for as long as its process lives, so it is never removed under a running node;
when room is needed, the model that was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery.protocol.announcement import Digest
from discovery.protocol.errors import InvalidArgument
from discovery.registry.manifest import Origin
from far_node.errors import ModelNotFound
from far_node.models.errors import ModelInUse, NoSpace
from far_node.models.folder import Folder, write_atomically
from far_node.models.locks import FileLock, locked

DEFAULT_DIRECTORY = Path("~/.far/models")
REGISTRY_FILE = "models.json"
_LOCKS = ".locks"
_GONE = ".gone-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_HELD: dict[Path, list[FileLock]] = {}
"""The models this process uses, by folder: a lock for each use."""


class Record(BaseModel):
    """What the registry file says of a model. Times are Unix seconds.

    ``size_bytes`` is what it takes in the models directory, or will when a pull under way is done; nothing if it is
    only ``linked``: its files are the owner's, in ``directory``, and are neither counted nor deleted. ``file`` names
    the one file of a model that is no directory.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    directory: str
    origin: Origin
    kind: Literal["safetensors", "gguf"] = "safetensors"
    linked: bool = False
    file: str | None = None
    sha256: Digest | None = None
    digest: Digest | None = None
    block_count: int | None = None
    blocks: tuple[tuple[int, int], ...] = ()
    ends: bool = False
    size_bytes: Annotated[int, Field(ge=0)] = 0
    added_at: float = 0.0
    last_used_at: float = 0.0


class _Contents(BaseModel):
    version: Literal[1] = 1
    models: dict[str, Record] = {}


def is_name(name: str) -> bool:
    """Whether a model can be kept under this name: ``name`` or ``owner/name``, as on a hub."""
    return _NAME.fullmatch(name) is not None and "--" not in name and ".." not in name


def check_name(name: str) -> str:
    """``name`` if :func:`is_name`.

    Raises:
        InvalidArgument: it is none.
    """
    if not is_name(name):
        raise InvalidArgument(f"{name[:100]!r} is no name for a model: use letters, digits, . _ - and at most one /")
    return name


def parse_size(text: str) -> int:
    """Bytes of a size such as ``200GB`` (thousands) or ``1.5TiB`` (1024).

    >>> parse_size("1.5 GB"), parse_size("2KiB")
    (1500000000, 2048)

    Raises:
        InvalidArgument: not a size above nothing.
    """
    match = _SIZE.fullmatch(text.strip())
    if match:
        power = " KMGT".index(match[2].upper() or " ")
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
        if size > 0:
            return size
    raise InvalidArgument(f"{text!r} is no size such as 200GB or 1.5TiB")


class ModelStore:
    """The models directory of this machine, which several processes may use at once."""

    def __init__(self, directory: Path | None = None, max_bytes: int | None = None) -> None:
        """A store in ``directory``; by default ``FAR_MODELS_DIR``, then ``~/.far/models``.

        Args:
            max_bytes: what its models may take together; by default ``FAR_MODELS_MAX_SIZE``, then as much as there is.
        """
        place = directory or Path(os.environ.get("FAR_MODELS_DIR") or DEFAULT_DIRECTORY)
        self.directory = place.expanduser().absolute()
        limit = os.environ.get("FAR_MODELS_MAX_SIZE")
        self.max_bytes = max_bytes if max_bytes is not None else parse_size(limit) if limit else None

    def records(self) -> dict[str, Record]:
        """Every model, by name.

        Raises:
            InvalidArgument: the registry file is damaged.
        """
        return dict(self._read().models)

    def get(self, name: str) -> Record | None:
        """What is known of a model; None if there is none of this name."""
        return self._read().models.get(name)

    def folder_of(self, name: str) -> Path:
        """Where a model of this name lies, or would."""
        return self.directory / check_name(name).replace("/", "--")

    def place_of(self, record: Record) -> Path:
        """The directory of a model, or its one file."""
        directory = Path(record.directory) if record.linked else self.folder_of(record.name)
        return directory / record.file if record.file else directory

    def is_there(self, record: Record) -> bool:
        """Whether there is anything of a model but its record: a copy that was broken off leaves no more."""
        place = self.place_of(record)
        return place.exists() if record.file or record.linked else Folder.at(place) is not None

    def use(self, name: str) -> None:
        """Keep a model from being removed until this process ends, or has called :meth:`release` as often."""
        with self._readable_errors():
            lock = FileLock(self._lock_file(name, "use"))
            lock.acquire(shared=True)
        _HELD.setdefault(self.folder_of(name), []).append(lock)

    def release(self, name: str) -> None:
        """One use less of a model in this process."""
        locks = _HELD.get(self.folder_of(name))
        if locks:
            locks.pop().release()

    @contextmanager
    def changing(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
        """Be the only process that changes a model; its folder. Waits for others, and calls ``on_wait`` if it must.

        Raises:
            InvalidArgument: the models directory cannot be written.
        """
        folder = self.folder_of(name)
        with self._readable_errors():
            using = FileLock(self._lock_file(name, "use"))
            alone = FileLock(self._lock_file(name, "change"))
        try:
            using.acquire(shared=True)
            if not alone.acquire(wait=False):
                on_wait()
                alone.acquire()
            with self._readable_errors():
                folder.mkdir(parents=True, exist_ok=True)
            yield folder
        finally:
            with contextlib.suppress(OSError):  # nothing came of it
                folder.rmdir()
            alone.release()
            using.release()

    def reserve(self, record: Record, more_bytes: int) -> None:
        """Note that a model will take ``record.size_bytes``, ``more_bytes`` of them still to come, and make room.

        Raises:
            NoSpace: there is none to be made.
        """
        with self._writing() as contents:
            for left in self.directory.glob(f"{_GONE}*"):  # by a process that was killed
                shutil.rmtree(left)
            others = {name: other for name, other in contents.models.items() if name != record.name}
            if self.max_bytes is not None:
                self._make_room(others, contents, self.max_bytes - record.size_bytes, record.name)
            free = shutil.disk_usage(self.directory).free
            if more_bytes > free:
                raise NoSpace(
                    f"{record.name} needs {_gb(more_bytes)} more and the disk of {self.directory} has {_gb(free)} free"
                )
            contents.models[record.name] = record

    def note(self, record: Record) -> None:
        """Write down what is known of a model."""
        with self._writing() as contents:
            contents.models[record.name] = record

    def touch(self, name: str) -> None:
        """Note that a model is used now. A registry file that cannot be written is no reason not to use it."""
        with contextlib.suppress(InvalidArgument), self._writing() as contents:
            record = contents.models.get(name)
            if record is not None:
                contents.models[name] = record.model_copy(update={"last_used_at": time.time()})

    def remove(self, name: str) -> Record:
        """Forget a model and delete its files, unless they are the owner's own; what it was.

        Raises:
            ModelNotFound: there is none of this name.
            ModelInUse: a running process uses it.
        """
        with self._writing() as contents:
            record = contents.models.get(name)
            if record is None:
                raise ModelNotFound(f"there is no model {name!r} in {self.directory}", model=name)
            with self._unused(record) as unused:
                if not unused:
                    raise ModelInUse(f"{name} is in use by a running process; stop that first", model=name)
                self._delete(record)
            del contents.models[name]
            return record

    def used_bytes(self) -> int:
        """What all models take together, those under way included."""
        return sum(record.size_bytes for record in self.records().values())

    def _make_room(self, others: dict[str, Record], contents: _Contents, room: int, wanted_by: str) -> None:
        if room < 0:
            raise NoSpace(f"{wanted_by} alone is larger than the size limit of {_gb(self.max_bytes or 0)}")
        excess = sum(record.size_bytes for record in others.values()) - room
        going: list[Record] = []
        with contextlib.ExitStack() as held:
            for record in sorted(others.values(), key=lambda record: record.last_used_at):
                if sum(other.size_bytes for other in going) >= excess:
                    break
                if record.size_bytes and held.enter_context(self._unused(record)):
                    going.append(record)
            left = excess - sum(other.size_bytes for other in going)
            if left > 0:  # nothing goes for nothing
                raise NoSpace(
                    f"{wanted_by} does not fit into the size limit of {_gb(self.max_bytes or 0)}: {_gb(left)} more "
                    "would have to go, and the rest is in use; raise it with --max-size"
                )
            for record in going:
                self._delete(record)
                del contents.models[record.name]

    @contextmanager
    def _unused(self, record: Record) -> Iterator[bool]:
        """Whether nobody uses a model; then nobody can begin to until the context ends."""
        lock = FileLock(self._lock_file(record.name, "use"))
        try:
            yield lock.acquire(wait=False)
        finally:
            lock.release()

    def _delete(self, record: Record) -> None:
        folder = self.folder_of(record.name)
        if folder.exists():
            gone = self.directory / f"{_GONE}{secrets.token_hex(8)}"  # so that nothing half deleted has its name
            folder.rename(gone)
            shutil.rmtree(gone)

    def _lock_file(self, name: str, purpose: str) -> Path:
        return self.directory / _LOCKS / f"{self.folder_of(name).name}.{purpose}"

    @contextmanager
    def _writing(self) -> Iterator[_Contents]:
        with self._readable_errors(), locked(self.directory / _LOCKS / "registry"):
            contents = self._read()
            yield contents
            write_atomically(self.directory / REGISTRY_FILE, contents.model_dump_json(indent=1))

    def _read(self) -> _Contents:
        path = self.directory / REGISTRY_FILE
        try:
            return _Contents.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return self._found_again()
        except OSError as error:
            raise self._unusable(error) from None
        except ValidationError:
            raise InvalidArgument(
                f"{path} cannot be read; mend it, or delete it: models pulled by layers are found again, links are not"
            ) from None

    def _found_again(self) -> _Contents:
        """The models whose folders are here, for when the registry file is not."""
        if not self.directory.is_dir():
            return _Contents()
        found = {}
        for path in sorted(self.directory.iterdir()):
            name = path.name.replace("--", "/")
            folder = Folder.at(path) if path.is_dir() and _NAME.fullmatch(name) else None
            if folder is not None:
                found[name] = record_of(name, folder, time.time())
        return _Contents(models=found)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> InvalidArgument:
        return InvalidArgument(f"the models directory {self.directory} cannot be used: {error.strerror}")


def record_of(name: str, folder: Folder, now: float) -> Record:
    """What is to be written down of a folder as it is."""
    manifest = folder.manifest
    entries = (*manifest.files, *manifest.shards)
    return Record(
        name=name,
        directory=str(folder.path),
        origin=folder.holding.origin,
        digest=manifest.digest,
        block_count=manifest.block_count,
        blocks=tuple(folder.blocks()),
        ends=folder.has_ends(),
        size_bytes=sum(entry.size for entry in entries if folder.has(entry)),
        added_at=now,
        last_used_at=now,
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
