"""How often each node was seen to finish its work, and to fail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    for name in ("hops_completed", "hops_failed"):
        op.add_column("node_registry", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE node_registry SET hops_completed = "
        "(SELECT count(*) FROM node_contributions WHERE node_contributions.node_id = node_registry.node_id)"
    )
