"""What a node is told, at its start or while it runs, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.geo import parse_point
from discovery.protocol.announcement import (
    MAX_ASKED_UNITS,
    MAX_MODEL_ID_LENGTH,
    REGION_PATTERN,
    Dtype,
    Location,
    Quantization,
)
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet
from discovery.protocol.membership import Membership
from discovery.protocol.oncall import MAX_URL_LENGTH
from far_node.capacity import GIB
from far_node.limits import Limits

Attention = Literal["sdpa", "eager"]

DEFAULT_HOST_MADDR = "/ip4/0.0.0.0/tcp/31330"
DEFAULT_IDENTITY = Path("~/.far/identity")
DEFAULT_CACHE_BYTES = 1 << 30
DEFAULT_DRAIN_SECONDS = 30.0
MIN_PLACE_MINUTES = 1.0


@dataclass(frozen=True)
class ModelOptions:
    """One model and how much of it to serve.

    Attributes:
        model: a directory, a name in the models directory, a hub id or a bundled name.
        model_id: its public name; None for the one that ``model`` gives.
        registry: address of a layer registry to download from; None for the hub.
        blocks: ``(first, end)``, end exclusive. With ``num_blocks`` None as well, as many as fit.
        num_blocks: how many, wherever the swarm lacks them most.
        quantization: None for what suits the device.
        dtype: compute type; None for what suits the device.
        attention: how attention is computed; None for what suits the architecture.
        context_length: positions of the longest session; None for what the model can.
        cache_bytes: budget of the attention cache.
        cpu_offload: whether blocks that do not fit on the GPU may run on the CPU.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # where it comes in a message

    model: str
    model_id: str | None = None
    registry: str | None = None
    blocks: tuple[int, int] | None = None
    num_blocks: int | None = None
    quantization: Quantization | None = None
    dtype: Dtype | None = None
    attention: Attention | None = None
    context_length: int | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    cpu_offload: bool = False

    def __post_init__(self) -> None:
        for flag, value, kinds in (
            ("--quantization", self.quantization, get_args(Quantization)),
            ("--dtype", self.dtype, get_args(Dtype)),
            ("--attention", self.attention, get_args(Attention)),
        ):
            if value is not None and value not in kinds:
                raise InvalidArgument(f"{flag} {value!r} is not one of {', '.join(kinds)}")
        if self.model_id is not None and not 1 <= len(self.model_id) <= MAX_MODEL_ID_LENGTH:
            raise InvalidArgument(f"--model-id takes 1 to {MAX_MODEL_ID_LENGTH} characters")
        if self.blocks is not None and self.num_blocks is not None:
            raise InvalidArgument("--blocks and --num-blocks exclude each other")
        if self.blocks is not None and not 0 <= self.blocks[0] < self.blocks[1]:
            raise InvalidArgument("--blocks {}:{} is not a range a:b with a < b".format(*self.blocks))
        if self.num_blocks is not None and self.num_blocks < 1:
            raise InvalidArgument("--num-blocks must be at least 1")
        if self.context_length is not None and self.context_length < 1:
            raise InvalidArgument("--context-length must be at least 1")
        if self.cache_bytes <= 0:
            raise InvalidArgument("--cache-mb must be at least 1")


@dataclass(frozen=True)
class NodeConfig:
    """One node.

    Attributes:
        relay: whether others reach this node through its initial peers, because its router lets nobody in.
        device: ``auto``, ``cpu``, ``mps`` or ``cuda:N``.
        reserve_bytes: memory that an automatic number of blocks leaves free.
        gpu_memory_fraction: the most of the GPU's memory that this process takes.
        drain_timeout: seconds that open sessions are given when the node leaves.
        receipts: directory in which every receipt is kept for the owner; None for nowhere.
        price_units: asked for 1,000 token-layers, in 1e-9 FAR.
        region, location: what is announced of where the node is; nothing is looked up.
        wake_url: where the node is woken when it sleeps.
        idle_exit: seconds without a session after which it goes to sleep; None: it does not.
        membership: the private swarm that it serves, whose name ``prefix`` is; None for one that is open to all.
        discovery: the discovery service that the owner is told of; None in a private swarm, which none knows.
        auto_place: minutes between two looks at whether other blocks need it more; None: it stays where it is.
    """

    model: ModelOptions
    wallet: Wallet
    initial_peers: tuple[str, ...]
    device: str = "auto"
    threads: int | None = None
    identity: Path = DEFAULT_IDENTITY
    host_maddrs: tuple[str, ...] = (DEFAULT_HOST_MADDR,)
    public_maddrs: tuple[str, ...] = ()
    prefix: str = DEFAULT_PREFIX
    map_ports: bool = False
    relay: bool = False
    reserve_bytes: int = 2 * GIB
    gpu_memory_fraction: float = 1.0
    drain_timeout: float = DEFAULT_DRAIN_SECONDS
    receipts: Path | None = None
    limits: Limits = field(default_factory=Limits)
    price_units: int = 0
    region: str | None = None
    location: Location | None = None
    membership: Membership | None = None
    wake_url: str | None = None
    idle_exit: float | None = None
    auto_place: float | None = None
    discovery: str | None = None

    def __post_init__(self) -> None:
        if not self.initial_peers:
            raise InvalidArgument("a node needs --initial-peers: the address of a bootstrap peer of its swarm")
        if self.relay and (self.public_maddrs or self.map_ports):
            raise InvalidArgument("--relay is for a node without an open port: leave out --public-addr and --map-ports")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", self.device):
            raise InvalidArgument(f"--device {self.device!r} is not one of auto, cpu, mps, cuda:N")
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument("--threads must be at least 1")
        if self.reserve_bytes < 0:
            raise InvalidArgument("--reserve-gb cannot be less than 0")
        if not 0.0 < self.gpu_memory_fraction <= 1.0:
            raise InvalidArgument("--gpu-memory-fraction must be more than 0 and at most 1")
        if not 0.0 <= self.drain_timeout <= 86_400.0:
            raise InvalidArgument("--drain-timeout must be between 0 and 86400 seconds")
        if not 0 <= self.price_units <= MAX_ASKED_UNITS:
            raise InvalidArgument(f"--price must be from 0 to {MAX_ASKED_UNITS} units")
        if self.wake_url is not None and not (
            len(self.wake_url) <= MAX_URL_LENGTH and re.match(r"https?://[!-~]+\Z", self.wake_url)
        ):
            raise InvalidArgument(f"--wake-url {self.wake_url[:80]!r} is no address of HTTP")
        if self.idle_exit is not None and not 1.0 <= self.idle_exit <= 604_800.0:
            raise InvalidArgument("--idle-exit must be between 1 second and a week")
        if self.region is not None and not re.fullmatch(REGION_PATTERN, self.region):
            raise InvalidArgument(f"--region {self.region!r} is not written like eu-west")
        if self.auto_place is not None and not MIN_PLACE_MINUTES <= self.auto_place <= 1440.0:
            raise InvalidArgument(f"--auto-place takes {MIN_PLACE_MINUTES:g} to 1440 minutes")
        if self.auto_place is not None and self.model.blocks is not None:
            raise InvalidArgument("--auto-place is for a node that chooses its blocks: leave out --blocks")


def choose_device(device: str | None, gpu: int | None, cpu_only: bool) -> str:
    """The one device that ``--device``, ``--gpu`` and ``--cpu-only`` name together.

    Raises:
        InvalidArgument: more than one of them is given.
    """
    named = {
        "--device": device,
        "--gpu": None if gpu is None else f"cuda:{gpu}",
        "--cpu-only": "cpu" if cpu_only else None,
    }
    given = {flag: value for flag, value in named.items() if value is not None}
    if len(given) > 1:
        raise InvalidArgument(f"{' and '.join(given)} exclude each other")
    return next(iter(given.values()), "auto")


def parse_blocks(text: str) -> tuple[int, int]:
    """``"a:b"`` as ``(a, b)``, end exclusive.

    Raises:
        InvalidArgument: not of this form, or empty.
    """
    match = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text.strip())
    if not match or int(match[1]) >= int(match[2]):
        raise InvalidArgument(f"--blocks {text!r} is not a range a:b with a < b, such as 0:8")
    return int(match[1]), int(match[2])


def parse_location(text: str) -> Location:
    """``LAT,LON`` in degrees, rounded to whole ones.

    Raises:
        InvalidArgument: not of this form, or no place on Earth.
    """
    latitude, longitude = parse_point(text, "--location")
    return round(latitude), round(longitude)


def parse_public_address(text: str) -> str:
    """``IP:PORT`` or a multiaddr, as a multiaddr.

    Raises:
        InvalidArgument: neither.
    """
    if text.startswith("/"):
        return text
    match = re.fullmatch(r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}):([0-9]{1,5})", text)
    if not match:
        raise InvalidArgument(f"--public-addr {text!r} is neither IP:PORT nor a multiaddr")
    return f"/ip4/{match[1]}/tcp/{match[2]}"
