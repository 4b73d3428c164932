"""A node whose models change while it runs, in a swarm of real peers in this process."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import far_node.node as node_module
import far_node.placement as placement_module
from discovery.dht.identity import load_identity
from discovery.dht.peer import LOCAL_MADDR, PeerConfig, SwarmPeer
from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.client import GenerationOptions, Mesh, MeshConfig
from far_node.capacity import GIB, Memory
from far_node.commands import OwnersCommands
from far_node.config import ModelOptions, NodeConfig
from far_node.departure import Departure
from far_node.display import print_status
from far_node.errors import BlocksNotServed, Leaving
from far_node.limits import Limits
from far_node.node import Node, unwatched
from far_node.placement import Mover
from far_node.standing import Known, Standing
from tests.support.documents import signed_announcement, wallet_of
from tests.support.models import BUNDLED_VOCABULARY, greedy, make_model, whole_model, with_bundled_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(loop_scope="module", scope="module")

PROMPT = [5, 17, 99, 3, 40, 77, 12]
TOKENS = 24
CACHE_BYTES = 1 << 26
A_WHILE = 60.0


@lru_cache
def expected(model: Path) -> list[int]:
    return greedy(whole_model(model), PROMPT, TOKENS)


def model_of(directory: Path, kind: str, seed: int) -> Path:
    path = with_bundled_tokenizer(make_model(directory, kind, vocab_size=BUNDLED_VOCABULARY, seed=seed))
    expected(path)  # now, while no node loads: transformers mixes up what two threads load at once
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_of(tmp_path_factory.mktemp("models") / "first", "llama", 3)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_of(tmp_path_factory.mktemp("models") / "second", "gpt2", 4)


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What only the standing node serves: no session of the others finds a place to move to."""
    return model_of(tmp_path_factory.mktemp("models") / "third", "llama", 5)


@module_fixture
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SwarmPeer]:
    """A bootstrap peer."""
    peer = await SwarmPeer.start(load_identity(tmp_path_factory.mktemp("town") / "identity"), PeerConfig())
    yield peer
    await peer.close()


def options(model: Path, **more: Any) -> ModelOptions:
    return ModelOptions(str(model), quantization="none", cache_bytes=CACHE_BYTES, **more)


async def config_of(town: SwarmPeer, directory: Path, first: ModelOptions) -> NodeConfig:
    return NodeConfig(
        model=first,
        wallet=wallet_of("node"),
        initial_peers=await town.maddrs(),
        device="cpu",
        threads=1,
        identity=directory / "identity",
        host_maddrs=(LOCAL_MADDR,),
        reserve_bytes=0,
        limits=Limits(prefix_cache_bytes=0),
    )


@asynccontextmanager
async def serving(config: NodeConfig) -> AsyncIterator[Node]:
    joined = await Node.join(config)
    try:
        await joined.begin()
        yield joined
    finally:
        await joined.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def node(town: SwarmPeer, llama: Path, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that serves the first model, to be changed."""
    async with serving(await config_of(town, tmp_path, options(llama))) as node:
        yield node


@module_fixture
async def standing(town: SwarmPeer, third: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """A node that serves the third model, and is not changed by any test."""
    config = await config_of(town, tmp_path_factory.mktemp("standing"), options(third))
    async with serving(config) as node:
        yield node


class Reader:
    """Somebody who reads an answer, at his own pace."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.ids: list[int] = []

    async def begin(self) -> Reader:
        self._generation = await self._mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
        self._stream = aiter(self._generation)
        self.ids.append((await anext(self._stream)).id)
        return self

    async def read_on(self) -> list[int]:
        self.ids += [token.id async for token in self._stream]
        await self._generation.finish()
        return self.ids


async def a_reader(town: SwarmPeer, model: Path) -> tuple[Mesh, Reader]:
    mesh = await Mesh.join(str(model), await town.maddrs(), MeshConfig(view_age=0.0, step_timeout=30.0))
    return mesh, await Reader(mesh).begin()


async def announced(town: SwarmPeer, node: Node) -> dict[str, tuple[str, tuple[int, int]]]:
    """What the swarm knows of a node: state and blocks of each model."""
    found = [signed.announcement for signed in await town.board.node(node.peer_id)]
    return {about.model_id: (about.state, about.blocks) for about in found}


async def test_a_second_model_is_served_while_a_session_of_the_first_runs(
    town: SwarmPeer, node: Node, llama: Path, gpt2: Path
) -> None:
    mesh, reader = await a_reader(town, llama)
    told: list[str] = []
    loaded = await node.load(options(gpt2), lambda event, **facts: told.append(event))
    assert (loaded.about.model_id, loaded.about.blocks) == ("second", (0, 6))
    assert told[0] == "loading"
    assert await announced(town, node) == {"first": ("ready", (0, 6)), "second": ("ready", (0, 6))}
    other, second = await a_reader(town, gpt2)
    assert await reader.read_on() == expected(llama)
    assert await second.read_on() == expected(gpt2)
    await mesh.close()
    await other.close()


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"model": "/no/such/model"}, FarError),
        ({"blocks": (0, 7)}, InvalidArgument),
        ({"cache_bytes": 1}, InvalidArgument),
    ],
    ids=["not there", "no such blocks", "a cache that holds nothing"],
)
async def test_a_load_that_fails_changes_nothing(
    town: SwarmPeer, standing: Node, gpt2: Path, wrong: dict[str, Any], kind: type[FarError]
) -> None:
    with pytest.raises(kind):
        await standing.load(replace(options(gpt2), **wrong))
    assert [model.about.model_id for model in standing.models] == ["third"]
    assert [serving.announcement.model_id for serving in standing.handler.servings] == ["third"]
    assert await announced(town, standing) == {"third": ("ready", (0, 6))}


async def test_what_is_served_already_is_not_loaded_twice(standing: Node, third: Path) -> None:
    with pytest.raises(InvalidArgument, match="third is served here already"):
        await standing.load(options(third, blocks=(0, 2)))


async def test_a_model_that_is_unloaded_lets_its_sessions_end_and_gives_its_memory_back(
    town: SwarmPeer, node: Node, llama: Path, gpt2: Path
) -> None:
    await node.load(options(gpt2))
    held = weakref.ref(node.find_model("second").serving.blocks)
    mesh, reader = await a_reader(town, gpt2)
    unloading = asyncio.create_task(node.unload("second", A_WHILE))
    async with asyncio.timeout(A_WHILE):
        while (await announced(town, node))["second"][0] != "leaving":
            await asyncio.sleep(0.01)
    with pytest.raises(FarError) as refusal:
        await mesh.open(PROMPT, GenerationOptions(max_tokens=1))
    assert refusal.value.retry
    assert not unloading.done()
    assert await reader.read_on() == expected(gpt2)
    assert await unloading is True
    async with asyncio.timeout(A_WHILE):
        while held() is not None:
            await asyncio.sleep(0.01)
    assert [model.about.model_id for model in node.models] == ["first"]
    await mesh.close()


async def test_sessions_that_do_not_end_are_cut_off_after_a_while(town: SwarmPeer, node: Node, gpt2: Path) -> None:
    await node.load(options(gpt2))
    mesh, reader = await a_reader(town, gpt2)
    assert await node.unload("second", 0.2) is False
    with pytest.raises(FarError) as failure:
        await reader.read_on()
    assert failure.value.retry  # what the node said, or that the stream is closed, whichever the client met first
    await mesh.close()


async def test_the_last_model_is_not_unloaded(standing: Node) -> None:
    with pytest.raises(InvalidArgument, match="all this node serves; swap it, or stop the node"):
        await standing.unload("third", 0.0)
    with pytest.raises(BlocksNotServed, match="does not serve 'fourth'; it serves third"):
        await standing.unload("fourth", 0.0)


async def test_a_swap_serves_the_new_model_before_the_old_one_goes(
    town: SwarmPeer, node: Node, llama: Path, gpt2: Path
) -> None:
    mesh, reader = await a_reader(town, llama)
    told: list[str] = []
    swapping = asyncio.create_task(
        node.swap("first", options(gpt2), A_WHILE, lambda event, **facts: told.append(event))
    )
    async with asyncio.timeout(A_WHILE):
        while (await announced(town, node)).get("first", ("", ()))[0] != "leaving":
            await asyncio.sleep(0.01)
    other, second = await a_reader(town, gpt2)
    assert await second.read_on() == expected(gpt2)
    assert not swapping.done()
    assert await reader.read_on() == expected(llama)
    new, ended = await swapping
    assert (new.about.model_id, ended) == ("second", True)
    assert "making_room" not in told
    assert [model.about.model_id for model in node.models] == ["second"]
    await mesh.close()
    await other.close()


async def test_a_model_can_be_swapped_for_more_or_fewer_blocks_of_itself(
    town: SwarmPeer, node: Node, llama: Path
) -> None:
    new, ended = await node.swap("first", options(llama, blocks=(1, 4)), A_WHILE)
    assert (new.about.blocks, ended) == ((1, 4), True)
    assert await announced(town, node) == {"first": ("ready", (1, 4))}


async def test_where_memory_holds_one_model_only_the_old_one_makes_room_when_its_sessions_have_ended(
    town: SwarmPeer, node: Node, llama: Path, gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = CACHE_BYTES + 2_000_000

    def memory_of(device: str) -> Memory:
        return Memory(device, room - sum(model.held_bytes for model in node.models), GIB)

    monkeypatch.setattr(node_module, "memory_of", memory_of)
    mesh, reader = await a_reader(town, llama)
    told: list[str] = []
    swapping = asyncio.create_task(
        node.swap("first", options(gpt2), A_WHILE, lambda event, **facts: told.append(event))
    )
    assert await reader.read_on() == expected(llama)
    new, ended = await swapping
    assert (new.about.model_id, new.about.blocks, ended) == ("second", (0, 6), True)
    assert told[:2] == ["loading", "making_room"]
    other, second = await a_reader(town, gpt2)
    assert await second.read_on() == expected(gpt2)
    await mesh.close()
    await other.close()


async def test_a_swap_that_fails_brings_the_old_model_back(town: SwarmPeer, node: Node, llama: Path) -> None:
    too_little = replace(options(llama, blocks=(0, 3)), cache_bytes=1)
    with pytest.raises(InvalidArgument, match="does not hold one session"):
        await node.swap("first", too_little, A_WHILE)
    assert await announced(town, node) == {"first": ("ready", (0, 6))}
    mesh, reader = await a_reader(town, llama)
    assert await reader.read_on() == expected(llama)
    await mesh.close()


async def test_a_node_that_chooses_its_blocks_goes_where_nobody_is(
    town: SwarmPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_module, "TELL_SECONDS", 0.0)
    model = with_bundled_tokenizer(make_model(tmp_path / "roaming", "llama", vocab_size=BUNDLED_VOCABULARY, seed=6))
    config = replace(await config_of(town, tmp_path, options(model, num_blocks=3)), auto_place=10.0)
    async with serving(config) as node:
        (served,) = node.models
        digest = served.about.model_digest
        assert (served.about.blocks, node.roaming) == ((0, 3), (digest,))
        others = {"model_digest": digest, "block_count": 6, "first_block": 0, "end_block": 3}
        await town.board.publish(signed_announcement("somebody else at the same blocks", **others))
        told: list[str] = []
        mover = Mover(node, 600.0, lambda event, **facts: told.append(event))
        await mover.look(only_holes=True)
        (about,) = [signed.announcement for signed in await town.board.node(node.peer_id)]
        assert (about.state, about.blocks, about.auto_place) == ("ready", (3, 6), True)
        assert (node.roaming, told[0], told[-1]) == ((digest,), "moving", "moved")
        await mover.look()
        assert node.models[0].about.blocks == (3, 6)


async def test_an_automatic_number_of_blocks_is_what_fits_where_the_swarm_has_least(
    town: SwarmPeer, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = await config_of(town, tmp_path, options(llama))
    joined = await Node.join(config)
    sizes = joined._first.sizes["none"]
    free = config.model.cache_bytes + sum(sizes[:3])
    monkeypatch.setattr(node_module, "memory_of", lambda device: Memory(device, free, GIB))
    other = signed_announcement("other", model_digest=joined._first.source.digest, block_count=6, first_block=0)
    assert await town.board.publish(other)
    try:
        served = await joined.begin()
        assert served.about.blocks == (3, 6)
    finally:
        await joined.stop()


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("status", {"more": 1}, "more: Extra inputs"),
        ("load", {}, "options: Field required"),
        ("load", {"options": {"blocks": [0, 1]}}, "options.model: Field required"),
        ("load", {"options": {"model": "m", "more": 1}}, "options.more"),
        ("load", {"options": {"model": "m", "blocks": [4, 2]}}, "a < b"),
        ("load", {"options": {"model": "m", "quantization": "int3"}}, "options.quantization"),
        ("unload", {"model": ["first"]}, "model: Input should be a valid string"),
        ("unload", {"model": "first", "drain_timeout": -1}, "drain_timeout: Input should be greater"),
        ("swap", {"model": "first"}, "options: Field required"),
        ("stop", {"drain_timeout": "soon"}, "drain_timeout: Input should be a valid number"),
    ],
)
async def test_a_command_whose_arguments_mean_nothing_is_refused(
    standing: Node, command: str, arguments: dict[str, Any], words: str
) -> None:
    departure = Departure()
    commands = OwnersCommands(standing, departure).by_name()
    with pytest.raises(InvalidArgument, match=words):
        await commands[command](arguments, unwatched)
    assert [model.about.model_id for model in standing.models] == ["third"]
    assert standing.state == "ready"


async def test_the_status_is_json_and_can_be_shown(standing: Node, capsys: pytest.CaptureFixture[str]) -> None:
    commands = OwnersCommands(standing, Departure()).by_name()
    told = json.loads(json.dumps(await commands["status"]({}, unwatched)))
    assert told["models"][0]["context_length"] == 256
    assert told["limits"]["max_batch_size"] == standing.config.limits.max_batch_size
    print_status(told, Standing(Known.NOWHERE, why="nobody was asked"))
    shown = capsys.readouterr().out
    assert "third" in shown
    assert "0:6 of 6" in shown
    assert "0 open, 0 steps waiting" in shown


async def test_a_node_that_leaves_serves_nothing_more(town: SwarmPeer, node: Node, gpt2: Path) -> None:
    begun = asyncio.Event()
    loading = asyncio.create_task(node.load(options(gpt2), lambda event, **facts: begun.set()))
    async with asyncio.timeout(A_WHILE):
        await begun.wait()
    assert await node.drain(1.0) is True
    with pytest.raises(Leaving):
        await loading
    with pytest.raises(Leaving):
        await node.load(options(gpt2))
    assert node.state == "leaving"
    assert await announced(town, node) == {"first": ("leaving", (0, 6))}
