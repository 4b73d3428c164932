"""Nodes and a client whose routers let nobody in. Every process has its own host on an emulated network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.support.town import CLIENT_HOST, FIRST_NODE_HOST, WanTown
from benchmarks.support.wan import Wan, WanUnavailable
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions
from tests.support.models import greedy, whole_model
from tests.support.swarm import Ended, Process, run_command

PROMPT, TOKENS = list(range(1, 30)), 24
HALVES = ((0, 3), (3, 6))


@pytest.fixture(scope="module")
def wan() -> Iterator[Wan]:
    try:
        with Wan(FIRST_NODE_HOST + 2, round_trip=0.02, bits_per_second=100e6, name="nat") as network:
            for host in range(CLIENT_HOST, network.hosts):
                network.change(host, behind_nat=True)
            with network.inside(CLIENT_HOST):
                yield network
    except WanUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def town(wan: Wan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WanTown]:
    with WanTown(tmp_path_factory.mktemp("behind-nat"), wan) as town:
        yield town


async def test_two_nodes_behind_nat_serve_a_client_behind_nat(town: WanTown, gpt2_model: Path) -> None:
    nodes = [
        town.node_at(FIRST_NODE_HOST + index, gpt2_model, blocks, "--relay") for index, blocks in enumerate(HALVES)
    ]
    for node in nodes:
        node.wait_until_ready()
        assert node.ready["relays"] == [town.bootstrap.peer_id]
        assert node.ready["maddrs"] == [f"{town.bootstrap.maddr}/p2p-circuit/p2p/{node.peer_id}"]
        assert f"through the relay {town.bootstrap.peer_id}" in _status(town, node).out

    async with await Mesh.join(str(gpt2_model), town.initial_peers) as mesh:
        generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
        ids = [token.id async for token in generation]
        result = await generation.finish()
    assert ids == greedy(whole_model(gpt2_model), PROMPT, TOKENS)
    assert [part.peer_id for part in result.contributions] == [node.peer_id for node in nodes]


def _status(town: WanTown, node: Process) -> Ended:
    return run_command("far_node.cli", "status", "--identity", str(town.directory / f"{node.name}.id"), COLUMNS="300")
