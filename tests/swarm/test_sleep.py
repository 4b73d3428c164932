"""A serverless node of real processes: woken by who needs it, and asleep again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from discovery.dht.identity import load_identity
from discovery.protocol.announcement import Announcement
from discovery.protocol.oncall import register
from discovery.web.outbound import Policy
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.opener import Swarm
from far_mesh.session import Mended
from tests.support.documents import key_of, peer_of, wallet_of
from tests.support.models import greedy, whole_model
from tests.support.ports import free_port
from tests.support.swarm import ANY_LOCAL_PORT, Process, Town

pytestmark = pytest.mark.swarm

PROMPT, TOKENS = list(range(1, 20)), 8
LOCAL = Policy(frozenset(range(1, 65_536)), (IPv4Network("127.0.0.0/8"),), http=True, seconds=1.0)
DAY = 86_000


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path / "town") as town:
        yield town


def start_waker(town: Town, model: Path, blocks: str) -> tuple[Process, str]:
    """The door of a node that sleeps, and its address."""
    identity, url = town.directory / "sleeper.id", f"http://127.0.0.1:{free_port()}/wake"
    node = ["far_node.cli", "start", "--model", str(model), "--wallet", wallet_of("sleeper"), "--blocks", blocks]
    node += ["--quantization", "none", "--cpu-only", "--threads", "1", "--identity", str(identity), "--json"]
    node += ["--host-maddr", ANY_LOCAL_PORT, "--initial-peers", town.bootstrap.maddr]
    node += ["--wake-url", url, "--idle-exit", "3"]
    port = url.rpartition(":")[2].partition("/")[0]
    door = ["far_node.cli", "waker", "serve", "--json", "--url", url, "--port", port]
    door += ["--node", load_identity(identity).peer_id, "--", sys.executable, "-m", *node]
    return town.start("waker", door).wait_until_ready(), url


@asynccontextmanager
async def a_door_that_hangs() -> AsyncIterator[tuple[str, list[float]]]:
    rung: list[float] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rung.append(time.monotonic())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/wake", rung
    server.close()


def state_of(url: str) -> str:
    with urllib.request.urlopen(url.replace("/wake", "/health"), timeout=20) as answer:
        return str(json.load(answer)["state"])


async def test_a_node_that_sleeps_is_woken_serves_and_falls_asleep_again(town: Town, gpt2_model: Path) -> None:
    awake = town.start_node(gpt2_model, (0, 3))
    _, url = start_waker(town, gpt2_model, "3:6")
    awake.wait_until_ready()
    swarm = await Swarm.join(town.initial_peers, MeshConfig(wake_policy=LOCAL))
    told: list[Mended] = []
    try:
        async with a_door_that_hangs() as (bad_url, rung), await Mesh.over(swarm, str(gpt2_model)) as mesh:
            await register_both(swarm, town, mesh, url, bad_url)
            generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS), on_mended=told.append)
            ids = [token.id async for token in generation]
            assert state_of(url) == "awake"
            result = await generation.finish()
            assert len(rung) == 1
            await until_asleep(url)
            assert len(rung) == 1, "who did not come is remembered"
    finally:
        await swarm.close()
    assert ids == greedy(whole_model(gpt2_model), PROMPT, TOKENS)
    woken = load_identity(town.directory / "sleeper.id").peer_id
    assert [part.peer_id for part in result.contributions] == [awake.peer_id, woken]
    assert told
    assert all(one.waiting_for and one.blocks == (3, 6) for one in told)


async def register_both(swarm: Swarm, town: Town, mesh: Mesh, url: str, bad_url: str) -> None:
    """The node that sleeps, and one that says to be much quicker and does not come."""
    (there,) = [signed.announcement for signed in await mesh.nodes()]
    fields = there.model_dump() | {"first_block": 3, "end_block": 6}
    sleeper = load_identity(town.directory / "sleeper.id")
    for peer_id, key, where, block_ms in (
        (sleeper.peer_id, sleeper.key, url, 5.0),
        (peer_of("liar"), key_of("liar"), bad_url, 0.001),
    ):
        about = Announcement.model_validate(fields | {"peer_id": peer_id, "block_ms": block_ms, "links": ()})
        assert await swarm.peer.board.register(register(about, key, where, int(time.time()) + DAY))


async def until_asleep(url: str) -> None:
    async with asyncio.timeout(120):
        while await asyncio.to_thread(state_of, url) == "awake":
            await asyncio.sleep(0.2)
