"""Databases of both kinds, a real chain, and a marketplace on top of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.tables import metadata
from tests.far_mesh.marketplace.doubles import MeshDouble
from tests.far_mesh.marketplace.house import House, LiveChain, Loop, rpc, start_chain
from tests.far_mesh.marketplace.payments.street import Street
from tests.support.postgresql import a_server, url_of


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables and nothing in them."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A server with a database that has all tables."""
    with a_server("far") as server:
        asyncio.run(upgrade(url_of(server, "far")))
        yield server


@pytest.fixture
def sqlite_url(empty_sqlite: Path, tmp_path: Path) -> str:
    """A fresh SQLite database."""
    path = tmp_path / "marketplace.db"
    shutil.copy(empty_sqlite, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind in turn."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql: Any) -> str:
    """The PostgreSQL database, emptied: a fresh one for each test would copy seven megabytes each time."""
    tables = ", ".join(metadata.tables)
    # The replica role is the one way round the triggers that keep the books.
    postgresql.psql(f"\\c far\nSET session_replication_role = replica; TRUNCATE {tables} RESTART IDENTITY CASCADE;")
    return url_of(postgresql, "far")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database of each kind in turn."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[Loop]:
    """A loop that outlives tests."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def live_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """A real chain with both contracts."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("chain")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.fixture(scope="session")
def quiet_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """One that nobody else is on."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("quiet")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.fixture
async def street(quiet_chain: LiveChain) -> AsyncIterator[Street]:
    """The chain with its contracts as they were deployed, to be reorganised at will."""
    before = await rpc(quiet_chain.rpc_url, "evm_snapshot")
    opened = Street(quiet_chain.rpc_url, quiet_chain.deployment)
    yield opened
    await opened.close()
    await rpc(quiet_chain.rpc_url, "evm_setAutomine", True)
    await rpc(quiet_chain.rpc_url, "anvil_setChainId", CHAIN_ID)
    assert await rpc(quiet_chain.rpc_url, "evm_revert", before)


OpenHouse = Callable[..., House]


@pytest.fixture
def open_house(loop_thread: Loop, live_chain: LiveChain, sqlite_url: str) -> Iterator[OpenHouse]:
    """Open a marketplace, with changes to its settings; it is closed at the end of the test."""
    houses: list[House] = []

    def opened(mesh: MeshLike | None = None, **changes: Any) -> House:
        settings = live_chain.settings(**({"database_url": sqlite_url} | changes))
        house = House(loop_thread, live_chain, settings, mesh or MeshDouble())
        house.__enter__()
        houses.append(house)
        return house

    yield opened
    for house in houses:
        house.__exit__(None, None, None)
