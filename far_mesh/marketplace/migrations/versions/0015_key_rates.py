"""How many requests an API key may make in a minute."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.BigInteger(), nullable=True))
