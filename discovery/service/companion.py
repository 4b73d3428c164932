"""A prober that runs beside the service: in a process of its own, as it computes what models do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import structlog

from discovery.children import die_with_parent
from discovery.service.settings import Settings
from discovery.web.errors import InvalidSetting

PROGRAM = "far_mesh.cli"
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds before a prober that has ended is started again: the second twice as many, and so on."""
_END_SECONDS = 10.0

log = structlog.get_logger(__name__)


def identity_of(settings: Settings) -> Path:
    """Where the key of our prober lies."""
    return settings.data_dir / "prober"


def command_of(settings: Settings, url: str) -> list[str]:
    """What is run. What it says stays its own; what is wrong it writes where we do.

    Raises:
        InvalidSetting: it is not installed.
    """
    if find_spec(PROGRAM.partition(".")[0]) is None:
        raise InvalidSetting(
            "FAR_DISCOVERY_PROBE needs the client as well: pip install 'far-mesh[mesh]'", setting="FAR_DISCOVERY_PROBE"
        )
    command = [sys.executable, "-m", PROGRAM, "probe", "--identity", str(identity_of(settings)), "--report-to", url]
    command += ["--prefix", settings.dht_prefix]
    for option, values in (
        ("--initial-peers", settings.initial_peers),
        ("--host-maddr", settings.host_maddrs),
        ("--weights", settings.probe_models),
    ):
        for value in values:
            command += [option, value]
    return command


@asynccontextmanager
async def kept_running(command: Sequence[str]) -> AsyncIterator[None]:
    """Meanwhile the command runs, and is started again when it ends."""
    task = asyncio.create_task(_keep_running(command))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _keep_running(command: Sequence[str]) -> None:
    pause = FIRST_PAUSE
    while True:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            status = await process.wait()
        finally:
            await _end(process)
        log.warning("prober_ended", status=status, again_in_seconds=pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
