"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).

Events are split over chunks anywhere: in the middle of a line, between CR and LF, within a character of UTF-8. Lines
end with CR, LF or both and with nothing else: what else Python takes for the end of a line is text.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

MAX_EVENT_CHARACTERS = 16 * 2**20
"""Longest line and event that is taken: what is longer is no event of ours."""

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerSentEvent:
    """``event`` is ``message`` where the stream does not say."""

    event: str
    data: str


@dataclass(frozen=True)
class Comment:
    """A line that means nothing to most readers. Ours say how it goes with what has not begun yet."""

    text: str


class EventParser:
    """Takes bytes as they come, and gives whole events and comments. What stands after the last blank line is no
    event."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_first = True
        self._ended_with_cr = False
        self._line: list[str] = []
        self._line_length = 0
        self._data: list[str] = []
        self._data_length = 0
        self._event = ""

    def push(self, chunk: bytes) -> list[ServerSentEvent | Comment]:
        """The events and comments that end within ``chunk``.

        Raises:
            OverflowError: a line or an event is longer than :data:`MAX_EVENT_CHARACTERS`.
        """
        text = self._decoder.decode(chunk)
        if not text:
            return []
        if self._is_first:
            self._is_first = False
            text = text.removeprefix("\ufeff")
        if self._ended_with_cr:
            text = text.removeprefix("\n")
        self._ended_with_cr = text.endswith("\r")
        items: list[ServerSentEvent | Comment] = []
        *ended, rest = _LINE_END.split(text)
        for piece in ended:
            self._gather(piece)
            line = "".join(self._line)
            self._line, self._line_length = [], 0
            self._take(line, items)
        self._gather(rest)
        return items

    def _gather(self, piece: str) -> None:
        self._line.append(piece)
        self._line_length += len(piece)
        if self._line_length + self._data_length > MAX_EVENT_CHARACTERS:
            raise OverflowError("an event of the stream is too long")

    def _take(self, line: str, items: list[ServerSentEvent | Comment]) -> None:
        if not line:
            if self._data:
                items.append(ServerSentEvent(self._event or "message", "\n".join(self._data)))
            self._data, self._data_length, self._event = [], 0, ""
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._data_length += len(value) + 1
        elif field == "event":
            self._event = value
        elif not field:
            items.append(Comment(value))
