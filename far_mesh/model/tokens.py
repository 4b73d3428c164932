"""Between text and token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig

from discovery.protocol.errors import InvalidArgument
from far_mesh.model.tools import FORMATS, Tool, ToolCall, ToolFormat, ToolStream, check_tools, with_arguments_parsed
from far_node.blocks.source import ModelSource
from far_node.errors import ModelUnsupported

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text, token ids, or chat messages (``{"role", "content"}``, and what calls of tools add to them)."""

_PROBE = ToolCall("get_example", '{"number": 7}')
_PROBE_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": _PROBE.name,
        "description": "An example.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
    },
}

_UNFINISHED = "\ufffd"


class Tokens:
    """A model's tokenizer, chat template and end-of-text tokens."""

    def __init__(self, tokenizer: Any, end_ids: frozenset[int], vocabulary: int) -> None:
        self._tokenizer, self.end_ids, self.vocabulary = tokenizer, end_ids, vocabulary

    @classmethod
    def load(cls, source: ModelSource, config: PreTrainedConfig) -> Tokens:
        """Read the tokenizer files beside the model.

        Raises:
            ModelUnsupported: there are none, or they cannot be read.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelUnsupported(f"the tokenizer of {source.id} cannot be used: {reason}") from None
        return cls(tokenizer, _end_ids(source, config), config.get_text_config(decoder=True).vocab_size)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model was made for chat."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    @cached_property
    def exact(self) -> LLTokenizer:
        """The same tokens byte for byte, for grammars. It takes up to a second to make.

        Raises:
            InvalidArgument: the tokenizer's files do not say it.
        """
        size = max(self.vocabulary, len(self._tokenizer))
        try:
            return from_tokenizer(self._tokenizer, n_vocab=size, eos_token=sorted(self.end_ids) or None)
        except ValueError as error:
            raise InvalidArgument(
                f"this model's tokenizer does not tell which bytes its tokens are: {error}", param="model"
            ) from None

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes that a token stands for; of a special token those of its written form."""
        return self.exact.decode_bytes([token_id])

    def are_those_of(self, other: Tokens) -> bool:
        """Whether the same ids stand for the same tokens."""
        ours, theirs = self._tokenizer.get_vocab(), other._tokenizer.get_vocab()
        return bool(ours == theirs)

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes calls of tools, by what its chat template makes of one; None: in no way known here."""
        question = {"role": "user", "content": "Example?"}
        call = {"name": _PROBE.name, "arguments": json.loads(_PROBE.arguments)}
        called = {"role": "assistant", "tool_calls": [{"type": "function", "id": "example00", "function": call}]}
        try:
            before = self._rendered([question], [_PROBE_TOOL])
            after = self._rendered([question, called], [_PROBE_TOOL], add_generation_prompt=False)
            if _PROBE.name not in before:
                return None
        except InvalidArgument:
            return None
        written = after.removeprefix(before)
        for end in self.end_ids:
            written = written.partition(self._tokenizer.convert_ids_to_tokens(end))[0]
        return next((one for one in FORMATS if _calls(one, written) == (_PROBE,)), None)

    @property
    def tool_marks(self) -> dict[str, int]:
        """Those marks of the format that are special tokens, which have to be shown for calls to be read."""
        marks = () if self.tool_format is None else self.tool_format.marks
        ids = {mark: self._tokenizer.convert_tokens_to_ids(mark) for mark in marks}
        return {mark: token for mark, token in ids.items() if token in self._tokenizer.all_special_ids}

    def encode(self, prompt: Prompt, *, raw: bool = False, tools: Sequence[Tool] | None = None) -> list[int]:
        """Token ids of a prompt.

        A text for a model with a chat template becomes a user's message, unless ``raw``; ids are taken as they are.

        Args:
            tools: what the model may call; told to it by its chat template.

        Raises:
            InvalidArgument: nothing in it, ids outside the vocabulary, messages the template refuses, or tools where
                it knows of none.
        """
        ids = self._ids(prompt, raw, tools)
        if not ids:
            raise InvalidArgument("the prompt is empty", param="prompt")
        return ids

    def decode(self, ids: Sequence[int], shown: frozenset[int] = frozenset()) -> str:
        """Text of token ids, special tokens left out but for those that are to be ``shown``."""
        if shown.isdisjoint(ids):
            text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return text
        parts, begin = list[str](), 0
        for index, token in enumerate(ids):
            if token in shown:
                parts += self.decode(ids[begin:index]), self._tokenizer.convert_ids_to_tokens(token)
                begin = index + 1
        return "".join([*parts, self.decode(ids[begin:])])

    def _ids(self, prompt: Prompt, raw: bool, tools: Sequence[Tool] | None) -> list[int]:
        if isinstance(prompt, str):
            if not prompt:
                return []
            if self.has_chat_template and not raw:
                return self._chat([{"role": "user", "content": prompt}], tools)
            _refuse_tools(tools)
            return self._tokenized(prompt)
        ids = [item for item in prompt if isinstance(item, int)]
        messages = [dict(item) for item in prompt if not isinstance(item, int)]
        if ids and messages:
            raise InvalidArgument("a prompt is token ids or messages, not both", param="prompt")
        if messages:
            return self._chat(messages, tools)
        _refuse_tools(tools)
        return self._checked(ids)

    def _checked(self, ids: list[int]) -> list[int]:
        if not all(0 <= item < self.vocabulary for item in ids):
            raise InvalidArgument(f"token ids lie from 0 to {self.vocabulary - 1}", param="prompt")
        return ids

    def _chat(self, messages: list[dict[str, Any]], tools: Sequence[Tool] | None) -> list[int]:
        if not self.has_chat_template:
            raise InvalidArgument("this model has no chat template; send a text instead of messages", param="messages")
        if tools is not None:
            check_tools(tools)
            if self.tool_format is None:
                raise InvalidArgument(
                    "this model's chat template knows of no tools, or writes calls in a way that is not known here",
                    param="tools",
                )
        text = self._rendered(list(with_arguments_parsed(messages)), tools)
        return self._tokenized(text, add_special_tokens=False)

    def _rendered(
        self, messages: list[dict[str, Any]], tools: Sequence[Tool] | None, *, add_generation_prompt: bool = True
    ) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                tools=None if tools is None else [dict(tool) for tool in tools],
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except (TemplateError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgument(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from None
        return text

    def _tokenized(self, text: str, **options: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument("the prompt is not Unicode text: it holds half a character", param="prompt") from None
        return list(self._tokenizer(text, **options)["input_ids"])


class TextStream:
    """Text from tokens as they come: whole characters only, and never a part of a stop string.

    Bytes of a character may be spread over tokens, and some tokenizers join words only in context; so a window of
    tokens is decoded, and what has settled is given out.
    """

    def __init__(self, tokens: Tokens, stop: tuple[str, ...] = (), shown: frozenset[int] = frozenset()) -> None:
        self._tokens, self._stop, self._shown = tokens, stop, shown
        self._ids: list[int] = []
        self._window = self._settled = 0  # ids before _window are decoded for good; up to _settled, given out
        self._held = ""
        self._given = 0
        self.stopped = False

    @property
    def length(self) -> int:
        """Characters so far, also those that are held back because they may become a stop string."""
        return self._given + len(self._held)

    def push(self, token_id: int) -> str:
        """The text that is certain now that ``token_id`` has come; may be empty."""
        self._ids.append(token_id)
        before = self._decoded(self._ids[self._window : self._settled])
        now = self._decoded(self._ids[self._window :])
        if len(now) <= len(before) or now.endswith(_UNFINISHED):
            return ""
        self._window, self._settled = self._settled, len(self._ids)
        return self._give(now[len(before) :])

    def flush(self) -> str:
        """What is left at the end."""
        before = self._decoded(self._ids[self._window : self._settled])
        rest = self._decoded(self._ids[self._window :])[len(before) :]
        self._window = self._settled = len(self._ids)
        text = self._give(rest)
        if self.stopped:
            return text
        held, self._held = self._held, ""
        return text + held

    def _decoded(self, ids: Sequence[int]) -> str:
        return self._tokens.decode(ids, self._shown)

    def _give(self, text: str) -> str:
        given = self._without_stop(text)
        self._given += len(given)
        return given

    def _without_stop(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [(start + len(word), start) for word in self._stop if (start := text.find(word)) >= 0]
        if found:  # the one that is complete first counts, however the text was cut into tokens
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_overlap(text, word) for word in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _refuse_tools(tools: Sequence[Tool] | None) -> None:
    if tools is not None:
        raise InvalidArgument("tools are told to a model by its chat template; send messages", param="tools")


def _calls(format: ToolFormat, text: str) -> tuple[ToolCall, ...]:
    stream = ToolStream(format)
    return (*stream.push(text).calls, *stream.flush().calls)


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of ``text`` could be the beginning of ``word``."""
    return next((size for size in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:size])), 0)


def _end_ids(source: ModelSource, config: PreTrainedConfig) -> frozenset[int]:
    try:
        ends: Any = GenerationConfig.from_pretrained(source.path, local_files_only=True).eos_token_id
    except (OSError, ValueError):
        ends = None
    if ends is None:
        ends = getattr(config.get_text_config(decoder=True), "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)
