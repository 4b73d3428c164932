"""Benchmarks, receipts and accounts of time, over real processes and through the commands."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import far_mesh.cli
from tests.support.swarm import Ended, run_command, run_here
from tests.swarm.conftest import RealSwarm

pytestmark = pytest.mark.swarm


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests; and freezes its memory."""
    monkeypatch.setattr("far_mesh.cli.quiet_libraries", lambda: None)
    monkeypatch.setattr("far_mesh.bench.cli.quiet_libraries", lambda: None)
    monkeypatch.setattr("far_mesh.cli.settle_memory", lambda: None)
    monkeypatch.setattr("far_mesh.bench.cli.settle_memory", lambda: None)


async def far_mesh_command(*arguments: str) -> Ended:
    return await asyncio.to_thread(run_here, far_mesh.cli.app, *arguments)


def result_of(ended: Ended) -> dict[str, Any]:
    assert ended.status == 0, ended.out + ended.err
    (told,) = ended.events
    assert told["event"] == "result"
    return told


async def test_latency_of_a_swarm(real_swarm: RealSwarm, tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    lengths = ["--prompt-length", "4", "--prompt-length", "70"]
    small = ["--tokens", "6", "--rounds", "1", "--out", str(out)]
    peers = ["--initial-peers", *real_swarm.initial_peers]
    told = result_of(await far_mesh_command("bench", "latency", *peers, *lengths, *small, "--json"))
    assert (told["benchmark"], told["model"], told["blocks"]) == ("latency", "far-demo", 8)
    assert {node["peer_id"] for node in told["nodes"]} == {node.peer_id for node in real_swarm.demo.nodes}
    assert [one["prompt_tokens"] for one in told["prompts"]] == [4, 70]
    for one in told["prompts"]:
        assert one["proven"] is True
        assert one["time_to_first_token_ms"]["p50"] > 0
        assert set(one["median_step"]["compute_ms"]) == {node.peer_id for node in real_swarm.demo.nodes}
    assert json.loads(out.read_text()) == {key: value for key, value in told.items() if key != "event"}


async def test_throughput_of_a_swarm(real_swarm: RealSwarm) -> None:
    few = ["--streams", "1", "--streams", "4", "--tokens", "6", "--rounds", "1", "--prompt-length", "5"]
    peers = ["--initial-peers", *real_swarm.initial_peers]
    ended = await far_mesh_command("bench", "throughput", *peers, *few)
    assert ended.status == 0, ended.out + ended.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.out.splitlines() if "│" in line]
    assert [(row[0], row[-1]) for row in rows] == [("1", "–"), ("4", "–")]


def test_failover_in_a_swarm_of_its_own_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "failover.json"
    small = ["--parts", "1", "--copies", "2", "--rounds", "1", "--tokens", "16", "--prompt-length", "8"]
    ended = run_command(
        *("far_mesh.cli", "bench", "failover", *small, "--threads", "1", "--out", str(out)),
        timeout=250,
        TMPDIR=str(tmp_path),
    )
    assert ended.status == 0, ended.out + ended.err
    assert "100 % of 1 answers came out as without a loss" in ended.out
    (found,) = json.loads(out.read_text())["rounds"]
    assert (found["outcome"], found["blocks"], found["kills"]) == ("same text", [0, 8], 1)
    assert found["replaced_by"] != [found["peer_id"]]
    assert [path.name for path in tmp_path.iterdir()] == ["failover.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kill-command", "kill {peer_id}"], "and a command a swarm"),
        (["--initial-peers", "/ip4/127.0.0.1/tcp/9"], "needs a --kill-command"),
        (["--initial-peers", "/ip4/127.0.0.1/tcp/9", "--kill-command", "kill"], "must say {peer_id}"),
        (["--parts", "9"], "8 blocks cannot be cut in 9 parts"),
        (["--out", "/no/such/folder/file.json"], "not a place for a file"),
    ],
)
async def test_a_benchmark_that_cannot_be_is_refused_in_a_sentence(options: list[str], words: str) -> None:
    ended = await far_mesh_command("bench", "failover", *options)
    assert (ended.status, ended.out) == (1, "")
    assert words in ended.err


async def test_receipts_and_trace_of_an_answer(real_swarm: RealSwarm, tmp_path: Path) -> None:
    file = tmp_path / "receipts.json"
    ask = ["generate", "--model", "far-demo", "--initial-peers", *real_swarm.initial_peers, "--prompt", "Secret words"]
    ended = await far_mesh_command(*ask, "--max-tokens", "12", "--receipts", str(file), "--trace", "--json")
    assert ended.status == 0, ended.out + ended.err
    done = ended.events[-1]
    trace = done["trace"]
    assert trace["tokens"] == done["completion_tokens"]
    assert sum(trace["prompt_positions"]) == done["prompt_tokens"]
    assert set(trace["peers"]) == {node.peer_id for node in real_swarm.demo.nodes}
    assert "ecret" not in file.read_text()
    verified = await far_mesh_command("verify", str(file), "--json")
    (report,) = verified.events
    assert (verified.status, report["complete"]) == (0, True)
    assert report["witnessed_token_layers"] == report["verified_token_layers"] == report["expected_token_layers"]
    borders = [node["blocks"] for node in report["nodes"]]
    assert (borders[0][0], borders[-1][1]) == (0, 8)
    assert [end for _, end in borders[:-1]] == [first for first, _ in borders[1:]]
    plain = await far_mesh_command(*ask, "--max-tokens", "5", "--trace")
    assert "Where the time went" in plain.out
    assert "█ compute" in plain.out
