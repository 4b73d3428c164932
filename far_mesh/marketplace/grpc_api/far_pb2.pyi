import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InferRequest(_message.Message):
    __slots__ = ("model_id", "prompt", "temperature", "max_tokens", "top_p", "seed", "stop", "raw", "tier", "quote_id", "payment", "idempotency_key", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "min_tokens", "regex", "lark", "response_format", "n", "logprobs", "messages", "tools", "tool_choice", "parallel_tool_calls")
    class LogitBiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    QUOTE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_BIAS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    LARK_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CHOICE_FIELD_NUMBER: _ClassVar[int]
    PARALLEL_TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    prompt: str
    temperature: float
    max_tokens: int
    top_p: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    raw: bool
    tier: str
    quote_id: str
    payment: str
    idempotency_key: str
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: _containers.ScalarMap[int, float]
    min_tokens: int
    regex: str
    lark: str
    response_format: ResponseFormat
    n: int
    logprobs: int
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    tool_choice: str
    parallel_tool_calls: bool
    def __init__(self, model_id: _Optional[str] = ..., prompt: _Optional[str] = ..., temperature: _Optional[float] = ..., max_tokens: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., raw: _Optional[bool] = ..., tier: _Optional[str] = ..., quote_id: _Optional[str] = ..., payment: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., top_k: _Optional[int] = ..., min_p: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., logit_bias: _Optional[_Mapping[int, float]] = ..., min_tokens: _Optional[int] = ..., regex: _Optional[str] = ..., lark: _Optional[str] = ..., response_format: _Optional[_Union[ResponseFormat, _Mapping]] = ..., n: _Optional[int] = ..., logprobs: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., tool_choice: _Optional[str] = ..., parallel_tool_calls: _Optional[bool] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content", "name", "tool_calls", "tool_call_id")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    name: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    tool_call_id: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., name: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("id", "function", "index")
    ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    id: str
    function: CalledFunction
    index: int
    def __init__(self, id: _Optional[str] = ..., function: _Optional[_Union[CalledFunction, _Mapping]] = ..., index: _Optional[int] = ...) -> None: ...

class CalledFunction(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: str
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("function",)
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    function: Function
    def __init__(self, function: _Optional[_Union[Function, _Mapping]] = ...) -> None: ...

class Function(_message.Message):
    __slots__ = ("name", "description", "parameters", "strict")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: str
    strict: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ..., strict: _Optional[bool] = ...) -> None: ...

class ResponseFormat(_message.Message):
    __slots__ = ("type", "json_schema")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    type: str
    json_schema: JsonSchema
    def __init__(self, type: _Optional[str] = ..., json_schema: _Optional[_Union[JsonSchema, _Mapping]] = ...) -> None: ...

class JsonSchema(_message.Message):
    __slots__ = ("name", "description", "schema", "strict")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    schema: str
    strict: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., schema: _Optional[str] = ..., strict: _Optional[bool] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("text", "bill", "tool_calls", "logprobs", "choices")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BILL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    text: str
    bill: Bill
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    choices: _containers.RepeatedCompositeFieldContainer[GeneratedText]
    def __init__(self, text: _Optional[str] = ..., bill: _Optional[_Union[Bill, _Mapping]] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ..., choices: _Optional[_Iterable[_Union[GeneratedText, _Mapping]]] = ...) -> None: ...

class GeneratedText(_message.Message):
    __slots__ = ("index", "text", "tool_calls", "finish_reason", "logprobs")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    finish_reason: str
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., finish_reason: _Optional[str] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "bytes", "logprob", "top_logprobs")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    token: str
    bytes: _containers.RepeatedScalarFieldContainer[int]
    logprob: float
    top_logprobs: _containers.RepeatedCompositeFieldContainer[TopToken]
    def __init__(self, token: _Optional[str] = ..., bytes: _Optional[_Iterable[int]] = ..., logprob: _Optional[float] = ..., top_logprobs: _Optional[_Iterable[_Union[TopToken, _Mapping]]] = ...) -> None: ...

class TopToken(_message.Message):
    __slots__ = ("token", "bytes", "logprob")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token: str
    bytes: _containers.RepeatedScalarFieldContainer[int]
    logprob: float
    def __init__(self, token: _Optional[str] = ..., bytes: _Optional[_Iterable[int]] = ..., logprob: _Optional[float] = ...) -> None: ...

class InferEvent(_message.Message):
    __slots__ = ("text", "voucher_needed", "bill", "token")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VOUCHER_NEEDED_FIELD_NUMBER: _ClassVar[int]
    BILL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    text: str
    voucher_needed: VoucherNeeded
    bill: Bill
    token: TokenEvent
    def __init__(self, text: _Optional[str] = ..., voucher_needed: _Optional[_Union[VoucherNeeded, _Mapping]] = ..., bill: _Optional[_Union[Bill, _Mapping]] = ..., token: _Optional[_Union[TokenEvent, _Mapping]] = ...) -> None: ...

class TokenEvent(_message.Message):
    __slots__ = ("token", "index", "tool_calls", "logprob")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token: str
    index: int
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    logprob: TokenLogprob
    def __init__(self, token: _Optional[str] = ..., index: _Optional[int] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., logprob: _Optional[_Union[TokenLogprob, _Mapping]] = ...) -> None: ...

class VoucherNeeded(_message.Message):
    __slots__ = ("channel_id", "promise_units", "promise_wei", "deposit_units", "step_units", "seconds")
    CHANNEL_ID_FIELD_NUMBER: _ClassVar[int]
    PROMISE_UNITS_FIELD_NUMBER: _ClassVar[int]
    PROMISE_WEI_FIELD_NUMBER: _ClassVar[int]
    DEPOSIT_UNITS_FIELD_NUMBER: _ClassVar[int]
    STEP_UNITS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    channel_id: str
    promise_units: int
    promise_wei: str
    deposit_units: int
    step_units: int
    seconds: float
    def __init__(self, channel_id: _Optional[str] = ..., promise_units: _Optional[int] = ..., promise_wei: _Optional[str] = ..., deposit_units: _Optional[int] = ..., step_units: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Bill(_message.Message):
    __slots__ = ("request_id", "finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "latency_ms", "time_to_first_token_ms", "cost_units", "held_units", "fee_units", "refund_units", "cost_far", "nodes_used", "service_level_met", "credit_units", "credit_far", "finish_reasons", "mended")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    COST_UNITS_FIELD_NUMBER: _ClassVar[int]
    HELD_UNITS_FIELD_NUMBER: _ClassVar[int]
    FEE_UNITS_FIELD_NUMBER: _ClassVar[int]
    REFUND_UNITS_FIELD_NUMBER: _ClassVar[int]
    COST_FAR_FIELD_NUMBER: _ClassVar[int]
    NODES_USED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_LEVEL_MET_FIELD_NUMBER: _ClassVar[int]
    CREDIT_UNITS_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FAR_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASONS_FIELD_NUMBER: _ClassVar[int]
    MENDED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int
    latency_ms: int
    time_to_first_token_ms: int
    cost_units: int
    held_units: int
    fee_units: int
    refund_units: int
    cost_far: float
    nodes_used: _containers.RepeatedCompositeFieldContainer[NodeUsed]
    service_level_met: bool
    credit_units: int
    credit_far: float
    finish_reasons: _containers.RepeatedScalarFieldContainer[str]
    mended: int
    def __init__(self, request_id: _Optional[str] = ..., finish_reason: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., latency_ms: _Optional[int] = ..., time_to_first_token_ms: _Optional[int] = ..., cost_units: _Optional[int] = ..., held_units: _Optional[int] = ..., fee_units: _Optional[int] = ..., refund_units: _Optional[int] = ..., cost_far: _Optional[float] = ..., nodes_used: _Optional[_Iterable[_Union[NodeUsed, _Mapping]]] = ..., service_level_met: _Optional[bool] = ..., credit_units: _Optional[int] = ..., credit_far: _Optional[float] = ..., finish_reasons: _Optional[_Iterable[str]] = ..., mended: _Optional[int] = ...) -> None: ...

class NodeUsed(_message.Message):
    __slots__ = ("node_id", "wallet_address", "layers", "quantization", "token_layers", "paid_units")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    WALLET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LAYERS_FIELD_NUMBER: _ClassVar[int]
    PAID_UNITS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    wallet_address: str
    layers: _containers.RepeatedScalarFieldContainer[int]
    quantization: str
    token_layers: int
    paid_units: int
    def __init__(self, node_id: _Optional[str] = ..., wallet_address: _Optional[str] = ..., layers: _Optional[_Iterable[int]] = ..., quantization: _Optional[str] = ..., token_layers: _Optional[int] = ..., paid_units: _Optional[int] = ...) -> None: ...

class QuoteRequest(_message.Message):
    __slots__ = ("model_id", "prompt", "prompt_tokens", "max_tokens", "raw", "tier", "n", "messages")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    raw: bool
    tier: str
    n: int
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, model_id: _Optional[str] = ..., prompt: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., raw: _Optional[bool] = ..., tier: _Optional[str] = ..., n: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class QuoteResponse(_message.Message):
    __slots__ = ("quote_id", "expires_at", "model_id", "tier", "prompt_tokens", "max_tokens", "prompt_price_units", "cached_prompt_price_units", "completion_price_units", "price_multiplier", "utilisation", "fee_bps", "max_cost_units", "max_cost_far", "n")
    QUOTE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    PRICE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    FEE_BPS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_UNITS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_FAR_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    quote_id: str
    expires_at: _timestamp_pb2.Timestamp
    model_id: str
    tier: str
    prompt_tokens: int
    max_tokens: int
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_multiplier: float
    utilisation: float
    fee_bps: int
    max_cost_units: int
    max_cost_far: float
    n: int
    def __init__(self, quote_id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model_id: _Optional[str] = ..., tier: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., max_tokens: _Optional[int] = ..., prompt_price_units: _Optional[int] = ..., cached_prompt_price_units: _Optional[int] = ..., completion_price_units: _Optional[int] = ..., price_multiplier: _Optional[float] = ..., utilisation: _Optional[float] = ..., fee_bps: _Optional[int] = ..., max_cost_units: _Optional[int] = ..., max_cost_far: _Optional[float] = ..., n: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "name", "active_nodes", "avg_latency_ms", "price_per_token_far", "prompt_price_units", "cached_prompt_price_units", "completion_price_units", "price_multiplier", "utilisation", "min_nodes", "block_count", "context_length", "model_digest")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_NODES_FIELD_NUMBER: _ClassVar[int]
    AVG_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    PRICE_PER_TOKEN_FAR_FIELD_NUMBER: _ClassVar[int]
    PROMPT_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    PRICE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    MIN_NODES_FIELD_NUMBER: _ClassVar[int]
    BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    active_nodes: int
    avg_latency_ms: int
    price_per_token_far: float
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_multiplier: float
    utilisation: float
    min_nodes: int
    block_count: int
    context_length: int
    model_digest: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., active_nodes: _Optional[int] = ..., avg_latency_ms: _Optional[int] = ..., price_per_token_far: _Optional[float] = ..., prompt_price_units: _Optional[int] = ..., cached_prompt_price_units: _Optional[int] = ..., completion_price_units: _Optional[int] = ..., price_multiplier: _Optional[float] = ..., utilisation: _Optional[float] = ..., min_nodes: _Optional[int] = ..., block_count: _Optional[int] = ..., context_length: _Optional[int] = ..., model_digest: _Optional[str] = ...) -> None: ...

class NodeStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeStatusResponse(_message.Message):
    __slots__ = ("status", "reasons", "models")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    status: str
    reasons: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, status: _Optional[str] = ..., reasons: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("id", "ok", "reason", "active_nodes", "uncovered")
    ID_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_NODES_FIELD_NUMBER: _ClassVar[int]
    UNCOVERED_FIELD_NUMBER: _ClassVar[int]
    id: str
    ok: bool
    reason: str
    active_nodes: int
    uncovered: _containers.RepeatedCompositeFieldContainer[BlockRange]
    def __init__(self, id: _Optional[str] = ..., ok: _Optional[bool] = ..., reason: _Optional[str] = ..., active_nodes: _Optional[int] = ..., uncovered: _Optional[_Iterable[_Union[BlockRange, _Mapping]]] = ...) -> None: ...

class BlockRange(_message.Message):
    __slots__ = ("first", "end")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    first: int
    end: int
    def __init__(self, first: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...
