"""A real node, in the middle of somebody's text, is replaced after that text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from discovery import __version__
from discovery.dht.identity import load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer
from discovery.protocol.errors import PeerUnavailable
from far_mesh.client import GenerationOptions, Mesh, MeshConfig
from far_node.commands import OwnersCommands
from far_node.control import Command, ControlServer, Tell, ask, control_path
from far_node.departure import Departure
from far_node.node import Node
from far_node.update.environments import Environment, Environments
from far_node.update.options import UpdateOptions
from far_node.update.supervisor import Supervisor, Times, Updated
from tests.far_node.test_node import PROMPT, TOKENS, config_of, expected, model_of, options, serving
from tests.support.standin import environment

LONG = 120.0


class InThisProcess:
    """A node of this process, as a child: it ends when it has been asked to leave."""

    pid = 0

    def __init__(self, life: Coroutine[Any, Any, None]) -> None:
        self._life = asyncio.create_task(life)

    @property
    def has_ended(self) -> bool:
        return self._life.done()

    async def ended(self) -> int:
        await asyncio.shield(self._life)
        return 0

    def signal(self, number: int) -> None:
        self._life.cancel()

    async def end(self) -> None:
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)


@asynccontextmanager
async def listening(socket: Path, commands: Mapping[str, Command]) -> AsyncIterator[None]:
    server = await ControlServer.start(socket, commands)
    try:
        yield
    finally:
        await server.close()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[SwarmPeer]:
    peer = await SwarmPeer.start(load_identity(tmp_path / "town"), PeerConfig())
    yield peer
    await peer.close()


async def test_a_session_is_finished_before_the_new_version_starts(town: SwarmPeer, tmp_path: Path) -> None:
    model = model_of(tmp_path / "first", "llama", 3)
    environments = Environments(tmp_path / "far")
    environments.switch(environment(environments, __version__))
    newer = environment(environments, "99.0.0")
    socket, seen = control_path(tmp_path / "identity"), list[str]()
    departure = Departure()

    async def old(node: Node) -> None:
        async with listening(socket, OwnersCommands(node, departure).by_name()):
            await departure.when_asked()
            assert await departure.take(node.drain, LONG)
        seen.append("the old one has ended")

    async def status(arguments: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        return {"state": "ready", "device": "cpu", "versions": {"far-mesh": "99.0.0"}}

    async def new() -> None:
        seen.append("the new one starts")
        async with listening(socket, {"status": status}):
            await asyncio.Event().wait()

    async with serving(await config_of(town, tmp_path, options(model))) as node:
        children = {__version__: lambda: InThisProcess(old(node)), "99.0.0": lambda: InThisProcess(new())}
        mesh = await Mesh.join(str(model), await town.maddrs(), MeshConfig(view_age=0.0, step_timeout=LONG))
        generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
        stream = aiter(generation)
        ids = [(await anext(stream)).id]
        started = list[InThisProcess]()

        def launch(to: Environment) -> InThisProcess:
            started.append(children[str(to.version)]())
            return started[-1]

        supervisor = Supervisor(
            environments,
            environments.place_of(Version(__version__)),
            UpdateOptions(),
            "",
            socket,
            launch,
            lambda event, sentence, **facts: seen.append(event),
            Times(poll=0.05, moment=1.0, drain=LONG, ready=LONG, settle=0.05),
        )
        updating = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(LONG):
            while (
                node.state != "leaving"
            ):  # others do not serve its blocks, so it waits for its moment, and then leaves
                await asyncio.sleep(0.02)
            assert seen == ["update_waits", "updating"]
            assert (await asked(socket, "spare")) == {"open_sessions": 1, "alone": {"first": 6}}
            ids += [token.id async for token in stream]
            assert seen == ["update_waits", "updating"]
            await generation.finish()
            assert await updating == Updated(newer, 0)
        assert ids == expected(model)
        assert seen == ["update_waits", "updating", "the old one has ended", "the new one starts", "updated"]
        await started[-1].end()
        await mesh.close()
    with pytest.raises(PeerUnavailable):
        await asked(socket, "status")


async def asked(socket: Path, command: str) -> dict[str, Any]:
    return await asyncio.to_thread(ask, socket, command, timeout=LONG)
