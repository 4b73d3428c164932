"""A draft model: what it would say at each place of a text that grows and goes back."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig

from far_mesh.config import GenerationOptions
from far_mesh.errors import DraftUnfit
from far_mesh.model.draft import DraftModel, DraftText, draft_beside, goes_back
from far_mesh.model.sampler import Choice, Noise, Sampler, choose
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.source import bundled_model_path, find_model
from tests.support.models import BUNDLED_VOCABULARY, make_model, whole_model, with_bundled_tokenizer

OPTIONS = [GenerationOptions(1), GenerationOptions(1, temperature=0.9, top_p=0.95, seed=2)]


def drafter(path: Path) -> DraftModel:
    return DraftModel.load(str(path), "target", tokens_of(path))


def tokens_of(path: Path) -> Tokens:
    source = find_model(str(path))
    return Tokens.load(source, read_config(source))


@pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "bloom"])
def test_what_it_says_is_what_the_whole_text_gives(tmp_path: Path, kind: str, options: GenerationOptions) -> None:
    """However the text came to be, also behind the window of a model that has one."""
    path = with_bundled_tokenizer(make_model(tmp_path / kind, kind, vocab_size=BUNDLED_VOCABULARY))
    whole, luck, noise = whole_model(path), random.Random(4), Noise(7)
    text, ids, known = DraftText(drafter(path), Sampler(options, noise)), [luck.randrange(2000) for _ in range(12)], 0
    for _ in range(12):
        since = luck.randint(max(1, len(ids) - 5), len(ids))
        choices = text.predict(known, ids[known:], since)
        with torch.inference_mode():
            logits = whole(torch.tensor([ids])).logits[0]
        expected = [choose(logits[at - 1], options, noise, at) for at in range(since, len(ids) + 1)]
        assert [choice.token for choice in choices] == [choice.token for choice in expected]
        assert [choice.probability for choice in choices] == pytest.approx(
            [choice.probability for choice in expected], rel=1e-3
        )
        known = len(ids) - luck.randrange(6)  # the rest was guessed wrong
        ids = [*ids[:known], *(luck.randrange(2000) for _ in range(luck.randrange(9)))]
        known = min(known, len(ids))


def test_a_long_text_is_read_in_parts_and_given_up_between_them(tmp_path: Path) -> None:
    path = make_model(tmp_path / "long", vocab_size=BUNDLED_VOCABULARY, max_position_embeddings=4096)
    model = drafter(with_bundled_tokenizer(path))
    ids, asked = [index % 1900 for index in range(1300)], 0

    def is_wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < 2

    text = DraftText(model, Sampler(OPTIONS[0], Noise(1)))
    assert text.predict(0, ids, len(ids), is_wanted) == []
    assert asked == 2
    assert text.predict(0, ids, len(ids)) == DraftText(model, Sampler(OPTIONS[0], Noise(1))).predict(0, ids, len(ids))


def test_a_vocabulary_that_is_padded_is_cut_to_the_targets(tmp_path: Path) -> None:
    path = with_bundled_tokenizer(make_model(tmp_path / "padded", vocab_size=BUNDLED_VOCABULARY + 64))
    target = tokens_of(bundled_model_path())
    text = DraftText(DraftModel.load(str(path), "target", target), Sampler(OPTIONS[0], Noise(1)))
    for last in range(1, 60):
        (choice,) = text.predict(0, [5, last], 2)
        assert isinstance(choice, Choice)
        assert choice.token < BUNDLED_VOCABULARY


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    path = with_bundled_tokenizer(make_model(tmp_path / "other", vocab_size=BUNDLED_VOCABULARY))
    file = path / "tokenizer.json"
    file.write_text(file.read_text().replace('"<|pad|>"', '"<|nothing|>"'))
    with pytest.raises(DraftUnfit, match="other cannot draft for far-demo: their tokens are not the same"):
        DraftModel.load(str(path), "far-demo", tokens_of(bundled_model_path()))


def test_a_model_with_a_state_that_cannot_go_back_is_refused(tmp_path: Path) -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(
        vocab_size=BUNDLED_VOCABULARY, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8
    )
    Mamba2ForCausalLM(config).save_pretrained(tmp_path / "mamba")
    path = with_bundled_tokenizer(tmp_path / "mamba")
    with pytest.raises(DraftUnfit, match="cannot go back"):
        drafter(path)


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("llama", {}, True),
        ("gpt2", {}, True),
        ("mistral", {"sliding_window": 8}, True),
        ("gemma2", {}, True),
        ("qwen3_next", {}, False),
        ("mamba2", {}, False),
        ("gpt_neo", {}, True),
        ("moshi", {"sliding_window": 8}, False),
    ],
)
def test_which_models_nodes_can_take_back(kind: str, more: dict[str, int], expected: bool) -> None:
    config: PreTrainedConfig = AutoConfig.for_model(kind, **more)
    assert goes_back(config) is expected


def test_a_model_may_bring_its_draft(tmp_path: Path) -> None:
    assert draft_beside(find_model("far-demo")) == bundled_model_path() / "draft"
    assert draft_beside(find_model(str(make_model(tmp_path / "alone")))) is None
