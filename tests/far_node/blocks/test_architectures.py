"""Every architecture that transformers has a causal language model for: in pieces it is the whole, or it is refused.

What comes out is the table in ``docs/models.md``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from far_node.errors import BadPosition
from tests.support.architectures import (
    ARCHITECTURES,
    PROMPT,
    STEPS,
    TOLERANCE,
    Architecture,
    documented,
    make_architecture,
    past_of,
    some_ids,
    speak,
    try_architecture,
)
from tests.support.models import whole_model
from tests.support.pieces import Pieces

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
# one of each kind: rotary, learned and ALiBi positions, windows, experts, latent attention, recurrent and other states
KINDS = ("llama", "gpt2", "bloom", "gemma3_text", "mixtral", "deepseek_v3", "axk2", "mamba2", "lfm2", "qwen3_next")
CANNOT_GO_BACK = ("gemma3_text", "mamba2", "lfm2", "qwen3_next")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[PreTrainedModel, Pieces]]:
    """One architecture of each kind, whole and in pieces."""
    made = {}
    for name in KINDS:
        path = make_architecture(tmp_path_factory.mktemp("models") / name, BY_NAME[name])
        made[name] = whole_model(path), Pieces(path)
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name.replace(", ", "-"))
def test_in_pieces_it_is_the_whole_model_or_it_is_refused(architecture: Architecture, tmp_path: Path) -> None:
    said = documented()[architecture.name]
    outcome = try_architecture(architecture, tmp_path)
    assert outcome.refused == said.refused
    assert outcome.same_tokens
    # another processor rounds in another way, and so does a product that is taken where it is the quicker one
    assert outcome.error <= min(TOLERANCE, max(10 * said.error, 5e-5))
    assert outcome.alone == said.alone
    # which experts take part may hang on a hair
    assert outcome.together <= (3 * TOLERANCE if architecture.name == "longcat_flash" else TOLERANCE)


def test_the_table_has_every_architecture_of_transformers_and_no_other() -> None:
    assert {architecture.model_type for architecture in ARCHITECTURES} == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert list(documented()) == [architecture.name for architecture in ARCHITECTURES]


class TestThatTheComparisonCanFail:
    """Random models which say one thing for ever, or whose windows are never full, would hide what is wrong."""

    @pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "bert", "mamba2"])
    def test_a_tiny_model_says_many_things(self, name: str, tmp_path: Path) -> None:
        _, logits = speak(whole_model(make_architecture(tmp_path, BY_NAME[name])))
        tokens = torch.cat([step[:, -1].argmax(-1) for step in logits])
        assert len(logits) == 1 + STEPS
        assert len(set(tokens.tolist())) > 8
        assert torch.cat(logits, 1).std() > 100 * TOLERANCE

    @pytest.mark.parametrize("name", [name for name, architecture in BY_NAME.items() if architecture.unlike])
    @torch.inference_mode()
    def test_what_is_special_about_it_decides_what_it_says(self, name: str, tmp_path: Path) -> None:
        path = make_architecture(tmp_path, BY_NAME[name])
        _, expected = speak(whole_model(path))
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | dict(BY_NAME[name].unlike)))
        _, without = speak(whole_model(path))
        assert _error(without, expected) > 100 * TOLERANCE

    @pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma2", "mixtral", "mamba", "qwen3_next", "bert"])
    @torch.inference_mode()
    def test_a_block_left_out_shows(self, name: str, tmp_path: Path) -> None:
        path = make_architecture(tmp_path, BY_NAME[name])
        fed, expected = speak(whole_model(path))
        walk = Pieces(path).start()
        walk.pieces.spans[1].end -= 1
        assert _error([walk.step(fed[0])], expected[:1]) > 100 * TOLERANCE

    @pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "gemma2", "mixtral", "mamba", "qwen3_next", "bert"])
    @torch.inference_mode()
    def test_a_step_that_is_forgotten_shows(self, name: str, tmp_path: Path) -> None:
        path = make_architecture(tmp_path, BY_NAME[name])
        fed, expected = speak(whole_model(path))
        walk = Pieces(path).start()
        walk.step(fed[0])
        walk.caches[1] = walk.pieces.spans[1].new_cache()
        assert _error([walk.step(fed[1])], expected[1:2]) > 100 * TOLERANCE

    @pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "gptj"])
    @torch.inference_mode()
    def test_positions_that_begin_anew_show(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_architecture(tmp_path, BY_NAME[name])
        fed, expected = speak(whole_model(path))
        walk = Pieces(path).start()
        span = walk.pieces.spans[1]
        right = span._arguments
        monkeypatch.setattr(span, "_arguments", lambda positions, padding: right(positions - positions[:, :1], padding))
        said = [walk.step(ids) for ids in fed[:2]]
        assert _error(said[:1], expected[:1]) <= TOLERANCE
        assert _error(said[1:], expected[1:2]) > 100 * TOLERANCE


class TestOtherWaysThroughTheSamePieces:
    """Padding, going back, and doing it again, for one architecture of each kind."""

    @pytest.mark.parametrize("name", KINDS)
    @torch.inference_mode()
    def test_the_same_text_again_gives_the_same_bits(
        self, name: str, shop: dict[str, tuple[PreTrainedModel, Pieces]]
    ) -> None:
        _, pieces = shop[name]
        texts = [some_ids(1, PROMPT), *some_ids(4, 1, 1, seed=1)]
        first = [step.clone() for step in _walked(pieces, texts)]
        pieces.start().step(some_ids(2, 9, seed=5))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(_walked(pieces, texts), first, strict=True))

    @pytest.mark.parametrize("name", KINDS)
    @torch.inference_mode()
    def test_rows_padded_on_the_left_are_as_transformers_makes_them(
        self, name: str, shop: dict[str, tuple[PreTrainedModel, Pieces]]
    ) -> None:
        whole, pieces = shop[name]
        padding, ids = (0, 5, 2), some_ids(3, PROMPT)
        seen = (torch.arange(PROMPT)[None] >= torch.tensor(padding)[:, None]).long()
        walk, past = pieces.start(padding), dict[str, object]()
        for step in range(4):
            output = whole(ids, attention_mask=seen, use_cache=True, **past, **_positions(whole, seen, ids))
            past = past_of(output)
            got = walk.step(ids)
            for row, padded in enumerate(padding):
                first = padded if step == 0 else 0
                assert _error([got[row, first:]], [output.logits[row, first:]]) <= TOLERANCE
            ids = some_ids(3, 1, seed=step + 5)
            seen = torch.cat([seen, torch.ones(3, 1, dtype=torch.long)], dim=1)

    @pytest.mark.parametrize("name", KINDS)
    @torch.inference_mode()
    def test_going_back_is_as_never_having_gone_or_it_is_refused_and_nothing_is_lost(
        self, name: str, shop: dict[str, tuple[PreTrainedModel, Pieces]]
    ) -> None:
        _, pieces = shop[name]
        detour, straight = pieces.start(), pieces.start()
        detour.step(some_ids(1, PROMPT))
        straight.step(some_ids(1, PROMPT)[:, : PROMPT - 4])
        if name in CANNOT_GO_BACK:
            with pytest.raises(BadPosition, match="this model cannot go back from position 12 to 8"):
                detour.rewind(PROMPT - 4)
            straight.step(some_ids(1, PROMPT)[:, PROMPT - 4 :])
        else:
            detour.rewind(PROMPT - 4)
        after = some_ids(1, 3, seed=1)
        assert _error([detour.step(after)], [straight.step(after)]) <= TOLERANCE


def test_a_range_of_which_some_layers_can_go_back_and_some_cannot_does_not_go_half_the_way(tmp_path: Path) -> None:
    pieces = Pieces(make_architecture(tmp_path, BY_NAME["granite_swa"]))
    blocks, hidden = pieces.spans[2], torch.randn(1, 21, 64, generator=torch.Generator().manual_seed(0))
    kept, straight = blocks.new_cache(), blocks.new_cache()
    for cache in (kept, straight):
        blocks.run(hidden[:, :20], cache, blocks.first, blocks.end)
    with pytest.raises(BadPosition):
        kept.rewind(15)
    one, other = (blocks.run(hidden[:, 20:], cache, blocks.first, blocks.end) for cache in (kept, straight))
    assert torch.equal(one, other)


def _walked(pieces: Pieces, texts: list[Tensor]) -> list[Tensor]:
    walk = pieces.start()
    return [walk.step(ids) for ids in texts]


def _positions(model: PreTrainedModel, seen: Tensor, ids: Tensor) -> dict[str, Tensor]:
    positions = (seen.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return {"position_ids": positions} if "position_ids" in inspect.signature(model.forward).parameters else {}


def _error(ours: list[Tensor], theirs: list[Tensor]) -> float:
    size = max(float(logits.abs().max()) for logits in theirs)
    return max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)) / size
