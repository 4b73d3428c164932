"""What a gateway is asked.

Written by tools/generate_models.py: change the gateway, not this.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import Required, TypedDict


class Call(TypedDict, total=False):
    """A call of a tool, as the model made it."""

    id: Required[str]
    type: Literal["function"]
    function: Required[Called]
    index: int | None


class Called(TypedDict, total=False):
    """Which function a model called, and with what: the text of a JSON object."""

    name: Required[str]
    arguments: Required[str]


class ClaimRequest(TypedDict, total=False):
    """A claim that node and wallet have signed: the typed data (EIP-712) is `NodeClaim(string node,address
    wallet,string gateway,uint256 nonce,uint256 deadline)` in the domain `Far Mesh`, version 1, of the chain.
    ``nonce`` is the time in milliseconds, ``deadline`` in seconds.
    """

    node_id: Required[str]
    wallet_address: Required[str]
    gateway: Required[str]
    chain_id: Required[int]
    nonce: Required[int]
    deadline: Required[int]
    node_signature: Required[str]
    signature: Required[str]


class Function(TypedDict, total=False):
    """What can be called. ``parameters`` is a JSON schema; with ``strict`` or without, forced calls keep to it."""

    name: Required[str]
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class JsonSchema(TypedDict, total=False):
    """A schema that an answer keeps to. It does so whether or not ``strict`` asks for it."""

    name: Required[str]
    description: str | None
    schema: dict[str, Any] | None
    strict: bool | None


class KeyLimits(TypedDict, total=False):
    """How much can be done with a key. Days are those of UTC, a minute is always the last one."""

    units_per_day: int | None
    requests_per_minute: int | None


class KeyRequest(TypedDict, total=False):
    """What a new key is to be."""

    name: Required[str]
    scopes: list[Literal["inference", "account:read", "account:write", "provider", "operator"]]
    expires_at: str | None
    limits: KeyLimits


class Message(TypedDict, total=False):
    """One message of a chat. Of what the model said before, ``refusal`` and the like come back empty."""

    role: Required[Literal["system", "developer", "user", "assistant", "tool"]]
    content: str | list[Part] | None
    name: str | None
    tool_calls: list[Call] | None
    tool_call_id: str | None
    refusal: None
    audio: None
    function_call: None
    annotations: list[Any] | None


class NamedFunction(TypedDict, total=False):
    """The function that is to be called."""

    name: Required[str]


class NamedTool(TypedDict, total=False):
    """The tool that is to be called."""

    type: Required[Literal["function"]]
    function: Required[NamedFunction]


class Part(TypedDict, total=False):
    """A piece of a message: ``{"type": "text", "text"}``."""

    type: Required[str]
    text: str | None


class ResponseFormat(TypedDict, total=False):
    """``text``, ``json_object`` (any JSON object), or ``json_schema``."""

    type: Required[Literal["text", "json_object", "json_schema"]]
    json_schema: JsonSchema | None


class Tool(TypedDict, total=False):
    """A tool; there are functions only."""

    type: Required[Literal["function"]]
    function: Required[Function]


class Webhook(TypedDict, total=False):
    """Where to tell of a job's end. The message has no text unless ``include_result`` asks for it."""

    url: Required[str]
    include_result: bool


class GenerateOptions(TypedDict, total=False):
    """What to generate: answers to a ``prompt``, or to ``messages``. Anything that is not listed here is refused by
    name. ``temperature`` is 0 by default.
    """

    tools: list[Tool] | None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None
    parallel_tool_calls: bool | None
    n: int | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: dict[str, float] | None
    min_tokens: int | None
    seed: int | None
    stop: str | list[str] | None
    response_format: ResponseFormat | None
    regex: str | None
    lark: str | None
    logprobs: int | None
    raw: bool
    tier: str | None
    payment: str | None
    quote_id: str | None
    escrow_intent: dict[str, Any] | None


class QuoteOptions(TypedDict, total=False):
    """What to quote: ``n`` answers to a prompt, to messages, or to so many tokens. With the ``idempotency_key`` of
    the request that is to follow, the answer has the escrow intent that would pay for it, to be signed.
    """

    prompt_tokens: int | None
    n: int | None
    raw: bool
    tier: str | None
    idempotency_key: str | None


class JobOptions(TypedDict, total=False):
    """What to generate while nobody waits. ``est_tokens`` is another name of ``max_tokens``; ``user_pubkey`` may be
    named and must be the caller's own wallet.
    """

    tools: list[Tool] | None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None
    parallel_tool_calls: bool | None
    n: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: dict[str, float] | None
    min_tokens: int | None
    seed: int | None
    stop: str | list[str] | None
    response_format: ResponseFormat | None
    regex: str | None
    lark: str | None
    logprobs: int | None
    raw: bool
    tier: str | None
    payment: str | None
    est_tokens: int | None
    user_pubkey: str | None
    webhook: Webhook | None
