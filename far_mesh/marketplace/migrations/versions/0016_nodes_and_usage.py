"""What nodes say of themselves over HTTP, and an index for what a user has used day by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

TIME, URL = sa.DateTime(timezone=True), sa.String(length=255)


def upgrade() -> None:
    for name, kind in (
        ("proven_at", TIME),
        ("heard_at", TIME),
        ("claims", sa.JSON()),
        ("endpoint_url", sa.String(255)),
    ):
        op.add_column("node_registry", sa.Column(name, kind, nullable=True))
    op.create_index(
        op.f("ix_inference_sessions_user_wallet_started_at"), "inference_sessions", ["user_wallet", "started_at"]
    )
    op.drop_index(op.f("ix_inference_sessions_user_wallet"), "inference_sessions")  # the new one begins with it
    unsettled = sa.text(
        "batch_number IS NULL AND payment = 'netted' AND (total_cost_units IS NULL OR total_cost_units > 0)"
    )
    op.drop_index("ix_inference_sessions_unsettled", "inference_sessions")
    op.create_index(
        "ix_inference_sessions_unsettled",
        "inference_sessions",
        ["user_wallet", "batch_number"],  # SQLite would rather take the new one for what is owed, and read all requests
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
