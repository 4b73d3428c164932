"""Tiers: which account is in which, and the nodes that were named for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "account_tiers",
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("tier", sa.String(length=20), nullable=False),
        sa.Column("until", TIME, nullable=True),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("wallet_address", name=op.f("pk_account_tiers")),
    )
    op.create_table(
        "account_pools",
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("member", sa.String(length=128), nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("wallet_address", "member", name=op.f("pk_account_pools")),
    )
