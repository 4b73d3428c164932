"""A swarm of our own on this machine, whose nodes may be killed and are started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.errors import InvalidArgument
from far_mesh.client import Mesh
from far_mesh.demo.processes import Child, ProcessGroup

_LOCAL = "/ip4/127.0.0.1/tcp/0"
_WALLET = "0x000000000000000000000000000000000000dEaD"
_SEEN_SECONDS = 60.0
_LOOK_SECONDS = 0.1


@dataclass
class _Seat:
    """A place for a node: its blocks, and who serves them now."""

    name: str
    blocks: tuple[int, int]
    child: Child | None = None
    peer_id: str = ""
    starts: int = 0


class Town:
    """A bootstrap peer, and ``copies`` nodes for each of ``parts`` ranges of blocks."""

    def __init__(self, directory: Path, group: ProcessGroup, model: str) -> None:
        self._directory, self._group, self._model = directory, group, model
        self._seats: list[_Seat] = []
        self.initial_peer = ""

    async def start(self, block_count: int, parts: int, copies: int) -> None:
        """Returns when all are ready.

        Raises:
            InvalidArgument: more parts than blocks.
            FarError: a process could not be started.
        """
        if parts > block_count:
            raise InvalidArgument(f"{block_count} blocks cannot be cut in {parts} parts", param="parts")
        arguments = ["--json", "--host-maddr", _LOCAL, "--identity", str(self._directory / "bootstrap")]
        bootstrap = await self._group.start("bootstrap", "discovery.cli", ["bootstrap", *arguments])
        self.initial_peer = str((await bootstrap.ready())["maddrs"][0])
        borders = [block_count * part // parts for part in range(parts + 1)]
        self._seats = [
            _Seat(f"node-{part + 1}-{copy + 1}", (borders[part], borders[part + 1]))
            for part in range(parts)
            for copy in range(copies)
        ]
        await asyncio.gather(*(self._fill(seat) for seat in self._seats))

    async def kill(self, peer_id: str) -> None:
        """As a power cut does it."""
        for seat in self._seats:
            if seat.peer_id == peer_id and seat.child is not None:
                await seat.child.kill()
                seat.child = None

    async def restore(self, mesh: Mesh) -> None:
        """Start those that were killed again, as new nodes; returns when ``mesh`` can see them.

        Raises:
            FarError: one could not be started, or is not seen.
        """
        empty = [seat for seat in self._seats if seat.child is None]
        await asyncio.gather(*(self._fill(seat) for seat in empty))
        await self.until_seen(mesh)

    async def until_seen(self, mesh: Mesh) -> None:
        """Wait until the swarm knows of all nodes.

        Raises:
            InvalidArgument: it does not in time.
        """
        wanted = {seat.peer_id for seat in self._seats}
        try:
            async with asyncio.timeout(_SEEN_SECONDS):
                while not wanted <= {signed.announcement.peer_id for signed in await mesh.nodes()}:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)  # announcements cannot be waited for
        except TimeoutError:
            raise InvalidArgument(f"the nodes were not seen in {_SEEN_SECONDS:.0f} s") from None

    async def _fill(self, seat: _Seat) -> None:
        seat.starts += 1
        name = f"{seat.name}-{seat.starts}"
        options = {
            "--model": self._model,
            "--wallet": _WALLET,
            "--initial-peers": self.initial_peer,
            "--blocks": "{}:{}".format(*seat.blocks),
            "--quantization": "none",
            "--identity": str(self._directory / name),
            "--host-maddr": _LOCAL,
            "--threads": "1",
            "--drain-timeout": "1",
        }
        arguments = ["start", "--json", "--cpu-only", *(word for pair in options.items() for word in pair)]
        seat.child = await self._group.start(name, "far_node.cli", arguments)
        seat.peer_id = str((await seat.child.ready())["peer_id"])


@asynccontextmanager
async def a_town(directory: Path, model: str, block_count: int, parts: int, copies: int) -> AsyncIterator[Town]:
    """A town that ends with the context."""
    async with ProcessGroup(directory / "logs") as group:
        town = Town(directory, group, model)
        await town.start(block_count, parts, copies)
        yield town
