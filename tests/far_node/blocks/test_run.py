"""A model cut in pieces is the whole model, for architectures of every kind."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from far_node.blocks.cut import find_stack
from far_node.blocks.load import load_blocks
from far_node.errors import BadPosition
from tests.support.models import KINDS, VOCABULARY, greedy, make_model, whole_model
from tests.support.pieces import Pieces

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PreTrainedModel, Pieces]]:
    """Every kind, whole and cut."""
    made = {}
    for kind in KINDS:
        path = make_model(tmp_path_factory.mktemp("models") / kind, kind)
        made[kind] = whole_model(path), Pieces(path)
    return made


@pytest.fixture(params=sorted(KINDS))
def both(
    request: pytest.FixtureRequest, shop: dict[str, tuple[PreTrainedModel, Pieces]]
) -> tuple[PreTrainedModel, Pieces]:
    return shop[request.param]


def some_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_prefill_and_ten_cached_steps_give_the_logits_of_the_whole_model(both: tuple[PreTrainedModel, Pieces]) -> None:
    whole, cut = both
    walk, cache = cut.start(), DynamicCache(config=whole.config)
    prompt, steps = some_ids(2, 12), some_ids(10, 2, 1, seed=1)
    for ids in (prompt, *steps):
        expected = whole(ids, past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(walk.step(ids), expected, atol=TOLERANCE, rtol=0)
    assert walk.length == 22
    assert expected.std() > 100 * TOLERANCE, "the logits differ enough for the comparison to mean something"


def test_greedy_text_is_that_of_the_whole_model(both: tuple[PreTrainedModel, Pieces]) -> None:
    whole, cut = both
    prompt = [5, 17, 99, 3, 40, 77, 12]
    expected = greedy(whole, prompt, 24)
    walk, ids, tokens = cut.start(), torch.tensor([prompt]), []
    for _ in range(24):
        token = int(walk.step(ids)[0, -1].argmax())
        tokens.append(token)
        ids = torch.tensor([[token]])
    assert tokens == expected
    assert len(set(expected)) > 4, "a model that repeats itself shows nothing"


@torch.inference_mode()
def test_a_prefill_in_chunks_is_the_prefill_in_one(both: tuple[PreTrainedModel, Pieces]) -> None:
    _, cut = both
    ids = some_ids(1, 20)
    whole = cut.start().step(ids)
    walk = cut.start()
    chunks = [walk.step(chunk) for chunk in torch.split(ids, [1, 7, 2, 10], dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole, atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_rows_padded_on_the_left_are_as_transformers_makes_them(both: tuple[PreTrainedModel, Pieces]) -> None:
    whole, cut = both
    padding = (0, 5, 2)
    ids = some_ids(3, 12)
    mask = (torch.arange(12)[None] >= torch.tensor(padding)[:, None]).long()
    walk, cache = cut.start(padding), DynamicCache(config=whole.config)
    seen = mask
    for step in range(5):
        positions = (seen.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        arguments = {"position_ids": positions} if _takes_positions(whole) else {}
        expected = whole(ids, attention_mask=seen, past_key_values=cache, use_cache=True, **arguments).logits
        got = walk.step(ids)
        for row, pad in enumerate(padding):
            first = pad if step == 0 else 0
            torch.testing.assert_close(got[row, first:], expected[row, first:], atol=TOLERANCE, rtol=0)
        ids = some_ids(3, 1, seed=step + 5)
        seen = torch.cat([seen, torch.ones(3, 1, dtype=torch.long)], dim=1)


@torch.inference_mode()
def test_a_padded_row_says_what_it_says_alone(both: tuple[PreTrainedModel, Pieces]) -> None:
    _, cut = both
    alone = some_ids(1, 8)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), alone], dim=1)
    together = torch.cat([some_ids(1, 12, seed=3), padded])
    expected = cut.start().step(alone)[0, -1]
    torch.testing.assert_close(cut.start((0, 4)).step(together)[1, -1], expected, atol=TOLERANCE, rtol=0)


def _takes_positions(model: PreTrainedModel) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


@torch.inference_mode()
@pytest.mark.parametrize("back", [1, 3, 4])
def test_going_back_and_on_equals_never_having_gone(both: tuple[PreTrainedModel, Pieces], back: int) -> None:
    _, cut = both
    straight, detour = cut.start(), cut.start()
    for walk in (straight, detour):
        walk.step(some_ids(1, 3))
    for chunk in some_ids(4, 1, 1, seed=9):
        detour.step(chunk)
    detour.rewind(7 - back)
    for chunk in some_ids(4, 1, 1, seed=9)[: 4 - back]:
        straight.step(chunk)
    for chunk in some_ids(5, 1, 2, seed=4):
        torch.testing.assert_close(detour.step(chunk), straight.step(chunk), atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_window_that_has_let_positions_go_cannot_go_back_and_says_so(both: tuple[PreTrainedModel, Pieces]) -> None:
    whole, cut = both
    walk, straight = cut.start(), cut.start()
    walk.step(some_ids(1, 20))
    if getattr(whole.config, "sliding_window", None):
        with pytest.raises(BadPosition, match="cannot go back from position 20 to 15"):
            walk.rewind(15)
        return
    walk.rewind(15)
    straight.step(some_ids(1, 20)[:, :15])
    after = some_ids(1, 3, seed=1)
    torch.testing.assert_close(walk.step(after), straight.step(after), atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_chosen_rows_go_on_from_where_they_were(both: tuple[PreTrainedModel, Pieces]) -> None:
    _, cut = both
    ids, after = some_ids(3, 10), some_ids(3, 1, seed=2)
    chosen = [2, 0, 2]
    walk = cut.start()
    walk.step(ids)
    walk.select_rows(chosen)
    expected = cut.start()
    expected.step(ids[chosen])
    torch.testing.assert_close(walk.step(after), expected.step(after), atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_a_part_of_the_blocks_held_runs_as_if_only_that_were_held(both: tuple[PreTrainedModel, Pieces]) -> None:
    _, cut = both
    wide, narrow = cut.spans[1], load_blocks(cut.source, 2, 3)
    caches = wide.new_cache(), narrow.new_cache()
    for positions in (6, 1, 1):
        hidden = torch.randn(1, positions, wide.hidden_size, generator=torch.Generator().manual_seed(positions))
        got = wide.run(hidden, caches[0], 2, 3)
        torch.testing.assert_close(got, narrow.run(hidden, caches[1], 2, 3), atol=TOLERANCE, rtol=0)
    before = wide.run(hidden, wide.new_cache(), wide.first, wide.end)
    wide.run(hidden, wide.new_cache(), 2, 3)
    after = wide.run(hidden, wide.new_cache(), wide.first, wide.end)
    torch.testing.assert_close(before, after, atol=0, rtol=0)


def test_sessions_on_the_same_blocks_do_not_see_each_other(both: tuple[PreTrainedModel, Pieces]) -> None:
    _, cut = both
    first, second = some_ids(1, 6), some_ids(1, 9, seed=7)
    alone = [cut.start().step(first), cut.start().step(second)]
    one, two = cut.start(), cut.start()
    mixed = [one.step(first[:, :3]), two.step(second[:, :5]), one.step(first[:, 3:]), two.step(second[:, 5:])]
    torch.testing.assert_close(torch.cat([mixed[0], mixed[2]], 1), alone[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat([mixed[1], mixed[3]], 1), alone[1], atol=TOLERANCE, rtol=0)


def test_a_piece_holds_the_parameters_of_its_layers_and_no_others(both: tuple[PreTrainedModel, Pieces]) -> None:
    whole, cut = both
    layers = find_stack(whole).layers
    for span in cut.spans:
        expected = sum(p.numel() for layer in layers[span.first : span.end] for p in layer.parameters())
        assert span.parameter_count() == expected
        assert span.parameter_bytes() >= expected * 4
        held = span.parameter_count(), span.parameter_bytes()
        span.run(torch.zeros(1, 1, span.hidden_size), span.new_cache(), span.first, span.first + 1)
        assert (span.parameter_count(), span.parameter_bytes()) == held, "what does not run is held all the same"
