"""Child processes that end when the demo does, whatever way it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from discovery.children import die_with_parent
from discovery.protocol.errors import FarError, error_from_wire

STOP_SECONDS = 10.0
READY_SECONDS = 300.0
_LAST_WORDS_SECONDS = 1.0


class ProcessFailed(FarError):
    """A process of the demo ended by itself; ``log`` in ``facts`` is where to read why."""

    code = "process_failed"


class Child:
    """One process: its ready event, its log, its end."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, said: asyncio.StreamReader, log: Path) -> None:
        self.name, self._process, self._said, self._log = name, process, said, log
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._last_error: dict[str, Any] | None = None
        self._reading = asyncio.create_task(self._read())
        self._watching = asyncio.create_task(self._watch())

    async def ready(self) -> dict[str, Any]:
        """Its first ``ready`` event.

        Raises:
            FarError: what it reported before it ended, or that it ended, or that it takes too long.
        """
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise ProcessFailed(f"{self.name} was not ready in {READY_SECONDS:.0f} s; see {self._log}") from None

    async def ended(self) -> None:
        """Returns when the process has ended and what it said was read."""
        await asyncio.wait({self._watching})

    def failure(self) -> FarError:
        """Why it ended, as far as it said."""
        if self._last_error is not None:
            said = error_from_wire(str(self._last_error.get("code")), str(self._last_error.get("message")))
            return ProcessFailed(f"{self.name}: {said.message}", log=str(self._log))
        code = self._process.returncode
        return ProcessFailed(f"{self.name} ended by itself (exit code {code}); see {self._log}", log=str(self._log))

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to its whole group when that is not enough."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._kill_group()
                await self._process.wait()
        self._kill_group()  # what it may have left behind
        await asyncio.gather(self._reading, self._watching, return_exceptions=True)

    async def kill(self) -> None:
        """SIGKILL to its whole group, as a power cut would end it."""
        self._kill_group()
        await self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        with self._log.open("ab") as log:
            async for line in self._said:
                log.write(line)
                log.flush()
                self._note(line)

    async def _watch(self) -> None:
        await self._process.wait()
        await asyncio.wait({self._reading}, timeout=_LAST_WORDS_SECONDS)  # a grandchild may hold the pipe for long
        if not self._ready.done():
            self._ready.set_exception(self.failure())
            self._ready.exception()  # read by nobody when the demo is ending anyway

    def _note(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        if event.get("event") == "ready" and not self._ready.done():
            self._ready.set_result(event)
        elif event.get("event") == "error":
            self._last_error = event


class ProcessGroup:
    """Starts children and, at the end, stops them in the opposite order."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[Child] = []

    async def __aenter__(self) -> ProcessGroup:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._children:
            stopping, self._children = self._children, []
            await asyncio.gather(*(child.stop() for child in reversed(stopping)))

    async def start(self, name: str, module: str, arguments: Sequence[str], env: Mapping[str, str] = {}) -> Child:
        """Start ``python -m module arguments…``, which tells of itself in JSON lines; its output goes to a log."""
        log = self._log_dir / f"{name}.log"
        log.write_bytes(b"")
        said, mouth = await _pipe()
        with mouth, log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=mouth,
                stderr=errors,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
                preexec_fn=die_with_parent,
            )
        child = Child(name, process, said, log)
        self._children.append(child)
        return child

    async def failures(self) -> AsyncIterator[FarError]:
        """Why children ended by themselves, one after the other, as they do."""
        waiting = {asyncio.create_task(child.ended()): child for child in self._children}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield waiting.pop(task).failure()
        finally:
            for task in waiting:
                task.cancel()


async def _pipe() -> tuple[asyncio.StreamReader, IO[bytes]]:
    """A pipe of our own: asyncio's does not let a process end while a grandchild holds it."""
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader(limit=2**20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(read_end, "rb"))
    return reader, os.fdopen(write_end, "wb")
