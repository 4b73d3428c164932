"""Reports of probers as they were signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "discovery_reports",
        sa.Column("prober", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("prober", "sequence", name=op.f("pk_discovery_reports")),
    )
    op.create_index(op.f("ix_discovery_reports_issued_at"), "discovery_reports", ["issued_at"])
