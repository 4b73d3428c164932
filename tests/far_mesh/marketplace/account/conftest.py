"""The bench of this room."""

from __future__ import annotations

import pytest

from far_mesh.marketplace.database import Database
from tests.far_mesh.marketplace.account.bench import Bench
from tests.far_mesh.marketplace.payments.street import Street


@pytest.fixture
async def bench(database: Database, street: Street) -> Bench:
    """A user on a chain of this test's own, and a watcher that has begun."""
    opened = Bench(database, street)
    await opened.watcher.open()
    return opened
