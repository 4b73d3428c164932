"""Tiny models for the tests of the mesh core."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.ring import Ring, a_ring

SPANS = ((0, 1), (1, 4), (4, 6))


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of six blocks with a tokenizer, so that text goes in and comes out."""
    path = make_model(tmp_path_factory.mktemp("models") / "talker", vocab_size=BUNDLED_VOCABULARY)
    return with_bundled_tokenizer(path)


@pytest.fixture
async def ring(talker: Path) -> AsyncIterator[Ring]:
    """Three nodes with uneven spans."""
    async with a_ring(talker, *SPANS) as made:
        yield made
