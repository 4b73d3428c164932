"""SHA-256 of large files, read once: the hashes of files that did not change are kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

_PIECE = 1 << 20

OnBytes = Callable[[int], None]
"""Told how many bytes were dealt with since the last call."""


def cache_directory() -> Path:
    """``FAR_CACHE_DIR``, or the place for caches in the user's home."""
    return Path(os.environ.get("FAR_CACHE_DIR") or Path.home() / ".cache" / "far-mesh")


def file_key(file: Path) -> str:
    """What changes when a file does: path, size and times, that of its change as well, which cannot be set back."""
    status = file.stat()
    return f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


class HashCache:
    """SHA-256 by file, so that a 140 GB model is not read again at each start. A context manager; saves at its end."""

    def __init__(self) -> None:
        self._path = cache_directory() / "digests.json"
        self._known: dict[str, str] = {}
        self._changed = False

    def __enter__(self) -> HashCache:
        self._known = self._load()
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def sha256(self, file: Path, on_bytes: OnBytes | None = None) -> str:
        """Hexadecimal SHA-256 of a file. ``on_bytes`` is told what is read, or at once the whole if it is known."""
        key = file_key(file)
        if key not in self._known:
            self.keep(key, _hash(file, on_bytes))
        elif on_bytes is not None:
            on_bytes(file.stat().st_size)
        return self._known[key]

    def get(self, key: str) -> str | None:
        """What was kept under a key."""
        return self._known.get(key)

    def keep(self, key: str, sha256: str) -> None:
        """Keep a hash that was found out elsewhere, such as while the file was written."""
        self._known[key], self._changed = sha256, True

    def save(self) -> None:
        """Write what is new, beside what others wrote meanwhile."""
        if not self._changed:
            return
        self._known, self._changed = self._load() | self._known, False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(self._known))
            fresh.replace(self._path)
        except OSError:  # a cache that cannot be written only costs time
            return

    def _load(self) -> dict[str, str]:
        try:
            loaded = json.loads(self._path.read_text())
            return {str(key): str(value) for key, value in loaded.items()}
        except (OSError, ValueError, AttributeError):
            return {}


def _hash(file: Path, on_bytes: OnBytes | None) -> str:
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(piece):
            digest.update(piece[:count])
            if on_bytes is not None:
                on_bytes(count)
    return digest.hexdigest()
