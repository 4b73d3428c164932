"""Everything that is looked at, as much of it at a time as does not disturb the rest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from discovery.hints import peers_to_join
from discovery.protocol.errors import FarError
from far_node.config import DEFAULT_HOST_MADDR, DEFAULT_IDENTITY, ModelOptions
from far_node.control import ask, control_path
from far_node.doctor import judge, measure
from far_node.doctor.facts import DeviceFacts, HttpFacts, ListenFacts, MemoryFacts, ModelFacts, SwarmFacts
from far_node.doctor.judge import Finding

_STATUS_SECONDS = 2.0


@dataclass(frozen=True)
class Questions:
    """What the owner means to start, as far as it was said.

    Attributes:
        problems: what is wrong with the settings in themselves; ``file`` is where they are from.
        now: this machine's clock, in Unix seconds.
    """

    problems: tuple[str, ...] = ()
    file: str | None = None
    model: ModelOptions | None = None
    wallet: str | None = None
    initial_peers: tuple[str, ...] = ()
    host_maddrs: tuple[str, ...] = (DEFAULT_HOST_MADDR,)
    public_maddrs: tuple[str, ...] = ()
    relay: bool = False
    device: str = "auto"
    reserve_bytes: int = 2 << 30
    gpu_memory_fraction: float = 1.0
    identity: Path = DEFAULT_IDENTITY
    gateway: str | None = None
    discovery: str | None = None
    now: Callable[[], float] = time.time


async def examine(asked: Questions) -> list[Finding]:
    """Look at everything; in less than 20 seconds, whatever does not answer."""
    local, around = await asyncio.gather(_local(asked), _network(asked))
    return [*local, *around]


async def _local(asked: Questions) -> list[Finding]:
    """Settings, wallet, identity, model, disk, device and memory."""
    identity = judge.identity(measure.identity(asked.identity))
    model = None if asked.model is None else await asyncio.to_thread(measure.model, asked.model.model)
    disk = judge.disk(measure.disk(model))
    device = await asyncio.to_thread(measure.device, asked.device)
    memory = await _memory(asked, model, device)
    findings = [
        judge.config(asked.problems, asked.file),
        judge.wallet(asked.wallet),
        identity,
        judge.model(model),
        disk,
        judge.device(device),
    ]
    return [*findings, judge.memory(memory)]


async def _memory(asked: Questions, model: ModelFacts | None, device: DeviceFacts) -> MemoryFacts | None:
    """None where a model or a device is missing, which is a finding already."""
    if asked.model is None or model is None or device.found is None:
        return None
    if model.place is None or model.error is not None:
        return None
    return await asyncio.to_thread(
        measure.memory, asked.model, Path(model.place), device.found, asked.reserve_bytes, asked.gpu_memory_fraction
    )


async def _network(asked: Questions) -> list[Finding]:
    """The swarm, our port, the kind of NAT, the clock, and web services."""
    is_ours = await asyncio.to_thread(_runs, asked.identity)
    listen = measure.listening(asked.host_maddrs, asked.public_maddrs, asked.relay, is_ours)
    swarm, discovery, gateway = await asyncio.gather(
        _swarm(asked, listen),
        _service(asked.discovery, "/health", asked.now),
        _service(asked.gateway, "/ready", asked.now),
    )
    services = [one for one in (discovery, gateway) if one is not None]
    return [
        judge.bootstrap(swarm),
        judge.port(listen, swarm),
        judge.nat(swarm),
        judge.clock(swarm.met, services),
        judge.service("discovery", discovery),
        judge.service("gateway", gateway),
    ]


async def _swarm(asked: Questions, listen: ListenFacts) -> SwarmFacts:
    """What the initial peers say; those that the discovery service names, where no others are known."""
    peers = asked.initial_peers
    if not peers and asked.discovery is not None:
        with contextlib.suppress(FarError):  # the service has a finding of its own
            peers = await peers_to_join((), asked.discovery)
    return await measure.swarm(peers, listen, asked.now)


async def _service(url: str | None, path: str, now: Callable[[], float]) -> HttpFacts | None:
    return None if url is None else await measure.service(url, path, now)


def _runs(identity: Path) -> bool:
    """Whether the node of this identity runs on this machine."""
    try:
        ask(control_path(identity), "status", timeout=_STATUS_SECONDS)
    except FarError:
        return False
    return True
