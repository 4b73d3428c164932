"""What has come of an answer so far: events in, pieces of text out. Nothing here waits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import ValidationError

from farlabs.errors import FarLabsError, StreamError, error_of
from farlabs.json_text import parsed
from farlabs.models import DoneEvent, GenerateAnswer, TokenEvent, VoucherEvent
from farlabs.sse import Comment, ServerSentEvent

MOST_ANSWERS = 128
"""What a request may ask for (``n``): a higher index is none."""

_QUEUED = re.compile(r"queued (?:([0-9]{1,9})|at the nodes)(?:, (.+))?\Z", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where a request stands that waits for its turn.

    ``position``: in the queue, from 1; at 0 its turn has come, and nodes with room for it are being found.
    ``obstacle``: what all are waiting for, such as a part of the model that nobody serves now.
    """

    position: int
    obstacle: str | None


@dataclass
class _Text:
    text: list[str] = field(default_factory=list)
    tool_calls: list[object] = field(default_factory=list)
    logprobs: list[object] = field(default_factory=list)


class Reading:
    """One answer, from its first event to its bill."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self.done: DoneEvent | None = None
        self.is_begun = False
        self.tokens = 0
        self._answer: GenerateAnswer | None = None
        self._texts: list[_Text] = []

    @property
    def text(self) -> str:
        """Of several answers, the first."""
        return "".join(self._texts[0].text) if self._texts else ""

    def begin(self) -> None:
        """It is read now.

        Raises:
            FarLabsError: ``already_read``.
        """
        if self.is_begun:
            raise FarLabsError("an answer can be read once: keep what comes, or ask again", code="already_read")
        self.is_begun = True

    def take(self, item: ServerSentEvent | Comment) -> TokenEvent | VoucherEvent | DoneEvent | Place | None:
        """What an event says, or a comment, if that says anything.

        Raises:
            StreamError: the answer failed, or the event means nothing.
        """
        if isinstance(item, Comment):
            return place_of(item.text)
        told = parsed(item.data)
        if isinstance(told, dict):
            if isinstance(told.get("error"), dict):
                raise error_of(None, told, request_id=self.request_id)
            try:
                if told.get("done") is True:
                    self.done = DoneEvent.model_validate(told)
                    return self.done
                if told.get("type") == "voucher_needed":
                    return VoucherEvent.model_validate(told)
                token = TokenEvent.model_validate(told)
                if 0 <= (token.index or 0) < MOST_ANSWERS:
                    self._keep(token)
                    self.tokens += 1
                    return token
            except ValidationError:
                pass  # said below
        raise StreamError("an event of the stream means nothing", code="not_understood", request_id=self.request_id)

    def take_whole(self, answer: GenerateAnswer) -> list[TokenEvent]:
        """The same of an answer in one piece."""
        bill = answer.model_dump(exclude={"text", "tool_calls", "logprobs", "choices", "tokens_generated"})
        reasons = [choice.finish_reason for choice in answer.choices] if answer.choices else None
        self.done = DoneEvent.model_validate(bill | {"finish_reasons": reasons})
        self._answer = answer
        texts = [choice.text for choice in answer.choices] if answer.choices else [answer.text]
        self._texts = [_Text([text]) for text in texts]
        return [
            TokenEvent(token=text, request_id=answer.request_id, index=index if answer.choices else None)
            for index, text in enumerate(texts)
        ]

    def broken(self, message: str = "the answer broke off before its end", code: str = "stream_broken") -> StreamError:
        """It did not come to its end."""
        return StreamError(message, code=code, request_id=self.request_id)

    def result(self) -> GenerateAnswer:
        """The whole answer, in the shape in which the gateway gives one that is not streamed.

        Raises:
            StreamError: ``not_ended``.
        """
        if self._answer is not None:
            return self._answer
        done = self.done
        if done is None:
            raise self.broken("the answer was not read to its end", "not_ended")
        reasons = done.finish_reasons or [done.finish_reason]
        texts = [*self._texts, *(_Text() for _ in range(len(reasons) - len(self._texts)))]
        choices = [
            {
                "index": index,
                "text": "".join(one.text),
                "tool_calls": one.tool_calls or None,
                "logprobs": one.logprobs or None,
                "finish_reason": reasons[index] if index < len(reasons) else done.finish_reason,
            }
            for index, one in enumerate(texts)
        ]
        first = {name: choices[0][name] for name in ("text", "tool_calls", "logprobs")}
        several = {"choices": choices if len(choices) > 1 else None, "tokens_generated": done.completion_tokens}
        return GenerateAnswer.model_validate(done.model_dump(exclude={"done", "finish_reasons"}) | first | several)

    def _keep(self, token: TokenEvent) -> None:
        index = token.index or 0
        self._texts.extend(_Text() for _ in range(index + 1 - len(self._texts)))
        one = self._texts[index]
        one.text.append(token.token)
        one.tool_calls.extend(call.model_dump() for call in token.tool_calls or ())
        if token.logprob is not None:
            one.logprobs.append(token.logprob.model_dump())


def place_of(comment: str) -> Place | None:
    """What a comment of a stream says of the queue."""
    found = _QUEUED.match(comment)
    return None if found is None else Place(int(found[1] or 0), found[2])
