"""Shapes of ``/v1``. What is not here is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from far_mesh.marketplace.errors import UnsupportedParameter
from far_mesh.marketplace.inference.messages import Call, Calling, Messages
from far_mesh.marketplace.inference.options import Choosing, Count, ResponseFormat
from far_mesh.marketplace.inference.options import Logprobs as LogprobCount
from far_mesh.marketplace.inference.schemas import Costs, ModelEntry, NodeUsed, TokenLogprob, VoucherEvent

MAX_PROMPTS = 32
MAX_INPUTS = 256

ASKS_FOR_NOTHING: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": ("medium",),
}
"""A parameter that we do not have may be sent with a value that asks for nothing."""

WITHOUT_EFFECT = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "user"})
"""What callers say about themselves or their requests. It changes nothing here, and nobody keeps it."""

ModelId = Annotated[str, Field(min_length=1, max_length=256)]
QuoteId = Annotated[str, Field(max_length=2048)]
TierName = Annotated[str, Field(max_length=20)]
TokenIds = Annotated[list[int], Field(min_length=1)]


class Known(BaseModel):
    """A request in which nothing is ignored in silence."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    def refuse_what_we_do_not_have(self) -> None:
        """Look at all that is not a field.

        Raises:
            UnsupportedParameter: names the first parameter that asks for something we do not do.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in WITHOUT_EFFECT and value not in ASKS_FOR_NOTHING.get(name, ()):
                raise UnsupportedParameter(f"the parameter {name!r} is not supported with this value", param=name)


# ---- what is asked for


class StreamOptions(BaseModel):
    """``include_usage``: the last event before ``[DONE]`` has the token counts."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class TextRequest(Known, Choosing):
    """What chats and completions have in common. ``temperature`` is 1 by default, as clients expect."""

    model: ModelId
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    quote_id: QuoteId | None = None
    tier: TierName | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(TextRequest, Calling):
    """A chat that is to go on."""

    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: LogprobCount | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(TextRequest):
    """Texts that are to go on, or their token ids."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    logprobs: LogprobCount | None = None
    echo: bool | None = None


class EmbeddingRequest(Known):
    """Texts of which vectors are wanted, or their token ids."""

    model: ModelId
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_INPUTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    pooling: Literal["mean", "last", "cls"] | None = None
    quote_id: QuoteId | None = None
    tier: TierName | None = None


# ---- what is answered


class PromptTokensDetails(BaseModel):
    """Tokens of the prompt that the nodes knew from before."""

    cached_tokens: int


class Usage(BaseModel):
    """Token counts. With several answers those of all; a prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Far(Costs):
    """What this service adds to an answer: the bill, who did the work, and how often other nodes went on in the place
    of ones that were lost."""

    request_id: str
    nodes_used: list[NodeUsed]
    mended: int | None = None


class Logprobs(BaseModel):
    """The log probabilities of an answer's tokens."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    """The assistant's answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[Call] | None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: Logprobs | None = None


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
    tool_calls: list[Call] | None = None


class ChunkChoice(BaseModel):
    """What is new in one of the answers."""

    index: int
    delta: Delta
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class ChatChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    far: Far | VoucherEvent | None = None


class CompletionLogprobs(BaseModel):
    """The log probabilities of a text's tokens, and where each of them begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One of the texts, or what is new in it."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: CompletionLogprobs | None = None


class CompletionAnswer(BaseModel):
    """Texts, or one event of a stream of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    far: Far | VoucherEvent | None = None


class Vector(BaseModel):
    """The vector of a text: numbers, or the base64 of 32-bit floats, the lowest byte first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Vector]
    model: str
    usage: EmbeddingUsage
    far: Far


class ModelCard(BaseModel):
    """A model on sale. ``far`` is what the other face says of it: prices, who serves it, whether it can be had now."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "far-mesh"
    context_length: int
    far: ModelEntry


class ModelCards(BaseModel):
    """All models on sale."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
