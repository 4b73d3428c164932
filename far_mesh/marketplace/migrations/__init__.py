"""The history of the tables. It travels inside the package, so an installed wheel can upgrade its database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from far_mesh.marketplace.database import create_engine


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without any file. ``connection`` is what :mod:`.env` migrates."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    command.upgrade(configuration(connection), "head")


async def upgrade(url: str) -> None:
    """Bring the database at ``url`` to the newest tables. Doing it again changes nothing."""
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(far_writing=True)
            async with connection.begin():
                await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def upgrade_now(url: str) -> None:
    """:func:`upgrade` for callers without an event loop."""
    asyncio.run(upgrade(url))
