"""``far-node peers`` in a real swarm."""

from __future__ import annotations

from typing import Any

import pytest

import far_node.cli
from tests.support.swarm import run_here
from tests.swarm.conftest import DEMO_SPANS, RealSwarm

pytestmark = pytest.mark.swarm


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_node.peers_cli.quiet_libraries", lambda: None)


def of_the_swarm(real_swarm: RealSwarm, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is said of the nodes of far-demo that are always there; others that left are listed for two minutes more."""
    there = {node.peer_id for node in real_swarm.demo.nodes}
    return [event for event in events if event["peer_id"] in there]


def test_everybody_is_listed_by_model_and_blocks(real_swarm: RealSwarm) -> None:
    ended = run_here(far_node.cli.app, "peers", "--json", "--initial-peers", *real_swarm.initial_peers)
    assert ended.status == 0, ended.err
    found = of_the_swarm(real_swarm, ended.events)
    assert {event["model_id"] for event in found} == {"far-demo"}
    assert [tuple(event["blocks"]) for event in found] == list(DEMO_SPANS)
    assert [event["peer_id"] for event in found] == [node.peer_id for node in real_swarm.demo.nodes]
    assert {event["reached"] for event in found} == {"direct"}
    assert all(event["seen_seconds"] < 120 for event in found)
    assert len(ended.events) >= 6, "and those of the other model"


def test_round_trips_are_those_of_a_client(real_swarm: RealSwarm) -> None:
    words = ("peers", "ping", "--json", "--count", "4", "--initial-peers", *real_swarm.initial_peers)
    ended = run_here(far_node.cli.app, *words, "--model", "far-demo")
    assert ended.status == 0, ended.err
    found = of_the_swarm(real_swarm, ended.events)
    assert {event["peer_id"] for event in found} == {node.peer_id for node in real_swarm.demo.nodes}
    for event in found:
        assert (event["event"], event["answered"], event["reason"]) == ("pinged", 4, None)
        assert 0 < event["min_ms"] <= event["median_ms"] <= event["p95_ms"]
    one = real_swarm.demo.nodes[1].peer_id
    assert [event["peer_id"] for event in run_here(far_node.cli.app, *words, one).events] == [one]
    people = run_here(far_node.cli.app, *(word for word in words if word != "--json"), "--model", "far-demo")
    assert "median ms" in people.out


def test_nobody_is_told_as_nobody(real_swarm: RealSwarm) -> None:
    words = ("peers", "--json", "--initial-peers", *real_swarm.initial_peers, "--model", "no-such-model")
    assert [event["event"] for event in run_here(far_node.cli.app, *words).events] == ["nobody"]
    assert run_here(far_node.cli.app, "peers", "--json").events[0]["code"] == "invalid_argument"
    wrong = run_here(far_node.cli.app, "peers", "ping", "x", "--json", "--initial-peers", *real_swarm.initial_peers)
    assert (wrong.status, wrong.events[0]["code"]) == (1, "invalid_identity")
