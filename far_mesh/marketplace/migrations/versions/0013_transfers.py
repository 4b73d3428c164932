"""Payouts by transfer: what each pays for, where providers are paid, and who cannot be paid now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
SHORT, LONG = sa.String(length=66), sa.String(length=100)


def upgrade() -> None:
    outbox()
    contributions()
    addresses()
    held()


def outbox() -> None:
    """A transaction of Solana has a longer name."""
    with op.batch_alter_table("chain_outbox") as table:
        table.drop_constraint(op.f("ck_chain_outbox_kind"), type_="check")
        table.create_check_constraint(
            op.f("ck_chain_outbox_kind"),
            "kind IN ('lock', 'release', 'cancel', 'redeem', 'settle', 'commit', 'transfer')",
        )
        table.alter_column("tx_hash", existing_type=SHORT, type_=LONG)
    with op.batch_alter_table("chain_attempts") as table:
        table.alter_column("tx_hash", existing_type=SHORT, type_=LONG, existing_nullable=False)


def contributions() -> None:
    op.add_column("node_contributions", sa.Column("transfer_number", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_node_contributions_transfer_number"), "node_contributions", ["transfer_number"])
    unpaid = sa.text("transfer_number IS NULL AND paid_at IS NULL AND payment_units > 0")
    op.create_index(
        "ix_node_contributions_unpaid",
        "node_contributions",
        ["wallet_address", "earned_at"],
        sqlite_where=unpaid,
        postgresql_where=unpaid,
    )


def addresses() -> None:
    op.create_table(
        "payout_addresses",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("address", sa.String(length=100), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("effective_at", TIME, nullable=False),
        sa.Column("withdrawn_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payout_addresses")),
    )
    op.create_index(op.f("ix_payout_addresses_wallet_address"), "payout_addresses", ["wallet_address"])


def held() -> None:
    op.create_table(
        "held_payouts",
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.PrimaryKeyConstraint("wallet_address", name=op.f("pk_held_payouts")),
    )
