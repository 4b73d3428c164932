"""What systemd and launchd are told about a node. Pure: texts from facts.

systemd: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html (sandboxing) and systemd.service
(restarts); launchd: launchd.plist(5).
"""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_MARGIN_SECONDS = 60
"""Beyond the drain: the goodbye on the DHT, and the end of the p2p daemon."""
RESTART_SECONDS = 10
RESTARTS, RESTART_WINDOW_SECONDS = 5, 600

_SECCOMP = (
    "NoNewPrivileges=yes",
    "RestrictSUIDSGID=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)
_NAMESPACES = (
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
)
_ROOTS = (
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "CapabilityBoundingSet=",
)


@dataclass(frozen=True)
class Service:
    """A node as a service.

    Attributes:
        name: of the node, where it has one.
        program: its ``far-node``, as a path that goes on to be right after an update.
        arguments: after ``start``.
        user, home: whose it is.
        drain_seconds: that its sessions get when it is stopped.
        writable: directories that it writes to.
        variables: of the environment of whoever installs it, which the node needs.
    """

    name: str | None
    program: Path
    arguments: Sequence[str]
    user: str
    home: Path
    drain_seconds: float
    writable: Sequence[Path]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Its name for systemd."""
        return "far-node.service" if self.name is None else f"far-node-{self.name}.service"

    @property
    def label(self) -> str:
        """Its name for launchd."""
        return "org.far-mesh.far-node" if self.name is None else f"org.far-mesh.far-node.{self.name}"

    @property
    def stop_seconds(self) -> int:
        """Until it is killed."""
        return int(self.drain_seconds) + STOP_MARGIN_SECONDS


def systemd_unit(service: Service, *, system: bool, sandboxed: bool) -> str:
    """The unit file.

    Args:
        system: for the machine's manager, run by root, in the place of the user's own.
        sandboxed: whether namespaces can be used; without them seccomp remains, and the owner's rights.

    Devices are left as they are (no PrivateDevices): a GPU is one. So is memory (no MemoryDenyWriteExecute): torch and
    its kernels are compiled while the node runs. The p2p daemon is to live until the node has said goodbye through it:
    KillMode=mixed.
    """
    # a program is no variable; in what comes after it a $ would be one
    words = [str(service.program), *(word.replace("$", "$$") for word in ("start", *service.arguments))]
    command = " ".join(map(_quoted, words))
    named = "" if service.name is None else f" {service.name}"
    hardening = [*_SECCOMP]
    if sandboxed:
        hardening += _NAMESPACES
        hardening += [f"ReadWritePaths={_quoted('-' + str(path))}" for path in service.writable]
        # before 254 a user's manager passes over all of these without a word unless it is told to make a namespace
        hardening += _ROOTS if system else ["PrivateUsers=yes"]
    lines = [
        "[Unit]",
        f"Description=Far Mesh node{named}",
        "Documentation=man:systemd.service(5)",
        *(["Wants=network-online.target", "After=network-online.target"] if system else []),
        f"StartLimitIntervalSec={RESTART_WINDOW_SECONDS}",
        f"StartLimitBurst={RESTARTS}",
        "",
        "[Service]",
        "Type=exec",
        *([f"User={service.user}"] if system else []),
        f"ExecStart={command}",
        f"WorkingDirectory={str(service.home).replace('%', '%%')}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(service.variables.items())),
        "Restart=on-failure",
        f"RestartSec={RESTART_SECONDS}",
        "KillMode=mixed",
        f"TimeoutStopSec={service.stop_seconds}",
        "UMask=0077",
        *hardening,
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def launchd_plist(service: Service) -> bytes:
    """The property list of a launch agent."""
    content = {
        "Label": service.label,
        "ProgramArguments": [str(service.program), "start", *service.arguments],
        "WorkingDirectory": str(service.home),
        "EnvironmentVariables": dict(service.variables),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART_SECONDS,
        "ExitTimeOut": service.stop_seconds,
        "ProcessType": "Interactive",  # others are slowed down for the sake of windows
        "Umask": 0o077,
        "StandardOutPath": "/dev/null",
        "StandardErrorPath": str(service.home / "Library" / "Logs" / f"{service.label}.log"),
    }
    return plistlib.dumps(content)


def _quoted(word: str) -> str:
    """A word of a unit file: nothing in it is a specifier, or the end of it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = all(letter.isalnum() or letter in "/-_.,:=@+%$" for letter in escaped)
    return escaped if plain and escaped else f'"{escaped}"'
