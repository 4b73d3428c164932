"""Server-sent events, wherever they are cut."""

from __future__ import annotations

from itertools import pairwise

import farlabs.sse
import pytest
from farlabs.sse import Comment, EventParser, ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

STREAM = (
    "\ufeff: a comment\n"
    "data: one\n\n"
    "event: token\r\ndata:two\r\ndata:  three\r\n\r\n"
    "id: 7\rretry: 10\rdata: gr\u00fcn \U0001f407 \u2028\u2029\x85\x0b\x0c\x1c\r\r"
    "event: nothing\n\n"
    "data\n\n"
    ": waiting\n\n"
    "data: {}\n\n"
    "data: cut off"
).encode()
ITEMS = [
    Comment("a comment"),
    ServerSentEvent("message", "one"),
    ServerSentEvent("token", "two\n three"),
    ServerSentEvent("message", "gr\u00fcn \U0001f407 \u2028\u2029\x85\x0b\x0c\x1c"),
    ServerSentEvent("message", ""),
    Comment("waiting"),
    ServerSentEvent("message", "{}"),
]


def parsed(*chunks: bytes) -> list[ServerSentEvent | Comment]:
    parser = EventParser()
    return [item for chunk in chunks for item in parser.push(chunk)]


def test_events_are_the_same_in_one_piece_and_byte_by_byte() -> None:
    assert parsed(STREAM) == ITEMS
    assert parsed(*(bytes([byte]) for byte in STREAM)) == ITEMS


def test_events_are_the_same_wherever_the_stream_is_cut() -> None:
    for at in range(len(STREAM) + 1):
        assert parsed(STREAM[:at], STREAM[at:]) == ITEMS, at


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_in_any_pieces(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    assert parsed(*(STREAM[at:to] for at, to in pairwise(ends))) == ITEMS


def test_an_event_is_there_as_soon_as_its_line_has_ended() -> None:
    parser = EventParser()
    assert parser.push(b"data: x\r\r") == [ServerSentEvent("message", "x")]
    assert parser.push(b"\ndata: y\n") == []
    assert parser.push(b"\n") == [ServerSentEvent("message", "y")]


def test_a_byte_order_mark_counts_at_the_beginning_alone() -> None:
    assert parsed(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [ServerSentEvent("message", "a")]


def test_what_is_no_utf8_is_told_as_such() -> None:
    assert parsed(b"data: \xff\xc3\n\n") == [ServerSentEvent("message", "\ufffd\ufffd")]


@pytest.mark.parametrize(
    "stream", [[b"data: " + b"x" * 80], [b"x" * 40] * 2, [b"data: 12345\n"] * 11, [b"data\n"] * 70]
)
def test_an_event_that_does_not_end_is_refused(stream: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farlabs.sse, "MAX_EVENT_CHARACTERS", 64)
    with pytest.raises(OverflowError):
        parsed(*stream)


def test_many_short_events_and_comments_are_none_that_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farlabs.sse, "MAX_EVENT_CHARACTERS", 64)
    items = parsed(*([b": waiting\n"] * 30 + [b"data: " + b"x" * 50, b"\n\n"] * 30))
    assert [type(item) for item in items] == [Comment] * 30 + [ServerSentEvent] * 30
