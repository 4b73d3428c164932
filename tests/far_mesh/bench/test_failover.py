"""Nodes are killed in the middle of answers, and what a user notices of it is counted."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.bench.asking import prompt_of, timed
from far_mesh.bench.failover import KillFailed, failover, kill_command
from far_mesh.bench.latency import latency
from far_mesh.bench.progress import silent
from far_mesh.bench.throughput import throughput
from far_mesh.client import GenerationOptions, Mesh
from far_mesh.errors import ContextLengthExceeded
from far_node.blocks.load import load_blocks
from tests.support.documents import peer_of
from tests.support.ring import FAST, Ring, a_ring

QUICK = dataclasses.replace(
    FAST, suspect_after=0.3, ping_timeout=0.5, mend_timeout=1.0, shun_seconds=0.5, open_timeout=2.0, close_timeout=1.0
)


@pytest.fixture
async def ring(talker: Path) -> AsyncIterator[Ring]:
    async with a_ring(talker) as ring:
        for span in ((0, 3), (3, 6), (0, 3), (3, 6)):
            await ring.add(*span, blocks=load_blocks(ring.source, *span))
        yield ring


@pytest.fixture
async def mesh(ring: Ring) -> AsyncIterator[Mesh]:
    async with await ring.mesh(QUICK) as mesh:
        yield mesh


async def test_every_round_kills_one_and_the_text_stays_the_same(ring: Ring, mesh: Mesh) -> None:
    killed: list[str] = []

    async def kill(peer_id: str) -> None:
        killed.append(peer_id)
        ring.network.cut(next(node.transport.peer_id for node in ring.nodes if node.peer_id == peer_id))
        del ring.board.signed[peer_id]

    told: list[tuple[str, int, int]] = []
    result = await failover(
        mesh,
        kill,
        prompt_length=8,
        tokens=12,
        rounds=1,
        seed=3,
        on_progress=lambda *now: told.append(now),
    )
    (found,) = result["rounds"]
    assert (found["outcome"], found["kills"], found["peer_id"]) == ("same text", 1, killed[0])
    assert 1 <= found["at_token"] <= 6
    assert found["blocks"] in ((0, 3), (3, 6))
    assert len(found["mending_ms"]) == 1
    assert found["replaced_by"][0] in {node.peer_id for node in ring.nodes} - set(killed)
    assert found["pause_ms"] >= found["mending_ms"][0] > 0
    assert result["same_text"] == 1
    assert told == [("killing nodes", 1, 1)]


async def test_a_swarm_that_nobody_restores_is_used_up_and_that_is_said(ring: Ring, mesh: Mesh) -> None:
    async def kill(peer_id: str) -> None:
        ring.network.cut(next(node.transport.peer_id for node in ring.nodes if node.peer_id == peer_id))
        del ring.board.signed[peer_id]

    result = await failover(mesh, kill, prompt_length=8, tokens=8, rounds=9, seed=0, on_progress=silent)
    outcomes = [found["outcome"] for found in result["rounds"]]
    assert outcomes[0] == "same text"
    assert outcomes[-2:] == ["no_route", "no_route"], "in the middle of an answer, and before the next"
    assert result["same_text"] < 1


async def test_a_node_that_cannot_be_killed_ends_the_benchmark(mesh: Mesh) -> None:
    async def kill(peer_id: str) -> None:
        raise KillFailed("no such node", peer_id=peer_id)

    with pytest.raises(KillFailed, match="no such node"):
        await failover(mesh, kill, prompt_length=8, tokens=8, rounds=2, seed=0, on_progress=silent)


async def test_an_answer_too_short_to_be_disturbed_is_refused(mesh: Mesh) -> None:
    async def kill(_: str) -> None:
        raise AssertionError("nobody is to be killed")

    with pytest.raises(InvalidArgument, match="leaves no time to kill a node"):
        await failover(mesh, kill, prompt_length=8, tokens=3, rounds=1, seed=0, on_progress=silent)


async def test_an_operators_command_gets_the_peer_id_as_it_is(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    kill = kill_command(f"{sys.executable} -c '{program}' {seen} node={{peer_id}};rm")
    await kill(peer_of("somebody"))
    assert seen.read_text() == f"node={peer_of('somebody')};rm"


@pytest.mark.parametrize(
    ("command", "words"),
    [("false {peer_id}", "false ended with 1"), ("/no/such/program {peer_id}", "cannot be run: No such file")],
)
async def test_an_operators_command_that_fails_is_named(command: str, words: str) -> None:
    with pytest.raises(KillFailed, match=words):
        await kill_command(command)(peer_of("somebody"))


async def test_what_a_command_says_last_is_told() -> None:
    command = kill_command(f"{sys.executable} -c 'raise SystemExit(\"no such machine\")' {{peer_id}}")
    with pytest.raises(KillFailed, match="no such machine"):
        await command(peer_of("somebody"))


@pytest.mark.parametrize("command", ["", "kill", "kill 'unfinished {peer_id}", "kill {peer}"])
def test_a_command_that_names_no_node_is_refused(command: str) -> None:
    with pytest.raises(InvalidArgument, match="kill command"):
        kill_command(command)


async def test_prompts_are_exact_and_their_own(mesh: Mesh) -> None:
    prompts = [prompt_of(mesh, 40, seed) for seed in range(5)]
    assert {len(prompt) for prompt in prompts} == {40}
    assert len({tuple(prompt) for prompt in prompts}) == 5
    assert prompt_of(mesh, 40, 0) == prompts[0]
    assert prompt_of(mesh, 1, 0) == prompts[0][:1]


async def test_nodes_compute_a_prompt_again_although_they_know_it(ring: Ring, mesh: Mesh) -> None:
    prompt = prompt_of(mesh, 200, 0)
    for _ in range(2):
        answer = await timed(mesh, prompt, GenerationOptions(max_tokens=2))
        assert answer.is_proven
        assert sum(step.positions for step in answer.trace.prompt) == 200
    assert sum(node.serving.prefixes.hits for node in ring.nodes) == 0


async def test_latency_is_told_for_each_length(mesh: Mesh) -> None:
    result = await latency(mesh, prompt_lengths=[4, 9], tokens=5, rounds=2, seed=0, on_progress=silent)
    short, longer = result["prompts"]
    assert (short["prompt_tokens"], longer["prompt_tokens"]) == (4, 9)
    for one in (short, longer):
        assert one["completion_tokens"] == [5, 5]
        assert one["time_to_first_token_ms"]["p50"] > one["opening_ms"]["min"] > 0
        assert one["time_per_token_ms"]["max"] > 0
        assert one["median_step"]["until_token_ms"] > 0
        assert one["proven"] is True


async def test_throughput_counts_all_streams_and_those_that_fail(ring: Ring, mesh: Mesh) -> None:
    result = await throughput(mesh, streams=[1, 3], prompt_length=4, tokens=6, rounds=2, seed=0, on_progress=silent)
    one, three = result["streams"]
    assert (one["streams"], one["answers"], one["failed"]) == (1, 2, {})
    assert (three["streams"], three["answers"], three["failed"]) == (3, 6, {})
    assert one["times_the_first"] == 1
    assert three["tokens_per_second"] > 0


async def test_streams_that_find_no_place_are_counted_by_their_code(talker: Path) -> None:
    async with a_ring(talker) as ring:
        await ring.add(0, 6, max_sessions=2)
        async with await ring.mesh(dataclasses.replace(QUICK, open_attempts=1)) as mesh:
            result = await throughput(
                mesh, streams=[6], prompt_length=4, tokens=6, rounds=1, seed=0, on_progress=silent
            )
    (six,) = result["streams"]
    assert six["failed"] == {"busy": 6 - six["answers"]}
    assert 2 <= six["answers"] < 6


async def test_what_does_not_fit_the_model_is_refused(mesh: Mesh) -> None:
    with pytest.raises(ContextLengthExceeded):
        await latency(mesh, prompt_lengths=[mesh.context_length], tokens=5, rounds=1, seed=0, on_progress=silent)
