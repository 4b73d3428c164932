"""Shapes of ``/v1/chat/completions`` and ``/v1/models``. What is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.inference.schemas import Costs, NodeUsed, StopStrings, VoucherEvent

# A parameter that we do not have may be sent with the value that asks for nothing.
ASKS_FOR_NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
}


class TextPart(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: None = None

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates take them."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    """``include_usage``: the last event before ``[DONE]`` has the token counts."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class ChatRequest(BaseModel):
    """What to answer. ``temperature`` is 1 by default, as clients of this interface expect."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | StopStrings | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    quote_id: Annotated[str, Field(max_length=2048)] | None = None

    def refuse_what_we_do_not_have(self) -> None:
        """Nothing is ignored in silence.

        Raises:
            UnsupportedParameter: names the first parameter that asks for something we do not do.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and value not in ASKS_FOR_NOTHING.get(name, ()):
                raise UnsupportedParameter(f"the parameter {name!r} is not supported with this value", param=name)


class PromptTokensDetails(BaseModel):
    """Tokens of the prompt that the nodes knew from before."""

    cached_tokens: int


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Far(Costs):
    """What this service adds to an answer: the bill, and who did the work."""

    request_id: str
    nodes_used: list[NodeUsed]


class AnswerMessage(BaseModel):
    """The assistant's answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The one choice there is."""

    index: int = 0
    message: AnswerMessage
    finish_reason: str
    logprobs: None = None


class ChatAnswer(BaseModel):
    """A whole answer at once."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    far: Far


class Delta(BaseModel):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """What is new in the one choice there is."""

    index: int = 0
    delta: Delta
    finish_reason: str | None = None
    logprobs: None = None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    far: Far | VoucherEvent | None = None


class ModelCard(BaseModel):
    """A model on sale."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "far-mesh"


class ModelCards(BaseModel):
    """All models on sale."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
