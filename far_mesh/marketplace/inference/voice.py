"""An answer as it comes: text, and calls of tools, where there are any. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from far_mesh.marketplace.inference.jobs import Said
from far_mesh.marketplace.inference.messages import Call, Called

if TYPE_CHECKING:
    from far_mesh.model.tools import Piece, ToolFormat


@dataclass(frozen=True)
class Spoken:
    """What is new in an answer."""

    text: str = ""
    calls: tuple[Call, ...] = ()


class Voice:
    """One answer. Said in deltas, streamed or not: an answer in one piece is the sum of its deltas."""

    def __init__(self, tool_format: ToolFormat | None, *, parallel: bool) -> None:
        self._stream = None
        self._most_calls = None if parallel else 1
        self.calls = 0
        if tool_format is not None:
            from far_mesh.model.tools import ToolStream  # transformers comes along: only where there are tools

            self._stream = ToolStream(tool_format)

    def say(self, text: str) -> Spoken:
        """What ``text`` adds."""
        return Spoken(text) if self._stream is None else self._spoken(self._stream.push(text))

    def end(self) -> Spoken:
        """What was held back until now."""
        return Spoken() if self._stream is None else self._spoken(self._stream.flush())

    def all_of(self, said: Iterable[Said]) -> tuple[str, tuple[Call, ...]]:
        """An answer in one piece: its text, and its calls."""
        spoken = [*(self.say(item.text) for item in said), self.end()]
        calls = tuple(call.model_copy(update={"index": None}) for one in spoken for call in one.calls)
        return "".join(one.text for one in spoken), calls

    def reason(self, reason: str) -> str:
        """How it ended, if ``reason`` is how its tokens ended."""
        return "tool_calls" if self.calls else reason

    def _spoken(self, piece: Piece) -> Spoken:
        calls = []
        for call in piece.calls:
            if self._most_calls is None or self.calls < self._most_calls:
                called = Called.model_construct(name=call.name, arguments=call.arguments)
                calls.append(Call(id=f"call_{secrets.token_hex(12)}", function=called, index=self.calls))
                self.calls += 1
        return Spoken(piece.text, tuple(calls))
