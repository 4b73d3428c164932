"""A node's life as its owner sees it: it is ready when it serves, changes while it runs, and leaves when it is told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import far_node.cli
from far_mesh.client import Generation, Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.errors import NoRoute
from far_node.errors import Leaving
from tests.support.models import BUNDLED_VOCABULARY, greedy, make_model, whole_model, with_bundled_tokenizer
from tests.support.swarm import Ended, Process, Town, run_here

pytestmark = pytest.mark.swarm

PROMPT = [5, 17, 99, 3, 40, 77, 12]
TOKENS = 60


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    monkeypatch.setattr(far_node.cli, "quiet_libraries", lambda: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models."""
    directory = tmp_path_factory.mktemp("models")
    made = (make_model(directory / f"model{seed}", vocab_size=BUNDLED_VOCABULARY, seed=seed) for seed in (11, 12))
    first, second = (with_bundled_tokenizer(path) for path in made)
    return first, second


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        yield town


@pytest.fixture
def node(town: Town, models: tuple[Path, Path]) -> Iterator[Process]:
    """A node of its own for each test."""
    started = town.start_node(models[0], None).wait_until_ready()
    yield started
    leave(started)  # so that the next test's client does not find it


def leave(*nodes: Process) -> None:
    for node in nodes:
        if node.popen.poll() is None:
            node.send(signal.SIGTERM)
    for node in nodes:
        node.wait()


@pytest.fixture
async def mesh(town: Town, models: tuple[Path, Path]) -> AsyncIterator[Mesh]:
    config = MeshConfig(view_age=0.0, step_timeout=30.0)
    async with await Mesh.join(str(models[0]), town.initial_peers, config) as mesh:
        yield mesh


async def begun(mesh: Mesh) -> tuple[Generation, list[int]]:
    """An answer of which a few tokens have come."""
    generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
    stream = aiter(generation)
    return generation, [(await anext(stream)).id for _ in range(3)]


async def owner(town: Town, node: Process, command: str, *more: str) -> Ended:
    """What the owner of a node types."""
    identity = str(town.directory / f"{node.name}.id")
    return await asyncio.to_thread(run_here, far_node.cli.app, command, "--json", *more, "--identity", identity)


def told(ended: Ended, event: str) -> dict[str, Any]:
    assert ended.status == 0, ended.out + ended.err
    return next(line for line in ended.events if line["event"] == event)


async def test_ready_means_that_it_serves_all_that_fits(node: Process, mesh: Mesh, models: tuple[Path, Path]) -> None:
    answer = [token.id async for token in mesh.generate(PROMPT, GenerationOptions(max_tokens=TOKENS))]
    assert answer == greedy(whole_model(models[0]), PROMPT, TOKENS)
    loading, ready = (next(told for told in node.events() if told["event"] == event) for event in ("loading", "ready"))
    assert (loading["blocks"], loading["quantization"]) == ([0, 6], "none")
    assert ready["blocks"] == [0, 6]
    assert ready["parameter_bytes"] == pytest.approx(loading["bytes"], rel=0.05)
    assert ready["expected_sessions"] > 0
    (announced,) = await mesh.nodes()
    assert announced.announcement.sessions == min(ready["expected_sessions"], 64)


async def test_a_node_that_is_told_to_go_in_the_middle_of_a_text_finishes_it(
    node: Process, mesh: Mesh, models: tuple[Path, Path]
) -> None:
    generation, ids = await begun(mesh)
    node.send(signal.SIGTERM)
    await asyncio.to_thread(node.wait_for, "leaving")
    with pytest.raises((NoRoute, Leaving)):  # whether the swarm has heard of it or the node says so itself
        await mesh.open(PROMPT, GenerationOptions(max_tokens=1))
    ids += [token.id async for token in generation]
    result = await generation.finish()
    assert ids == greedy(whole_model(models[0]), PROMPT, TOKENS)
    assert result.contributions[0].token_layers == result.expected_token_layers
    assert await asyncio.to_thread(node.wait) == 0
    assert node.events()[-1] == {
        "event": "stopped",
        "drained": True,
        "token_layers_served": result.expected_token_layers,
    }
    assert node.err.read_text() == ""


async def test_the_owner_sees_swaps_and_stops_a_running_node(
    town: Town, node: Process, mesh: Mesh, models: tuple[Path, Path]
) -> None:
    generation, ids = await begun(mesh)
    status = told(await owner(town, node, "status"), "status")
    assert (status["state"], status["peer_id"], status["open_sessions"]) == ("ready", node.peer_id, 1)
    assert (status["addresses"], status["wallet"]) == (node.ready["maddrs"], node.wallet)
    assert status["token_layers_served"] >= len(PROMPT) * 6
    (model,) = status["models"]
    assert (model["model_id"], model["blocks"], model["quantization"]) == (models[0].name, [0, 6], "none")
    assert model["cache_free_bytes"] + model["cache_used_bytes"] == model["cache_budget_bytes"]
    assert model["cache_used_bytes"] > 0
    assert {"torch", "transformers", "far-mesh"} <= status["versions"].keys()

    swapping = asyncio.create_task(owner(town, node, "swap", models[0].name, str(models[1]), "--quantization", "none"))
    async with asyncio.timeout(30):
        while await _serves(mesh):
            await asyncio.sleep(0.05)
    ids += [token.id async for token in generation]
    await generation.finish()
    assert ids == greedy(whole_model(models[0]), PROMPT, TOKENS)
    swapped = told(await swapping, "swapped")
    assert (swapped["model_id"], swapped["blocks"], swapped["drained"]) == (models[1].name, [0, 6], True)
    async with await Mesh.join(str(models[1]), town.initial_peers) as other:
        answer = [token.id async for token in other.generate(PROMPT, GenerationOptions(max_tokens=5))]
        assert answer == greedy(whole_model(models[1]), PROMPT, 5)

    refused = await owner(town, node, "unload", models[1].name)
    assert (refused.status, refused.events[-1]["code"]) == (1, "invalid_argument")
    stopped = told(await owner(town, node, "stop"), "stopped")
    assert stopped["drained"] is True
    assert await asyncio.to_thread(node.wait) == 0
    gone = await owner(town, node, "status")
    assert (gone.status, gone.events[-1]["code"]) == (1, "peer_unavailable")


async def test_blocks_by_number_go_where_nobody_serves(town: Town, models: tuple[Path, Path]) -> None:
    begin = town.start_node(models[1], (0, 4)).wait_until_ready()
    more = town.start_node(models[1], None, "--num-blocks", "2").wait_until_ready()
    assert more.ready["blocks"] == [4, 6]
    leave(begin, more)


async def _serves(mesh: Mesh) -> bool:
    return any(signed.announcement.state == "ready" for signed in await mesh.nodes())
