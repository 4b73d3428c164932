"""Keeps a node at the newest version (``far-node start --auto-update``).

The node itself is a child process, so nothing that a version does wrong reaches who replaces it. A newer version is
installed while the node serves. Then comes a moment without sessions in which others serve its blocks, or the end of
patience; the node is asked to leave as its owner would ask it, and the new version is started **from its own
environment**. Only when that is ready, on the same kind of device, does the link name it. Otherwise the old version is
started again, and the new one is not tried any more. Whoever is killed in the middle of all this, or loses power, finds
the link where it was.

Afterwards this process becomes the same one of the new version: it is replaced by it and keeps its child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from packaging.version import Version

from discovery.protocol.errors import FarError
from far_node.control import ask
from far_node.update.environments import Environment, Environments
from far_node.update.errors import UpdateFailed, UpdateRefused
from far_node.update.install import look, prepare
from far_node.update.options import UpdateOptions

ADOPT_VARIABLE = "FAR_UPDATE_ADOPT"
"""The process of the node, for the program that takes the place of this one."""

ANSWER_SECONDS = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Tell = Callable[..., None]
T = TypeVar("T")


@dataclass(frozen=True)
class Times:
    """Seconds.

    Attributes:
        look: between two looks at the index, half as much more or less.
        poll: between two looks at what is on the disk, and at the node.
        moment: at the longest, until there are no sessions and others serve the blocks.
        drain: that sessions get to end once no new ones are taken.
        ready: that a new version gets until it serves.
        settle: that it has to go on serving after that.
    """

    look: float = 6 * 3600.0
    poll: float = 5.0
    moment: float = 3600.0
    drain: float = 3600.0
    ready: float = 1800.0
    settle: float = 60.0


class Child(Protocol):
    """The process of a node."""

    @property
    def pid(self) -> int: ...
    @property
    def has_ended(self) -> bool: ...
    async def ended(self) -> int: ...
    def signal(self, number: int) -> None: ...
    async def end(self) -> None: ...


@dataclass(frozen=True)
class Ended:
    """The node is over, and with it this process."""

    code: int


@dataclass(frozen=True)
class Updated:
    """A newer version serves, in the process ``pid``; its own supervisor is to take over."""

    environment: Environment
    pid: int


class Supervisor:
    """One node, from its start to its end or its next version.

    Args:
        node: what this node is called where versions are noted that failed.
        socket: where the node listens to its owner.
        launch: starts the node from an environment.
        adopted: a node that runs already, of the version that this process is.
    """

    def __init__(
        self,
        environments: Environments,
        running: Environment,
        options: UpdateOptions,
        node: str,
        socket: Path,
        launch: Callable[[Environment], Child],
        tell: Tell,
        times: Times = Times(),
        adopted: Child | None = None,
    ) -> None:
        self._environments, self._running, self._options = environments, running, options
        self._node, self._socket, self._launch, self._tell, self._times = node, socket, launch, tell, times
        self._child = adopted
        self._stopping = asyncio.Event()

    async def run(self) -> Ended | Updated:
        """Until the node ends, or a newer version has taken its place.

        Raises:
            UpdateFailed: not even the version that ran can be started.
        """
        self._running = self._version_to_start()
        with self._signals():
            try:
                return await self._keep(self._child or self._start(self._running))
            except BaseException:  # nobody would be there for the node
                self.ask_to_stop(signal.SIGTERM)
                raise

    async def _keep(self, child: Child) -> Ended | Updated:
        while True:
            found = await self._unless_over(child, self._next_version())
            if found is None:
                return Ended(await child.ended())
            result = await self._go_over(child, found)
            if not isinstance(result, _Restarted):
                return result
            child = result.child

    def ask_to_stop(self, number: int) -> None:
        """A signal for the node: it is over after this, whatever is under way."""
        self._stopping.set()
        if self._child is not None:
            self._child.signal(number)

    def _version_to_start(self) -> Environment:
        """This version, unless it has failed here and there is one before it."""
        try:
            failed = self._environments.failed(self._node)
        except UpdateFailed:  # it is told when the next version is looked for
            return self._running
        if self._child is not None or self._running.version not in failed:
            return self._running
        before = [
            one
            for one in self._environments.complete()
            if one.version < self._running.version and one.version not in failed
        ]
        return before[-1] if before else self._running

    async def _next_version(self) -> Environment:
        """Returns when a newer version is installed: by us, by another node of this machine, or by hand."""
        clock = asyncio.get_running_loop().time
        next_look = clock() + self._times.look * random.uniform(0.01, 0.5)  # noqa: S311  # no secret
        while True:
            try:
                found = self._installed()
                if found is None and clock() >= next_look:
                    next_look = clock() + self._times.look * random.uniform(0.5, 1.5)  # noqa: S311
                    found = await self._fetch()
                if found is not None:
                    return found
            except FarError as error:
                self._tell("update_not_found", f"no update: {error.message}", code=error.code, reason=error.message)
                if isinstance(error, UpdateRefused) and "version" in error.facts:
                    self._fail(Version(str(error.facts["version"])), error.message)
            except Exception as error:  # whatever it was: a node that serves goes on
                reason = f"{type(error).__name__}: {error}"
                self._tell("update_not_found", f"no update: {reason}", code=FarError.code, reason=reason)
            await asyncio.sleep(self._times.poll)

    def _installed(self) -> Environment | None:
        failed = self._environments.failed(self._node)
        newer = [
            one
            for one in self._environments.complete()
            if one.version > self._running.version
            and one.version not in failed
            and (self._options.channel == "pre" or not one.version.is_prerelease)
        ]
        return newer[-1] if newer else None

    async def _fetch(self) -> Environment | None:
        failed = self._environments.failed(self._node)
        release = await look(self._options, self._running.version, failed)
        if release is None:
            return None
        version = str(release.version)
        self._tell("update_found", f"version {version} is there; installing it beside this one …", version=version)
        return await prepare(self._environments, release, self._options)

    async def _go_over(self, child: Child, to: Environment) -> Ended | Updated | _Restarted:
        """From one version to another, or back."""
        version = str(to.version)
        before = await self._unless_over(child, self._good_moment(version))
        if before is None:
            return Ended(await child.ended())
        try:
            self._environments.begin_trial(self._node, to.version)
        except UpdateFailed as error:  # as long as that cannot be written the node stays what it is
            self._tell("update_not_found", f"no update: {error.message}", code=error.code, reason=error.message)
            await self._unless_over(child, asyncio.sleep(self._times.moment))
            return _Restarted(child)
        self._tell("updating", f"letting sessions end, then starting version {version} …", version=version)
        asked = await self._asked_to_leave()
        code = await child.ended()
        if code or asked > 1 or self._stopping.is_set():  # it broke, or its owner wants it gone
            return Ended(code)
        try:
            trial = self._start(to)
        except UpdateFailed as error:
            self._fail(to.version, error.message)
            return _Restarted(self._start(self._running))
        reason = await self._watch(trial, to, before)
        if self._stopping.is_set():
            return Ended(await trial.ended())
        if reason is None:
            self._settle_on(to)
            return Updated(to, trial.pid)
        sentence = f"back to {self._running.version}: {version} {reason}"
        self._tell("update_undone", sentence, version=version, reason=reason)
        await trial.end()
        self._fail(to.version, reason)
        if self._stopping.is_set():
            return Ended(await trial.ended())
        return _Restarted(self._start(self._running))

    def _settle_on(self, to: Environment) -> None:
        """From now on it is the one that is started."""
        try:
            self._environments.end_trial(self._node, to.version, None)
            current = self._environments.current()
            if current is None or current.version < to.version:
                with self._environments.locked():
                    self._environments.switch(to)
                    self._environments.prune()
        except UpdateFailed as error:  # the next start finds it installed, and tries again
            self._tell("update_not_noted", error.message, reason=error.message)
        self._tell("updated", f"version {to.version} serves", version=str(to.version))

    def _start(self, environment: Environment) -> Child:
        try:
            self._child = self._launch(environment)
        except OSError as error:
            program = environment.program
            raise UpdateFailed(f"{program} cannot be started: {error.strerror or error}") from None
        return self._child

    async def _good_moment(self, version: str) -> dict[str, Any]:
        """Returns when the node has no sessions and others serve its blocks, or when that has taken too long: the
        status of the node."""
        clock = asyncio.get_running_loop().time
        deadline, told = clock() + self._times.moment, False
        while True:
            with contextlib.suppress(FarError):
                spare, status = await self._ask("spare"), await self._ask("status")
                serves = status["state"] == "ready"
                if serves and (clock() >= deadline or not (spare["open_sessions"] or spare["alone"])):
                    return status
                if serves and not told:
                    told = True
                    sentence = f"version {version} waits until sessions have ended and others serve the blocks"
                    self._tell("update_waits", sentence, version=version, **spare)
            await asyncio.sleep(self._times.poll)

    async def _asked_to_leave(self) -> int:
        """Ask the node to leave: how often it had been asked when it went. 0: it did not say."""
        try:
            patience = {"drain_timeout": self._times.drain}
            left = await asyncio.to_thread(ask, self._socket, "stop", patience, until_closed=True)
        except FarError:
            return 0
        return int(left["asked"])

    async def _watch(self, trial: Child, of: Environment, before: dict[str, Any]) -> str | None:
        """Whether a version serves, and goes on to: None, or why not."""
        try:
            async with asyncio.timeout(self._times.ready):
                wrong = await self._unless_over(trial, self._until_ready(of.version, before))
        except TimeoutError:
            return f"was not ready after {self._times.ready:.0f} s"
        if wrong:
            return wrong
        if not trial.has_ended:
            await self._unless_over(trial, asyncio.sleep(self._times.settle, True))
            if trial.has_ended and await trial.ended() == 0:  # it served, and its owner stopped it
                self._stopping.set()
        return f"ended with exit code {await trial.ended()}" if trial.has_ended else None

    async def _until_ready(self, version: Version, before: dict[str, Any]) -> str:
        """Returns when the node serves: the empty string, or what is worse than before."""
        while True:
            with contextlib.suppress(FarError):
                status = await self._ask("status")
                if status.get("state") == "ready":
                    return _what_is_worse(status, version, before)
            await asyncio.sleep(min(self._times.poll, 1.0))

    def _fail(self, version: Version, reason: str) -> None:
        try:
            self._environments.end_trial(self._node, version, reason)
        except UpdateFailed as error:  # it counts as begun, and is begun no more than twice
            self._tell("update_not_noted", error.message, reason=error.message)

    async def _ask(self, command: str) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self._socket, command, timeout=ANSWER_SECONDS)

    async def _unless_over(self, child: Child, work: Awaitable[T]) -> T | None:
        """The result of ``work``; None, and the work is cancelled, when the node ends before or is told to."""
        working = asyncio.ensure_future(work)
        over = [asyncio.create_task(child.ended()), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait([working, *over], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (working, *over):
                task.cancel()
            await asyncio.gather(working, *over, return_exceptions=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask_to_stop, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


@dataclass(frozen=True)
class _Restarted:
    child: Child


def _what_is_worse(status: dict[str, Any], version: Version, before: dict[str, Any]) -> str:
    runs = str(status.get("versions", {}).get("far-mesh"))
    if runs != str(version):
        return f"says that it is {runs}"
    device, former = (str(one.get("device", "cpu")) for one in (status, before))
    if device == "cpu" and former != "cpu":
        return f"computes on the CPU, not on {former}"
    return ""


def adopted_pid() -> int | None:
    """The node that the program before this one has left to it, once."""
    said = os.environ.pop(ADOPT_VARIABLE, "")
    return int(said) if said.isdecimal() else None
