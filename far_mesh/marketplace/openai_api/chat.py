"""``/v1/chat/completions`` in our words, and its answers in theirs. Pure.

A choice is told in deltas, streamed or not: an answer in one piece is the sum of its deltas, so both say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.inference.endpoints import token_logprob, voucher_event
from far_mesh.marketplace.inference.jobs import Said, by_text
from far_mesh.marketplace.inference.messages import chat_of, check_one_form
from far_mesh.marketplace.inference.run import Answer, Item
from far_mesh.marketplace.inference.schemas import TokenLogprob, VoucherEvent
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.inference.streams import event
from far_mesh.marketplace.inference.voice import Spoken, Voice
from far_mesh.marketplace.openai_api.schemas import (
    AnswerMessage,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Far,
    Logprobs,
    Usage,
)
from far_mesh.marketplace.openai_api.service import (
    DEFAULT_TEMPERATURE,
    Envelope,
    far,
    finish_reason,
    limit,
    usage,
)

if TYPE_CHECKING:
    from far_mesh.model.tools import ToolFormat


def wish_of(body: ChatRequest) -> Wish:
    """What is asked for, in our words.

    Raises:
        UnsupportedParameter: something we do not do.
        InvalidArgument: what contradicts itself.
    """
    body.refuse_what_we_do_not_have()
    box = body.toolbox()
    grammar = None if body.response_format is None else body.response_format.grammar()
    check_one_form(box, None if grammar is None else "response_format")
    return Wish(
        model_id=body.model,
        prompts=(chat_of(body.messages),),
        max_tokens=limit(body.max_tokens, body.max_completion_tokens),
        manner=body.manner(temperature=DEFAULT_TEMPERATURE, logprobs=_logprobs(body), grammar=grammar),
        choices=1 if body.n is None else body.n,
        streamed=bool(body.stream),
        toolbox=box,
        grammar_param="response_format" if box is None else "tools",
        quote_id=body.quote_id,
        tier=body.tier,
    )


def _logprobs(body: ChatRequest) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        if body.top_logprobs == 0:
            return None
        raise InvalidArgument("top_logprobs goes with logprobs", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _delta(spoken: Spoken) -> Delta:
    return Delta(content=spoken.text or None, tool_calls=list(spoken.calls) or None)


class Chat:
    """The answers to one chat."""

    def __init__(
        self, envelope: Envelope, tool_format: ToolFormat | None, *, parallel: bool = True, with_logprobs: bool = False
    ) -> None:
        self._envelope, self._with_logprobs = envelope, with_logprobs
        self._voices = [Voice(tool_format, parallel=parallel) for _ in range(envelope.texts)]

    # ---- in one piece

    def whole(self, items: Sequence[Item], answer: Answer) -> ChatAnswer:
        """All of it."""
        texts = by_text(items, self._envelope.texts)
        choices = [self._choice(index, said, answer) for index, said in enumerate(texts)]
        return ChatAnswer(**self._envelope.fields, choices=choices, usage=usage(answer), far=far(answer))

    def _choice(self, index: int, said: Sequence[Said], answer: Answer) -> Choice:
        voice = self._voices[index]
        text, calls = voice.all_of(said)
        message = AnswerMessage(content=None if calls and not text else text, tool_calls=list(calls) or None)
        logprobs = None
        if self._with_logprobs:
            logprobs = Logprobs(content=[told for item in said if (told := token_logprob(item)) is not None])
        return Choice(index=index, message=message, finish_reason=self._reason(index, answer), logprobs=logprobs)

    # ---- as a stream

    def first(self) -> list[str]:
        """The events that say who speaks."""
        said = Delta(role="assistant", content="")
        return [self._wire([ChunkChoice(index=index, delta=said)]) for index in range(len(self._voices))]

    def said(self, said: Said) -> list[str]:
        """A token as an event, if it tells anything."""
        delta, told = _delta(self._voices[said.index].say(said.text)), token_logprob(said)
        return self._told(said.index, delta, told)

    def is_due(self, said: Said) -> list[str]:
        """As :meth:`said`, where who reads has to know of each token."""
        return self.said(said) or [self._wire([ChunkChoice(index=said.index, delta=Delta(content=""))])]

    def needed(self, notice: VoucherNotice) -> str:
        """The event that asks for a voucher: a chunk in which nothing is new, but ``far``."""
        return self._wire([ChunkChoice(index=0, delta=Delta())], far=voucher_event(notice))

    def last(self, answer: Answer) -> list[str]:
        """The events that end a stream."""
        events = []
        for index, voice in enumerate(self._voices):
            events += self._told(index, _delta(voice.end()), None)
        for index in range(len(self._voices)):
            end = ChunkChoice(index=index, delta=Delta(), finish_reason=self._reason(index, answer))
            events.append(self._wire([end], far=far(answer) if index == len(self._voices) - 1 else None))
        if self._envelope.include_usage:
            events.append(self._wire([], usage=usage(answer)))
        return [*events, event("[DONE]")]

    def _told(self, index: int, delta: Delta, told: TokenLogprob | None) -> list[str]:
        if delta == Delta() and told is None:
            return []
        logprobs = None if told is None else Logprobs(content=[told])
        return [self._wire([ChunkChoice(index=index, delta=delta, logprobs=logprobs)])]

    def _reason(self, index: int, answer: Answer) -> str:
        return self._voices[index].reason(finish_reason(answer.finish_reasons[index]))

    def _wire(
        self, choices: list[ChunkChoice], usage: Usage | None = None, far: Far | VoucherEvent | None = None
    ) -> str:
        return self._envelope.wire(ChatChunk(**self._envelope.fields, choices=choices, usage=usage, far=far))
