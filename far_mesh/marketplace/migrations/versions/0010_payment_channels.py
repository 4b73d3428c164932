"""Payment channels: one row each, for the vouchers that are accepted over them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0002"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "payment_channels",
        sa.Column("channel_id", sa.String(length=66), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("escrow_address", sa.String(length=42), nullable=False),
        sa.Column("user_wallet", sa.String(length=42), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("deposit_units", sa.BigInteger(), nullable=False),
        sa.Column("promised_units", sa.BigInteger(), nullable=False),
        sa.Column("earned_units", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_units", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.String(length=132), nullable=True),
        sa.Column("closes_at", TIME, nullable=True),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.CheckConstraint(
            "promised_units <= deposit_units AND earned_units <= deposit_units",
            name=op.f("ck_payment_channels_within_deposit"),
        ),
        sa.CheckConstraint(
            "redeemed_units >= 0 AND redeemed_units <= promised_units AND redeemed_units <= earned_units",
            name=op.f("ck_payment_channels_redeemed_what_was_earned"),
        ),
        sa.PrimaryKeyConstraint("channel_id", name=op.f("pk_payment_channels")),
    )
    op.create_index(op.f("ix_payment_channels_user_wallet"), "payment_channels", ["user_wallet"], unique=False)
