"""What a request was promised, what was measured, and what it gave back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    for column in (
        sa.Column("promised_p95_ms", sa.Integer(), nullable=True),
        sa.Column("credit_bps", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("p95_token_ms", sa.Integer(), nullable=True),
        sa.Column("service_level_met", sa.Boolean(), nullable=True),
        sa.Column("credit_units", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("spent_credit_units", sa.BigInteger(), nullable=False, server_default="0"),
    ):
        op.add_column("inference_sessions", column)
