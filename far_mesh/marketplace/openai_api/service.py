"""Between the words of ``/v1`` and ours. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.inference.endpoints import costs, nodes_used, stop_strings, voucher_event
from far_mesh.marketplace.inference.run import Answer
from far_mesh.marketplace.inference.schemas import VoucherEvent
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.inference.streams import event
from far_mesh.marketplace.openai_api.schemas import (
    AnswerMessage,
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Far,
    PromptTokensDetails,
    Usage,
)

DEFAULT_TEMPERATURE = 1.0
DEFAULT_TOP_P = 1.0


def wish_of(body: ChatRequest) -> Wish:
    """What is asked for, in our words.

    Raises:
        UnsupportedParameter: something we do not do.
        InvalidArgument: two limits that contradict each other.
    """
    body.refuse_what_we_do_not_have()
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise InvalidArgument("max_tokens and max_completion_tokens differ: send one of them", param="max_tokens")
    limit = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    return Wish(
        model_id=body.model,
        prompt=[message.plain() for message in body.messages],
        max_tokens=limit,
        temperature=DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        top_p=DEFAULT_TOP_P if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=stop_strings(body.stop),
        streamed=bool(body.stream),
        quote_id=body.quote_id,
    )


@dataclass(frozen=True)
class Envelope:
    """What every piece of one answer repeats."""

    request_id: str
    model: str
    created: int
    include_usage: bool = False

    def whole(self, text: str, answer: Answer) -> ChatAnswer:
        """A plain answer."""
        return ChatAnswer(
            id=self._id,
            created=self.created,
            model=self.model,
            choices=[Choice(message=AnswerMessage(content=text), finish_reason=_finish_reason(answer))],
            usage=_usage(answer),
            far=_far(answer),
        )

    def first(self) -> str:
        """The event that says who speaks."""
        return self._event(Delta(role="assistant", content=""))

    def token(self) -> Callable[[str], str]:
        """Text as an event."""
        return lambda text: self._event(Delta(content=text))

    def needed(self, notice: VoucherNotice) -> str:
        """The event that asks for a voucher: a chunk in which nothing is new, but ``far``."""
        return self._wire(self._chunk([ChunkChoice(delta=Delta())], far=voucher_event(notice)))

    def last(self, answer: Answer) -> list[str]:
        """The events that end a stream."""
        end = self._chunk([ChunkChoice(delta=Delta(), finish_reason=_finish_reason(answer))], far=_far(answer))
        events = [self._wire(end)]
        if self.include_usage:
            events.append(self._wire(self._chunk([], usage=_usage(answer))))
        return [*events, event("[DONE]")]

    @property
    def _id(self) -> str:
        return f"chatcmpl-{self.request_id}"

    def _event(self, delta: Delta) -> str:
        return self._wire(self._chunk([ChunkChoice(delta=delta)]))

    def _chunk(
        self, choices: list[ChunkChoice], usage: Usage | None = None, far: Far | VoucherEvent | None = None
    ) -> ChatChunk:
        return ChatChunk(id=self._id, created=self.created, model=self.model, choices=choices, usage=usage, far=far)

    def _wire(self, chunk: ChatChunk) -> str:
        fields = chunk.model_dump(exclude_none=True)
        for choice in fields["choices"]:
            choice.setdefault("finish_reason", None)
        if self.include_usage:
            fields.setdefault("usage", None)
        return event(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def _finish_reason(answer: Answer) -> str:
    return "stop" if answer.finish_reason == "stop" else "length"


def _usage(answer: Answer) -> Usage:
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=answer.cached_tokens),
    )


def _far(answer: Answer) -> Far:
    return Far(request_id=answer.request_id, nodes_used=nodes_used(answer.outcome.shares), **costs(answer.outcome))
