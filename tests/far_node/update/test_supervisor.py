"""A node goes over to a newer version between sessions, and back if that does not serve."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from discovery.protocol.errors import PeerUnavailable
from far_node.control import ask
from far_node.update.environments import Environment, Environments
from far_node.update.errors import UpdateFailed
from far_node.update.install import own_environment
from far_node.update.options import UpdateOptions
from far_node.update.process import NodeProcess
from far_node.update.supervisor import Ended, Supervisor, Times, Updated
from tests.support.standin import environment, wheel

V1, V2 = Version("0.1.0"), Version("0.2.0")
LONG = 120.0
QUICK = Times(look=3600.0, poll=0.02, moment=LONG, drain=LONG, ready=LONG, settle=0.1)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not what():
            await asyncio.sleep(0.02)


@dataclass
class Machine:
    """A machine with a first version of the stand-in, and its node."""

    home: Path
    told: list[str] = field(default_factory=list)
    started: list[NodeProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environments = Environments(self.home / "far")
        self.environments.switch(environment(self.environments, "0.1.0"))

    @property
    def current(self) -> Environment:
        current = self.environments.current()
        assert current is not None
        return current

    @property
    def log(self) -> list[str]:
        file = self.home / "log"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def socket(self) -> Path:
        return self.home / "identity.sock"

    def sessions(self, number: int) -> None:
        (self.home / "sessions").write_text(str(number))

    def launch(self, to: Environment) -> NodeProcess:
        self.started.append(NodeProcess.start([str(to.program), "start"], own_environment()))
        return self.started[-1]

    def supervisor(self, times: Times = QUICK) -> Supervisor:
        def tell(event: str, sentence: str, **facts: Any) -> None:
            self.told.append(event)

        return Supervisor(
            self.environments,
            self.environments.place_of(V1),
            UpdateOptions(),
            "",
            self.socket,
            self.launch,
            tell,
            times,
        )


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    monkeypatch.setenv("STANDIN", str(tmp_path))
    machine = Machine(tmp_path)
    yield machine
    for process in machine.started:
        process.signal(signal.SIGKILL)
        await process.ended()


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[Ended | Updated]]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        if not task.done():
            supervisor.ask_to_stop(signal.SIGKILL)
            await task


async def finished(task: asyncio.Task[Ended | Updated]) -> Ended | Updated:
    async with asyncio.timeout(LONG):
        return await task


async def test_a_version_that_serves_is_named_by_the_link(machine: Machine) -> None:
    newer = environment(machine.environments, "0.2.0")
    async with running(machine.supervisor()) as task:
        result = await finished(task)
    assert result == Updated(newer, machine.started[1].pid)
    assert machine.current == newer
    assert not machine.started[1].has_ended
    assert machine.log == ["0.1.0 starts", "0.1.0 serves", "0.1.0 leaves", "0.1.0 ends", "0.2.0 starts", "0.2.0 serves"]
    assert machine.told == ["updating", "updated"]
    assert machine.environments.failed("") == {}


@pytest.mark.parametrize("way", ["crash", "silent", "cpu", "liar", "dies"])
async def test_a_version_that_does_not_serve_is_taken_back(machine: Machine, way: str) -> None:
    environment(machine.environments, "0.2.0", way)
    times = {"silent": replace(QUICK, ready=0.5), "dies": replace(QUICK, settle=LONG)}
    async with running(machine.supervisor(times.get(way, QUICK))):
        await until(lambda: machine.log.count("0.1.0 serves") == 2)
        assert machine.current.version == V1
        assert machine.environments.failed("").keys() == {V2}
    assert machine.told == ["updating", "update_undone"]


async def test_a_version_that_was_taken_back_is_not_tried_again(machine: Machine) -> None:
    environment(machine.environments, "0.2.0", "crash")
    async with running(machine.supervisor()) as task:
        await until(lambda: machine.log.count("0.1.0 serves") == 2)
        environment(machine.environments, "0.1.5")
        result = await finished(task)
    assert isinstance(result, Updated)
    assert result.environment.version == Version("0.1.5")
    assert machine.log.count("0.2.0 starts") == 1
    assert machine.told == ["updating", "update_undone", "updating", "updated"]


async def test_a_program_that_cannot_be_started_is_no_reason_to_end(machine: Machine) -> None:
    environment(machine.environments, "0.2.0").program.unlink()
    async with running(machine.supervisor()):
        await until(lambda: machine.log.count("0.1.0 serves") == 2)
        assert machine.environments.failed("").keys() == {V2}


async def test_sessions_end_before_the_node_is_asked_to_leave(machine: Machine) -> None:
    environment(machine.environments, "0.2.0")
    machine.sessions(2)
    async with running(machine.supervisor()) as task:
        await until(lambda: "update_waits" in machine.told)
        assert machine.log == ["0.1.0 starts", "0.1.0 serves"]
        machine.sessions(0)
        assert isinstance(await finished(task), Updated)


async def test_a_node_that_nobody_can_replace_waits_and_not_for_ever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_ALONE", '{"model": 4}')
    environment(machine.environments, "0.2.0")
    async with running(machine.supervisor(replace(QUICK, moment=0.5))) as task:
        assert isinstance(await finished(task), Updated)
    assert machine.told == ["update_waits", "updating", "updated"]


async def test_sessions_of_the_last_moment_are_finished_before_the_new_version_starts(machine: Machine) -> None:
    environment(machine.environments, "0.2.0")
    machine.sessions(1)
    async with running(machine.supervisor(replace(QUICK, moment=0.0))) as task:
        await until(lambda: "0.1.0 leaves" in machine.log)
        assert len(machine.started) == 1
        assert not machine.started[0].has_ended
        machine.sessions(0)
        assert isinstance(await finished(task), Updated)
    assert machine.log.index("0.1.0 ends") < machine.log.index("0.2.0 starts")


async def test_an_owner_who_stops_the_node_during_an_update_stops_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_ASKED", "2")
    environment(machine.environments, "0.2.0")
    async with running(machine.supervisor()) as task:
        assert await finished(task) == Ended(0)
    assert len(machine.started) == 1
    assert machine.current.version == V1


async def test_a_signal_reaches_the_node_and_ends_all(machine: Machine) -> None:
    supervisor = machine.supervisor()
    async with running(supervisor) as task:
        await until(lambda: "0.1.0 serves" in machine.log)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await finished(task) == Ended(0)
    assert machine.log[-1] == "0.1.0 is told to go"


async def test_a_node_that_breaks_ends_its_supervisor_with_its_exit_code(machine: Machine) -> None:
    async with running(machine.supervisor()) as task:
        await until(lambda: "0.1.0 serves" in machine.log)
        machine.started[0].signal(signal.SIGKILL)
        assert await finished(task) == Ended(128 + signal.SIGKILL)


async def test_a_start_passes_over_a_version_that_failed_here(machine: Machine) -> None:
    newer = environment(machine.environments, "0.2.0")
    machine.environments.switch(newer)  # another node of this machine is content with it
    machine.environments.end_trial("", V2, "was not ready")
    supervisor = machine.supervisor()
    supervisor._running = newer
    async with running(supervisor):
        await until(lambda: "0.1.0 serves" in machine.log)


async def test_records_that_cannot_be_read_keep_no_node_from_serving(machine: Machine) -> None:
    environment(machine.environments, "0.2.0")
    (machine.environments.root / ".tried.json").write_text("{")
    async with running(machine.supervisor()):
        await until(lambda: "0.1.0 serves" in machine.log and "update_not_found" in machine.told)
        assert len(machine.started) == 1


def is_free(environments: Environments) -> bool:
    """Whether nobody changes anything."""
    with suppress(UpdateFailed), environments.locked():
        return True
    return False


class Program:
    """The supervisor as a program."""

    def __init__(self, machine: Machine, index: Path) -> None:
        self.machine, self.index = machine, index

    async def __aenter__(self) -> asyncio.subprocess.Process:
        words = ("-m", "tests.far_node.update.supervise", str(self.machine.home), str(self.index))
        with (self.machine.home / "told").open("wb") as told:
            self.process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=told)
        return self.process

    async def __aexit__(self, *_: object) -> None:
        with suppress(PeerUnavailable):
            self.machine.sessions(0)
            await asyncio.to_thread(ask, self.machine.socket, "stop", until_closed=True)
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


async def test_from_wheels_back_from_a_broken_one_and_over_to_a_good_one(machine: Machine, tmp_path: Path) -> None:
    index = tmp_path / "index"
    wheel(index, "0.2.0")
    wheel(index, "0.3.0", "crash")
    async with Program(machine, index) as process:
        await until(lambda: "0.2.0 takes over" in machine.log)
        assert machine.current.version == V2
        assert machine.log.index("0.3.0 starts") < machine.log.index("0.2.0 starts")
        # the program of the new version is the same process, and the node is its child
        await asyncio.to_thread(ask, machine.socket, "stop", until_closed=True)
        assert await process.wait() == 0
    told = [json.loads(line)["event"] for line in (machine.home / "told").read_text().splitlines()]
    assert told == ["update_found", "updating", "update_undone", "update_found", "updating", "updated"]
    assert list(machine.environments.failed("")) == [Version("0.3.0")]


async def test_an_updater_that_is_killed_leaves_the_old_version_serving(machine: Machine, tmp_path: Path) -> None:
    index = tmp_path / "index"
    wheel(index, "0.2.0")
    machine.sessions(1)  # it is not to get further than installing
    async with Program(machine, index) as process:
        await until((machine.environments.root / "0.2.0").exists)
        process.kill()
        await process.wait()
        status = await asyncio.to_thread(ask, machine.socket, "status")
        assert status["versions"] == {"far-mesh": "0.1.0"}
        assert machine.current.version == V1
        await until(lambda: is_free(machine.environments))  # whom it had install goes on for a while, alone
