"""Batches, every attempt of a transaction, blocks that are given up, fencing tokens, how a request is paid."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    sessions()
    contributions()
    outbox()
    events()
    op.add_column("leases", sa.Column("token", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("captured_units", "netted_units"):
        op.add_column("payment_channels", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("payment_channels", sa.Column("closed_at", TIME, nullable=True))
    attempts()
    batches()
    reconciliation()
    books()


def sessions() -> None:
    op.add_column(
        "inference_sessions", sa.Column("payment", sa.String(length=16), nullable=False, server_default="escrow")
    )
    op.add_column("inference_sessions", sa.Column("channel_id", sa.String(length=66), nullable=True))
    op.add_column("inference_sessions", sa.Column("batch_number", sa.BigInteger(), nullable=True))
    op.add_column("inference_sessions", sa.Column("counted_units", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index(op.f("ix_inference_sessions_batch_number"), "inference_sessions", ["batch_number"])
    unsettled = sa.text(
        "batch_number IS NULL AND payment = 'netted' AND (total_cost_units IS NULL OR total_cost_units > 0)"
    )
    op.create_index(
        "ix_inference_sessions_unsettled",
        "inference_sessions",
        ["user_wallet"],
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )
    to_settle = sa.text("batch_number IS NULL AND total_cost_units > 0 AND payment <> 'escrow'")
    op.create_index(
        "ix_inference_sessions_to_settle",
        "inference_sessions",
        ["completed_at", "id"],
        sqlite_where=to_settle,
        postgresql_where=to_settle,
    )


def contributions() -> None:
    op.add_column("node_contributions", sa.Column("earned_at", TIME, nullable=True))
    op.execute(
        "UPDATE node_contributions SET earned_at = (SELECT coalesce(completed_at, started_at) "
        "FROM inference_sessions WHERE inference_sessions.id = node_contributions.session_id)"
    )
    with op.batch_alter_table("node_contributions") as table:
        table.alter_column("earned_at", existing_type=TIME, nullable=False)
        table.drop_index(op.f("ix_node_contributions_wallet_address"))
        table.create_index(
            op.f("ix_node_contributions_wallet_address_earned_at_id"), ["wallet_address", "earned_at", "id"]
        )


def outbox() -> None:
    with op.batch_alter_table("chain_outbox") as table:
        table.drop_constraint(op.f("ck_chain_outbox_kind"), type_="check")
        table.create_check_constraint(
            op.f("ck_chain_outbox_kind"), "kind IN ('lock', 'release', 'cancel', 'redeem', 'settle', 'commit')"
        )
        table.add_column(sa.Column("block_number", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("block_hash", sa.String(length=66), nullable=True))
        table.add_column(sa.Column("vanished", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("escrow_id", sa.String(length=66), nullable=True))
    for column in ("block_number", "escrow_id"):
        op.create_index(op.f(f"ix_chain_outbox_{column}"), "chain_outbox", [column])


def events() -> None:
    with op.batch_alter_table("chain_events") as table:
        table.drop_constraint(op.f("uq_chain_events_tx_hash_log_index"), type_="unique")
        table.add_column(sa.Column("block_hash", sa.String(length=66), nullable=True))
        table.add_column(sa.Column("booked_as", sa.String(length=200), nullable=True))
        table.add_column(sa.Column("vanished_at", TIME, nullable=True))
        table.add_column(sa.Column("about", sa.String(length=66), nullable=True))
        table.add_column(sa.Column("detail", sa.JSON(), nullable=True))
        table.alter_column("tx_hash", existing_type=sa.String(length=66), type_=sa.String(length=200))
    op.execute("UPDATE chain_events SET booked_as = tx_hash || ':' || log_index")
    for column in ("about", "block_number", "tx_hash"):
        op.create_index(op.f(f"ix_chain_events_{column}"), "chain_events", [column])
    op.create_index(
        "uq_chain_events_tx_hash",
        "chain_events",
        ["tx_hash", "log_index"],
        unique=True,
        sqlite_where=sa.text("vanished_at IS NULL"),
        postgresql_where=sa.text("vanished_at IS NULL"),
    )
    with op.batch_alter_table("chain_cursors") as table:
        table.add_column(sa.Column("last_hash", sa.String(length=66), nullable=True))
        table.alter_column("escrow_address", existing_type=sa.String(length=42), type_=sa.String(length=100))


def attempts() -> None:
    op.create_table(
        "chain_attempts",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("outbox_id", ROW_ID, nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("raw_tx", sa.Text(), nullable=False),
        sa.Column("signed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["outbox_id"], ["chain_outbox.id"], name=op.f("fk_chain_attempts_outbox_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_attempts")),
        sa.UniqueConstraint("tx_hash", name=op.f("uq_chain_attempts_tx_hash")),
    )
    for column in ("outbox_id", "nonce"):
        op.create_index(op.f(f"ix_chain_attempts_{column}"), "chain_attempts", [column])
    op.execute(
        "INSERT INTO chain_attempts (outbox_id, nonce, tx_hash, raw_tx, signed_at) "
        "SELECT id, nonce, tx_hash, raw_tx, sent_at FROM chain_outbox WHERE tx_hash IS NOT NULL"
    )


def batches() -> None:
    op.create_table(
        "settlement_batches",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("detail_root", sa.String(length=66), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("total_units", sa.BigInteger(), nullable=False),
        sa.Column("fee_units", sa.BigInteger(), nullable=False),
        sa.Column("charges", sa.JSON(), nullable=False),
        sa.Column("payouts", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("kind IN ('batch', 'root', 'transfer')", name=op.f("ck_settlement_batches_kind")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_settlement_batches")),
    )
    op.create_table(
        "settle_orders",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("done_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settle_orders")),
    )
    op.create_index(op.f("ix_settle_orders_done_at"), "settle_orders", ["done_at"])
    op.create_table(
        "payout_leaves",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("cumulative_units", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["number"], ["settlement_batches.number"], name=op.f("fk_payout_leaves_number")),
        sa.PrimaryKeyConstraint("number", "wallet_address", name=op.f("pk_payout_leaves")),
    )
    op.create_index(op.f("ix_payout_leaves_wallet_address"), "payout_leaves", ["wallet_address"])


def reconciliation() -> None:
    op.create_table(
        "reconciliation_notes",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=42), nullable=False),
        sa.Column("amount", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("kind", "owner", name=op.f("pk_reconciliation_notes")),
    )
    op.create_table(
        "reconciliations",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_reconciliations")),
    )


def books() -> None:
    """A posting in one question. Each statement of the function sees what was committed before it began, also by those
    whose locks it had to wait for, just as if it had been sent alone."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(FAR_POST)


FAR_POST = """
CREATE FUNCTION far_post(
    p_key text, p_kind text, p_reason text, p_request_id text, p_created_at timestamptz,
    p_kinds text[], p_owners text[], p_units bigint[], p_checked boolean[], p_lock boolean,
    OUT place integer, OUT have bigint, OUT is_new boolean
) LANGUAGE plpgsql AS $far$
DECLARE
    ids bigint[];
    posting bigint;
BEGIN
    is_new := false;
    LOOP
        IF p_lock THEN
            -- In one order, so that two writers cannot wait for each other. NO KEY UPDATE: those who add lines to an
            -- account refer to its row, and must not have to wait.
            PERFORM 1 FROM accounts JOIN unnest(p_kinds, p_owners) AS named (kind, owner) USING (kind, owner)
            ORDER BY accounts.kind, accounts.owner FOR NO KEY UPDATE OF accounts;
        END IF;
        SELECT array_agg(accounts.id ORDER BY named.line) INTO ids
        FROM unnest(p_kinds, p_owners) WITH ORDINALITY AS named (kind, owner, line) JOIN accounts USING (kind, owner);
        EXIT WHEN coalesce(cardinality(ids), 0) = cardinality(p_kinds);
        INSERT INTO accounts (kind, owner)
        SELECT named.kind, named.owner FROM unnest(p_kinds, p_owners) AS named (kind, owner) ORDER BY 1, 2
        ON CONFLICT DO NOTHING;
    END LOOP;
    IF true = ANY (p_checked) THEN
        IF EXISTS (SELECT FROM postings WHERE idempotency_key = p_key) THEN
            RETURN;
        END IF;
        FOR line IN 1 .. cardinality(p_units) LOOP
            IF p_checked[line] THEN
                SELECT coalesce(max(noted.balance_units), 0) + coalesce((
                    SELECT sum(entries.amount_units) FROM entries
                    WHERE entries.account_id = ids[line] AND entries.id > coalesce(max(noted.through_entry_id), 0)
                ), 0) INTO have
                FROM balance_checkpoints AS noted WHERE noted.account_id = ids[line];
                IF have + p_units[line] < 0 THEN
                    place := line;
                    RETURN;
                END IF;
            END IF;
        END LOOP;
    END IF;
    INSERT INTO postings (idempotency_key, kind, reason, request_id, created_at)
    VALUES (p_key, p_kind, p_reason, p_request_id, p_created_at) ON CONFLICT DO NOTHING RETURNING id INTO posting;
    IF posting IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO entries (posting_id, account_id, amount_units) SELECT posting, * FROM unnest(ids, p_units);
    is_new := true;
END
$far$
"""
