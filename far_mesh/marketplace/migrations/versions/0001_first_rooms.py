"""The first rooms: books, sign-in, sessions, outbox, events, leases."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
APPEND_ONLY = ("postings", "entries")


def upgrade() -> None:
    create_tables()
    if op.get_bind().dialect.name == "sqlite":
        refuse_changes_on_sqlite()
    else:
        refuse_changes_on_postgresql()


def refuse_changes_on_sqlite() -> None:
    for table in APPEND_ONLY:
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_refuse_{act.lower()} BEFORE {act} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def refuse_changes_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION far_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION far_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_refuse_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION far_refuse_change()"
        )


def create_tables() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("kind", "owner", name=op.f("uq_accounts_kind_owner")),
    )
    op.create_table(
        "chain_cursors",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("genesis_hash", sa.String(length=66), nullable=False),
        sa.Column("escrow_address", sa.String(length=42), nullable=False),
        sa.Column("next_block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chain_cursors")),
    )
    op.create_table(
        "chain_events",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("amount_wei", sa.String(length=80), nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_events")),
        sa.UniqueConstraint("tx_hash", "log_index", name=op.f("uq_chain_events_tx_hash_log_index")),
    )
    op.create_index(op.f("ix_chain_events_wallet_address"), "chain_events", ["wallet_address"], unique=False)
    op.create_table(
        "chain_outbox",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("raw_tx", sa.Text(), nullable=True),
        sa.Column("tx_hash", sa.String(length=66), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint("kind IN ('lock', 'release', 'cancel')", name=op.f("ck_chain_outbox_kind")),
        sa.CheckConstraint("status IN ('pending', 'sent', 'confirmed', 'failed')", name=op.f("ck_chain_outbox_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_outbox")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_chain_outbox_idempotency_key")),
    )
    op.create_index(op.f("ix_chain_outbox_request_id"), "chain_outbox", ["request_id"], unique=False)
    op.create_index(op.f("ix_chain_outbox_status"), "chain_outbox", ["status"], unique=False)
    op.create_index(op.f("ix_chain_outbox_wallet_address"), "chain_outbox", ["wallet_address"], unique=False)
    op.create_table(
        "gateways",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("alive_until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_gateways")),
    )
    op.create_table(
        "inference_sessions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("user_wallet", sa.String(length=42), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("tier", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("gateway", sa.String(length=255), nullable=False),
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("prompt_price_units", sa.BigInteger(), nullable=False),
        sa.Column("completion_price_units", sa.BigInteger(), nullable=False),
        sa.Column("fee_bps", sa.Integer(), nullable=True),
        sa.Column("held_units", sa.BigInteger(), nullable=False),
        sa.Column("total_cost_units", sa.BigInteger(), nullable=True),
        sa.Column("fee_units", sa.BigInteger(), nullable=True),
        sa.Column("refund_units", sa.BigInteger(), nullable=True),
        sa.Column("finish_reason", sa.String(length=20), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("time_to_first_token_ms", sa.Integer(), nullable=True),
        sa.Column("checkpoint", sa.JSON(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'active', 'completed', 'failed')", name=op.f("ck_inference_sessions_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inference_sessions")),
        sa.UniqueConstraint("request_id", name=op.f("uq_inference_sessions_request_id")),
    )
    op.create_index(op.f("ix_inference_sessions_status"), "inference_sessions", ["status"], unique=False)
    op.create_index(op.f("ix_inference_sessions_user_wallet"), "inference_sessions", ["user_wallet"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("gateway", sa.String(length=255), nullable=False),
        sa.Column("incarnation", sa.String(length=36), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "login_nonces",
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("uri", sa.String(length=2048), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_login_nonces")),
    )
    op.create_index(op.f("ix_login_nonces_expires_at"), "login_nonces", ["expires_at"], unique=False)
    op.create_table(
        "postings",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_postings")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_postings_idempotency_key")),
    )
    op.create_index(op.f("ix_postings_request_id"), "postings", ["request_id"], unique=False)
    op.create_table(
        "entries",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("posting_id", ROW_ID, nullable=False),
        sa.Column("account_id", ROW_ID, nullable=False),
        sa.Column("amount_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount_units <> 0", name=op.f("ck_entries_not_zero")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_entries_account_id")),
        sa.ForeignKeyConstraint(["posting_id"], ["postings.id"], name=op.f("fk_entries_posting_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
    )
    op.create_index(op.f("ix_entries_account_id_amount_units"), "entries", ["account_id", "amount_units"], unique=False)
    op.create_index(op.f("ix_entries_posting_id"), "entries", ["posting_id"], unique=False)
    op.create_table(
        "node_contributions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("session_id", sa.String(length=36), nullable=False),
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("first_block", sa.Integer(), nullable=False),
        sa.Column("end_block", sa.Integer(), nullable=False),
        sa.Column("quantization", sa.String(length=16), nullable=False),
        sa.Column("tokens_contributed", sa.BigInteger(), nullable=False),
        sa.Column("token_layers", sa.BigInteger(), nullable=False),
        sa.Column("payment_units", sa.BigInteger(), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("paid_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["inference_sessions.id"], name=op.f("fk_node_contributions_session_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_contributions")),
    )
    op.create_index(op.f("ix_node_contributions_session_id"), "node_contributions", ["session_id"], unique=False)
    op.create_index(
        op.f("ix_node_contributions_wallet_address"), "node_contributions", ["wallet_address"], unique=False
    )
