"""``far-node start --auto-update``: this program stays, and the node is its child."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from discovery.console import Console
from far_node.control import control_path
from far_node.settings import NodeSettings, Place
from far_node.update.environments import Environment, Environments
from far_node.update.install import own_environment
from far_node.update.options import update_options
from far_node.update.process import NodeProcess
from far_node.update.supervisor import ADOPT_VARIABLE, SIGNALS, Supervisor, Updated, adopted_pid

CHILD_FLAG = "--no-auto-update"
"""What makes of a command line that supervises one that is a node."""


async def supervise(console: Console, said: NodeSettings, place: Place, arguments: Sequence[str]) -> Updated:
    """Keep the node running that ``far-node start`` with these ``arguments`` means.

    Returns:
        A newer version that serves. The caller is to become it.

    Raises:
        SystemExit: the node is over, with its exit code.
        NotUpdatable: this program is not where the installer puts it.
        UpdateFailed: the node cannot be started.
    """
    environments = Environments()

    def launch(environment: Environment) -> NodeProcess:
        return NodeProcess.start([str(environment.program), "start", *arguments, CHILD_FLAG], own_environment())

    inherited = adopted_pid()
    supervisor = Supervisor(
        environments,
        environments.running(),
        update_options(said),
        place.name or "",
        control_path(said.identity or place.identity),
        launch,
        console.event,
        adopted=None if inherited is None else NodeProcess(inherited),
    )
    result = await supervisor.run()
    if isinstance(result, Updated):
        # what comes from now on waits until the next version listens to it
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return result
    sys.exit(result.code)


def become(updated: Updated, arguments: Sequence[str]) -> NoReturn:
    """Be the supervisor of the newer version from here on, in this process, whose child the node is."""
    program = str(updated.environment.program)
    sys.stdout.flush()
    environment = own_environment() | {ADOPT_VARIABLE: str(updated.pid)}
    os.execve(program, [program, "start", *arguments], environment)  # noqa: S606


def run(console: Console, said: NodeSettings, place: Place, arguments: Sequence[str]) -> NoReturn:
    """Supervise, and then be the next version.

    Raises:
        FarError: as :func:`supervise`.
    """
    become(asyncio.run(supervise(console, said, place, arguments)), arguments)
