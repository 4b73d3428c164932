"""Peers of this process whose daemons are on hosts of an emulated network: quicker to start than processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from benchmarks.support.wan import Wan
from discovery.dht import peer as peer_module
from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer

_host: ContextVar[int] = ContextVar("host")


@contextlib.contextmanager
def daemons_on(wan: Wan) -> Iterator[None]:
    """Daemons that :func:`start_at` starts in here are on hosts of this network."""
    spawn = peer_module._spawn

    async def spawn_on_host(*command: str, **options: Any) -> asyncio.subprocess.Process:
        return await spawn(*wan.within(_host.get()), *command, **options)

    peer_module._spawn = spawn_on_host  # type: ignore[assignment]
    try:
        yield
    finally:
        peer_module._spawn = spawn


async def start_at(wan: Wan, host: int, directory: Path, **config: Any) -> SwarmPeer:
    """A peer on a host, with an identity of its own in the directory."""
    _host.set(host)
    listens = PeerConfig(host_maddrs=(f"/ip4/{wan.listens_at(host)}/tcp/0",), **config)
    return await SwarmPeer.start(load_identity(directory / str(host)), listens)
