"""What client and nodes say to each other, as types. ``mesh.proto`` is the wire form.

:func:`encode` and :func:`decode` are the only door between bytes and these types: whatever a stranger sends is checked
here once (sizes, ranges, the length of a tensor against its shape), and inside the house one trusts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from discovery.protocol import mesh_pb2 as pb
from discovery.protocol.announcement import Codec
from discovery.protocol.codec import CODECS, position_bytes
from discovery.protocol.codec import WireTensor as WireTensor
from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, ProtocolViolation, error_from_wire
from discovery.protocol.ids import SESSION_ID_BYTES, PeerId, SessionId, check_peer_id
from discovery.protocol.trace import TraceParent, read_trace_parent

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

MAX_STEPS = 2**53 - 1
MAX_HOPS = 64


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
class Resumption:
    """A node takes the place of one that was lost in the middle of a session.

    Attributes:
        at_step: index of the first step that its successor has not got: earlier ones, and what is replayed, bring its
            cache to where it must be and are not handed on.
        positions: rows × positions of all steps before that one, by which receipts come due at the same steps as those
            of the nodes that were there.
        feeds_new: its successor takes over as well, so everything is handed on.
    """

    at_step: int
    positions: int
    feeds_new: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """A client asks a node to run blocks ``[first_block, end_block)`` in a session.

    ``trace_parent``: the client's span that the session is part of. It names a piece of work, and nobody.
    """

    session_id: SessionId
    nonce: bytes
    model_digest: str
    first_block: int
    end_block: int
    max_length: int
    batch: int
    codec: Codec
    previous: PeerId | None
    next: PeerAddress | None
    price_units: int = 0
    left_padding: tuple[int, ...] = ()
    priority: Priority = Priority.NORMAL
    share_prefix: bool = False
    prefix_scope: bytes = b""
    resumption: Resumption | None = None
    trace_parent: TraceParent | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The node holds cache for the session and is linked to its successor."""


@dataclass(frozen=True, slots=True)
class Link:
    """First word on a node-to-node stream: which session it belongs to.

    ``opened_at``: nanoseconds of the sender's steady clock. What was sent over a connection that is given up may arrive
    after what is sent over the next; of two links the later one counts.
    """

    session_id: SessionId
    opened_at: int = 0


@dataclass(frozen=True, slots=True)
class HopTime:
    """What a node says a step took in it, in seconds: until its turn came, and to compute."""

    waited: float
    computed: float


@dataclass(frozen=True, slots=True)
class Step:
    """Hidden states for positions ``start_position …``; a start below the cached length rolls the cache back.

    Attributes:
        index: number of the step in the session.
        keep: positions the client wants back, counted from the end; 0: all.
        rows: rows of the cache to continue from, in this order; empty: as they are.
        settled: steps before this index have been answered; who keeps what it sent need not keep them as steps.
        is_replay: it stands for steps before ``index``, in whose place a new node gets it.
        times: of the nodes it came through.
    """

    index: int
    start_position: int
    hidden: WireTensor
    keep: int = 0
    rows: tuple[int, ...] = ()
    settled: int = 0
    is_replay: bool = False
    times: tuple[HopTime, ...] = ()


@dataclass(frozen=True, slots=True)
class Reroute:
    """The client has found others in the place of a lost neighbour. What is absent stays as it is.

    Attributes:
        number: counts up in a session, and comes back with the answer.
        previous: who sends the steps from now on.
        next: who takes them from now on; it gets all that was sent before, again.
    """

    number: int
    previous: PeerId | None = None
    next: PeerAddress | None = None


@dataclass(frozen=True, slots=True)
class Rerouted:
    """Done.

    Attributes:
        taken: index after the last step that came from the previous neighbour.
        needs_replay: it took a lost node's place, and has not been sent all that came before.
    """

    number: int
    taken: int
    needs_replay: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there?"""

    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """How far a node has come in a session: indices after the last step it took in, and after the last it gave out."""

    number: int
    taken: int
    given: int


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
        """The error it reports; ``peer_id`` in ``facts`` where it is about somebody else than its sender."""
        error = error_from_wire(self.code, self.message, self.retry_after)
        if self.peer_id:
            error.facts["peer_id"] = self.peer_id
        return error

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


Message = (
    Open
    | Opened
    | Link
    | Step
    | Close
    | ReceiptIssued
    | Failure
    | InfoRequest
    | NodeInfo
    | Reroute
    | Rerouted
    | Ping
    | Pong
)


def encode(message: Message) -> bytes:
    """One frame's bytes.

    Raises:
        InvalidArgument: they are more than a frame may have.
    """
    match message:
        case Step():
            envelope = pb.Envelope(step=_step_to_wire(message))
        case Open():
            envelope = pb.Envelope(open=_open_to_wire(message))
        case Opened():
            envelope = pb.Envelope(opened=pb.Opened())
        case Link():
            envelope = pb.Envelope(link=pb.Link(session_id=message.session_id, opened_at=message.opened_at))
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
        case Reroute():
            reroute = pb.Reroute(number=message.number, previous=message.previous or "", next=_to_wire(message.next))
            envelope = pb.Envelope(reroute=reroute)
        case Rerouted():
            envelope = pb.Envelope(
                rerouted=pb.Rerouted(number=message.number, taken=message.taken, needs_replay=message.needs_replay)
            )
        case Ping():
            envelope = pb.Envelope(ping=pb.Ping(number=message.number))
        case Pong():
            envelope = pb.Envelope(pong=pb.Pong(number=message.number, taken=message.taken, given=message.given))
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
            return Link(_session_id(envelope.link.session_id), envelope.link.opened_at)
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
        case "reroute":
            return _reroute_from_wire(envelope.reroute)
        case "rerouted":
            _require_step(envelope.rerouted.taken)
            rerouted = envelope.rerouted
            return Rerouted(rerouted.number, rerouted.taken, rerouted.needs_replay)
        case "ping":
            return Ping(envelope.ping.number)
        case "pong":
            _require_step(envelope.pong.taken)
            _require_step(envelope.pong.given)
            return Pong(envelope.pong.number, envelope.pong.taken, envelope.pong.given)
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


def _require_step(index: int) -> None:
    _require(index <= MAX_STEPS, f"the step {index} is out of range")


def _codec(name: str) -> Codec:
    _require(name in CODECS, f"the wire type {name[:32]!r} is not one of {', '.join(CODECS)}")
    return name  # type: ignore[return-value]  # checked on the line above


def _tensor_from_wire(tensor: pb.Tensor) -> WireTensor:
    dtype = _codec(tensor.dtype)
    _require(len(tensor.shape) == 3, f"the shape of hidden states has 3 numbers, not {len(tensor.shape)}")
    shape = tuple(tensor.shape)
    _require(all(shape), f"hidden states have the shape {shape}, not (rows, positions, size)")
    _require(shape[0] <= MAX_BATCH and shape[1] <= MAX_POSITIONS, f"the shape {shape} is out of range")
    size = shape[0] * shape[1] * position_bytes(dtype, shape[2])
    _require(len(tensor.data) == size, f"{shape} in {dtype} takes {size} bytes, {len(tensor.data)} came")
    return WireTensor(dtype, shape, tensor.data)


def _step_to_wire(message: Step) -> pb.Step:
    hidden = message.hidden
    return pb.Step(
        index=message.index,
        start_position=message.start_position,
        keep=message.keep,
        rows=message.rows,
        hidden=pb.Tensor(dtype=hidden.dtype, shape=hidden.shape, data=hidden.data),
        settled=message.settled,
        is_replay=message.is_replay,
        times=[value for time in message.times for value in (time.waited, time.computed)],
    )


def _step_from_wire(step: pb.Step) -> Step:
    hidden = _tensor_from_wire(step.hidden)
    _require(step.start_position + hidden.shape[1] <= MAX_POSITIONS, "the step ends beyond the longest context")
    _require(step.keep <= hidden.shape[1], f"keep {step.keep} is more than the {hidden.shape[1]} positions sent")
    _require(len(step.rows) in (0, hidden.shape[0]), "rows must name one cache row for each row of the step")
    _require_step(step.index + 1)  # so many there are after it
    _require(step.settled <= step.index, f"step {step.index} says that those before {step.settled} were answered")
    return Step(
        index=step.index,
        start_position=step.start_position,
        hidden=hidden,
        keep=step.keep,
        rows=tuple(step.rows),
        settled=step.settled,
        is_replay=step.is_replay,
        times=_times_from_wire(step.times),
    )


def _times_from_wire(values: Sequence[float]) -> tuple[HopTime, ...]:
    _require(len(values) <= 2 * MAX_HOPS and len(values) % 2 == 0, "times are pairs, one for each of a few nodes")
    _require(all(math.isfinite(value) and value >= 0 for value in values), "a time is not a number of seconds")
    return tuple(HopTime(*pair) for pair in zip(values[::2], values[1::2], strict=True))


def _reroute_from_wire(wire: pb.Reroute) -> Reroute:
    return Reroute(
        number=wire.number,
        previous=_peer_id(wire.previous) if wire.previous else None,
        next=_address_from_wire(wire.next) if wire.HasField("next") else None,
    )


def _to_wire(address: PeerAddress | None) -> pb.PeerAddress | None:
    return pb.PeerAddress(peer_id=address.peer_id, maddrs=address.maddrs) if address else None


def _address_from_wire(wire: pb.PeerAddress) -> PeerAddress:
    maddrs = tuple(wire.maddrs)
    _require(len(maddrs) <= 16 and all(len(maddr) <= 256 for maddr in maddrs), "too many or too long addresses")
    return PeerAddress(_peer_id(wire.peer_id), maddrs)


def _open_to_wire(message: Open) -> pb.Open:
    resumption = message.resumption
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
        next=_to_wire(message.next),
        price_units=message.price_units,
        left_padding=message.left_padding,
        priority=message.priority,
        share_prefix=message.share_prefix,
        prefix_scope=message.prefix_scope,
        resumption=pb.Resumption(
            at_step=resumption.at_step, positions=resumption.positions, feeds_new=resumption.feeds_new
        )
        if resumption
        else None,
        trace_parent=str(message.trace_parent or ""),
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
    resumption = None
    if wire.HasField("resumption"):
        _require_step(wire.resumption.at_step)
        _require_step(wire.resumption.positions)
        resumption = Resumption(wire.resumption.at_step, wire.resumption.positions, wire.resumption.feeds_new)
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
        next=_address_from_wire(wire.next) if wire.HasField("next") else None,
        price_units=wire.price_units,
        left_padding=padding,
        priority=Priority(wire.priority),
        share_prefix=wire.share_prefix,
        prefix_scope=wire.prefix_scope,
        resumption=resumption,
        trace_parent=read_trace_parent(wire.trace_parent),
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
