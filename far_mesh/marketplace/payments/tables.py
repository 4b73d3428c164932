"""The table of payment channels, as migrations leave it."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, String, Table

from far_mesh.marketplace.tables import UtcDateTime, metadata

# One row per channel, changed by compare-and-set: two gateways cannot take the same promise twice.
payment_channels = Table(
    "payment_channels",
    metadata,
    Column("channel_id", String(66), primary_key=True),
    Column("chain_id", BigInteger, nullable=False),
    Column("escrow_address", String(42), nullable=False),
    Column("user_wallet", String(42), nullable=False, index=True),
    Column("signer", String(42), nullable=False),
    Column("deposit_units", BigInteger, nullable=False),
    Column("promised_units", BigInteger, nullable=False),
    Column("earned_units", BigInteger, nullable=False),
    Column("redeemed_units", BigInteger, nullable=False),
    # What requests that have ended did cost, and what of it is in a batch: the first is what may be redeemed, and what
    # was redeemed pays the second.
    Column("captured_units", BigInteger, nullable=False, server_default="0"),
    Column("netted_units", BigInteger, nullable=False, server_default="0"),
    Column("signature", String(132)),
    Column("closes_at", UtcDateTime),
    Column("closed_at", UtcDateTime),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    CheckConstraint("promised_units <= deposit_units AND earned_units <= deposit_units", name="within_deposit"),
    CheckConstraint(
        "redeemed_units >= 0 AND redeemed_units <= promised_units AND redeemed_units <= earned_units",
        name="redeemed_what_was_earned",
    ),
)
