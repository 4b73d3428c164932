"""Text as it streams: whole characters, never a part of a stop string, and in the end the whole text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.errors import InvalidArgument
from far_mesh.model.tokens import TextStream, Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.source import find_model
from far_node.errors import ModelUnsupported
from tests.support.models import make_model, with_bundled_tokenizer

REPLACEMENT = "\ufffd"
FAMILY = "👩‍👩‍👧‍👦"
texts = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [FAMILY, "é", "e\u0301", "ก็", "日本語", "\u200d", "🏳️‍🌈", " ", "\n\n", "a", "the rabbit ", REPLACEMENT, "\x00"]
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    source = find_model("far-demo")
    return Tokens.load(source, read_config(source))


def ids_of(tokens: Tokens, text: str) -> list[int]:
    return list(tokens._tokenizer(text, add_special_tokens=False)["input_ids"])


def stream_all(tokens: Tokens, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(tokens, stop)
    pieces = [stream.push(token_id) for token_id in ids]
    return [*pieces, stream.flush()], stream


@settings(max_examples=400)
@given(texts)
def test_the_pieces_together_are_the_text(tokens: Tokens, text: str) -> None:
    ids = ids_of(tokens, text)
    pieces, _ = stream_all(tokens, ids)
    assert "".join(pieces) == tokens.decode(ids)


def test_the_bundled_tokenizer_can_say_everything(tokens: Tokens) -> None:
    """So that the test above is about real characters."""
    for text in (FAMILY, "日本語 ก็", "e\u0301", "The rabbit's café\n"):
        assert tokens.decode(ids_of(tokens, text)) == text
    assert len(ids_of(tokens, FAMILY)) > len(FAMILY), "one character spreads over several tokens"


@settings(max_examples=400)
@given(texts)
def test_no_piece_shows_half_a_character(tokens: Tokens, text: str) -> None:
    ids = ids_of(tokens, text)
    pieces, _ = stream_all(tokens, ids)
    assert sum(piece.count(REPLACEMENT) for piece in pieces) == text.count(REPLACEMENT)


@settings(max_examples=400)
@given(st.lists(st.integers(0, 2047), max_size=25))
def test_any_ids_at_all_give_the_text_that_they_are_together(tokens: Tokens, ids: list[int]) -> None:
    """A model may say tokens that are no text: half characters, special tokens."""
    pieces, _ = stream_all(tokens, ids)
    assert "".join(pieces) == tokens.decode(ids)


@settings(max_examples=400)
@given(
    texts, st.lists(st.text(st.sampled_from("abt é\n👩"), min_size=1, max_size=4), min_size=1, max_size=3), st.data()
)
def test_text_ends_before_the_first_stop_string_and_nothing_of_it_is_shown(
    tokens: Tokens, text: str, words: list[str], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(text)))
    text = text[:place] + data.draw(st.sampled_from(words)) + text[place:]
    ids = ids_of(tokens, text)
    whole = tokens.decode(ids)
    completed = [(whole.index(word) + len(word), whole.index(word)) for word in words if word in whole]
    end = min(completed)[1] if completed else len(whole)  # the one that is complete first counts
    shown = ""
    stream = TextStream(tokens, tuple(words))
    for token_id in ids:
        shown += stream.push(token_id)
        assert len(shown) <= end, "a part of a stop string is never shown"
        if stream.stopped:
            break
    shown += stream.flush()
    assert stream.stopped == bool(completed)
    assert shown == whole[:end]


@given(texts, st.text(min_size=1, max_size=5))
def test_a_stop_string_that_only_seems_to_begin_is_shown_in_the_end(tokens: Tokens, text: str, word: str) -> None:
    text = text.replace(word, "") + word[:-1]
    ids = ids_of(tokens, text)
    whole = tokens.decode(ids)
    if word in whole:
        return
    pieces, stream = stream_all(tokens, ids, (word,))
    assert not stream.stopped
    assert "".join(pieces) == whole


@settings(max_examples=200)
@given(texts, st.lists(st.text(st.sampled_from("abt é\n👩日"), min_size=1, max_size=4), max_size=2), st.data())
def test_whatever_the_tokens_a_stop_string_is_never_shown_in_part_and_places_are_right(
    tokens: Tokens, text: str, words: list[str], data: st.DataObject
) -> None:
    """Tokens of any bytes: the text is cut in the middle of characters and of stop strings."""
    single = {tokens.bytes_of(token): token for token in range(tokens.vocabulary) if len(tokens.bytes_of(token)) == 1}
    whole_ones = data.draw(st.booleans())
    ids = ids_of(tokens, text) if whole_ones else [single[bytes([byte])] for byte in text.encode()]
    whole = tokens.decode(ids)
    completed = [(whole.index(word) + len(word), whole.index(word)) for word in words if word in whole]
    end = min(completed)[1] if completed else len(whole)
    stream, shown, settled = TextStream(tokens, tuple(words)), "", 0
    for token_id in ids:
        assert settled <= stream.length <= len(whole)
        settled = stream.length
        shown += stream.push(token_id)
        assert whole.startswith(shown)
        assert len(shown) <= end, "a part of a stop string is never shown"
        if stream.stopped:
            break
        assert stream.length >= len(shown)
    assert shown + stream.flush() == whole[:end]


@given(st.lists(st.integers(0, 2047), max_size=25), st.frozensets(st.integers(0, 8), max_size=3))
def test_special_tokens_are_shown_if_they_are_asked_for(tokens: Tokens, ids: list[int], shown: frozenset[int]) -> None:
    stream = TextStream(tokens, (), shown)
    text = "".join(stream.push(token_id) for token_id in ids)
    assert text + stream.flush() == tokens.decode(ids, shown)
    for token in shown.intersection(ids):
        assert tokens.bytes_of(token).decode() in tokens.decode(ids, shown)


def test_the_bytes_of_tokens_together_are_the_text(tokens: Tokens) -> None:
    for text in (FAMILY, "日本語 ก็", "e\u0301", "The rabbit's café\n", " two  spaces", "\x00\ufeff"):
        assert b"".join(tokens.bytes_of(token) for token in ids_of(tokens, text)).decode() == text


def test_what_comes_after_a_stop_string_is_not_shown(tokens: Tokens) -> None:
    stream = TextStream(tokens, ("STOP",))
    shown = "".join(stream.push(token_id) for token_id in ids_of(tokens, "before STOP after, and on"))
    assert shown + stream.flush() == "before "
    assert stream.push(ids_of(tokens, "more")[0]) == ""


class TestEncode:
    """Text, ids and messages become ids."""

    def test_a_text_for_a_chat_model_is_a_users_message(self, tokens: Tokens) -> None:
        as_text = tokens.encode("hello")
        assert as_text == tokens.encode([{"role": "user", "content": "hello"}])
        assert as_text != tokens.encode("hello", raw=True)
        assert tokens.has_chat_template

    def test_ids_are_taken_as_they_are(self, tokens: Tokens) -> None:
        assert tokens.encode([5, 6, 7]) == [5, 6, 7]
        assert tokens.encode((5, 6, 7)) == [5, 6, 7]

    @pytest.mark.parametrize("prompt", [[-1], [2048], [0, 10**12]], ids=str)
    def test_ids_outside_the_vocabulary_are_refused(self, tokens: Tokens, prompt: list[int]) -> None:
        with pytest.raises(InvalidArgument, match="from 0 to 2047"):
            tokens.encode(prompt)

    @pytest.mark.parametrize("prompt", ["", [], ()], ids=repr)
    def test_nothing_is_no_prompt(self, tokens: Tokens, prompt: str | list[int]) -> None:
        with pytest.raises(InvalidArgument, match="empty"):
            tokens.encode(prompt)

    @pytest.mark.parametrize(
        "messages",
        [
            [{}],
            [{"role": "user"}],
            [{"content": "x"}],
            [{"role": "king", "content": "x"}],
            [{"role": "user", "content": 7}],
        ],
        ids=str,
    )
    def test_messages_that_are_none_are_refused_in_one_way_or_taken(
        self, tokens: Tokens, messages: list[dict[str, str]]
    ) -> None:
        try:
            ids = tokens.encode(messages)
        except InvalidArgument:
            return
        assert ids

    def test_ids_and_messages_do_not_mix(self, tokens: Tokens) -> None:
        mixed: Any = [5, {"role": "user", "content": "x"}]
        with pytest.raises(InvalidArgument, match="not both"):
            tokens.encode(mixed)

    @pytest.mark.parametrize("raw", [False, True])
    @pytest.mark.parametrize("text", ["\ud800", "half a \udfff", "\udcff from a terminal"])
    def test_half_a_character_is_no_text(self, tokens: Tokens, text: str, raw: bool) -> None:
        with pytest.raises(InvalidArgument, match="half a character"):
            tokens.encode(text, raw=raw)

    def test_special_words_in_a_prompt_are_text_and_nothing_breaks(self, tokens: Tokens) -> None:
        for text in ("<|user|>", "<|endoftext|>", "{{ 7 * 7 }}", "{% raw %}", "\x00\ufeff", "\ud7ff"):
            assert tokens.encode(text)


class TestLoad:
    """Tokenizer files beside the model."""

    def test_a_model_without_a_tokenizer_is_refused_by_name(self, tmp_path: Path) -> None:
        path = make_model(tmp_path / "mute")
        source = find_model(str(path))
        with pytest.raises(ModelUnsupported, match="the tokenizer of mute cannot be used") as failure:
            Tokens.load(source, read_config(source))
        assert "\n" not in failure.value.message

    @pytest.mark.parametrize("content", ["", "{}", "[]", "not json", '{"version": "1.0"}'])
    def test_a_damaged_tokenizer_is_refused_by_name(self, tmp_path: Path, content: str) -> None:
        path = with_bundled_tokenizer(make_model(tmp_path / "garbled"))
        (path / "tokenizer.json").write_text(content)
        source = find_model(str(path))
        with pytest.raises(ModelUnsupported, match="the tokenizer of garbled cannot be used"):
            Tokens.load(source, read_config(source))

    @pytest.mark.parametrize(("ends", "expected"), [(5, {5}), ([5, 6], {5, 6}), (None, set())])
    def test_end_tokens_are_those_of_the_model(self, tmp_path: Path, ends: object, expected: set[int]) -> None:
        path = with_bundled_tokenizer(make_model(tmp_path / "model", vocab_size=2048, eos_token_id=ends))
        source = find_model(str(path))
        assert Tokens.load(source, read_config(source)).end_ids == expected
