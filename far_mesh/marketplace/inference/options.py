"""What every door takes to say how tokens are chosen, and what an answer must look like."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import FORBIDDEN, MAX_BIASES, MAX_LOGPROBS, GenerationOptions, Grammar
from far_mesh.marketplace.tiers.schemas import MAX_CHOICES

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256

Manner = Callable[[int], GenerationOptions]
"""How to generate so many tokens."""


def _is_a_number(value: Any) -> Any:
    """A number that is written as text, or true, would be a number to pydantic."""
    if isinstance(value, str | bytes | bool):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


# Behind the range, or the document would not have the range.
_A_NUMBER = BeforeValidator(_is_a_number)
Count = Annotated[int, Field(ge=1), _A_NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _A_NUMBER]
Penalty = Annotated[float, Field(ge=-2, le=2), _A_NUMBER]
Logprobs = Annotated[int, Field(ge=0, le=MAX_LOGPROBS), _A_NUMBER]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
StopStrings = Annotated[list[StopString], Field(max_length=MAX_STOPS)]
Biases = Annotated[
    dict[str, Annotated[float, Field(ge=-FORBIDDEN, le=FORBIDDEN), _A_NUMBER]],
    Field(max_length=MAX_BIASES, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}),
]


class JsonSchema(BaseModel):
    """A schema that an answer keeps to. It does so whether or not ``strict`` asks for it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """``text``, ``json_object`` (any JSON object), or ``json_schema``."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def grammar(self) -> Grammar | None:
        """What the answer must look like, if it matters.

        Raises:
            InvalidArgument: no schema where one is needed, or one that is none.
        """
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise InvalidArgument("json_schema goes with the type json_schema", param="response_format.json_schema")
        if self.json_schema is None:
            return None if self.type == "text" else Grammar.json_object()
        return Grammar.json_schema(self.json_schema.schema_ or {"type": "object"})


class Choosing(BaseModel):
    """How tokens are chosen: :class:`far_mesh.config.GenerationOptions` says what each of these does. ``n``: so many
    answers to each prompt; the second has ``seed + 1``, and so on."""

    model_config = ConfigDict(allow_inf_nan=False)

    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), _A_NUMBER] | None = None
    temperature: Annotated[float, Field(ge=0, le=2), _A_NUMBER] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), _A_NUMBER] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31), _A_NUMBER] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2), _A_NUMBER] | None = None
    logit_bias: Biases | None = None
    min_tokens: Annotated[int, Field(ge=0), _A_NUMBER] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), _A_NUMBER] | None = None
    stop: StopString | StopStrings | None = None

    def manner(self, *, temperature: float, logprobs: int | None = None, grammar: Grammar | None = None) -> Manner:
        """The same in our words.

        Args:
            temperature: where none is named.
            logprobs: tell the log probabilities of so many of the likeliest tokens.
            grammar: what the answer must look like.

        Raises:
            InvalidArgument: a bias for what is no token id.
        """
        given: dict[str, Any] = {
            "top_p": self.top_p,
            "seed": self.seed,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "min_tokens": self.min_tokens,
        }
        return partial(
            GenerationOptions,
            temperature=temperature if self.temperature is None else self.temperature,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            logit_bias={_token_id(token): bias for token, bias in (self.logit_bias or {}).items()},
            logprobs=logprobs,
            grammar=grammar,
            **{name: value for name, value in given.items() if value is not None},
        )


def _token_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise InvalidArgument("the keys of logit_bias are token ids", param="logit_bias")
    return int(text)
