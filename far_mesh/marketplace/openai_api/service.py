"""Between the words of ``/v1`` and ours: what chats and completions have in common. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.inference.endpoints import costs, nodes_used
from far_mesh.marketplace.inference.run import Answer
from far_mesh.marketplace.inference.streams import event
from far_mesh.marketplace.openai_api.schemas import Far, PromptTokensDetails, Usage

DEFAULT_TEMPERATURE = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Envelope:
    """What every piece of one answer repeats. ``texts`` is how many there are."""

    id: str
    model: str
    created: int
    texts: int = 1
    include_usage: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """For an answer, or an event."""
        return {"id": self.id, "created": self.created, "model": self.model}

    def wire(self, chunk: BaseModel) -> str:
        """One event. What is not there is left out, but for what clients look for."""
        fields = chunk.model_dump(exclude_none=True)
        for choice in fields["choices"]:
            choice.setdefault("finish_reason", None)
        if self.include_usage:
            fields.setdefault("usage", None)
        return event(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def limit(max_tokens: int | None, max_completion_tokens: int | None) -> int | None:
    """The one limit that goes by two names.

    Raises:
        InvalidArgument: they contradict each other.
    """
    if None not in (max_tokens, max_completion_tokens) and max_tokens != max_completion_tokens:
        raise InvalidArgument("max_tokens and max_completion_tokens differ: send one of them", param="max_tokens")
    return max_completion_tokens if max_tokens is None else max_tokens


def finish_reason(reason: str) -> str:
    """How a text ended, in the words of this interface."""
    return "stop" if reason == "stop" else "length"


def usage(answer: Answer) -> Usage:
    """Token counts, for an answer."""
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=answer.cached_tokens),
    )


def far(answer: Answer) -> Far:
    """The bill, for an answer."""
    nodes = nodes_used(answer.outcome.shares)
    return Far(request_id=answer.request_id, nodes_used=nodes, mended=answer.mended, **costs(answer.outcome))
