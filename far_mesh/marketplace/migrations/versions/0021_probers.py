"""What probers have seen of nodes, and which of their reports were counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    for name in ("completed", "failed", "timed_out", "rejected", "right", "wrong"):
        op.add_column("node_registry", sa.Column(f"probed_{name}", sa.Double(), nullable=False, server_default="0"))
    op.create_table(
        "probers",
        sa.Column("prober", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prober", name=op.f("pk_probers")),
    )
