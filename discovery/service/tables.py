"""The tables, as migrations leave them. Times are seconds since 1970: whole ones, but for what was signed."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table

from discovery.probe.history import SUMS

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"},
)

nodes = Table(
    "discovery_nodes",
    metadata,
    Column("peer_id", String(64), primary_key=True),
    Column("wallet", String(42), nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("seen_seconds", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("model_id", String(256)),
    Column("gpu_model", String(100)),
    Column("vram_gb", Integer),
    Column("location", String(100)),
    Column("public_addr", String(255)),
    Column("proven_at", Double),
    Column("heard_at", Double),
    Column("claims", JSON),
    Index("ix_discovery_nodes_last_seen", "last_seen"),
    Index("ix_discovery_nodes_wallet", "wallet"),
)
"""Who was seen when, and who has registered.

``seen_seconds``: for how long it was active in all. ``proven_at``: the time that node and wallet have signed, NULL
where they have not. ``heard_at``: that of the last heartbeat, which said ``claims``. ``changed_at``: when the
registration was written last, by our clock.
"""

kept = Table(
    "discovery_announcements",
    metadata,
    Column("peer_id", String(64), primary_key=True),
    Column("model_digest", String(64), primary_key=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("source", String(8), nullable=False),
    Column("document", LargeBinary, nullable=False),
)
"""Signed announcements that the DHT would not tell again after a restart."""

_PROBE_COUNTS = tuple(name for name in SUMS if name not in ("block_ms", "claimed_block_ms"))

probed = Table(
    "discovery_probes",
    metadata,
    Column("peer_id", String(64), primary_key=True),
    Column("model_digest", String(64), primary_key=True),
    Column("prober", String(64), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, BigInteger, nullable=False) for name in _PROBE_COUNTS),
    Column("block_ms", Double, nullable=False),
    Column("claimed_block_ms", Double, nullable=False),
    Column("round_trip_ms", Double),
    Column("last_at", BigInteger, nullable=False),
    Index("ix_discovery_probes_hour", "hour"),
)
"""What probers have seen, by the hour: :class:`discovery.probe.history.Hour`."""

probers = Table(
    "discovery_probers",
    metadata,
    Column("prober", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
"""The number of the last report that was taken from each prober."""

reports = Table(
    "discovery_reports",
    metadata,
    Column("prober", String(64), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Index("ix_discovery_reports_issued_at", "issued_at"),
)
"""Reports of probers as they were signed, for others who believe the same probers."""
