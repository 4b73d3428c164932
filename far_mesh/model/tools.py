"""Calls of tools: how a model writes them, and how they are read back from its text as it comes.

Models write calls in conventions that their chat templates show: what a template makes of a call that an assistant made
is what the model has learnt to write. So the convention is found by asking the template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils.chat_parsing import ResponseParser

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import Grammar

Tool = Mapping[str, Any]
"""As in OpenAI's API: ``{"type": "function", "function": {"name", "description", "parameters"}}``."""
MAX_TOOLS = 128

_WHITESPACE = {"whitespace_pattern": r"[ \n\r\t]{0,64}"}


@dataclass(frozen=True)
class ToolCall:
    """What the model wants called. ``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Piece:
    """What has become certain: text for the reader, and calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ToolFormat:
    """A convention.

    Attributes:
        name: what it is called after.
        opening: what stands before calls, as a regular expression.
        closing: what stands behind them, if anything but the end does.
        marks: words of it that are special tokens in some tokenizers.
        argument: the key of a call's arguments.
        is_list: whether calls come as one JSON array.
    """

    name: str
    opening: str
    closing: str | None
    marks: tuple[str, ...]
    argument: str
    is_list: bool = False

    def calls_in(self, body: str) -> tuple[ToolCall, ...]:
        """The calls that stand between opening and closing; none, where it is no call after all."""
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return ()
        calls = [self._call(one) for one in (parsed if self.is_list and isinstance(parsed, list) else [parsed])]
        return tuple(call for call in calls if call is not None) if None not in calls else ()

    def grammar(
        self, tools: Sequence[Tool], name: str | None = None, marks: Mapping[str, int] | None = None
    ) -> Grammar:
        """One call of one of the tools, or of the one with that ``name``, with arguments as its schema has them.

        Args:
            marks: ids of those of the format's marks that are special tokens.

        Raises:
            InvalidArgument: no such tool.
        """
        wanted = [tool["function"] for tool in check_tools(tools) if name in (None, tool["function"]["name"])]
        if not wanted:
            raise InvalidArgument(f"there is no tool {name!r}", param="tool_choice")
        schemas = {f"tool_{place}": one.get("parameters") or {"type": "object"} for place, one in enumerate(wanted)}
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": one["name"]}, self.argument: {"$ref": f"#/$defs/{key}"}},
                "required": ["name", self.argument],
                "additionalProperties": False,
            }
            for one, key in zip(wanted, schemas, strict=True)
        ]
        inner = {key: _moved(schema, f"#/$defs/{key}") for key, schema in schemas.items()}
        call = {"$defs": inner, "anyOf": calls, "x-guidance": _WHITESPACE}
        if self.closing is None and not self.is_list:
            return Grammar.json_schema(call)
        (opening, *_), schema = self.marks, json.dumps(call, ensure_ascii=False)
        begin, end = _literal(opening, marks or {}), '"]"' if self.is_list else _literal(self.marks[1], marks or {})
        inside = '"["' if self.is_list else r'"\n"'
        between = "" if self.is_list else r'"\n"'
        return Grammar.lark(f"start: {begin} {inside} call {between} {end}\ncall: %json {schema}\n")

    def _call(self, parsed: Any) -> ToolCall | None:
        if not isinstance(parsed, dict) or not isinstance(parsed.get("name"), str):
            return None
        arguments = parsed.get(self.argument, {})
        if not isinstance(arguments, dict):
            return None
        return ToolCall(parsed["name"], json.dumps(arguments, ensure_ascii=False))


FORMATS = (
    ToolFormat("hermes", "<tool_call>", "</tool_call>", ("<tool_call>", "</tool_call>"), "arguments"),
    ToolFormat("mistral", r"\[TOOL_CALLS\]", None, ("[TOOL_CALLS]",), "arguments", is_list=True),
    ToolFormat("llama", r"\A\s*(?:<\|python_tag\|>)?(?=\s*\{)", None, ("<|python_tag|>",), "parameters"),
)
"""Nous Hermes and Qwen; Mistral; Llama 3."""


class ToolStream:
    """Text and calls from a text as it comes. Nothing of a call is ever text, unless it turns out to be none."""

    def __init__(self, format: ToolFormat) -> None:
        closing = {} if format.closing is None else {"close": format.closing}
        call = {
            "open_pattern": f"(?P<opening>{format.opening})",
            **closing,
            "repeats": True,
            "content_args": {"strip": False},
        }
        self._format = format
        self._parser = ResponseParser(
            {
                "start_anchor": "\0",
                "fields": {
                    "content": {"content_args": {"strip": False}},
                    "calls": {**call, "transform": {"opening": "{opening}", "body": "{content}"}},
                },
            },
            prefix="",
        )
        self._space = ""
        self._has_called = False

    def push(self, text: str) -> Piece:
        """What is certain now that ``text`` has come."""
        return self._piece(self._parser.feed(text), self._format.closing or "")

    def flush(self) -> Piece:
        """What is left at the end. A call that was cut off is text."""
        _, events = self._parser.finalize()
        piece = self._piece(events, "")
        space, self._space = self._space, ""
        return piece if self._has_called else Piece(piece.text + space, piece.calls)

    def _piece(self, events: Sequence[Mapping[str, Any]], closing: str) -> Piece:
        text, calls = "", list[ToolCall]()
        for event in events:
            if event["field"] == "content" and event["type"] == "region_chunk":
                text += self._spaced(event["text"])
            elif event["field"] == "calls" and event["type"] == "region_close":
                made = self._format.calls_in(event["value"]["body"])
                if made:
                    self._has_called, self._space = True, ""
                    calls += made
                else:
                    text += self._spaced(event["value"]["opening"] + event["value"]["body"] + closing)
        return Piece(text, tuple(calls))

    def _spaced(self, text: str) -> str:
        """``text`` without the space at its end, which goes where a call follows."""
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        return kept


def check_tools(tools: Sequence[Tool]) -> Sequence[Tool]:
    """The tools as they are.

    Raises:
        InvalidArgument: what is wrong with them.
    """
    if not 0 < len(tools) <= MAX_TOOLS:
        raise InvalidArgument(f"tools takes from 1 to {MAX_TOOLS}", param="tools")
    names = [_name_of(tool) for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidArgument("two tools have one name", param="tools")
    return tools


def _name_of(tool: Tool) -> str:
    function = tool.get("function") if tool.get("type") == "function" else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidArgument('a tool is {"type": "function", "function": {"name", …}}', param="tools")
    if not isinstance(function.get("parameters") or {}, Mapping):
        raise InvalidArgument(f"the parameters of {function['name']} are no JSON schema", param="tools")
    return str(function["name"])


def with_arguments_parsed(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Messages as chat templates want them: the arguments of calls are objects, where OpenAI's API has their text.

    Raises:
        InvalidArgument: they are the text of no JSON object.
    """
    for message in messages:
        calls = message.get("tool_calls")
        if calls and not isinstance(calls, list):
            raise InvalidArgument("tool_calls of a message are a list", param="messages")
        yield {**message, "tool_calls": [_parsed(call) for call in calls]} if calls else dict(message)


def _parsed(call: Any) -> dict[str, Any]:
    try:
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            function["arguments"] = json.loads(function["arguments"])
        if not isinstance(function["arguments"], dict):
            raise ValueError
        return {**call, "function": function}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidArgument(
            "the arguments of a tool call are not the text of a JSON object", param="messages"
        ) from None


def _moved(schema: Any, place: str) -> Any:
    """A schema that has become a part of another: its references to itself point to where it is now."""
    if isinstance(schema, Mapping):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(item, place) for item in schema] if isinstance(schema, list) else schema


def _literal(mark: str, ids: Mapping[str, int]) -> str:
    return f"<[{ids[mark]}]>" if mark in ids else json.dumps(mark)
