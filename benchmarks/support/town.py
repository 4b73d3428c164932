"""A swarm on an emulated wide-area network: a bootstrap peer, nodes and a client, each on a host of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.wan import Wan
from tests.support.swarm import Process, Town

BOOTSTRAP_HOST, CLIENT_HOST = 0, 1
FIRST_NODE_HOST = 2


class WanTown(Town):
    """Processes on hosts: the bootstrap peer on the first, nodes where they are put."""

    def __init__(self, directory: Path, wan: Wan) -> None:
        super().__init__(directory)
        self.wan = wan
        self.host_of: dict[str, int] = {}
        self._host = BOOTSTRAP_HOST

    def node_at(
        self,
        host: int,
        model: str | Path,
        blocks: tuple[int, int],
        *options: str,
        initial_peers: Sequence[str] = (),
    ) -> Process:
        """A node on a host, which is not waited for."""
        self._host = host
        return self.start_node(model, blocks, *options, initial_peers=initial_peers)

    def bootstrap_at(self, host: int, *initial_peers: str) -> Process:
        """One more bootstrap peer on a host, which is not waited for."""
        self._host = host
        return self.start_bootstrap(*initial_peers)

    def _listen_at(self) -> str:
        return f"/ip4/{self.wan.listens_at(self._host)}/tcp/0"

    def start(self, name: str, arguments: Sequence[str]) -> Process:
        process = Process.start(name, arguments, self.directory, within=self.wan.within(self._host))
        self.processes.append(process)
        self.host_of[name] = self._host
        return process
