"""``/v1/completions`` in our words, and its answers in theirs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.inference.endpoints import token_logprob, voucher_event
from far_mesh.marketplace.inference.jobs import Said, by_text
from far_mesh.marketplace.inference.meshes import Prompt
from far_mesh.marketplace.inference.run import Answer, Item
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.inference.streams import event
from far_mesh.marketplace.openai_api.schemas import (
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from far_mesh.marketplace.openai_api.service import DEFAULT_TEMPERATURE, Envelope, far, finish_reason, usage

DEFAULT_MAX_TOKENS = 16


def wish_of(body: CompletionRequest) -> Wish:
    """What is asked for, in our words.

    Raises:
        UnsupportedParameter: something we do not do.
        InvalidArgument: what means nothing.
    """
    body.refuse_what_we_do_not_have()
    if body.echo and body.logprobs is not None:
        raise UnsupportedParameter(
            "the log probabilities of a prompt are not told: send echo or logprobs", param="echo"
        )
    return Wish(
        model_id=body.model,
        prompts=prompts_of(body),
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        manner=body.manner(temperature=DEFAULT_TEMPERATURE, logprobs=body.logprobs),
        choices=1 if body.n is None else body.n,
        streamed=bool(body.stream),
        raw=True,
        quote_id=body.quote_id,
        tier=body.tier,
    )


def prompts_of(body: CompletionRequest) -> tuple[Prompt, ...]:
    """Each prompt: a text, or its token ids."""
    prompt = body.prompt
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return (prompt,)  # a list of numbers, by the shape
    return tuple(prompt)


class Completion:
    """The texts of one request. ``echoes`` are what stands before each of them."""

    def __init__(self, envelope: Envelope, echoes: Sequence[str] = ()) -> None:
        self._envelope, self._echoes = envelope, echoes or [""] * envelope.texts

    def whole(self, items: Sequence[Item], answer: Answer) -> CompletionAnswer:
        """All of it."""
        texts = by_text(items, self._envelope.texts)
        choices = [
            CompletionChoice(
                index=index,
                text=self._echoes[index] + "".join(item.text for item in said),
                finish_reason=finish_reason(answer.finish_reasons[index]),
                logprobs=_logprobs(said),
            )
            for index, said in enumerate(texts)
        ]
        return CompletionAnswer(**self._envelope.fields, choices=choices, usage=usage(answer), far=far(answer))

    def first(self) -> list[str]:
        """The events with what stands before the texts."""
        return [self._wire([CompletionChoice(index=at, text=echo)]) for at, echo in enumerate(self._echoes) if echo]

    def said(self, said: Said) -> list[str]:
        """A token as an event, if it tells anything."""
        logprobs = _logprobs([said])
        if not said.text and logprobs is None:
            return []
        return [self._wire([CompletionChoice(index=said.index, text=said.text, logprobs=logprobs)])]

    def is_due(self, said: Said) -> list[str]:
        """As :meth:`said`, where who reads has to know of each token."""
        return self.said(said) or [self._wire([CompletionChoice(index=said.index, text="")])]

    def needed(self, notice: VoucherNotice) -> str:
        """The event that asks for a voucher."""
        nothing = CompletionChoice(index=0, text="")
        return self._envelope.wire(
            CompletionAnswer(**self._envelope.fields, choices=[nothing], far=voucher_event(notice))
        )

    def last(self, answer: Answer) -> list[str]:
        """The events that end a stream."""
        reasons = map(finish_reason, answer.finish_reasons)
        ends = [CompletionChoice(index=index, text="", finish_reason=reason) for index, reason in enumerate(reasons)]
        events = [self._wire([end]) for end in ends[:-1]]
        bill = CompletionAnswer(**self._envelope.fields, choices=ends[-1:], far=far(answer))
        events.append(self._envelope.wire(bill))
        if self._envelope.include_usage:
            counts = CompletionAnswer(**self._envelope.fields, choices=[], usage=usage(answer))
            events.append(self._envelope.wire(counts))
        return [*events, event("[DONE]")]

    def _wire(self, choices: list[CompletionChoice]) -> str:
        return self._envelope.wire(CompletionAnswer(**self._envelope.fields, choices=choices))


def _logprobs(said: Sequence[Said]) -> CompletionLogprobs | None:
    told = [(item.token.offset, logprob) for item in said if (logprob := token_logprob(item)) is not None]
    if not told:
        return None
    return CompletionLogprobs(
        tokens=[one.token for _, one in told],
        token_logprobs=[one.logprob for _, one in told],
        top_logprobs=[{top.token: top.logprob for top in one.top_logprobs} for _, one in told],
        text_offset=[offset for offset, _ in told],
    )
