"""Telling systemd and launchd, by their own commands, and what they answer."""

from __future__ import annotations

import contextlib
import os
import plistlib
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from far_node.service.errors import ServiceUnavailable
from far_node.service.units import Service, launchd_plist, systemd_unit
from far_node.settings import HOME, NodeSettings, Place
from far_node.update.environments import PROGRAM, Environments
from far_node.update.errors import NotUpdatable

ANSWER_SECONDS = 60.0
CONTAINER = (
    "no service manager runs here, as in a container: let what runs the container start the node "
    "(far-node start as its command, with a policy to restart it on failure and time to stop)"
)
_PASSED_ON = ("FAR_MODELS_DIR", "HF_HOME", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME")
"""Variables without which a node would look for its models or its device elsewhere than from this shell."""


class Manager(Protocol):
    """A service manager of one kind, for one service."""

    @property
    def path(self) -> Path: ...
    def install(self, *, start: bool) -> dict[str, Any]: ...
    def uninstall(self) -> None: ...
    def status(self) -> dict[str, Any]: ...


def service_of(said: NodeSettings, place: Place, config: Path | None) -> Service:
    """The service of a node with these settings."""
    home = Path.home()
    ours = HOME.expanduser()
    caches = [home / ".cache", home / ".nv", home / ".triton"]
    kept = [
        (said.identity or place.identity).expanduser().parent,
        *([said.receipts.expanduser()] if said.receipts else []),
    ]
    models = [
        Path(os.environ[name]) for name in ("FAR_MODELS_DIR", "HF_HOME", "XDG_CACHE_HOME") if os.environ.get(name)
    ]
    arguments = [] if place.name is None else ["--name", place.name]
    arguments += [] if config is None else ["--config", str(config.expanduser().absolute())]
    return Service(
        name=place.name,
        program=find_program(),
        arguments=arguments,
        user=pwd.getpwuid(os.getuid()).pw_name,
        home=home,
        drain_seconds=said.drain_timeout,
        writable=list(dict.fromkeys([ours, *(path.absolute() for path in (*kept, *models, *caches))])),
        variables={name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)},
    )


def find_program() -> Path:
    """This ``far-node``: through the link, where the installer made one, so that updates are followed.

    Raises:
        ServiceUnavailable: it has no file of its own.
    """
    environments = Environments()
    with contextlib.suppress(NotUpdatable):
        environments.running()
        return environments.link / "bin" / PROGRAM
    beside = Path(sys.executable).with_name(PROGRAM)
    if not beside.is_file():
        raise ServiceUnavailable(f"there is no {beside}: install far-mesh first, with deploy/install.sh or pip")
    return beside


def manager_for(service: Service) -> Manager:
    """The one of this machine.

    Raises:
        ServiceUnavailable: there is none.
    """
    if sys.platform == "darwin":
        return Launchd(service)
    if shutil.which("systemctl") is None or not _answers(["systemctl", "--user", "show-environment"]):
        raise ServiceUnavailable(_why_no_systemd())
    return Systemd(service)


@dataclass(frozen=True)
class Systemd:
    """The manager of one user."""

    service: Service

    @property
    def path(self) -> Path:
        """Of the unit file."""
        base = os.environ.get("XDG_CONFIG_HOME")
        return (Path(base) if base else self.service.home / ".config") / "systemd" / "user" / self.service.unit

    def install(self, *, start: bool) -> dict[str, Any]:
        """Write the unit, have it checked, and let it be started at every boot.

        Raises:
            ServiceUnavailable: something refused; the former unit is there again.
        """
        sandboxed = can_sandbox()
        with _replaced(self.path, systemd_unit(self.service, system=False, sandboxed=sandboxed).encode()):
            verify_unit(self.path, user=True)
            self._tell("daemon-reload")
            self._tell("enable", self.service.unit)
            if start:
                self._tell("restart", self.service.unit)
        return {"sandboxed": sandboxed, "lingers": lingers(self.service.user)}

    def uninstall(self) -> None:
        """Stop it, with time for its sessions, and forget it.

        Raises:
            ServiceUnavailable: there is none, or it would not stop.
        """
        if not self.path.exists():
            raise ServiceUnavailable(f"there is no {self.path}; far-node service status says more")
        self._tell("disable", "--now", self.service.unit, seconds=self.service.stop_seconds + ANSWER_SECONDS)
        self.path.unlink(missing_ok=True)
        self._tell("daemon-reload")

    def status(self) -> dict[str, Any]:
        """What systemd says of it."""
        names = ("LoadState", "UnitFileState", "ActiveState", "SubState", "NRestarts", "Result")
        argv = ["systemctl", "--user", "show", self.service.unit, "--property", ",".join(names)]
        said = dict(line.split("=", 1) for line in _run(argv).stdout.splitlines() if "=" in line)
        return {
            "installed": self.path.exists(),
            "enabled": said.get("UnitFileState") == "enabled",
            "active": said.get("ActiveState", "unknown"),
            "detail": said.get("SubState", "unknown"),
            "restarts": int(said["NRestarts"]) if said.get("NRestarts", "").isdecimal() else None,
            "result": said.get("Result"),
            "lingers": lingers(self.service.user),
        }

    def _tell(self, *words: str, seconds: float = ANSWER_SECONDS) -> None:
        _must(["systemctl", "--user", *words], seconds)


@dataclass(frozen=True)
class Launchd:
    """The launch agents of one user."""

    service: Service

    @property
    def path(self) -> Path:
        """Of the property list."""
        return self.service.home / "Library" / "LaunchAgents" / f"{self.service.label}.plist"

    def install(self, *, start: bool) -> dict[str, Any]:
        """Write the list, have it checked, and load it.

        Raises:
            ServiceUnavailable: something refused; the former list is there again.
        """
        content = launchd_plist(self.service)
        plistlib.loads(content)
        with _replaced(self.path, content):
            if shutil.which("plutil") is not None:
                _must(["plutil", "-lint", str(self.path)])
            if start:
                if self.status()["active"] == "active":
                    _must(["launchctl", "bootout", self._target], self.service.stop_seconds + ANSWER_SECONDS)
                _must(["launchctl", "bootstrap", self._domain, str(self.path)])
        return {"sandboxed": False, "lingers": None}

    def uninstall(self) -> None:
        """Stop it, with time for its sessions, and forget it.

        Raises:
            ServiceUnavailable: there is none, or it would not stop.
        """
        if not self.path.exists():
            raise ServiceUnavailable(f"there is no {self.path}; far-node service status says more")
        if self.status()["active"] == "active":
            _must(["launchctl", "bootout", self._target], self.service.stop_seconds + ANSWER_SECONDS)
        self.path.unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """What launchd says of it."""
        answer = _run(["launchctl", "print", self._target])
        loaded = answer.returncode == 0
        running = "state = running" in answer.stdout
        return {
            "installed": self.path.exists(),
            "enabled": self.path.exists(),
            "active": "active" if loaded else "inactive",
            "detail": "running" if running else "waiting" if loaded else "not loaded",
            "restarts": None,
            "result": None,
            "lingers": None,
        }

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    @property
    def _target(self) -> str:
        return f"{self._domain}/{self.service.label}"


def can_sandbox() -> bool:
    """Whether a process without rights may make a user namespace here, as systemd will for a user's service."""
    return shutil.which("unshare") is not None and _answers(["unshare", "--user", "--map-root-user", "true"])


def lingers(user: str) -> bool | None:
    """Whether the user's services run while he is not logged in; None: nobody says."""
    if shutil.which("loginctl") is None:
        return None
    said = _run(["loginctl", "show-user", user, "--property", "Linger", "--value"])
    return said.stdout.strip() == "yes" if said.returncode == 0 else None


def verify_unit(path: Path, *, user: bool) -> None:
    """Have systemd read a unit file, where its tool for that is here.

    Raises:
        ServiceUnavailable: it found something.
    """
    if shutil.which("systemd-analyze") is None:
        return
    answer = _run(["systemd-analyze", *(["--user"] if user else []), "verify", "--man=no", str(path)])
    ours = [line for line in (answer.stdout + answer.stderr).splitlines() if path.name in line]
    if answer.returncode and ours:
        raise ServiceUnavailable(f"systemd does not take the unit: {ours[0].strip()}")


def _why_no_systemd() -> str:
    if not Path("/run/systemd/system").is_dir():
        return CONTAINER
    return (
        "systemd runs, but no manager of your own services answers (after su or sudo there is none): log in as "
        "yourself, or let root install what far-node service install --system prints"
    )


@contextlib.contextmanager
def _replaced(path: Path, content: bytes) -> Any:
    """A file with another content; if what follows fails, with the former one."""
    former = path.read_bytes() if path.exists() else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ServiceUnavailable(f"{path} cannot be written: {error.strerror or error}") from None
    try:
        yield
    except BaseException:
        if former is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(former)
        raise


def _answers(argv: Sequence[str]) -> bool:
    try:
        return _run(argv).returncode == 0
    except ServiceUnavailable:
        return False


def _must(argv: Sequence[str], seconds: float = ANSWER_SECONDS) -> None:
    answer = _run(argv, seconds)
    if answer.returncode:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise ServiceUnavailable(f"{' '.join(argv)}: {said[-1] if said else f'exit code {answer.returncode}'}")


def _run(argv: Sequence[str], seconds: float = ANSWER_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
    except OSError as error:
        raise ServiceUnavailable(f"{argv[0]} cannot be run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(f"{' '.join(argv)} was not done after {seconds:.0f} s") from None
