"""The tables, as migrations leave them. Amounts are BIGINT units of 1e-9 FAR. There is no column for a prompt
that anybody could read.

``inference_sessions``, ``node_contributions`` and ``node_registry`` have the columns of the specification (section 3.4)
and more; where those say ``…_far DECIMAL`` they say ``…_units BIGINT``. What they tell of money is what the books say:
``far-mesh ledger verify`` compares them.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows only in a column that is called INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on both databases; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a naive time is a mistake of the caller."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database, aware."""
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


# ---- the books

accounts = Table(
    "accounts",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    UniqueConstraint("kind", "owner"),
)

postings = Table(
    "postings",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("idempotency_key", String(200), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("request_id", String(64), index=True),
    Column("created_at", UtcDateTime, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("posting_id", ForeignKey("postings.id"), nullable=False, index=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("amount_units", BigInteger, nullable=False),
    CheckConstraint("amount_units <> 0", name="not_zero"),
    # A balance is a sum over this index alone, from the last checkpoint on.
    Index(None, "account_id", "id", "amount_units"),
)

# Sums of lines up to one, for speed. Never the truth: all rows may be deleted at any time.
balance_checkpoints = Table(
    "balance_checkpoints",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("through_entry_id", BigInteger, nullable=False, index=True),
    Column("balance_units", BigInteger, nullable=False),
    Column("noted_at", UtcDateTime, nullable=False),
)

# ---- prices that are not those of the settings

model_prices = Table(
    "model_prices",
    metadata,
    Column("model_id", String(255), primary_key=True),
    Column("tier", String(20), primary_key=True),
    Column("prompt_price_units", BigInteger, nullable=False),
    Column("completion_price_units", BigInteger, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    CheckConstraint("prompt_price_units >= 0 AND completion_price_units > 0", name="positive"),
)

# ---- who asks

login_nonces = Table(
    "login_nonces",
    metadata,
    Column("nonce", String(64), primary_key=True),
    Column("wallet_address", String(42), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("uri", String(2048), nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("used_at", UtcDateTime),
)

# Bearer tokens that somebody signed out of, until they would have expired.
revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("wallet_address", String(42), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

# How often a wallet was signed out everywhere. Tokens name the number of their time; a wallet without a row has 0.
wallet_generations = Table(
    "wallet_generations",
    metadata,
    Column("wallet_address", String(42), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# A key itself is nowhere: only its SHA-256, and its first characters for people.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("wallet_address", String(42), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("units_per_day", BigInteger),
    Column("requests_per_minute", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    CheckConstraint("units_per_day > 0", name="limit_is_positive"),
)

# What was spent with a key on a day (UTC), what requests under way hold included. Only of keys with a limit.
api_key_days = Table(
    "api_key_days",
    metadata,
    Column("key_id", ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("units", BigInteger, nullable=False),
    CheckConstraint("units >= 0", name="not_negative"),
)

# Who is served otherwise than everybody: in which tier, and for how long.
account_tiers = Table(
    "account_tiers",
    metadata,
    Column("wallet_address", String(42), primary_key=True),
    Column("tier", String(20), nullable=False),
    Column("until", UtcDateTime),
    Column("changed_at", UtcDateTime, nullable=False),
)

# The nodes that were named for an account: peer ids, or wallets, for those of their nodes that are registered.
account_pools = Table(
    "account_pools",
    metadata,
    Column("wallet_address", String(42), primary_key=True),
    Column("member", String(128), primary_key=True),
    Column("added_at", UtcDateTime, nullable=False),
)

# ---- what was asked and who did it

inference_sessions = Table(
    "inference_sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("request_id", String(64), nullable=False, unique=True),
    Column("user_wallet", String(42), nullable=False),
    Column("model_id", String(255), nullable=False),
    Column("tier", String(20), nullable=False),
    Column("status", String(20), nullable=False, index=True),
    Column("gateway", String(255), nullable=False),
    Column("incarnation", String(36), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False, server_default="0"),
    Column("token_count", Integer, nullable=False),
    Column("prompt_price_units", BigInteger, nullable=False),
    Column("completion_price_units", BigInteger, nullable=False),
    Column("cached_price_units", BigInteger, nullable=False, server_default="0"),
    Column("fee_bps", Integer),
    Column("payment", String(16), nullable=False, server_default="escrow"),
    Column("channel_id", String(66)),
    # With which API key it was asked for, if with one.
    Column("api_key_id", String(36)),
    Column("batch_number", BigInteger, index=True),  # in which batch it is settled
    # What was counted on its channel so far: after a crash, what was counted and not captured is given back.
    Column("counted_units", BigInteger, nullable=False, server_default="0"),
    Column("held_units", BigInteger, nullable=False),
    Column("total_cost_units", BigInteger),
    Column("fee_units", BigInteger),
    Column("refund_units", BigInteger),
    Column("finish_reason", String(20)),
    Column("error_code", String(64)),
    Column("latency_ms", Integer),
    Column("time_to_first_token_ms", Integer),
    # What its tier had promised when it began, what was measured, what a missed promise gave back, and what it was
    # spared of what earlier ones had. Costs, fees and refunds are those after it.
    Column("promised_p95_ms", Integer),
    Column("credit_bps", Integer, nullable=False, server_default="0"),
    Column("p95_token_ms", Integer),
    Column("service_level_met", Boolean),
    Column("credit_units", BigInteger, nullable=False, server_default="0"),
    Column("spent_credit_units", BigInteger, nullable=False, server_default="0"),
    Column("checkpoint", JSON),
    CheckConstraint("status IN ('pending', 'active', 'completed', 'failed')", name="status"),
    # What a user has used, day by day, is read along this index.
    Index(None, "user_wallet", "started_at"),
)
UNSETTLED = text("batch_number IS NULL AND payment = 'netted' AND (total_cost_units IS NULL OR total_cost_units > 0)")
"""What a user owes or may come to owe, and no batch has charged: few rows, however long the user has been here."""
Index(
    "ix_inference_sessions_unsettled",
    inference_sessions.c.user_wallet,
    inference_sessions.c.batch_number,  # always NULL in here; with it SQLite prefers this index to that of usage
    sqlite_where=UNSETTLED,
    postgresql_where=UNSETTLED,
)

TO_SETTLE = text("batch_number IS NULL AND total_cost_units > 0 AND payment <> 'escrow'")
"""What has ended and waits for its batch, the oldest first."""
Index(
    "ix_inference_sessions_to_settle",
    inference_sessions.c.completed_at,
    inference_sessions.c.id,
    sqlite_where=TO_SETTLE,
    postgresql_where=TO_SETTLE,
)

node_contributions = Table(
    "node_contributions",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("session_id", ForeignKey("inference_sessions.id"), nullable=False, index=True),
    Column("node_id", String(255), nullable=False),
    Column("wallet_address", String(42), nullable=False),
    Column("first_block", Integer, nullable=False),
    Column("end_block", Integer, nullable=False),
    Column("quantization", String(16), nullable=False),
    Column("tokens_contributed", BigInteger, nullable=False),
    Column("token_layers", BigInteger, nullable=False),
    Column("payment_units", BigInteger, nullable=False),
    Column("receipt", Text, nullable=False),
    Column("earned_at", UtcDateTime, nullable=False),
    Column("paid_at", UtcDateTime),
    Column("transfer_number", BigInteger, index=True),  # by which transfer it is paid, where there is no escrow
    # What a provider sees of its work, newest first and day by day, is read along this index.
    Index(None, "wallet_address", "earned_at", "id"),
)
UNPAID = text("transfer_number IS NULL AND paid_at IS NULL AND payment_units > 0")
"""What was earned and nobody was asked to pay; in books with an escrow, what it has not paid."""
Index(
    "ix_node_contributions_unpaid",
    node_contributions.c.wallet_address,
    node_contributions.c.earned_at,
    sqlite_where=UNPAID,
    postgresql_where=UNPAID,
)

node_registry = Table(
    "node_registry",
    metadata,
    Column("node_id", String(255), primary_key=True),
    Column("wallet_address", String(42), nullable=False, index=True),
    Column("model_id", String(255), nullable=False, index=True),
    Column("gpu_model", String(100)),
    Column("vram_gb", Integer),
    Column("location", String(100)),
    Column("public_addr", String(255)),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("last_seen", UtcDateTime),
    Column("is_active", Boolean, nullable=False, index=True),
    Column("total_tokens_served", BigInteger, nullable=False),
    Column("total_earned_units", BigInteger, nullable=False),
    # The times in what node and wallet have signed, so that nothing counts twice; and what the node said last.
    Column("proven_at", UtcDateTime),
    Column("heard_at", UtcDateTime),
    Column("claims", JSON),
    Column("endpoint_url", String(255)),  # where a node that sleeps can be woken, by the operator's word
    # What gateways have seen of it, as :mod:`discovery.score` counts: newer outcomes are larger numbers.
    Column("seen_completed", Double, nullable=False, server_default="0"),
    Column("seen_failed", Double, nullable=False, server_default="0"),
    Column("seen_timed_out", Double, nullable=False, server_default="0"),
    Column("seen_paused", Double, nullable=False, server_default="0"),
    Column("seen_rejected", Double, nullable=False, server_default="0"),
    # And what probers have.
    Column("probed_completed", Double, nullable=False, server_default="0"),
    Column("probed_failed", Double, nullable=False, server_default="0"),
    Column("probed_timed_out", Double, nullable=False, server_default="0"),
    Column("probed_rejected", Double, nullable=False, server_default="0"),
    Column("probed_right", Double, nullable=False, server_default="0"),
    Column("probed_wrong", Double, nullable=False, server_default="0"),
)

# The number of the last report of each prober that was counted.
probers = Table(
    "probers",
    metadata,
    Column("prober", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

# ---- the chain

chain_outbox = Table(
    "chain_outbox",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("idempotency_key", String(200), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("request_id", String(64), nullable=False, index=True),  # or whatever else it is about, such as a batch
    Column("wallet_address", String(42), nullable=False, index=True),
    Column("payload", JSON, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    # Of a lock: the escrow that it makes, so that its events are known as ours.
    Column("escrow_id", String(66), index=True),
    Column("nonce", BigInteger),
    Column("raw_tx", Text),
    Column("tx_hash", String(100)),
    # Where it was found when it was confirmed, and how often it vanished from there.
    Column("block_number", BigInteger, index=True),
    Column("block_hash", String(66)),
    Column("vanished", Integer, nullable=False, server_default="0"),
    Column("error_code", String(64)),
    Column("error", String(500)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    CheckConstraint("kind IN ('lock', 'release', 'cancel', 'redeem', 'settle', 'commit', 'transfer')", name="kind"),
    CheckConstraint("status IN ('pending', 'sent', 'confirmed', 'failed')", name="status"),
)

# Everything that was ever signed for a row of the outbox: what was sent first may be mined after a dearer one was sent.
chain_attempts = Table(
    "chain_attempts",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("outbox_id", ForeignKey("chain_outbox.id"), nullable=False, index=True),
    Column("nonce", BigInteger, nullable=False, index=True),
    Column("tx_hash", String(100), nullable=False, unique=True),
    Column("raw_tx", Text, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
)

# Many requests, settled together. What was charged to whom and what went to whom is what the chain announces.
settlement_batches = Table(
    "settlement_batches",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("detail_root", String(66), nullable=False),
    Column("requests", Integer, nullable=False),
    Column("total_units", BigInteger, nullable=False),
    Column("fee_units", BigInteger, nullable=False),
    Column("charges", JSON, nullable=False),
    Column("payouts", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("kind IN ('batch', 'root', 'transfer')", name="kind"),
)

# Somebody wants everything to be settled that can be, without waiting for its time.
settle_orders = Table(
    "settle_orders",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("done_at", UtcDateTime, index=True),
)

# The leaves of payout roots, from which providers claim: all that each was ever given by roots, in units.
payout_leaves = Table(
    "payout_leaves",
    metadata,
    Column("number", ForeignKey("settlement_batches.number"), primary_key=True),
    Column("wallet_address", String(42), primary_key=True, index=True),
    Column("cumulative_units", BigInteger, nullable=False),
)

# Where providers are paid on chains that do not know their wallets: the newest one that counts by now. One that was
# replaced before it counted is withdrawn.
payout_addresses = Table(
    "payout_addresses",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("wallet_address", String(42), nullable=False, index=True),
    Column("address", String(100), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("effective_at", UtcDateTime, nullable=False),
    Column("withdrawn_at", UtcDateTime),
)

# Who should be paid by transfer now and cannot be, and why.
held_payouts = Table(
    "held_payouts",
    metadata,
    Column("wallet_address", String(42), primary_key=True),
    Column("code", String(64), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("since", UtcDateTime, nullable=False),
)

# What the chain has told of users' money and was booked. ``amount_wei`` is by how much a user's deposit changed, in the
# smallest part of the coin; ``about`` is the channel or the escrow; ``detail`` is what else its kind tells.
chain_events = Table(
    "chain_events",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("tx_hash", String(200), nullable=False, index=True),
    Column("log_index", Integer, nullable=False),
    Column("block_number", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("wallet_address", String(42), nullable=False, index=True),
    Column("amount_wei", String(80), nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("block_hash", String(66)),
    Column("booked_as", String(200)),
    Column("vanished_at", UtcDateTime),
    Column("about", String(66), index=True),
    Column("detail", JSON),
    Index(None, "block_number"),
)
# An event counts once at a time; after it vanished it may come back in another block.
Index(
    "uq_chain_events_tx_hash",
    chain_events.c.tx_hash,
    chain_events.c.log_index,
    unique=True,
    sqlite_where=chain_events.c.vanished_at.is_(None),
    postgresql_where=chain_events.c.vanished_at.is_(None),
)

chain_cursors = Table(
    "chain_cursors",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("chain_id", BigInteger, nullable=False),
    Column("genesis_hash", String(66), nullable=False),
    Column("escrow_address", String(100), nullable=False),  # or what else deposits go through
    Column("next_block", BigInteger, nullable=False),
    Column("last_hash", String(66)),
)

# ---- what reconciliation knows of blocks that it need not read again, and what it found the last time

reconciliation_notes = Table(
    "reconciliation_notes",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("owner", String(42), primary_key=True),
    Column("amount", String(80), nullable=False),
)

reconciliations = Table(
    "reconciliations",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("block_number", BigInteger, nullable=False),
    Column("findings", JSON, nullable=False),
)

# ---- answers that nobody waits for

# What was asked, what came of it and where to tell of it are encrypted (``jobs/sealing.py``), and so is the secret with
# which messages are signed. ``lease_token`` counts who had a row in their hands.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("wallet_address", String(42), nullable=False),
    Column("api_key_id", String(36)),
    Column("model_id", String(255), nullable=False),
    Column("tier", String(20), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("request_id", String(64)),
    Column("tokens", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("rank_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("deadline_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("expires_at", UtcDateTime, index=True),
    Column("cancel_asked_at", UtcDateTime),
    Column("error_code", String(64)),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("sealed_request", LargeBinary),
    Column("sealed_result", LargeBinary),
    Column("sealed_webhook", LargeBinary),
    Column("gateway", String(255)),
    Column("incarnation", String(36)),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_until", UtcDateTime),
    CheckConstraint("status IN ('queued', 'running', 'completed', 'failed', 'cancelled')", name="status"),
    Index(None, "wallet_address", "created_at", "id"),
    Index(None, "status", "rank_at"),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("wallet_address", String(42), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("wallet_address", String(42), nullable=False),
    Column("event", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
    Index(None, "status", "due_at"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("delivery_id", ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", UtcDateTime, nullable=False),
    Column("ms", Integer, nullable=False),
    Column("http_status", Integer),
    Column("error_code", String(64)),
)

# ---- several gateways

gateways = Table(
    "gateways",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("incarnation", String(36), nullable=False),
    Column("alive_until", UtcDateTime, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("gateway", String(255), nullable=False),
    Column("incarnation", String(36), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    # Counts the holders: what an earlier holder writes is refused, however late it wakes up.
    Column("token", BigInteger, nullable=False, server_default="0"),
)

APPEND_ONLY = ("accounts", "postings", "entries")
