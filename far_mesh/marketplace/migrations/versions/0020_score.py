"""What was seen of nodes is forgotten with time, and told apart by what went wrong."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_EPOCH, _HALF_LIFE = 1_767_225_600, 7 * 86_400
"""As :mod:`discovery.score` counts."""


def upgrade() -> None:
    for name in ("completed", "failed", "timed_out", "paused", "rejected"):
        op.add_column("node_registry", sa.Column(f"seen_{name}", sa.Double(), nullable=False, server_default="0"))
    each = 2.0 ** ((time.time() - _EPOCH) / _HALF_LIFE)
    node = sa.table(
        "node_registry", *map(sa.column, ("hops_completed", "hops_failed", "seen_completed", "seen_failed"))
    )
    was = {"seen_completed": node.c.hops_completed * each, "seen_failed": node.c.hops_failed * each}
    op.execute(node.update().values(**was))
    with op.batch_alter_table("node_registry") as table:
        table.drop_column("hops_completed")
        table.drop_column("hops_failed")
