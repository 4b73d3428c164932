"""Where a piece of work belongs in a trace: ``traceparent`` of W3C Trace Context.
https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST = 256
_NOBODY, _NOTHING = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A span by its ids in hexadecimal, and whether what comes of it is to be recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def read_trace_parent(text: str | None) -> TraceParent | None:
    """The span that a header names; None where it names none, for a broken one must break nothing."""
    found = _FORM.fullmatch(text[:_LONGEST]) if text else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NOBODY or span_id == _NOTHING:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & 1))
