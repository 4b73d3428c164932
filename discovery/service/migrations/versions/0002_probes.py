"""What probers have seen of nodes, by the hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COUNTS = (
    "probes",
    "direct",
    "relay",
    "unreached",
    "completed",
    "refused",
    "failed",
    "timed_out",
    "unasked",
    "right",
    "wrong",
    "undecided",
    "receipts_rejected",
    "token_layers",
    "timed",
)


def upgrade() -> None:
    op.create_table(
        "discovery_probes",
        sa.Column("peer_id", sa.String(64), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("prober", sa.String(64), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("block_ms", sa.Double(), nullable=False),
        sa.Column("claimed_block_ms", sa.Double(), nullable=False),
        sa.Column("round_trip_ms", sa.Double()),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("peer_id", "model_digest", "prober", "hour", name=op.f("pk_discovery_probes")),
    )
    op.create_index(op.f("ix_discovery_probes_hour"), "discovery_probes", ["hour"])
    op.create_table(
        "discovery_probers",
        sa.Column("prober", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("prober", name=op.f("pk_discovery_probers")),
    )
