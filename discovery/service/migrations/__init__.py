"""The history of the tables. It travels inside the package, so an installed wheel can upgrade its database."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

VERSION_TABLE = "discovery_alembic_version"
"""Ours, so that a gateway may share the database."""


def upgrade(connection: Connection) -> None:
    """Bring the database of this connection to the newest tables. Doing it again changes nothing."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
