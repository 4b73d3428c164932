"""Run by Alembic: migrates the connection it was handed."""

from __future__ import annotations

from alembic import context

import far_mesh.marketplace.payments.tables  # noqa: F401 - a room with a table of its own
from far_mesh.marketplace.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
