"""The demo's data directory: keys that stay the same from run to run, and a lock against a second demo."""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from eth_account import Account

from discovery.protocol.errors import InvalidArgument


class DemoStore:
    """Owner of the data directory while the demo runs. Everything in it is play money and may be deleted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self._lock: IO[str] | None = None
        self._keys: dict[str, str] = {}

    def __enter__(self) -> DemoStore:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / "lock").open("w")
        except OSError as error:
            raise InvalidArgument(f"--data-dir {self.directory} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InvalidArgument(
                f"another demo runs in {self.directory}; end it, or give another --data-dir"
            ) from None
        self._set_aside_unclean_state()
        self._running.touch()
        self._read_keys()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    @property
    def logs(self) -> Path:
        """A log per process."""
        return self.directory / "logs"

    @property
    def chain(self) -> Path:
        """State of the local chain and where the contracts are."""
        return self.directory / "chain"

    @property
    def gateway(self) -> Path:
        """The gateway's database."""
        return self.directory / "gateway"

    def identity(self, name: str) -> Path:
        """The identity file of a peer."""
        return self.directory / "identities" / name

    def secret(self, name: str) -> str:
        """32 random bytes in hexadecimal under a name; the same in every run."""
        if name not in self._keys:
            self._keys[name] = "0x" + secrets.token_hex(32)
            fresh = self._key_file.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(json.dumps(self._keys, indent=2))
            fresh.replace(self._key_file)
        return self._keys[name]

    def wallet(self, name: str) -> str:
        """The address of the key :meth:`secret` gives for ``name``."""
        return str(Account.from_key(self.secret(name)).address)

    @property
    def _running(self) -> Path:
        return self.directory / "running"

    @property
    def _key_file(self) -> Path:
        return self.directory / "keys.json"

    def _read_keys(self) -> None:
        with suppress(FileNotFoundError):
            self._keys = json.loads(self._key_file.read_text())

    def _set_aside_unclean_state(self) -> None:
        """anvil writes its state now and then: after a crash chain and database may not fit, so both begin anew."""
        if self._running.exists():
            for folder in (self.chain, self.gateway):
                shutil.rmtree(folder, ignore_errors=True)
