"""The environments of a machine: one directory for each version, and a link to the one that counts.

As ``deploy/install.sh`` makes them: ``~/.far/venvs/0.2.0`` is a virtual environment, ``~/.far/venv`` a link to one of
them, and what others start is ``~/.far/venv/bin/far-node``. An environment is made under its own name, because its
programs name the interpreter by its path, and counts once the file ``installed`` in it says that it is whole. The link
is replaced in one step.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from packaging.version import InvalidVersion, Version

from far_node.settings import HOME
from far_node.update.errors import NotUpdatable, UpdateFailed

PROGRAM = "far-node"
KEPT = 2
"""Old environments that stay beside the one that counts."""
BY_HAND = "by hand"
"""The name under which a version is noted that the owner took back; no node has it."""
MAX_INTERRUPTIONS = 2
"""A trial that was broken off so often, by whatever, is not begun again."""

_INSTALLED, _LOCK, _STATE = "installed", ".lock", ".tried.json"
_INSTALLER = ".installing"


@dataclass(frozen=True)
class Environment:
    """One version, installed."""

    path: Path
    version: Version

    @property
    def program(self) -> Path:
        """Its ``far-node``."""
        return self.path / "bin" / PROGRAM

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def lists(self) -> Path:
        """Where the lists lie of what it needs, with hashes."""
        return self.path / "share" / "far-mesh"

    @property
    def torch_build(self) -> str | None:
        """For which devices its torch was built, as the installer calls it: ``cpu``, ``cu130`` …"""
        try:
            lines = (self.path / _INSTALLED).read_text().splitlines()
        except OSError:
            return None
        return next((line.removeprefix("torch ") for line in lines if line.startswith("torch ")), None)


class Environments:
    """Those below ``home`` (``~/.far``)."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = HOME.expanduser() if home is None else home
        self.root, self.link = self.home / "venvs", self.home / "venv"

    def current(self) -> Environment | None:
        """The one that the link names."""
        try:
            return self._at(self.link.resolve(strict=True))
        except OSError:
            return None

    def running(self, prefix: Path | None = None) -> Environment:
        """The one that this process runs in.

        Raises:
            NotUpdatable: it is none of ours.
        """
        prefix = Path(sys.prefix) if prefix is None else prefix
        found = self._at(prefix.resolve())
        if found is None or self.current() is None:
            raise NotUpdatable(
                f"this far-node runs from {prefix}, not from {self.root} where deploy/install.sh puts it: "
                "update it the way it was installed"
            )
        return found

    def complete(self) -> list[Environment]:
        """All that can be used, from the oldest to the newest."""
        current = self.current()
        directories = self.root.iterdir() if self.root.is_dir() else ()
        found = [one for one in map(self._at, directories) if one is not None]
        return sorted(
            (one for one in found if one == current or (one.path / _INSTALLED).is_file()),
            key=lambda one: (one.version, one.path.name),
        )

    def place_of(self, version: Version) -> Environment:
        """Where a version is, or will be."""
        return Environment(self.root / str(version), version)

    def clear(self, version: Version) -> Environment:
        """Where a version will be; what somebody did not finish there is gone.

        Raises:
            UpdateFailed: that cannot be removed.
        """
        place = self.place_of(version)
        try:
            if place.path.exists():
                shutil.rmtree(place.path)
        except OSError as error:
            raise UpdateFailed(f"{place.path} cannot be removed: {error.strerror or error}") from None
        return place

    def mark_installed(self, place: Environment, torch_build: str | None) -> None:
        """From now on it can be used."""
        lines = [f"version {place.version}", "fingerprint of-an-update"]
        lines += [] if torch_build is None else [f"torch {torch_build}"]
        _write(place.path / _INSTALLED, "\n".join(lines) + "\n")

    def switch(self, to: Environment) -> None:
        """Let the link name another one, in one step: there is no moment without a ``far-node``.

        Raises:
            UpdateFailed: the link cannot be replaced.
        """
        temporary = self.home / f".venv-{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(to.path.relative_to(self.home))
            temporary.replace(self.link)
        except OSError as error:
            raise UpdateFailed(f"{self.link} cannot be replaced: {error.strerror or error}") from None

    def prune(self) -> list[Version]:
        """Remove what is older than the one that counts, but for the newest :data:`KEPT` and what somebody runs."""
        current = self.current()
        if current is None:
            return []
        old = [one for one in self.complete() if one.version < current.version]
        gone = []
        for one in old[: max(0, len(old) - KEPT)]:
            if not _is_used(one.path):
                shutil.rmtree(one.path, ignore_errors=True)
                gone.append(one.version)
        return gone

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Only one at a time changes what is here, the installer among them; the descriptor is to be inherited by
        whoever helps with it.

        Raises:
            UpdateFailed: somebody else is at it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UpdateFailed(f"{self.root} cannot be written: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UpdateFailed("another update is in progress on this machine", retry_after=60.0) from None
            if _is_alive(self.home / _INSTALLER / "owner"):
                raise UpdateFailed("the installer is at work on this machine", retry_after=60.0)
            yield descriptor
        finally:
            os.close(descriptor)

    def failed(self, node: str) -> dict[Version, str]:
        """Versions that are not tried again for a node, and why; those that the owner took back are for none."""
        noted = self._tried()
        tried = noted.get(node, {}) | noted.get(BY_HAND, {})
        return {
            Version(version): str(one.get("reason") or "its trial was broken off, more than once")
            for version, one in tried.items()
            if one.get("reason") or int(one.get("begun", 0)) >= MAX_INTERRUPTIONS
        }

    def begin_trial(self, node: str, version: Version) -> None:
        """Written before a version is started for the first time: whatever it does, it does not do it for ever."""
        begun = int(self._tried().get(node, {}).get(str(version), {}).get("begun", 0))
        self._note(node, version, {"begun": begun + 1})

    def end_trial(self, node: str, version: Version, reason: str | None) -> None:
        """What came of it; ``reason``: why it is not to be tried again."""
        self._note(node, version, None if reason is None else {"reason": reason, "at": int(time.time())})

    def _note(self, node: str, version: Version, what: dict[str, Any] | None) -> None:
        tried = self._tried()
        of_node = {key: value for key, value in tried.get(node, {}).items() if key != str(version)}
        if what is not None:
            of_node[str(version)] = what
        try:
            _write(self.root / _STATE, json.dumps(tried | {node: of_node}, indent=1) + "\n")
        except OSError as error:
            raise UpdateFailed(f"{self.root / _STATE} cannot be written: {error.strerror or error}") from None

    def _tried(self) -> dict[str, dict[str, dict[str, Any]]]:
        file = self.root / _STATE
        try:
            tried = json.loads(file.read_bytes())
            if not all(Version(version) and one.keys() for node in tried.values() for version, one in node.items()):
                raise ValueError
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, InvalidVersion):
            # unread, it would let a version be tried again that has failed
            raise UpdateFailed(f"{file} cannot be read; remove it to begin anew") from None
        return dict(tried)

    def _at(self, path: Path) -> Environment | None:
        if path.parent.resolve() != self.root.resolve() or not path.is_dir():
            return None
        try:
            # another build of a version has a folder of its own, with a local part (PEP 440)
            return Environment(self.root / path.name, Version(Version(path.name).public))
        except InvalidVersion:
            return None


def _is_used(path: Path) -> bool:
    """Whether a process runs a program of this environment."""
    below = str(path) + os.sep
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(below) for word in process.info["cmdline"] or ()):
            return True
    return False


def _is_alive(owner: Path) -> bool:
    """Whether the process runs whose number is in this file."""
    try:
        return psutil.pid_exists(int(owner.read_text()))
    except (OSError, ValueError, OverflowError):
        return False


def _write(path: Path, content: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(content)
    temporary.replace(path)
