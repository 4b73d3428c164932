"""Run by Alembic: migrates the connection it was handed."""

from __future__ import annotations

from alembic import context

from discovery.service.migrations import VERSION_TABLE
from discovery.service.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
    version_table=VERSION_TABLE,
)
context.run_migrations()
