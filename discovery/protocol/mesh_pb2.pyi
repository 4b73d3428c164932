from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("open", "opened", "step", "close", "receipt", "failure", "link", "info_request", "node_info", "reroute", "rerouted", "ping", "pong")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    INFO_REQUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_INFO_FIELD_NUMBER: _ClassVar[int]
    REROUTE_FIELD_NUMBER: _ClassVar[int]
    REROUTED_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    open: Open
    opened: Opened
    step: Step
    close: Close
    receipt: bytes
    failure: Failure
    link: Link
    info_request: InfoRequest
    node_info: NodeInfo
    reroute: Reroute
    rerouted: Rerouted
    ping: Ping
    pong: Pong
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., receipt: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., link: _Optional[_Union[Link, _Mapping]] = ..., info_request: _Optional[_Union[InfoRequest, _Mapping]] = ..., node_info: _Optional[_Union[NodeInfo, _Mapping]] = ..., reroute: _Optional[_Union[Reroute, _Mapping]] = ..., rerouted: _Optional[_Union[Rerouted, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ...) -> None: ...

class PeerAddress(_message.Message):
    __slots__ = ("peer_id", "maddrs")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    MADDRS_FIELD_NUMBER: _ClassVar[int]
    peer_id: str
    maddrs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer_id: _Optional[str] = ..., maddrs: _Optional[_Iterable[str]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("session_id", "nonce", "model_digest", "first_block", "end_block", "max_length", "batch", "codec", "previous", "next", "price_units", "left_padding", "priority", "share_prefix", "prefix_scope", "resumption", "trace_parent")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    END_BLOCK_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    PRICE_UNITS_FIELD_NUMBER: _ClassVar[int]
    LEFT_PADDING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SHARE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    PREFIX_SCOPE_FIELD_NUMBER: _ClassVar[int]
    RESUMPTION_FIELD_NUMBER: _ClassVar[int]
    TRACE_PARENT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    nonce: bytes
    model_digest: str
    first_block: int
    end_block: int
    max_length: int
    batch: int
    codec: str
    previous: str
    next: PeerAddress
    price_units: int
    left_padding: _containers.RepeatedScalarFieldContainer[int]
    priority: int
    share_prefix: bool
    prefix_scope: bytes
    resumption: Resumption
    trace_parent: str
    def __init__(self, session_id: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., model_digest: _Optional[str] = ..., first_block: _Optional[int] = ..., end_block: _Optional[int] = ..., max_length: _Optional[int] = ..., batch: _Optional[int] = ..., codec: _Optional[str] = ..., previous: _Optional[str] = ..., next: _Optional[_Union[PeerAddress, _Mapping]] = ..., price_units: _Optional[int] = ..., left_padding: _Optional[_Iterable[int]] = ..., priority: _Optional[int] = ..., share_prefix: _Optional[bool] = ..., prefix_scope: _Optional[bytes] = ..., resumption: _Optional[_Union[Resumption, _Mapping]] = ..., trace_parent: _Optional[str] = ...) -> None: ...

class Resumption(_message.Message):
    __slots__ = ("at_step", "positions", "feeds_new")
    AT_STEP_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    FEEDS_NEW_FIELD_NUMBER: _ClassVar[int]
    at_step: int
    positions: int
    feeds_new: bool
    def __init__(self, at_step: _Optional[int] = ..., positions: _Optional[int] = ..., feeds_new: _Optional[bool] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Link(_message.Message):
    __slots__ = ("session_id", "opened_at")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    opened_at: int
    def __init__(self, session_id: _Optional[bytes] = ..., opened_at: _Optional[int] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("index", "start_position", "keep", "rows", "hidden", "settled", "is_replay", "times")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    START_POSITION_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    IS_REPLAY_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    index: int
    start_position: int
    keep: int
    rows: _containers.RepeatedScalarFieldContainer[int]
    hidden: Tensor
    settled: int
    is_replay: bool
    times: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, index: _Optional[int] = ..., start_position: _Optional[int] = ..., keep: _Optional[int] = ..., rows: _Optional[_Iterable[int]] = ..., hidden: _Optional[_Union[Tensor, _Mapping]] = ..., settled: _Optional[int] = ..., is_replay: _Optional[bool] = ..., times: _Optional[_Iterable[float]] = ...) -> None: ...

class Reroute(_message.Message):
    __slots__ = ("number", "previous", "next")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    previous: str
    next: PeerAddress
    def __init__(self, number: _Optional[int] = ..., previous: _Optional[str] = ..., next: _Optional[_Union[PeerAddress, _Mapping]] = ...) -> None: ...

class Rerouted(_message.Message):
    __slots__ = ("number", "taken", "needs_replay")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    NEEDS_REPLAY_FIELD_NUMBER: _ClassVar[int]
    number: int
    taken: int
    needs_replay: bool
    def __init__(self, number: _Optional[int] = ..., taken: _Optional[int] = ..., needs_replay: _Optional[bool] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("number", "taken", "given")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    number: int
    taken: int
    given: int
    def __init__(self, number: _Optional[int] = ..., taken: _Optional[int] = ..., given: _Optional[int] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "retry", "retry_after", "peer_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    retry: bool
    retry_after: float
    peer_id: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., retry: _Optional[bool] = ..., retry_after: _Optional[float] = ..., peer_id: _Optional[str] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = ("model_digest",)
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model_digest: str
    def __init__(self, model_digest: _Optional[str] = ...) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("peer_id", "wallet", "model_id", "model_digest", "first_block", "end_block", "block_count", "quantization", "dtype", "software", "parameter_count", "parameter_bytes", "resident_bytes", "cache_budget_bytes", "cache_used_bytes", "open_sessions", "token_layers_served", "uptime_seconds", "device", "context_length", "max_batch_size", "one_by_one", "queued_steps", "batch_rows", "decode_tokens_per_second", "prefill_tokens_per_second", "prefix_hits", "prefix_positions", "prefix_bytes", "state", "model_digests")
    PEER_ID_FIELD_NUMBER: _ClassVar[int]
    WALLET_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    END_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    CACHE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OPEN_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LAYERS_SERVED_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    ONE_BY_ONE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HITS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    peer_id: str
    wallet: str
    model_id: str
    model_digest: str
    first_block: int
    end_block: int
    block_count: int
    quantization: str
    dtype: str
    software: str
    parameter_count: int
    parameter_bytes: int
    resident_bytes: int
    cache_budget_bytes: int
    cache_used_bytes: int
    open_sessions: int
    token_layers_served: int
    uptime_seconds: int
    device: str
    context_length: int
    max_batch_size: int
    one_by_one: str
    queued_steps: int
    batch_rows: int
    decode_tokens_per_second: float
    prefill_tokens_per_second: float
    prefix_hits: int
    prefix_positions: int
    prefix_bytes: int
    state: str
    model_digests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, peer_id: _Optional[str] = ..., wallet: _Optional[str] = ..., model_id: _Optional[str] = ..., model_digest: _Optional[str] = ..., first_block: _Optional[int] = ..., end_block: _Optional[int] = ..., block_count: _Optional[int] = ..., quantization: _Optional[str] = ..., dtype: _Optional[str] = ..., software: _Optional[str] = ..., parameter_count: _Optional[int] = ..., parameter_bytes: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., cache_budget_bytes: _Optional[int] = ..., cache_used_bytes: _Optional[int] = ..., open_sessions: _Optional[int] = ..., token_layers_served: _Optional[int] = ..., uptime_seconds: _Optional[int] = ..., device: _Optional[str] = ..., context_length: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., one_by_one: _Optional[str] = ..., queued_steps: _Optional[int] = ..., batch_rows: _Optional[int] = ..., decode_tokens_per_second: _Optional[float] = ..., prefill_tokens_per_second: _Optional[float] = ..., prefix_hits: _Optional[int] = ..., prefix_positions: _Optional[int] = ..., prefix_bytes: _Optional[int] = ..., state: _Optional[str] = ..., model_digests: _Optional[_Iterable[str]] = ...) -> None: ...
