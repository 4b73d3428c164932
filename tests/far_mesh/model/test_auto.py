"""transformers' own ``generate`` over pieces, for architectures of every kind. The network is left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, TextStreamer
from transformers.cache_utils import DynamicCache
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from discovery.protocol.errors import InvalidArgument
from far_mesh.contributions import Contribution
from far_mesh.model import auto
from far_mesh.model.auto import DistributedModel
from far_mesh.model.draft import goes_back
from far_mesh.model.private import LocalBlocks
from far_node.blocks.cut import read_config
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.run import Blocks
from far_node.blocks.source import find_model
from far_node.errors import SessionTooLong
from tests.support.architectures import ARCHITECTURES, make_architecture, some_ids
from tests.support.models import whole_model

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
KINDS = ("llama", "gpt2", "bloom", "gptj", "gemma3", "mixtral", "axk2", "mamba", "lfm2", "qwen3_next", "bert", "bart")
PLAIN: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": None, "do_sample": False}


class _NearSession:
    """What a session at the nodes does, in this process: caches that follow the client's steps."""

    def __init__(self, nodes: NearNodes, max_length: int, rows: int, left_padding: tuple[int, ...]) -> None:
        self.nodes, self.max_length, self.is_closed = nodes, max_length, False
        self._texts = [LocalBlocks(span).new_text(max_length, rows, left_padding) for span in nodes.spans]

    def step(self, hidden: Tensor, start: int, keep: int, rows: tuple[int, ...]) -> Tensor:
        assert not self.is_closed
        self.nodes.computed.append((hidden.shape[0], start, hidden.shape[1]))
        for text in self._texts:
            if rows:
                text.select_rows(rows)
            hidden = text.before(hidden, start)
        return hidden[:, -keep:].clone()

    def finish(self) -> tuple[Contribution, ...]:
        self.is_closed = True
        return ()


class NearNodes:
    """The nodes are in this process: pieces of the model, as they would be asked over the network."""

    def __init__(self, spans: list[Blocks]) -> None:
        self.spans = spans
        self.sessions: list[_NearSession] = []
        self.computed: list[tuple[int, int, int]] = []
        """Rows, first position and positions of each step."""

    def open(self, max_length: int, rows: int, left_padding: tuple[int, ...]) -> _NearSession:
        self.sessions.append(_NearSession(self, max_length, rows, left_padding))
        return self.sessions[-1]

    def close(self) -> None: ...


def distributed(path: Path, local: tuple[int, int] = (0, 0)) -> tuple[Any, NearNodes]:
    """A model over pieces of it, and the pieces; of its six blocks so many first and last ones are the client's."""
    source = find_model(str(path))
    config = read_config(source)
    first, last = local
    borders = (first, first + 1, 4, 6 - last) if first < 3 else (first, 6 - last)
    spans = [load_blocks(source, *span) for span in pairwise(borders) if span[0] < span[1]]
    nodes = NearNodes(spans)
    near: Any = load_client_model(source, model_class=auto._distributed_class(config))
    near._connect(nodes, LocalBlocks.load(str(path), config, first, last))
    return near, nodes


@pytest.fixture(params=KINDS, scope="module")
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_architecture(tmp_path_factory.mktemp("models"), BY_NAME[request.param])


@pytest.fixture(scope="module")
def whole(path: Path) -> PreTrainedModel:
    return whole_model(path)


@pytest.fixture(scope="module")
def near(path: Path) -> DistributedModel:
    return distributed(path)[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_architecture(tmp_path_factory.mktemp("models"), BY_NAME["llama"])


@pytest.fixture(scope="module")
def llama_models(llama: Path) -> tuple[Any, Any]:
    return whole_model(llama), distributed(llama)[0]


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "beams that return": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    "sampled": {"do_sample": True, "top_k": 20, "temperature": 0.8},
    "sampled rows": {"do_sample": True, "num_return_sequences": 3},
    "processors": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 12},
}


def both_say(models: tuple[Any, ...], *args: Any, **options: Any) -> list[Tensor]:
    said = []
    for model in models:
        torch.manual_seed(0)
        said.append(model.generate(*args, **PLAIN | {"max_new_tokens": 14} | options))
    return said


class TestGenerate:
    """Every architecture, every way of transformers."""

    @pytest.mark.parametrize("way", WAYS)
    def test_it_says_what_the_whole_model_says(self, whole: PreTrainedModel, near: DistributedModel, way: str) -> None:
        expected, said = both_say((whole, near), some_ids(1, 9), **WAYS[way])
        assert said.tolist() == expected.tolist()
        assert said.shape[1] == 23

    def test_rows_that_are_padded_on_the_left_say_what_they_say_in_the_whole_model(
        self, path: Path, whole: PreTrainedModel, near: DistributedModel
    ) -> None:
        if near._cache_argument != "past_key_values" or not goes_back(near.config):
            pytest.skip("a state that runs over padding is another one, in plain transformers too")
        ids = some_ids(3, 10)
        mask = torch.ones_like(ids)
        for row, padding in enumerate((0, 4, 7)):
            ids[row, :padding] = mask[row, :padding] = 0
        for way in ({}, {"num_beams": 2}):
            expected, said = both_say((whole, near), ids, attention_mask=mask, **way)
            assert said.tolist() == expected.tolist()

    def test_private_ends_change_nothing_in_the_text(self, path: Path, whole: PreTrainedModel) -> None:
        for local in ((1, 1), (3, 0), (0, 2)):
            near, nodes = distributed(path, local)
            for way in ({}, {"num_beams": 3}):
                expected, said = both_say((whole, near), some_ids(1, 9), **way)
                assert said.tolist() == expected.tolist(), (local, way)
            assert [(span.first, span.end) for span in nodes.spans][:: len(nodes.spans) - 1 or 1]
            assert (nodes.spans[0].first, nodes.spans[-1].end) == (local[0], 6 - local[1])

    def test_a_text_is_continued_where_nodes_have_it(self, whole: PreTrainedModel, near: DistributedModel) -> None:
        if near.config.model_type == "axk2":
            pytest.skip("its index chooses otherwise when a text comes in parts, in plain transformers too")
        (said,) = both_say((whole,), some_ids(1, 9))
        more = torch.cat((said, some_ids(1, 3, seed=5)), dim=1)
        with near.inference_session(max_length=64):
            assert near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=14).tolist() == said.tolist()
            for text in (more, said[:, :12], more[:, :20]):  # on, and back, and on from there
                (expected,) = both_say((whole,), text, max_new_tokens=8)
                assert near.generate(text, **PLAIN, max_new_tokens=8).tolist() == expected.tolist()


class _Until(StoppingCriteria):  # type: ignore[misc]
    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), input_ids.shape[1] >= 13)


class _Told(TextStreamer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        self.tokens += value.reshape(-1).tolist()

    def end(self) -> None: ...


class TestWays:
    """What users of transformers hand to generate."""

    @pytest.fixture
    def models(self, llama_models: tuple[Any, Any]) -> tuple[Any, Any]:
        return llama_models

    def test_stopping_criteria_end_it(self, models: tuple[Any, Any]) -> None:
        expected, said = both_say(models, some_ids(1, 9), stopping_criteria=StoppingCriteriaList([_Until()]))
        assert said.tolist() == expected.tolist()
        assert said.shape[1] == 13

    def test_a_streamer_is_told_each_token(self, models: tuple[Any, Any]) -> None:
        told = _Told()
        said = models[1].generate(some_ids(1, 9), **PLAIN, max_new_tokens=6, streamer=told)
        assert told.tokens == said[0].tolist()

    def test_a_generation_config_is_kept_to(self, models: tuple[Any, Any]) -> None:
        config = GenerationConfig(max_new_tokens=5, num_beams=2, pad_token_id=0)
        said = [model.generate(some_ids(1, 9), config) for model in models]
        assert said[0].tolist() == said[1].tolist()
        assert said[0].shape[1] == 14

    def test_without_a_length_it_says_as_much_as_transformers_does(self, models: tuple[Any, Any]) -> None:
        said = [model.generate(some_ids(1, 9), **PLAIN) for model in models]
        assert said[0].tolist() == said[1].tolist()
        assert said[0].shape[1] == 29

    def test_rows_are_answered_together(self, models: tuple[Any, Any]) -> None:
        expected, said = both_say(models, some_ids(4, 7), num_beams=2, num_return_sequences=2)
        assert said.tolist() == expected.tolist()

    def test_padding_that_transformers_sees_by_itself_is_seen_at_the_nodes(self, models: tuple[Any, Any]) -> None:
        ids = some_ids(2, 8)
        ids[1, :3] = 0
        expected, said = both_say(models, ids)
        assert said.tolist() == expected.tolist()

    def test_the_prompt_lookup_of_transformers_guesses_and_goes_back(self, models: tuple[Any, Any]) -> None:
        ids = some_ids(1, 6).repeat(1, 4)
        expected = models[0].generate(ids, **PLAIN, max_new_tokens=20)
        assert models[1].generate(ids, **PLAIN, max_new_tokens=20, prompt_lookup_num_tokens=4).equal(expected)

    def test_an_assistant_of_transformers_guesses_and_goes_back(self, models: tuple[Any, Any]) -> None:
        whole, near = models
        ids = some_ids(1, 9)
        expected = whole.generate(ids, **PLAIN, max_new_tokens=20)
        assert near.generate(ids, **PLAIN, max_new_tokens=20, assistant_model=whole).equal(expected)

    def test_a_prompt_in_chunks_is_the_same_prompt(self, models: tuple[Any, Any]) -> None:
        expected, said = both_say(models, some_ids(1, 20), prefill_chunk_size=8)
        assert said.tolist() == expected.tolist()

    def test_only_the_positions_that_are_looked_at_come_back(self, llama: Path) -> None:
        near, nodes = distributed(llama)
        asked = list[int]()
        opened = nodes.open

        def open_and_note(*args: Any) -> Any:
            session = opened(*args)
            step = session.step

            def noted(hidden: Tensor, start: int, keep: int, rows: tuple[int, ...]) -> Tensor:
                asked.append(keep or hidden.shape[1])
                return step(hidden, start, keep, rows)

            session.step = noted  # type: ignore[method-assign]
            return session

        nodes.__dict__["open"] = open_and_note
        near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=3)
        assert asked == [1, 1, 1]
        near(some_ids(1, 9))
        assert asked[3:] == [9]

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"past_key_values": DynamicCache()}, "the caches are with the nodes"),
            ({"use_cache": False}, "one kind of cache"),
            ({"cache_implementation": "static"}, "one kind of cache"),
            ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search is no part of transformers any more"),
            ({"penalty_alpha": 0.6}, "contrastive search is no part of transformers any more"),
            ({"dola_layers": "high"}, "dola generation is no part"),
            ({"num_beams": 4, "num_beam_groups": 2}, "group beam search is no part"),
            ({"custom_generate": "somebody/something"}, "never run"),
            ({"trust_remote_code": True}, "never run"),
            ({"assistant_early_exit": 2}, "they are with the nodes"),
        ],
    )
    def test_what_cannot_be_is_refused_before_anything_is_asked_of_nodes(
        self, llama: Path, options: dict[str, Any], reason: str
    ) -> None:
        near, nodes = distributed(llama)
        with pytest.raises(InvalidArgument, match=reason):
            near.generate(some_ids(1, 9), max_new_tokens=3, **options)
        assert not nodes.sessions

    def test_a_model_that_would_keep_no_cache_by_default_keeps_one_here(self, tmp_path: Path) -> None:
        path = make_architecture(tmp_path, BY_NAME["mpt"])
        (near, nodes), whole = distributed(path), whole_model(path)
        assert near.generation_config.use_cache is False
        assert near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=6).equal(
            whole.generate(some_ids(1, 9), **PLAIN, max_new_tokens=6)
        )
        assert nodes.computed == [(1, 0, 9), *((1, start, 1) for start in range(9, 14))]
        with pytest.raises(InvalidArgument, match="one kind of cache"):
            near.generate(some_ids(1, 9), GenerationConfig(use_cache=False, max_new_tokens=3))

    def test_a_model_that_has_its_text_computed_again_when_it_grows_long(self, tmp_path: Path) -> None:
        path = make_architecture(tmp_path, BY_NAME["phi3, longrope"])
        (near, nodes), whole = distributed(path), whole_model(path)
        for way in ({}, {"num_beams": 2}):
            expected, said = both_say((whole, near), some_ids(1, 9), **way)
            assert said.equal(expected)
        assert max(positions for _, start, positions in nodes.computed if start == 0) > 9
        assert all(session.is_closed for session in nodes.sessions)

    def test_nobody_can_assist_a_model_that_cannot_go_back(self, tmp_path: Path) -> None:
        near, _ = distributed(make_architecture(tmp_path, BY_NAME["lfm2"]))
        with pytest.raises(InvalidArgument, match="cannot go back"):
            near.generate(some_ids(1, 9), max_new_tokens=3, prompt_lookup_num_tokens=3)

    def test_a_forward_is_given_no_foreign_cache(self, models: tuple[Any, Any]) -> None:
        with pytest.raises(InvalidArgument, match="inference_session"):
            models[1](some_ids(1, 9), past_key_values=DynamicCache())

    def test_a_forward_sees_padding_on_the_left(self, models: tuple[Any, Any]) -> None:
        ids, mask = some_ids(2, 8), torch.ones(2, 8, dtype=torch.long)
        mask[1, :3] = 0
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = [model(ids, attention_mask=mask, position_ids=positions).logits for model in models]
        torch.testing.assert_close(logits[1][0], logits[0][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits[1][1, 3:], logits[0][1, 3:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("ids", "padding", "expected"),
    [
        ([[1, 2, 3, 4], [1, 2, 5, 5]], (), (3, ())),
        ([[1, 2, 5, 9], [1, 2, 3, 4]], (), (3, (1, 0))),
        ([[1, 2, 3, 4], [1, 2, 3, 9]], (), (3, (0, 0))),
        ([[1, 2, 3, 4], [1, 2, 3, 9]], (0, 1), (2, ())),  # another row's positions are others
        ([[1, 2, 3, 4], [7, 2, 3, 4]], (), (0, ())),
        ([[1, 2], [1, 2]], (), (2, ())),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 5, 5, 5, 5]], (), (3, ())),
    ],
)
def test_a_row_goes_on_from_the_row_that_has_most_of_it(
    ids: list[list[int]], padding: tuple[int, ...], expected: tuple[int, tuple[int, ...]]
) -> None:
    held = torch.tensor([[1, 2, 3, 4, 4], [1, 2, 5, 6, 6]])
    assert auto._longest_beginnings(held, torch.tensor(ids), padding) == expected


class TestSessions:
    """Calls that go on from each other."""

    @pytest.fixture
    def models(self, llama: Path) -> tuple[PreTrainedModel, Any, NearNodes]:
        near, nodes = distributed(llama)
        return whole_model(llama), near, nodes

    def test_the_whole_text_again_computes_only_what_is_new(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        with near.inference_session(max_length=64) as session:
            said = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=4)
            assert session.position == 12  # the last token has not been round
            text = torch.cat((said, some_ids(1, 5, seed=3)), dim=1)
            expected = whole.generate(text, **PLAIN, max_new_tokens=4)
            assert near.generate(text, **PLAIN, max_new_tokens=4).equal(expected)
        assert len(nodes.sessions) == 1
        assert nodes.computed[:5] == [(1, 0, 9), (1, 9, 1), (1, 10, 1), (1, 11, 1), (1, 12, 6)]
        assert nodes.sessions[0].is_closed

    def test_another_end_of_the_text_goes_back_to_where_they_part(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        with near.inference_session(max_length=64):
            said = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=8)
            other = torch.cat((said[:, :11], some_ids(1, 4, seed=4)), dim=1)
            begun = len(nodes.computed)
            assert near.generate(other, **PLAIN, max_new_tokens=4).equal(
                whole.generate(other, **PLAIN, max_new_tokens=4)
            )
            assert nodes.computed[begun] == (1, 11, 4)

    def test_the_same_text_again_computes_its_last_position(self, models: tuple[Any, Any, NearNodes]) -> None:
        _, near, nodes = models
        with near.inference_session(max_length=64):
            first = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=4)
            begun = len(nodes.computed)
            assert near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=4).equal(first)
            assert nodes.computed[begun] == (1, 8, 1)

    def test_only_the_new_ids_as_in_petals(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        new = some_ids(1, 9)  # begins as the text does: that it is new must be said
        with near.inference_session(max_length=64) as session:
            first = near.generate(new, session=session, **PLAIN, max_new_tokens=4)
            second = near.generate(new, session=session, **PLAIN, max_new_tokens=4)
            third = near.generate(session=session, **PLAIN, max_new_tokens=4)
            text = session.output_ids
        expected = whole.generate(torch.cat((first, new), dim=1), **PLAIN, max_new_tokens=8)
        assert torch.cat((first, second, third), dim=1).equal(expected)
        assert text.equal(expected)
        assert [step for step in nodes.computed if step[2] > 1] == [(1, 0, 9), (1, 12, 10)]

    def test_what_was_said_is_no_padding_whatever_its_tokens(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, _ = models
        said = some_ids(1, 9)
        pad = int(near.generate(said, **PLAIN, max_new_tokens=4)[0, -2])
        options = PLAIN | {"pad_token_id": pad, "max_new_tokens": 4}
        with near.inference_session(max_length=64) as session:
            first = near.generate(said, session=session, **options)
            second = near.generate(session=session, **options)
        assert pad in first
        assert torch.cat((first, second), dim=1).equal(whole.generate(said, **options | {"max_new_tokens": 8}))

    def test_padding_in_the_middle_is_refused_also_before_a_single_new_position(
        self, models: tuple[Any, Any, NearNodes]
    ) -> None:
        _, near, _ = models
        with near.inference_session(max_length=64):
            said = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=6)
            text = said[:, :12]
            with pytest.raises(InvalidArgument, match="pass its attention_mask"):
                near.generate(text, **PLAIN | {"pad_token_id": int(text[0, -1])}, max_new_tokens=3)
            assert near.generate(text, **PLAIN, max_new_tokens=3).equal(said[:, :15])

    def test_new_ids_of_padded_rows(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        ids, mask = some_ids(2, 8), torch.ones(2, 8, dtype=torch.long)
        mask[1, :3] = 0
        new = some_ids(2, 3, seed=2)
        with near.inference_session(max_length=64) as session:
            first = near.generate(ids, attention_mask=mask, session=session, **PLAIN, max_new_tokens=4)
            second = near.generate(new, session=session, **PLAIN, max_new_tokens=4)
        text = torch.cat((first, new), dim=1)
        padded = torch.cat((mask, torch.ones(2, 7, dtype=torch.long)), dim=1)
        expected = whole.generate(text, attention_mask=padded, **PLAIN, max_new_tokens=4)
        assert torch.cat((first, second), dim=1).equal(expected)
        assert len(nodes.sessions) == 1

    def test_a_forward_computes_the_next_positions(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, _ = models
        ids = some_ids(1, 12)
        expected = whole(ids).logits
        with near.inference_session(max_length=64) as session, torch.inference_mode():
            logits = torch.cat([near(part).logits for part in torch.split(ids, [5, 1, 6], dim=1)], dim=1)
            assert session.position == 12
            assert session.output_ids.equal(ids)
            said = near.generate(session=session, **PLAIN, max_new_tokens=3)
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        assert said.equal(whole.generate(ids, **PLAIN, max_new_tokens=3)[:, 12:])

    def test_beams_go_on_from_the_best_row(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        with near.inference_session(max_length=64):
            said = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=6, num_beams=3)
            text = torch.cat((said, some_ids(1, 2, seed=6)), dim=1)
            begun = len(nodes.computed)
            expected = whole.generate(text, **PLAIN, max_new_tokens=6, num_beams=3)
            assert near.generate(text, **PLAIN, max_new_tokens=6, num_beams=3).equal(expected)
        assert len(nodes.sessions) == 1
        assert nodes.computed[begun][1] > 9, "what the beams had in common with the text was computed again"

    def test_another_number_of_rows_begins_anew(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        with near.inference_session(max_length=64):
            near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=3)
            expected = whole.generate(some_ids(2, 9), **PLAIN, max_new_tokens=3)
            assert near.generate(some_ids(2, 9), **PLAIN, max_new_tokens=3).equal(expected)
        assert [session.is_closed for session in nodes.sessions] == [True, True]

    def test_private_ends_go_back_and_on_with_it(self, llama: Path) -> None:
        near, nodes = distributed(llama, (2, 1))
        whole = whole_model(llama)
        with near.inference_session(max_length=64):
            said = near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=8)
            for text in (said[:, :11], torch.cat((said, some_ids(1, 4, seed=4)), dim=1)):
                expected = whole.generate(text, **PLAIN, max_new_tokens=6)
                assert near.generate(text, **PLAIN, max_new_tokens=6).equal(expected)
        assert len(nodes.sessions) == 1

    def test_after_a_failure_the_next_call_begins_anew(self, models: tuple[Any, Any, NearNodes]) -> None:
        whole, near, nodes = models
        with near.inference_session(max_length=64):
            near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=3)
            nodes.sessions[0].is_closed = True
            with pytest.raises(AssertionError):
                near.generate(some_ids(1, 12), **PLAIN, max_new_tokens=3)
            expected = whole.generate(some_ids(1, 12), **PLAIN, max_new_tokens=3)
            assert near.generate(some_ids(1, 12), **PLAIN, max_new_tokens=3).equal(expected)

    def test_more_than_it_was_opened_for_is_refused_at_once(self, models: tuple[Any, Any, NearNodes]) -> None:
        _, near, nodes = models
        with near.inference_session(max_length=12):
            with pytest.raises(SessionTooLong, match="13 positions"):
                near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=5)
            assert near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=4).shape[1] == 13
            with pytest.raises(SessionTooLong, match="21 positions"):
                near(some_ids(1, 9))
        assert len(nodes.computed) == 4

    @pytest.mark.parametrize("length", [0, -1, 257])
    def test_a_session_fits_the_context(self, models: tuple[Any, Any, NearNodes], length: int) -> None:
        with pytest.raises(InvalidArgument, match="max_length"):
            models[1].inference_session(length)

    def test_a_session_that_has_ended_is_not_used_again(self, models: tuple[Any, Any, NearNodes]) -> None:
        _, near, _ = models
        with near.inference_session(max_length=64) as session:
            pass
        with pytest.raises(InvalidArgument, match="closed"):
            near.generate(some_ids(1, 9), session=session, max_new_tokens=3)
        with pytest.raises(InvalidArgument, match="closed"), session:
            pass

    def test_rows_that_do_not_fit_the_sessions_text_are_refused(self, models: tuple[Any, Any, NearNodes]) -> None:
        _, near, _ = models
        with near.inference_session(max_length=64) as session:
            near.generate(some_ids(1, 9), **PLAIN, max_new_tokens=3)
            with pytest.raises(InvalidArgument, match="1 rows, not 2"):
                near.generate(some_ids(2, 3), session=session, **PLAIN, max_new_tokens=3)
            with pytest.raises(InvalidArgument, match="1 rows, not 2"):
                near(some_ids(2, 3))
