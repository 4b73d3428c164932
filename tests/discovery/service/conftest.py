"""Databases of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from discovery.service.store import Store
from discovery.service.tables import metadata
from tests.support.postgresql import a_server, url_of


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A server."""
    with a_server("discovery") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'discovery.db'}"
    else:
        url = url_of(request.getfixturevalue("postgresql"), "discovery")
    opened = await Store.open(url)
    async with opened._writing() as connection:
        for table in metadata.sorted_tables:
            await connection.execute(text(f"DELETE FROM {table.name}"))
    yield opened
    await opened.close()
