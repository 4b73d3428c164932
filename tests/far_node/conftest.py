"""A tiny model for the node's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.models import make_model
from tests.support.ring import Ring, a_ring


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of six blocks."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def ring(tiny: Path) -> AsyncIterator[Ring]:
    """Three nodes with uneven spans."""
    async with a_ring(tiny, (0, 1), (1, 4), (4, 6)) as made:
        yield made
