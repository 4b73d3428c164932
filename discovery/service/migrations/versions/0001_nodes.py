"""Nodes, and announcements that are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "discovery_nodes",
        sa.Column("peer_id", sa.String(64), nullable=False),
        sa.Column("wallet", sa.String(42), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("seen_seconds", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.String(256)),
        sa.Column("gpu_model", sa.String(100)),
        sa.Column("vram_gb", sa.Integer()),
        sa.Column("location", sa.String(100)),
        sa.Column("public_addr", sa.String(255)),
        sa.Column("proven_at", sa.Double()),
        sa.Column("heard_at", sa.Double()),
        sa.Column("claims", sa.JSON()),
        sa.PrimaryKeyConstraint("peer_id", name=op.f("pk_discovery_nodes")),
    )
    op.create_index(op.f("ix_discovery_nodes_last_seen"), "discovery_nodes", ["last_seen"])
    op.create_index(op.f("ix_discovery_nodes_wallet"), "discovery_nodes", ["wallet"])
    op.create_table(
        "discovery_announcements",
        sa.Column("peer_id", sa.String(64), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(8), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("peer_id", "model_digest", name=op.f("pk_discovery_announcements")),
    )
