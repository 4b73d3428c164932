"""Shapes of ``/api/inference``, as section 7.1 of the specification has them, and what we add to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from far_mesh.marketplace.inference.messages import Call, Calling, Messages
from far_mesh.marketplace.inference.options import Choosing, Count, Logprobs, ResponseFormat
from far_mesh.marketplace.tiers.schemas import MAX_CHOICES


class TextRequest(Choosing, Calling):
    """Texts to generate, whoever waits for them."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Messages | None = None
    response_format: ResponseFormat | None = None
    regex: str | None = None
    lark: str | None = None
    logprobs: Logprobs | None = None
    raw: bool = False
    tier: Annotated[str, Field(max_length=20)] | None = None
    payment: Annotated[str, Field(max_length=80)] | None = None


class GenerateRequest(TextRequest):
    """What to generate: answers to a ``prompt``, or to ``messages``. Anything that is not listed here is refused by
    name. ``temperature`` is 0 by default."""

    stream: bool = True
    quote_id: Annotated[str, Field(max_length=2048)] | None = None
    escrow_intent: dict[str, Any] | None = None


class QuoteRequest(BaseModel):
    """What to quote: ``n`` answers to a prompt, to messages, or to so many tokens. With the ``idempotency_key`` of the
    request that is to follow, the answer has the escrow intent that would pay for it, to be signed."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Messages | None = None
    prompt_tokens: Count | None = None
    max_tokens: Count | None = None
    n: Annotated[Count, Field(le=MAX_CHOICES)] | None = None
    raw: bool = False
    tier: Annotated[str, Field(max_length=20)] | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class QuoteAnswer(BaseModel):
    """A price per token that is kept until ``expires_at`` for requests with this ``quote_id``, whatever their length.
    ``max_cost_units`` is what a request with so many tokens and ``n`` answers would hold. ``escrow_intent`` is the
    typed data (EIP-712) of an intent for the request ``request_id``, if it was asked for."""

    quote_id: str
    expires_at: datetime
    model_id: str
    tier: str
    prompt_tokens: int
    max_tokens: int
    n: int = 1
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_multiplier: float
    utilisation: float
    fee_bps: int
    max_cost_units: int
    max_cost_far: float
    request_id: str | None = None
    escrow_intent: dict[str, Any] | None = None


class NodeUsed(BaseModel):
    """A node that worked on a request, and what it is paid for it."""

    node_id: str
    wallet_address: str
    layers: list[int]
    quantization: str
    token_layers: int
    paid_units: int


class NodeReceipt(NodeUsed):
    """A node's part of a request with what proves it: ``receipt`` is the document that the node has signed, as it came,
    JSON text of ``body``, ``signer`` and ``signature``. Anybody can check it without asking anybody."""

    receipt: str


class RequestReceipts(BaseModel):
    """The receipts of a request, whose shares of its price are divided by them."""

    request_id: str
    model_id: str
    receipts: list[NodeReceipt]


class Costs(BaseModel):
    """How the money of a request was divided. ``held = Σ paid + fee + refund``, to the unit of 1e-9 FAR.
    ``service_level_met`` says whether the tier's promise was kept; null: there was none, or nothing to measure. What it
    gave back if it was not is ``credit_units``: the cost is less by it, or, with an escrow of its own, what later
    requests cost."""

    cost_far: float
    cost_units: int
    held_units: int
    fee_units: int
    refund_units: int
    service_level_met: bool | None = None
    credit_far: float = 0.0
    credit_units: int = 0


class TopToken(BaseModel):
    """A token that could have come: its text, its bytes, perhaps a part of a character, and its log probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopToken):
    """A token that came, and what the likeliest ones would have been, best first."""

    top_logprobs: list[TopToken]


class GeneratedText(BaseModel):
    """One of several answers."""

    index: int
    text: str
    tool_calls: list[Call] | None = None
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None


class GenerateAnswer(Costs):
    """A whole answer at once. Of several, all are in ``choices``, and the first of them is told twice. ``mended``: how
    often other nodes went on in the place of ones that were lost."""

    request_id: str
    text: str
    tool_calls: list[Call] | None = None
    logprobs: list[TokenLogprob] | None = None
    choices: list[GeneratedText] | None = None
    tokens_generated: int
    total_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    latency_ms: int
    time_to_first_token_ms: int | None
    nodes_used: list[NodeUsed]
    mended: int | None = None


class TokenEvent(BaseModel):
    """One event of a stream. ``index`` says of which answer, where there are several."""

    token: str
    request_id: str
    index: int | None = None
    tool_calls: list[Call] | None = None
    logprob: TokenLogprob | None = None


class VoucherEvent(BaseModel):
    """The stream waits, for so many ``seconds``, until a voucher for at least ``promise_units`` is there. Where that is
    more than lies in the channel, it has to be topped up first."""

    type: Literal["voucher_needed"] = "voucher_needed"
    channel_id: str
    promise_units: int
    promise_wei: str
    deposit_units: int
    step_units: int
    seconds: float


class DoneEvent(Costs):
    """The last event of a stream. ``finish_reasons`` are those of all answers, where there are several. ``mended``: how
    often other nodes went on in the place of ones that were lost."""

    done: Literal[True] = True
    request_id: str
    total_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    finish_reasons: list[str] | None = None
    latency_ms: int
    time_to_first_token_ms: int | None
    nodes_used: list[NodeUsed]
    mended: int | None = None


class PriceInTier(BaseModel):
    """What a token costs in a tier now."""

    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_per_token_far: float


class BlockCover(BaseModel):
    """Blocks ``[first_block, end_block)`` that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


class ModelEntry(BaseModel):
    """A model on sale. What has not been measured is null. Prices that stand outside ``prices`` are those of the tier
    standard, and ``fee_bps`` is the marketplace's part of them: the nodes earn the rest. ``reason`` says why it is not
    ``available``; ``min_vram_gb`` is null, as no node needs the whole model."""

    id: str
    name: str
    active_nodes: int
    avg_latency_ms: int | None
    price_per_token_far: float
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    fee_bps: int
    price_multiplier: float
    utilisation: float
    min_vram_gb: float | None
    min_nodes: int
    block_count: int
    context_length: int
    model_digest: str
    available: bool
    reason: str | None
    coverage: list[BlockCover]
    prices: dict[str, PriceInTier]


class ModelList(BaseModel):
    """All models on sale."""

    models: list[ModelEntry]


class SettlementState(BaseModel):
    """How far the chain is. ``status`` of a request with an escrow of its own: none, locking, locked, releasing,
    released, cancelling, cancelled, failed. Of the others: none (there is nothing to pay), waiting (for its batch),
    in_batch (the chain is asked), paid. ``batch`` and ``batch_tx`` are those of its batch."""

    status: str
    lock_tx: str | None
    release_tx: str | None
    cancel_tx: str | None
    batch: int | None
    batch_tx: str | None
    error: str | None


class RequestState(BaseModel):
    """A request of the caller: money, nodes and settlement. Never what was said. ``p95_token_ms``: of the times
    between its tokens 95 of 100 were no longer. ``spent_credit_units``: it was cheaper by so much for promises that
    earlier ones had missed."""

    request_id: str
    model_id: str
    tier: str
    status: str
    error_code: str | None
    payment: str
    channel_id: str | None
    started_at: datetime
    completed_at: datetime | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str | None
    held_units: int
    cost_units: int | None
    fee_units: int | None
    refund_units: int | None
    latency_ms: int | None
    time_to_first_token_ms: int | None
    p95_token_ms: int | None
    promised_p95_ms: int | None
    service_level_met: bool | None
    credit_far: float
    credit_units: int
    spent_credit_units: int
    nodes_used: list[NodeUsed]
    settlement: SettlementState
