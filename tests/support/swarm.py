"""Real peers in processes of their own: started, listened to, and ended without fail."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import typer
from typer.testing import CliRunner

from tests.support.documents import wallet_of

# how long is waited in vain: a busy machine starts a process in minutes
READY_SECONDS = 280.0
END_SECONDS = 60.0
COMMAND_SECONDS = 150.0
_MARK = "FAR_TEST_PROCESS"
ANY_LOCAL_PORT = "/ip4/127.0.0.1/tcp/0"


class DidNotStart(AssertionError):
    """A process that should serve ended or said nothing; its output is in the message."""


@dataclass
class Process:
    """A command of ours, its JSON lines and its log."""

    name: str
    popen: subprocess.Popen[bytes]
    mark: str
    out: Path
    err: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, arguments: Sequence[str], logs: Path, *, within: Sequence[str] = ()) -> Self:
        """Run ``python -m <arguments>``, marked so that all it starts can be found and ended.

        Args:
            within: a command that runs it, in the same process.
        """
        mark = secrets.token_hex(16)
        out, err = logs / f"{name}.out", logs / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            popen = subprocess.Popen(
                [*within, sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=os.environ | {_MARK: mark},
                start_new_session=True,
            )
        return cls(name, popen, mark, out, err)

    @property
    def peer_id(self) -> str:
        """From the ready line."""
        return str(self.ready["peer_id"])

    @property
    def maddr(self) -> str:
        """The first address it can be reached at."""
        return str(self.ready["maddrs"][0])

    @property
    def wallet(self) -> str:
        """From the ready line of a node."""
        return str(self.ready["wallet"])

    def events(self) -> list[dict[str, Any]]:
        """The JSON lines so far."""
        lines = self.out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def wait_until_ready(self) -> Self:
        """Wait for the ready line.

        Raises:
            DidNotStart: it ended before, or took too long.
        """
        self.ready = self.wait_for("ready")
        return self

    def wait_for(self, event: str) -> dict[str, Any]:
        """Wait until it has told of an event.

        Raises:
            DidNotStart: it ended before, or took too long.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            ended = self.popen.poll() is not None
            for told in self.events():
                if told["event"] == event:
                    return told
            if ended or time.monotonic() > deadline:
                raise DidNotStart(self.story())
            time.sleep(0.02)

    def family(self) -> list[psutil.Process]:
        """This process and all that it started, the p2p daemon too, whoever their parent is by now."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
            except (psutil.Error, OSError):  # not ours, or gone
                continue
        return mine

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        self.popen.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.popen.wait(END_SECONDS)

    def kill(self) -> None:
        """End it as a power cut does, with all its children."""
        for process in self.family():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.popen.kill()
        self.popen.wait(END_SECONDS)

    def story(self) -> str:
        """What it wrote, for the report of a failed test."""
        out, err = self.out.read_text(errors="replace"), self.err.read_text(errors="replace")
        return f"--- {self.name} (exit status {self.popen.poll()})\n{out[-2000:]}{err[-4000:]}"


class Town:
    """A bootstrap peer and the nodes that joined it. A context manager; nothing outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []
        self.nodes: list[Process] = []
        self.bootstrap: Process

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.bootstrap = self.start_bootstrap().wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def initial_peers(self) -> list[str]:
        """What newcomers are told."""
        return [self.bootstrap.maddr]

    def start_bootstrap(self, *initial_peers: str) -> Process:
        """A bootstrap peer that is not waited for."""
        name = f"bootstrap{len(self.processes)}"
        options = ["--json", "--host-maddr", self._listen_at(), "--identity", str(self.directory / f"{name}.id")]
        for peer in initial_peers:
            options += ["--initial-peers", peer]
        return self.start(name, ["discovery.cli", "bootstrap", *options])

    def start_node(
        self,
        model: str | Path,
        blocks: tuple[int, int] | None,
        *options: str,
        initial_peers: Sequence[str] = (),
        wallet: str = "",
        program: str = "far_node.cli",
    ) -> Process:
        """A node that is not waited for. Without ``blocks`` it chooses for itself."""
        name = f"node{len(self.processes)}"
        arguments = ["--json", "--model", str(model), "--wallet", wallet or wallet_of(name)]
        if blocks is not None:
            arguments += ["--blocks", "{}:{}".format(*blocks)]
        if "--quantization" not in options:
            arguments += ["--quantization", "none"]  # to be compared with transformers' own results
        arguments += ["--host-maddr", self._listen_at(), "--identity", str(self.directory / f"{name}.id"), "--cpu-only"]
        for peer in initial_peers or self.initial_peers:
            arguments += ["--initial-peers", peer]
        node = self.start(name, [program, "start", *arguments, "--threads", "1", *options])
        self.nodes.append(node)
        return node

    def start_nodes(self, model: str | Path, *ranges: tuple[int, int]) -> list[Process]:
        """Nodes for these block ranges, all of them ready."""
        nodes = [self.start_node(model, blocks) for blocks in ranges]
        for node in nodes:
            node.wait_until_ready()
        return nodes

    def close(self) -> None:
        """End everything that was started here; tell if something does not end by itself when asked to."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.send(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        for process in self.processes:
            try:
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
            finally:
                process.kill()

    def story(self) -> str:
        """What all of them wrote."""
        return "\n".join(process.story() for process in self.processes)

    def start(self, name: str, arguments: Sequence[str]) -> Process:
        """Anything else of ours that belongs to this town; it is not waited for."""
        process = Process.start(name, arguments, self.directory)
        self.processes.append(process)
        return process

    def _listen_at(self) -> str:
        """Where the next process listens."""
        return ANY_LOCAL_PORT


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def run_command(*arguments: str, timeout: float = COMMAND_SECONDS, **environment: str) -> Ended:
    """Run ``python -m <arguments>`` to its end."""
    return _run(["-m", *arguments], timeout, environment)


def run_here(app: typer.Typer, *arguments: str) -> Ended:
    """Run a command in this process, where all it imports is there already. Its log settings must be switched off."""
    done = CliRunner().invoke(app, arguments)
    return Ended(done.exit_code, done.stdout, done.stderr)


def run_python(program: str, *arguments: str, timeout: float = COMMAND_SECONDS, **environment: str) -> Ended:
    """Run a few lines of Python to their end, in a process of their own."""
    return _run(["-c", program, *arguments], timeout, environment)


def run_script(script: Path, *arguments: str, timeout: float = COMMAND_SECONDS, **environment: str) -> Ended:
    """Run a Python file to its end."""
    return _run([str(script), *arguments], timeout, {"PYTHONPATH": str(Path(__file__).parents[2])} | environment)


def _run(arguments: Sequence[str], timeout: float, environment: dict[str, str]) -> Ended:
    done = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
        start_new_session=True,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
