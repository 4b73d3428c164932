"""``traceparent``, by the rules of W3C Trace Context."""

from __future__ import annotations

import pytest

from discovery.protocol.trace import TraceParent, read_trace_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
    ],
)
def test_a_span_is_read_and_written(text: str, sampled: bool) -> None:
    parent = read_trace_parent(text)
    assert parent == TraceParent(TRACE, SPAN, sampled)
    assert read_trace_parent(str(parent)) == parent


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-0१",
        "00-" + "a" * 10_000_000,
    ],
)
def test_what_names_no_span_is_ignored(text: str | None) -> None:
    assert read_trace_parent(text) is None
