"""Who hangs up frees the nodes and pays for no more than the token under way: real nodes, real books, every door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc.aio
import httpx
import pytest

from far_mesh.client import Generation, Mesh, MeshConfig, Token
from far_mesh.marketplace.grpc_api.far_pb2 import InferRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.inference.run import Run
from far_mesh.opener import Swarm
from tests.far_mesh.marketplace.conftest import empty_sqlite, live_chain, loop_thread  # noqa: F401  # fixtures
from tests.far_mesh.marketplace.doubles import MODEL, Turnstile
from tests.far_mesh.marketplace.house import House, LiveChain, Loop, User
from tests.swarm.conftest import RealSwarm
from tests.swarm.test_generation import info_of

pytestmark = pytest.mark.swarm

READ = 3
PROMPT = "Tell me a story about a brave rabbit."
FAR = ("/api/inference/distributed/generate", {"model_id": MODEL, "prompt": PROMPT, "max_tokens": 40, "stream": True})
CHAT = (
    "/v1/chat/completions",
    {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 40, "stream": True},
)


class Slow:
    """A generation that gives a token when it is let."""

    def __init__(self, generation: Generation, turnstile: Turnstile) -> None:
        self._generation, self._turnstile = generation, turnstile

    async def __aiter__(self) -> AsyncIterator[Token]:
        tokens = aiter(self._generation)
        while True:
            await self._turnstile.wait()
            try:
                yield await anext(tokens)
            except StopAsyncIteration:
                return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


class SlowMesh:
    """The mesh, with such generations."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self.turnstile = mesh, Turnstile()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mesh, name)

    async def open(self, *arguments: Any, **more: Any) -> Slow:
        """A route of the real one."""
        return Slow(await self._mesh.open(*arguments, **more), self.turnstile)


@pytest.fixture(scope="module")
def user(
    real_swarm: RealSwarm,
    live_chain: LiveChain,  # noqa: F811
    loop_thread: Loop,  # noqa: F811
    empty_sqlite: Path,  # noqa: F811
) -> Iterator[User]:
    mesh = loop_thread.do(Mesh.join("far-demo", real_swarm.initial_peers, MeshConfig(speculation=False)))
    slow = SlowMesh(mesh)
    settings = live_chain.settings(
        database_url=f"sqlite+aiosqlite:///{empty_sqlite}", unsettled_limit_units=10**12, model_sessions=1
    )
    with House(loop_thread, live_chain, settings, cast(MeshLike, slow)) as house:
        yield house.user(deposit=10**11)
    loop_thread.do(mesh.close())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def streaming(user: User, asked: tuple[str, dict[str, Any]]) -> AsyncIterator[None]:
    """Somebody who reads a stream until the end of the block, and then hangs up."""
    path, body = asked

    async def read() -> None:
        headers = {"authorization": f"Bearer {user.token}"}
        async with (
            httpx.AsyncClient(base_url=user.house.url, headers=headers, timeout=60) as client,
            client.stream("POST", path, json=body) as answer,
        ):
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                pass

    reading = asyncio.create_task(read())
    yield
    reading.cancel()
    await asyncio.wait([reading])


@asynccontextmanager
async def calling(user: User, port: int) -> AsyncIterator[None]:
    """The same over gRPC."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = InferRequest(model_id=MODEL, prompt=PROMPT, max_tokens=40)
        call = FarMeshStub(channel).InferStream(request, metadata=(("authorization", f"Bearer {user.token}"),))
        reading = asyncio.create_task(_drain(call))
        yield
        call.cancel()
        await asyncio.wait([reading])


async def _drain(call: Any) -> None:
    async for _ in call:
        pass


def runs(user: User) -> list[Run]:
    """What is under way."""
    return list(user.house.rooms.inference._runs)


def slow_mesh(user: User) -> SlowMesh:
    return cast(SlowMesh, user.house.mesh)


async def open_sessions(swarm: RealSwarm, visitor: Swarm) -> int:
    """At all nodes of the model."""
    found = [await info_of(visitor, node.peer_id, tuple(node.ready["maddrs"])) for node in swarm.demo.nodes]
    return sum(info.open_sessions for info in found)


async def sessions_become(swarm: RealSwarm, visitor: Swarm, condition: Callable[[int], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition(await open_sessions(swarm, visitor)):
            await asyncio.sleep(0.01)


async def hangs_up_after_three(user: User, reading: Any, sessions: Callable[[], Awaitable[int]]) -> dict[str, Any]:
    """Three tokens are read. Then nobody reads any more, and many more could come."""
    turnstile, loop = slow_mesh(user).turnstile, user.house.loop.loop
    async with reading:
        turnstile.let_through(loop, READ)
        await until(lambda: runs(user) and runs(user)[0]._delivered == READ)
        (run,) = runs(user)
        assert await sessions() > 0
    await until(lambda: run._reader_is_gone)
    turnstile.let_through(loop, 1)  # the token that was under way
    await until(lambda: not runs(user))
    return user.request(run.request_id)


@pytest.mark.parametrize("door", ["far", "chat", "grpc"])
async def test_who_hangs_up_in_the_middle_pays_for_no_more_than_the_token_under_way(
    user: User, real_swarm: RealSwarm, visitor: Swarm, door: str
) -> None:
    if door == "grpc":
        reading: Any = calling(user, await asyncio.to_thread(user.house.open_grpc))
    else:
        reading = streaming(user, FAR if door == "far" else CHAT)
    report = await hangs_up_after_three(user, reading, lambda: open_sessions(real_swarm, visitor))
    await sessions_become(real_swarm, visitor, lambda count: count == 0)
    assert READ <= report["completion_tokens"] <= READ + 1
    assert report["status"] == "completed"
    positions = {node["token_layers"] / len(node["layers"]) for node in report["nodes_used"]}
    assert max(positions) <= report["prompt_tokens"] + READ + 2  # the ring is one step ahead of the text
    assert report["cost_units"] + report["refund_units"] == report["held_units"]
    assert user.balance()["held_units"] == 0
    assert sum(user.house.books().values()) == 0
    assert user.house.rooms.inference.gates[MODEL].in_use == 0


async def test_who_hangs_up_in_the_queue_never_was(user: User, real_swarm: RealSwarm, visitor: Swarm) -> None:
    gate, loop = user.house.rooms.inference.gates[MODEL], user.house.loop.loop
    async with streaming(user, FAR):
        await until(lambda: user.balance()["held_units"])
        await sessions_become(real_swarm, visitor, bool)
        before, opened = user.balance(), await open_sessions(real_swarm, visitor)
        async with streaming(user, CHAT):
            await until(lambda: any(run.place for run in runs(user)))
            (waiting,) = (run for run in runs(user) if run.place)
        await until(lambda: gate.waiting == 0)
        assert user.http.get(f"/api/inference/requests/{waiting.request_id}").status_code == 404
        assert user.balance() == before
        assert await open_sessions(real_swarm, visitor) == opened
    await until(lambda: not user.balance()["held_units"] or runs(user)[0]._reader_is_gone)
    slow_mesh(user).turnstile.let_through(loop, 1)
    await until(lambda: not runs(user))
    await sessions_become(real_swarm, visitor, lambda count: count == 0)
    assert user.balance()["held_units"] == 0
