"""A route of a real swarm, planned with what its nodes have measured of themselves and of each other."""

from __future__ import annotations

import time

import pytest

from far_mesh.client import Mesh
from far_mesh.opener import Swarm
from tests.support.swarm import run_command
from tests.swarm.conftest import RealSwarm

pytestmark = pytest.mark.swarm

A_WHILE = 90.0


async def test_nodes_announce_what_they_have_measured(visitor: Swarm, real_swarm: RealSwarm) -> None:
    mesh = await Mesh.over(visitor, real_swarm.demo.model)
    started = time.monotonic()
    while True:
        nodes = {signed.peer_id: signed.announcement for signed in await visitor.peer.board.nodes_of(mesh.model_digest)}
        if all(len(node.links) == len(nodes) - 1 for node in nodes.values()):
            break
        assert time.monotonic() - started < A_WHILE, [node.links for node in nodes.values()]
    assert set(nodes) == {node.peer_id for node in real_swarm.demo.nodes}
    for node in nodes.values():
        assert node.block_ms is not None
        assert 0 < node.block_ms < 1000
        assert {peer_id for peer_id, _ in node.links} == set(nodes) - {node.peer_id}
        assert all(0 < round_trip < 1000 for _, round_trip in node.links)
    await mesh.close()


def test_the_command_shows_the_route_and_why_no_other(real_swarm: RealSwarm) -> None:
    served = real_swarm.demo
    command = ("far_mesh.cli", "route", "--model", served.model, "--initial-peers", real_swarm.initial_peers[0])
    ended = run_command(*command, "--explain", "--json")
    assert (ended.status, ended.err) == (0, "")
    (told,) = ended.events
    assert served.is_route(hop["blocks"] for hop in told["hops"])
    assert [hop["peer_id"] for hop in told["hops"]] == [node.peer_id for node in served.nodes]
    assert told["ms_per_token"] > 0
    assert told["others"] == []
    refused = run_command(*command, "--trusted-only", served.nodes[0].peer_id)
    assert (refused.status, refused.out) == (1, "")
    assert "trusted_only" in refused.err
    assert served.nodes[1].peer_id in refused.err
