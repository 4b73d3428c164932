"""What is measured of a machine and of its place in the swarm. What is None was not measured, or could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from discovery.dht.probe import Meeting
from discovery.protocol.errors import FarError


@dataclass(frozen=True)
class IdentityFacts:
    """The identity file. ``mode`` are its permission bits; ``error`` says why it cannot be used."""

    path: str
    exists: bool
    mode: int | None = None
    peer_id: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """A model on this disk.

    Attributes:
        error: why it cannot be served from here.
        is_elsewhere: it is not on this disk, and would be downloaded.
        hashed, files: how many of its files were compared with their hashes, of how many that have one.
        missing_bytes: what is not here of a model that was pulled in part.
    """

    model: str
    place: str | None = None
    error: FarError | None = None
    is_elsewhere: bool = False
    hashed: int = 0
    files: int = 0
    missing_bytes: int = 0


@dataclass(frozen=True)
class DiskFacts:
    """The file system of the models directory. ``needed_bytes``: of what is yet to be downloaded; None: not known."""

    place: str
    free_bytes: int
    total_bytes: int
    needed_bytes: int | None
    error: str | None = None


@dataclass(frozen=True)
class Card:
    """A GPU as its driver tells of it, without torch."""

    maker: Literal["nvidia", "amd"]
    name: str
    driver: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class DeviceFacts:
    """What computes.

    Attributes:
        wanted: ``auto``, ``cpu``, ``mps`` or ``cuda:N``.
        found: the torch device that this is; None: there is none, and ``error`` says what torch sees.
        torch, built_for: version of torch, and the version of CUDA or ROCm it was built for (None: for the CPU alone).
        cards: what drivers tell of.
    """

    wanted: str
    found: str | None
    error: str | None
    torch: str
    built_for: str | None
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class MemoryFacts:
    """Whether the model fits: in words what, or why not."""

    fits: str | None
    error: str | None
    free_bytes: int
    total_bytes: int
    device: str


@dataclass(frozen=True)
class ListenFacts:
    """Where the node listens. ``in_use``: somebody has the port now; ``is_ours``: it is the node of this identity."""

    maddrs: tuple[str, ...]
    port: int | None
    in_use: bool
    is_ours: bool
    relay: bool


@dataclass(frozen=True)
class SwarmFacts:
    """The initial peers. ``error``: our own daemon could not be started, and none was asked."""

    meetings: tuple[Meeting, ...]
    own_ips: frozenset[str]
    error: str | None = None

    @property
    def met(self) -> tuple[Meeting, ...]:
        """Those that were connected to."""
        return tuple(one for one in self.meetings if one.reason is None)


@dataclass(frozen=True)
class HttpFacts:
    """A service that was asked. ``clock_ahead_seconds``: of ours, by its Date, true to a second."""

    url: str
    status: int | None
    reason: str | None
    milliseconds: float | None = None
    clock_ahead_seconds: float | None = None
