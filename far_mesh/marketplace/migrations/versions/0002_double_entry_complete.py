"""Payouts in flight, checkpoints of balances, prices in the database, the registry of nodes, known prompt tokens."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
FEE_BPS = 2_000

RENAMED = {
    "user_deposits": "chain",
    "user_available": "user_deposit",
    "user_held": "user_hold",
    "provider_owed": "provider_earned",
    "provider_credited": "provider_paid",
    "fees_owed": "platform_fee",
    "fees_credited": "platform_paid",
}
OWED = ("provider_earned", "platform_fee")

accounts = sa.table("accounts", sa.column("id"), sa.column("kind"), sa.column("owner"))
postings = sa.table(
    "postings",
    *(sa.column(name) for name in ("id", "idempotency_key", "kind", "reason", "request_id")),
    sa.column("created_at", TIME),
)
outbox = sa.table("chain_outbox", *(sa.column(name) for name in ("kind", "status", "request_id")))
sessions = sa.table("inference_sessions", sa.column("fee_bps"))
entries = sa.table("entries", sa.column("posting_id"), sa.column("account_id"), sa.column("amount_units"))


def upgrade() -> None:
    rename_accounts()
    send_what_is_to_be_paid()
    refuse_changes_of_accounts()
    create_tables()
    op.drop_index(op.f("ix_entries_account_id_amount_units"), "entries")
    op.create_index(op.f("ix_entries_account_id_id_amount_units"), "entries", ["account_id", "id", "amount_units"])
    op.add_column("inference_sessions", sa.Column("cached_tokens", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(
        "inference_sessions", sa.Column("cached_price_units", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute("UPDATE inference_sessions SET cached_price_units = prompt_price_units")
    # The fee is frozen with the price now; these were waiting for the chain to say it.
    op.execute(sa.update(sessions).where(sessions.c.fee_bps.is_(None)).values(fee_bps=FEE_BPS))


def rename_accounts() -> None:
    for old, new in RENAMED.items():
        op.execute(sa.update(accounts).where(accounts.c.kind == old).values(kind=new))


def send_what_is_to_be_paid() -> None:
    """Captured requests whose release is under way become payouts that are in flight."""
    connection = op.get_bind()
    paid = sa.select(postings.c.request_id).where(postings.c.kind == "payout_confirmed")
    waiting = sa.select(outbox.c.request_id).where(outbox.c.kind == "release", outbox.c.status.in_(["pending", "sent"]))
    captured = sa.select(postings.c.id, postings.c.request_id).where(
        postings.c.kind == "capture", postings.c.request_id.in_(waiting), postings.c.request_id.not_in(paid)
    )
    for posting_id, request_id in connection.execute(captured).all():
        send(connection, posting_id, request_id)


def send(connection: sa.Connection, captured: int, request_id: str) -> None:
    owed = (
        sa.select(accounts.c.id, accounts.c.owner, entries.c.amount_units)
        .join(entries, entries.c.account_id == accounts.c.id)
        .where(entries.c.posting_id == captured, accounts.c.kind.in_(OWED))
    )
    rows = connection.execute(owed).all()
    key = f"payout:{request_id}:sent"
    connection.execute(
        sa.insert(postings).values(
            idempotency_key=key,
            kind="payout_sent",
            reason="to be paid on chain",
            request_id=request_id,
            created_at=datetime.now(UTC),
        )
    )
    posting_id = connection.execute(sa.select(postings.c.id).where(postings.c.idempotency_key == key)).scalar_one()
    lines = [(row, -units) for row, _, units in rows] + [
        (in_flight(connection, owner), units) for _, owner, units in rows
    ]
    connection.execute(
        sa.insert(entries),
        [{"posting_id": posting_id, "account_id": row, "amount_units": units} for row, units in lines],
    )


def in_flight(connection: sa.Connection, owner: str) -> int:
    row = sa.select(accounts.c.id).where(accounts.c.kind == "in_flight", accounts.c.owner == owner)
    found: int | None = connection.execute(row).scalar_one_or_none()
    if found is None:
        connection.execute(sa.insert(accounts).values(kind="in_flight", owner=owner))
        found = connection.execute(row).scalar_one()
    return found


def refuse_changes_of_accounts() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER accounts_refuse_{act.lower()} BEFORE {act} ON accounts "
                "BEGIN SELECT RAISE(ABORT, 'accounts is append-only'); END"
            )
        return
    op.execute(
        "CREATE TRIGGER accounts_refuse_change BEFORE UPDATE OR DELETE ON accounts "
        "FOR EACH ROW EXECUTE FUNCTION far_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER accounts_refuse_truncate BEFORE TRUNCATE ON accounts "
        "FOR EACH STATEMENT EXECUTE FUNCTION far_refuse_change()"
    )


def create_tables() -> None:
    op.create_table(
        "balance_checkpoints",
        sa.Column("account_id", ROW_ID, nullable=False),
        sa.Column("through_entry_id", sa.BigInteger(), nullable=False),
        sa.Column("balance_units", sa.BigInteger(), nullable=False),
        sa.Column("noted_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_balance_checkpoints_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_balance_checkpoints")),
    )
    op.create_index(op.f("ix_balance_checkpoints_through_entry_id"), "balance_checkpoints", ["through_entry_id"])
    op.create_table(
        "model_prices",
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("tier", sa.String(length=20), nullable=False),
        sa.Column("prompt_price_units", sa.BigInteger(), nullable=False),
        sa.Column("completion_price_units", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.CheckConstraint(
            "prompt_price_units >= 0 AND completion_price_units > 0", name=op.f("ck_model_prices_positive")
        ),
        sa.PrimaryKeyConstraint("model_id", "tier", name=op.f("pk_model_prices")),
    )
    op.create_table(
        "node_registry",
        sa.Column("node_id", sa.String(length=255), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("gpu_model", sa.String(length=100), nullable=True),
        sa.Column("vram_gb", sa.Integer(), nullable=True),
        sa.Column("location", sa.String(length=100), nullable=True),
        sa.Column("public_addr", sa.String(length=255), nullable=True),
        sa.Column("registered_at", TIME, nullable=False),
        sa.Column("last_seen", TIME, nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("total_tokens_served", sa.BigInteger(), nullable=False),
        sa.Column("total_earned_units", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_registry")),
    )
    for column in ("wallet_address", "model_id", "is_active"):
        op.create_index(op.f(f"ix_node_registry_{column}"), "node_registry", [column])
    op.execute(
        "INSERT INTO node_registry (node_id, wallet_address, model_id, registered_at, last_seen, is_active, "
        "total_tokens_served, total_earned_units) "
        "SELECT c.node_id, min(c.wallet_address), min(s.model_id), min(s.started_at), max(s.completed_at), "
        "true, sum(c.tokens_contributed), sum(c.payment_units) "
        "FROM node_contributions c JOIN inference_sessions s ON s.id = c.session_id GROUP BY c.node_id"
    )
