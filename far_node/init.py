"""A file of settings to begin with: what suits this machine, and what only its owner knows."""

from __future__ import annotations

import os
import socket
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from discovery.protocol.errors import FarError
from discovery.settings import load
from far_node.settings import Place, places

FIRST_PORT = 31330
WIDTH = 118
HEAD = """\
Settings of a Far Mesh node. Every flag of `far-node start` can stand here, with _ for - and without the dashes.
`far-node config show` lists them all, `far-node config check` says what is wrong. A flag comes before its variable
(FAR_NODE_PRICE for --price), and that before this file."""
MEANINGS = {
    "wallet": "the EVM address that is paid; its key is not needed here",
    "model": "a directory, a hub id (owner/name), or the bundled far-demo",
    "initial_peers": "peers of the swarm to join through",
    "discovery": "a discovery service, which names peers of the swarm",
    "swarm": "file of the private swarm that invited this node",
    "invite": "the invitation to it, a secret like a password, or a file that has it",
    "gpu": "index of the CUDA device; a node computes on one",
    "cpu_only": "leave GPUs alone",
    "host_maddr": "where to listen",
    "public_addr": "where others reach this machine, IP:PORT",
    "relay": "no open port: be reached through the initial peers, slower",
    "price": "least for 1,000 token-layers, in units of 1e-9 FAR; who offers less is refused",
}


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can compute on."""

    index: int
    name: str
    total_bytes: int


@dataclass(frozen=True)
class Machine:
    """What this machine has. Memory is in bytes."""

    gpus: tuple[Gpu, ...]
    cores: int
    memory_bytes: int

    @classmethod
    def look(cls) -> Machine:
        """This one."""
        import torch

        from far_node.hardware import memory_of

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = [(index, torch.cuda.get_device_properties(index)) for index in range(count)]
        gpus = tuple(Gpu(index, about.name, about.total_memory) for index, about in found)
        return cls(gpus, os.cpu_count() or 1, memory_of("cpu").total_bytes)


def others(place: Place) -> list[dict[str, Any]]:
    """The settings of the other nodes of this machine; a file that cannot be read says nothing."""
    found = []
    for other in places():
        if other != place:
            try:
                found.append(load(other.file))
            except FarError:
                continue
    return found


def free_gpu(machine: Machine, nodes: Iterable[Mapping[str, Any]]) -> Gpu | None:
    """The first GPU that no other node of this machine computes on; one that names none has the first."""
    taken = {0 if node.get("gpu") is None else node["gpu"] for node in nodes if not node.get("cpu_only")}
    return next((gpu for gpu in machine.gpus if gpu.index not in taken), None)


def free_port(nodes: Iterable[Mapping[str, Any]], first: int = FIRST_PORT) -> int:
    """The first port that no other node of this machine is to listen on, and where nothing listens now."""
    named = {maddr.rpartition("/")[2] for node in nodes for maddr in _maddrs(node)}
    return next(port for port in range(first, 65_536) if str(port) not in named and _is_free(port))


def compose(values: Mapping[str, Any]) -> str:
    """The file. ``values`` without a meaning of their own above are written as they are."""
    lines = [*(f"# {line}" for line in HEAD.splitlines()), ""]
    for key, value in values.items():
        lines += [f"# {line}" for line in textwrap.wrap(MEANINGS.get(key, ""), WIDTH)]
        written = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        lines += [f"{key} = {tomlkit.item(written).as_string()}", ""]
    return "\n".join(lines)


def _maddrs(node: Mapping[str, Any]) -> Iterator[str]:
    said = node.get("host_maddr", f"/tcp/{FIRST_PORT}")
    yield from (str(one) for one in (said if isinstance(said, list) else [said]))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104  # nobody is listened to
        except OSError:
            return False
    return True
