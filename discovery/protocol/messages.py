"""What client and nodes say to each other, as types. ``mesh.proto`` is the wire form.

:func:`encode` and :func:`decode` are the only door between bytes and these types: whatever a stranger sends is checked
here once (sizes, ranges, the length of a tensor against its shape), and inside the house one trusts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import get_args

from google.protobuf.message import DecodeError

from discovery.protocol import mesh_pb2 as pb
from discovery.protocol.announcement import Dtype
from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, ProtocolViolation, error_from_wire
from discovery.protocol.ids import SESSION_ID_BYTES, PeerId, SessionId, check_peer_id

SESSION_PROTOCOL = "/far-mesh/session/1"
LINK_PROTOCOL = "/far-mesh/link/1"
INFO_PROTOCOL = "/far-mesh/info/1"

MAX_FRAME_BYTES = 256 * 2**20
MAX_PLAIN_BYTES = 2**16
"""Of a message without a tensor, and of all else in one with a tensor: what protobuf makes of it stays small."""
MAX_BATCH = 256
MAX_POSITIONS = 2**24
MAX_PRICE_UNITS = 2**53 - 1
MAX_REASON = 1000
NONCE_BYTES = 16
MAX_SCOPE_BYTES = 32

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
assert set(DTYPE_BYTES) == set(get_args(Dtype))


class Priority(IntEnum):
    """Whose steps go first on a busy node; inside a class clients take turns."""

    HIGH = -1
    NORMAL = 0
    LOW = 1


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A peer and where it may be reached (multiaddrs without the peer id)."""

    peer_id: PeerId
    maddrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WireTensor:
    """Hidden states on the wire: row-major bytes of ``shape`` = (rows, positions, hidden size), little-endian."""

    dtype: Dtype
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """A client asks a node to run blocks ``[first_block, end_block)`` in a session."""

    session_id: SessionId
    nonce: bytes
    model_digest: str
    first_block: int
    end_block: int
    max_length: int
    batch: int
    codec: Dtype
    previous: PeerId | None
    next: PeerAddress | None
    price_units: int = 0
    left_padding: tuple[int, ...] = ()
    priority: Priority = Priority.NORMAL
    share_prefix: bool = False
    prefix_scope: bytes = b""


@dataclass(frozen=True, slots=True)
class Opened:
    """The node holds cache for the session and is linked to its successor."""


@dataclass(frozen=True, slots=True)
class Link:
    """First word on a node-to-node stream: which session it belongs to."""

    session_id: SessionId


@dataclass(frozen=True, slots=True)
class Step:
    """Hidden states for positions ``start_position …``; a start below the cached length rolls the cache back."""

    index: int
    start_position: int
    hidden: WireTensor
    keep: int = 0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """The client is done; the node answers with its last receipt."""


@dataclass(frozen=True, slots=True)
class ReceiptIssued:
    """A signed receipt, still in the bytes it was sent in."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Something failed at the sender, or at ``peer_id`` when that is set."""

    code: str
    message: str
    retry: bool
    retry_after: float | None = None
    peer_id: str | None = None

    def to_error(self) -> FarError:
        """The error it reports."""
        return error_from_wire(self.code, self.message, self.retry_after)

    @classmethod
    def of(cls, error: FarError, peer_id: str | None = None) -> Failure:
        """``error`` in the form in which it travels."""
        return cls(error.code, error.message[:MAX_REASON], error.retry, error.retry_after, peer_id)


@dataclass(frozen=True, slots=True)
class InfoRequest:
    """Ask a node for its :class:`NodeInfo`, of one model it serves; an empty digest means the first."""

    model_digest: str = ""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What a node says of its own process. Claims, not measurements: nobody is paid or chosen by them alone."""

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
    device: str = ""
    context_length: int = 0
    max_batch_size: int = 0
    one_by_one: str = ""
    queued_steps: int = 0
    batch_rows: int = 0
    decode_tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    prefix_hits: int = 0
    prefix_positions: int = 0
    prefix_bytes: int = 0
    state: str = "ready"
    model_digests: tuple[str, ...] = ()


Message = Open | Opened | Link | Step | Close | ReceiptIssued | Failure | InfoRequest | NodeInfo


def encode(message: Message) -> bytes:
    """One frame's bytes.

    Raises:
        InvalidArgument: they are more than a frame may have.
    """
    match message:
        case Step():
            hidden = message.hidden
            tensor = pb.Tensor(dtype=hidden.dtype, shape=hidden.shape, data=hidden.data)
            step = pb.Step(
                index=message.index,
                start_position=message.start_position,
                keep=message.keep,
                rows=message.rows,
                hidden=tensor,
            )
            envelope = pb.Envelope(step=step)
        case Open():
            envelope = pb.Envelope(open=_open_to_wire(message))
        case Opened():
            envelope = pb.Envelope(opened=pb.Opened())
        case Link():
            envelope = pb.Envelope(link=pb.Link(session_id=message.session_id))
        case Close():
            envelope = pb.Envelope(close=pb.Close())
        case ReceiptIssued():
            envelope = pb.Envelope(receipt=message.document)
        case Failure():
            failure = pb.Failure(
                code=message.code,
                message=message.message,
                retry=message.retry,
                retry_after=message.retry_after or 0.0,
                peer_id=message.peer_id or "",
            )
            envelope = pb.Envelope(failure=failure)
        case InfoRequest():
            envelope = pb.Envelope(info_request=pb.InfoRequest(model_digest=message.model_digest))
        case NodeInfo():
            envelope = pb.Envelope(node_info=pb.NodeInfo(**{name: getattr(message, name) for name in _INFO_FIELDS}))
    frame: bytes = envelope.SerializeToString()
    if len(frame) > MAX_FRAME_BYTES:
        raise InvalidArgument(
            f"a message of {len(frame)} bytes is longer than the {MAX_FRAME_BYTES} of a frame: send fewer positions"
        )
    return frame


def decode(data: bytes) -> Message:
    """The message in a frame.

    Raises:
        ProtocolViolation: not an envelope, or a value out of its range.
    """
    if len(data) > MAX_PLAIN_BYTES:
        _check_is_one_tensor(data)
    try:
        envelope = pb.Envelope.FromString(data)
    except DecodeError:
        raise ProtocolViolation("the frame is not a Far Mesh message") from None
    match envelope.WhichOneof("body"):
        case "step":
            return _step_from_wire(envelope.step)
        case "open":
            return _open_from_wire(envelope.open)
        case "opened":
            return Opened()
        case "link":
            return Link(_session_id(envelope.link.session_id))
        case "close":
            return Close()
        case "receipt":
            return ReceiptIssued(envelope.receipt)
        case "failure":
            return _failure_from_wire(envelope.failure)
        case "info_request":
            return InfoRequest(envelope.info_request.model_digest[:64])
        case "node_info":
            return _info_from_wire(envelope.node_info)
    raise ProtocolViolation("the frame holds a message this version does not know")


_INFO_FIELDS = tuple(NodeInfo.__dataclass_fields__)
_PATH_TO_DATA = (
    pb.Envelope.STEP_FIELD_NUMBER,
    pb.Step.HIDDEN_FIELD_NUMBER,
    pb.Tensor.DATA_FIELD_NUMBER,
)
_FIELDS_LOOKED_AT = 2 * MAX_BATCH  # rows that are not packed are a field each


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ProtocolViolation(what)


def _check_is_one_tensor(frame: bytes) -> None:
    """All of a long frame but the data of one tensor is short.

    A byte on the wire may be 16 in memory once it is parsed (an empty string in a list), a byte of data is one.
    """
    at, end = 0, len(frame)
    for number in _PATH_TO_DATA:
        at, end = _find_field(frame, at, end, number)
    _require(len(frame) - (end - at) <= MAX_PLAIN_BYTES, f"a message of {len(frame)} bytes is more than a tensor")


def _find_field(frame: bytes, at: int, end: int, number: int) -> tuple[int, int]:
    """Where the contents of a field begin and end, in a protobuf message that stands at ``frame[at:end]``."""
    for _ in range(_FIELDS_LOOKED_AT):
        if at >= end:
            break
        tag, at = _read_varint(frame, at)
        match tag & 7:
            case 0:
                _, at = _read_varint(frame, at)
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(frame, at)
                if tag >> 3 == number:
                    _require(at + length <= end, "the frame is cut short")
                    return at, at + length
                at += length
            case 5:
                at += 4
            case _:
                break
    raise ProtocolViolation(f"a message of {len(frame)} bytes holds no tensor")


def _read_varint(frame: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in zip(range(0, 70, 7), frame[at : at + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ProtocolViolation("the frame holds a varint without an end")


def _session_id(raw: bytes) -> SessionId:
    _require(len(raw) == SESSION_ID_BYTES, f"a session id has {SESSION_ID_BYTES} bytes, not {len(raw)}")
    return SessionId(raw)


def _peer_id(text: str) -> PeerId:
    try:
        return check_peer_id(text)
    except InvalidIdentity as error:
        raise ProtocolViolation(error.message) from None


def _codec(name: str) -> Dtype:
    _require(name in DTYPE_BYTES, f"the wire type {name[:32]!r} is not one of {', '.join(DTYPE_BYTES)}")
    return name  # type: ignore[return-value]  # checked on the line above


def _tensor_from_wire(tensor: pb.Tensor) -> WireTensor:
    dtype = _codec(tensor.dtype)
    _require(len(tensor.shape) == 3, f"the shape of hidden states has 3 numbers, not {len(tensor.shape)}")
    shape = tuple(tensor.shape)
    _require(all(shape), f"hidden states have the shape {shape}, not (rows, positions, size)")
    _require(shape[0] <= MAX_BATCH and shape[1] <= MAX_POSITIONS, f"the shape {shape} is out of range")
    size = math.prod(shape) * DTYPE_BYTES[dtype]
    _require(len(tensor.data) == size, f"{shape} in {dtype} takes {size} bytes, {len(tensor.data)} came")
    return WireTensor(dtype, shape, tensor.data)


def _step_from_wire(step: pb.Step) -> Step:
    hidden = _tensor_from_wire(step.hidden)
    _require(step.start_position + hidden.shape[1] <= MAX_POSITIONS, "the step ends beyond the longest context")
    _require(step.keep <= hidden.shape[1], f"keep {step.keep} is more than the {hidden.shape[1]} positions sent")
    _require(len(step.rows) in (0, hidden.shape[0]), "rows must name one cache row for each row of the step")
    return Step(step.index, step.start_position, hidden, step.keep, tuple(step.rows))


def _open_to_wire(message: Open) -> pb.Open:
    following = message.next
    return pb.Open(
        session_id=message.session_id,
        nonce=message.nonce,
        model_digest=message.model_digest,
        first_block=message.first_block,
        end_block=message.end_block,
        max_length=message.max_length,
        batch=message.batch,
        codec=message.codec,
        previous=message.previous or "",
        next=pb.PeerAddress(peer_id=following.peer_id, maddrs=following.maddrs) if following else None,
        price_units=message.price_units,
        left_padding=message.left_padding,
        priority=message.priority,
        share_prefix=message.share_prefix,
        prefix_scope=message.prefix_scope,
    )


def _open_from_wire(wire: pb.Open) -> Open:
    _require(len(wire.nonce) == NONCE_BYTES, f"a nonce has {NONCE_BYTES} bytes")
    _require(len(wire.model_digest) == 64, "a model digest has 64 hexadecimal digits")
    _require(wire.first_block < wire.end_block, f"blocks {wire.first_block}:{wire.end_block} are an empty range")
    _require(1 <= wire.batch <= MAX_BATCH, f"a session has 1 to {MAX_BATCH} rows, not {wire.batch}")
    _require(1 <= wire.max_length <= MAX_POSITIONS, f"max_length {wire.max_length} is out of range")
    _require(wire.price_units <= MAX_PRICE_UNITS, f"price_units {wire.price_units} is out of range")
    _require(len(wire.left_padding) in (0, wire.batch), "left_padding has one count for each row")
    padding = tuple(wire.left_padding)
    _require(all(count < wire.max_length for count in padding), "left_padding leaves no position")
    _require(len(wire.prefix_scope) <= MAX_SCOPE_BYTES, f"a prefix scope has at most {MAX_SCOPE_BYTES} bytes")
    _require(wire.priority in list(Priority), f"the priority {wire.priority} is none of -1 (high), 0 (normal), 1 (low)")
    following = None
    if wire.HasField("next"):
        _require(len(wire.next.maddrs) <= 16, "too many or too long addresses")
        maddrs = tuple(wire.next.maddrs)
        _require(all(len(maddr) <= 256 for maddr in maddrs), "too many or too long addresses")
        following = PeerAddress(_peer_id(wire.next.peer_id), maddrs)
    return Open(
        session_id=_session_id(wire.session_id),
        nonce=wire.nonce,
        model_digest=wire.model_digest,
        first_block=wire.first_block,
        end_block=wire.end_block,
        max_length=wire.max_length,
        batch=wire.batch,
        codec=_codec(wire.codec),
        previous=_peer_id(wire.previous) if wire.previous else None,
        next=following,
        price_units=wire.price_units,
        left_padding=padding,
        priority=Priority(wire.priority),
        share_prefix=wire.share_prefix,
        prefix_scope=wire.prefix_scope,
    )


def _info_from_wire(wire: pb.NodeInfo) -> NodeInfo:
    facts = {name: getattr(wire, name) for name in _INFO_FIELDS}
    for name, value in facts.items():
        if isinstance(value, float):
            _require(math.isfinite(value) and value >= 0, f"{name} is not a rate")
    return NodeInfo(**facts | {"model_digests": tuple(wire.model_digests)})


def _failure_from_wire(wire: pb.Failure) -> Failure:
    code, message = wire.code[:64], wire.message[:MAX_REASON]
    retry_after = wire.retry_after if 0.0 < wire.retry_after < 86_400.0 else None
    return Failure(code, message, wire.retry, retry_after, wire.peer_id[:128] or None)
