"""Processes that die."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

import pytest

from tests.far_mesh.marketplace.jobs import kill

InAProcess = Callable[[kill.Shift], int | None]


@pytest.fixture(scope="session")
def processes_of_jobs() -> ForkServerContext:
    """Processes that share nothing with this one, and begin in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([kill.__name__])
    return context


@pytest.fixture
def in_a_process(processes_of_jobs: ForkServerContext) -> InAProcess:
    """A shift in a process of its own. Its exit code."""

    def run(shift: kill.Shift) -> int | None:
        process = processes_of_jobs.Process(target=kill.work, args=(shift,))
        process.start()
        process.join(60)
        return process.exitcode

    return run
