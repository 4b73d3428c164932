"""What happens to a text when a machine is lost, and to a machine when it is told to go."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from discovery.protocol.errors import FarError
from far_mesh.client import Generation, Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.errors import NoRoute
from tests.support.models import BUNDLED_VOCABULARY, greedy, make_model, whole_model, with_bundled_tokenizer
from tests.support.swarm import Process, Town

pytestmark = pytest.mark.swarm

PROMPT = [5, 17, 99, 3, 40, 77, 12]
SOON = 120.0
"""Below the deadline of a step, which is what ends a text when a loss is not seen."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_bundled_tokenizer(
        make_model(tmp_path_factory.mktemp("models") / "tiny", vocab_size=BUNDLED_VOCABULARY, seed=2)
    )


@pytest.fixture
def town(tmp_path: Path, model: Path) -> Iterator[Town]:
    """A town of its own, to be broken."""
    with Town(tmp_path / "town") as town:
        town.start_nodes(model, (0, 2), (2, 6))
        yield town


@pytest.fixture
async def mesh(town: Town, model: Path) -> AsyncIterator[Mesh]:
    config = MeshConfig(view_age=0.0, step_timeout=60.0, mend_timeout=3.0)
    async with await Mesh.join(str(model), town.initial_peers, config) as mesh:
        yield mesh


async def begun(mesh: Mesh, tokens: int = 200) -> Generation:
    """A text of which some tokens have come; the next is computed when it is asked for."""
    generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=tokens))
    stream = aiter(generation)
    for _ in range(5):
        await anext(stream)
    return generation


async def rest_of(generation: Generation) -> list[int]:
    return [token.id async for token in generation]


def dead(*processes: psutil.Process) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


async def test_a_node_that_is_killed_and_that_nobody_replaces_ends_the_text_soon_with_an_error_to_retry(
    town: Town, mesh: Mesh
) -> None:
    generation = await begun(mesh)
    await _lose(town.nodes[0], generation)
    assert town.nodes[1].popen.poll() is None, "the other node lives on"


async def test_a_text_that_is_asked_again_after_a_loss_finds_the_node_that_took_over(
    town: Town, mesh: Mesh, model: Path
) -> None:
    generation = await begun(mesh)
    await _lose(town.nodes[1], generation)
    (spare,) = town.start_nodes(model, (2, 6))
    again = await mesh.open(PROMPT, GenerationOptions(max_tokens=20))
    assert await rest_of(again) == greedy(whole_model(model), PROMPT, 20)
    result = await again.finish()
    assert [done.peer_id for done in result.contributions] == [town.nodes[0].peer_id, spare.peer_id]


async def _lose(victim: Process, generation: Generation) -> None:
    victim.send(signal.SIGKILL)
    victim.wait()
    started = time.monotonic()
    with pytest.raises(FarError) as failure:
        await rest_of(generation)
    assert time.monotonic() - started < SOON
    assert (failure.value.code, failure.value.retry) == ("no_route", True)
    result = await generation.finish()
    assert result.completion_tokens < 200
    assert victim.peer_id not in {done.peer_id for done in result.contributions}


async def test_a_bootstrap_peer_that_dies_stops_no_text_and_no_next_one(town: Town, mesh: Mesh, model: Path) -> None:
    expected = greedy(whole_model(model), PROMPT, 60)
    generation = await begun(mesh, 60)
    town.bootstrap.kill()
    assert expected[5:] == await rest_of(generation)
    result = await generation.finish()
    assert list(result.token_ids) == expected
    assert len(result.contributions) == 2
    another = await mesh.open(PROMPT, GenerationOptions(max_tokens=20))
    assert await rest_of(another) == expected[:20]
    await another.finish()


async def test_a_node_that_is_told_to_go_leaves_no_process_and_is_routed_no_more(town: Town, mesh: Mesh) -> None:
    leaving = town.nodes[1]
    family = leaving.family()
    assert any("p2pd" in process.name() for process in family), "the daemon is among those that must go"
    assert len(await mesh.nodes()) == 2
    leaving.send(signal.SIGTERM)
    assert leaving.wait() == 0
    assert await _all_gone(family)
    assert leaving.events()[-1]["event"] == "stopped"
    assert leaving.err.read_text() == ""
    with pytest.raises(NoRoute, match="blocks 2:6"):
        await mesh.open(PROMPT, GenerationOptions(max_tokens=1))
    states = {str(signed.peer_id): signed.announcement.state for signed in await mesh.nodes()}
    assert states == {leaving.peer_id: "leaving", town.nodes[0].peer_id: "ready"}


async def test_a_node_that_is_told_twice_to_go_does_not_wait_for_the_text(town: Town, mesh: Mesh) -> None:
    generation = await begun(mesh)
    leaving = town.nodes[0]
    family = leaving.family()
    leaving.send(signal.SIGTERM)
    await asyncio.to_thread(leaving.wait_for, "leaving")
    leaving.send(signal.SIGTERM)
    assert await asyncio.to_thread(leaving.wait) == 0
    assert await _all_gone(family)
    assert leaving.events()[-1]["drained"] is False
    with pytest.raises(FarError) as failure:
        await rest_of(generation)
    assert failure.value.retry
    await generation.finish()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_bootstrap_peer_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    with Town(tmp_path / "town") as town:
        family = town.bootstrap.family()
        assert len(family) >= 2
        town.bootstrap.send(number)
        status = town.bootstrap.wait()
        assert status == (0 if number != signal.SIGKILL else -signal.SIGKILL)
        assert asyncio.run(_all_gone(family))
        if number != signal.SIGKILL:
            assert town.bootstrap.err.read_text() == ""


def test_a_node_that_is_stopped_while_it_starts_leaves_no_process_behind(tmp_path: Path, model: Path) -> None:
    with Town(tmp_path / "town") as town:
        node = town.start_node(model, (0, 6))
        while not any("p2pd" in process.name() for process in node.family()):
            assert node.popen.poll() is None
            time.sleep(0.01)
        family = node.family()
        node.send(signal.SIGTERM)
        node.wait()
        assert asyncio.run(_all_gone(family))
        assert "Traceback" not in node.err.read_text()


async def _all_gone(family: list[psutil.Process]) -> bool:
    """Whether all of them end, and soon."""
    try:
        async with asyncio.timeout(SOON):
            while not dead(*family):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


def test_a_test_that_fails_leaves_no_process_behind(tmp_path: Path) -> None:
    """So that these tests can be trusted with processes."""
    family: list[psutil.Process] = []

    def fail(town: Town) -> None:
        family.extend(town.bootstrap.family())
        raise LookupError("a test failed")

    with pytest.raises(LookupError), Town(tmp_path / "town") as town:
        fail(town)
    assert family
    assert dead(*family)
