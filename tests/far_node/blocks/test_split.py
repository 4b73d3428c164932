"""Blocks on two devices give what they give on one. Here both are the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows
from far_node.blocks.source import find_model
from far_node.blocks.split import SplitBlocks
from tests.support.models import BLOCKS, make_model

KINDS = ("llama", "gpt2", "mistral", "bloom")
WIDTH = 64


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", request.param)


def in_one(model: Path) -> Blocks:
    return load_blocks(find_model(str(model)), 0, BLOCKS)


def in_two(model: Path) -> SplitBlocks:
    source = find_model(str(model))
    return SplitBlocks([load_blocks(source, 0, 2), load_blocks(source, 2, BLOCKS)])


def steps(seed: int, *counts: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, count, WIDTH, generator=generator) for count in counts]


@pytest.mark.parametrize("span", [(0, BLOCKS), (1, 5), (0, 2), (3, 6)])
def test_a_session_alone(model: Path, span: tuple[int, int]) -> None:
    whole, parts = in_one(model), in_two(model)
    expected, got = whole.new_cache(), parts.new_cache()
    for hidden in steps(1, 5, 1, 1, 3):
        torch.testing.assert_close(parts.run(hidden, got, *span), whole.run(hidden, expected, *span))


def test_a_session_that_goes_back(model: Path) -> None:
    whole, parts = in_one(model), in_two(model)
    expected, got = whole.new_cache(), parts.new_cache()
    for hidden, back_to in zip(steps(2, 5, 1, 2), (5, 3, 5), strict=True):
        torch.testing.assert_close(parts.run(hidden, got, 0, BLOCKS), whole.run(hidden, expected, 0, BLOCKS))
        for cache in (expected, got):
            cache.rewind(back_to)


def test_sessions_together(model: Path) -> None:
    whole, parts = in_one(model), in_two(model)
    slab = Slab(32, 2)
    slab.rows = 2
    places = [SlotRows(slab, 0, 1), SlotRows(slab, 1, 1)]
    alone = [whole.new_cache(), whole.new_cache()]
    prompts = steps(3, 7, 2)
    for place, hidden, cache in zip(places, prompts, alone, strict=True):
        (got,) = parts.run_together([(hidden, place)], 0, BLOCKS)
        torch.testing.assert_close(got, whole.run(hidden, cache, 0, BLOCKS), rtol=1e-4, atol=1e-4)
    for seed in (4, 5):
        tokens = steps(seed, 1, 1)
        together = parts.run_together(list(zip(tokens, places, strict=True)), 0, BLOCKS)
        for got, hidden, cache in zip(together, tokens, alone, strict=True):
            torch.testing.assert_close(got, whole.run(hidden, cache, 0, BLOCKS), rtol=1e-4, atol=1e-4)
    assert [place.length for place in places] == [9, 4]


def test_what_is_held_is_the_sum(model: Path) -> None:
    whole, parts = in_one(model), in_two(model)
    assert (parts.first, parts.end, parts.hidden_size) == (0, BLOCKS, whole.hidden_size)
    assert parts.parameter_count() == whole.parameter_count()
    assert parts.parameter_bytes() == pytest.approx(whole.parameter_bytes(), rel=0.01)
    assert (parts.one_by_one, parts.has_recurrent_state) == (whole.one_by_one, whole.has_recurrent_state)
