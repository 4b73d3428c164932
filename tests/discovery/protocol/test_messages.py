"""The only door between bytes and types: what goes through it comes out the same, and nothing else goes through."""

from __future__ import annotations

import dataclasses
import tracemalloc
from functools import cache

import pytest
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]  # public in practice
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol import mesh_pb2 as pb
from discovery.protocol import messages as messages_module
from discovery.protocol.errors import InvalidArgument, ProtocolViolation
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import (
    MAX_BATCH,
    MAX_HOPS,
    MAX_POSITIONS,
    MAX_STEPS,
    Failure,
    HopTime,
    Message,
    Open,
    ReceiptIssued,
    Step,
    WireTensor,
    decode,
    encode,
)
from tests.support import messages as some
from tests.support.documents import DIGEST, peer_of


@settings(max_examples=300)
@given(some.messages)
def test_every_message_is_the_same_after_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@settings(max_examples=500)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_message_or_a_protocol_violation(data: bytes) -> None:
    _decode_or_refuse(data)


@settings(max_examples=500)
@given(some.messages.map(encode), st.data())
def test_a_frame_with_bytes_changed_is_a_message_or_a_protocol_violation(frame: bytes, data: st.DataObject) -> None:
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    _decode_or_refuse(bytes(changed))


@given(some.messages.map(encode), st.data())
def test_a_frame_cut_short_or_run_on_is_a_message_or_a_protocol_violation(frame: bytes, data: st.DataObject) -> None:
    _decode_or_refuse(frame[: data.draw(st.integers(0, len(frame)))])
    _decode_or_refuse(frame + data.draw(st.binary(min_size=1, max_size=20)))


def _decode_or_refuse(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtocolViolation:
        return
    assert decode(encode(message)) == message, "what came in must be something we could have said"


@pytest.mark.parametrize("claimed", [2**20, 2**30, 2**31 - 1, 2**32, 2**62])
def test_a_length_field_alone_allocates_nothing(claimed: int) -> None:
    step_tag, tensor_tag, data_tag = b"\x1a", b"\x2a", b"\x1a"
    frames = [
        step_tag + _VarintBytes(claimed),
        step_tag + _VarintBytes(20) + tensor_tag + _VarintBytes(claimed),
        step_tag + _VarintBytes(20) + tensor_tag + _VarintBytes(15) + data_tag + _VarintBytes(claimed) + b"\0" * 4,
        b"\x2a" + _VarintBytes(claimed) + b"receipt",
    ]
    tracemalloc.start()
    try:
        for frame in frames:
            with pytest.raises(ProtocolViolation):
                decode(frame)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


def test_a_shape_that_multiplies_beyond_all_memory_is_refused_by_its_data() -> None:
    for shape in ([256, 2**24, 2**32 - 1], [1, 1, 2**32 - 1]):
        tensor = pb.Tensor(dtype="float32", shape=shape, data=b"\0" * 64)
        _refused(pb.Envelope(step=pb.Step(hidden=tensor)), "64 came")


@cache
def _bombs() -> dict[str, bytes]:
    """Frames that a parser would make many times their size of."""
    many = 2**18
    tensor = pb.Tensor(dtype="float32", shape=[1, 2, 3], data=bytes(24))
    step = pb.Envelope(step=pb.Step(hidden=tensor)).SerializeToString()
    return {
        "rows": pb.Envelope(step=pb.Step(rows=[1] * many, hidden=tensor)).SerializeToString(),
        "shape": pb.Envelope(step=pb.Step(hidden=pb.Tensor(shape=[1] * many))).SerializeToString(),
        "padding": pb.Envelope(open=pb.Open(left_padding=[1] * many)).SerializeToString(),
        "addresses": pb.Envelope(open=pb.Open(next=pb.PeerAddress(maddrs=[""] * many))).SerializeToString(),
        "digests": pb.Envelope(node_info=pb.NodeInfo(model_digests=[""] * many)).SerializeToString(),
        "times": pb.Envelope(step=pb.Step(times=[0.0] * many, hidden=tensor)).SerializeToString(),
        "new addresses": pb.Envelope(reroute=pb.Reroute(next=pb.PeerAddress(maddrs=[""] * many))).SerializeToString(),
        "a step many times": step * (many // len(step)),
        "addresses beside a tensor": step + b"\x0a" + _VarintBytes(2 * many) + b"\x12\x00" * many,
        "data that is none": b"\x1a" + _VarintBytes(many) + b"\x2a" + _VarintBytes(many) + bytes(many),
        "a tail beside a tensor": pb.Envelope(
            step=pb.Step(hidden=pb.Tensor(dtype="float32", shape=[1, 1, 2**18], data=bytes(2**20)))
        ).SerializeToString()
        + b"\x50\x01" * 2**17,
        "a receipt": pb.Envelope(receipt=bytes(many)).SerializeToString(),
        "a failure": pb.Envelope(failure=pb.Failure(message="m" * many)).SerializeToString(),
        "varints without an end": b"\xff" * many,
        "fields of another kind": b"\x50\x01" * many,
        "groups": b"\x0b" * many,
    }


@pytest.mark.parametrize("name", _bombs())
def test_a_frame_that_would_grow_when_it_is_parsed_is_refused_unparsed(name: str) -> None:
    bomb = _bombs()[name]
    assert len(bomb) > 2**17
    with pytest.raises(ProtocolViolation, match=r"holds no tensor|is more than a tensor|varint|cut short"):
        decode(bomb)


@pytest.mark.parametrize("rows", [(), tuple(range(256))])
def test_a_large_tensor_travels_whatever_stands_beside_it(rows: tuple[int, ...]) -> None:
    hidden = WireTensor("float16", (256, 2, 300), bytes(2 * 256 * 2 * 300))
    times = (HopTime(0.25, 3600.0),) * MAX_HOPS
    step = Step(MAX_STEPS - 1, 1, hidden, 2, rows, settled=MAX_STEPS - 1, is_replay=True, times=times)
    assert decode(encode(step)) == step
    unpacked = pb.Envelope.FromString(encode(step))
    del unpacked.step.rows[:]
    one_by_one = b"".join(b"\x20" + _VarintBytes(row) for row in rows)
    inner = one_by_one + unpacked.step.SerializeToString()
    assert decode(b"\x1a" + _VarintBytes(len(inner)) + inner) == step, "a list need not be packed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float64"}, "wire type"),
        ({"dtype": ""}, "wire type"),
        ({"shape": [1, 2]}, "shape"),
        ({"shape": []}, "shape"),
        ({"shape": [1, 2, 3, 1]}, "shape"),
        ({"shape": [1] * 10_000}, "shape of hidden states has 3 numbers, not 10000"),
        ({"shape": [1, 0, 3]}, "shape"),
        ({"shape": [MAX_BATCH + 1, 2, 3]}, "out of range"),
        ({"shape": [1, MAX_POSITIONS + 1, 3]}, "out of range"),
        ({"shape": [1, 2, 4]}, "takes 32 bytes, 24 came"),
        ({"data": b"\0" * 23}, "takes 24 bytes, 23 came"),
        ({"data": b"\0" * 25}, "takes 24 bytes, 25 came"),
        ({"data": b""}, "takes 24 bytes, 0 came"),
        ({"dtype": "bfloat16"}, "takes 12 bytes, 24 came"),
        ({"dtype": "int8"}, "takes 10 bytes, 24 came"),
        ({"dtype": "int8", "data": b"\0" * 6}, "takes 10 bytes, 6 came"),
        ({"dtype": "int8", "shape": [1, 2, 65], "data": b"\0" * 134}, "takes 138 bytes, 134 came"),
    ],
)
def test_a_tensor_whose_shape_type_and_bytes_disagree_is_refused(changes: dict[str, object], reason: str) -> None:
    fields: dict[str, object] = {"dtype": "float32", "shape": [1, 2, 3], "data": b"\0" * 24}
    right = pb.Envelope(step=pb.Step(hidden=pb.Tensor(**fields)))  # type: ignore[arg-type]
    assert isinstance(decode(right.SerializeToString()), Step)
    _refused(pb.Envelope(step=pb.Step(hidden=pb.Tensor(**fields | changes))), reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keep": 3}, "keep 3 is more than the 2 positions"),
        ({"rows": [0, 1]}, "rows"),
        ({"rows": [0] * 10_000}, "rows"),
        ({"start_position": MAX_POSITIONS - 1}, "beyond the longest context"),
        ({"start_position": 2**32 - 1}, "beyond the longest context"),
        ({"index": MAX_STEPS}, "out of range"),
        ({"index": 2**64 - 1}, "out of range"),
        ({"settled": 1}, "step 0 says that those before 1 were answered"),
        ({"index": 5, "settled": 6}, "step 5 says that those before 6 were answered"),
        ({"times": [0.5]}, "pairs"),
        ({"times": [0.5, 0.5, 0.5]}, "pairs"),
        ({"times": [0.0] * (2 * MAX_HOPS + 2)}, "pairs"),
        ({"times": [0.0] * 8000}, "pairs"),
        ({"times": [0.0, -1.0]}, "not a number of seconds"),
        ({"times": [float("nan"), 0.0]}, "not a number of seconds"),
        ({"times": [0.0, float("inf")]}, "not a number of seconds"),
    ],
)
def test_a_step_out_of_its_ranges_is_refused(changes: dict[str, object], reason: str) -> None:
    hidden = pb.Tensor(dtype="float32", shape=[1, 2, 3], data=b"\0" * 24)
    _refused(pb.Envelope(step=pb.Step(hidden=hidden, **changes)), reason)  # type: ignore[arg-type]


def test_a_step_without_hidden_states_is_refused() -> None:
    _refused(pb.Envelope(step=pb.Step(index=1)), "wire type")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"session_id": b""}, "session id"),
        ({"session_id": b"\0" * 17}, "session id"),
        ({"nonce": b"\0" * 15}, "nonce"),
        ({"model_digest": "ab"}, "digest"),
        ({"first_block": 4, "end_block": 4}, "empty range"),
        ({"first_block": 5, "end_block": 4}, "empty range"),
        ({"batch": 0}, "rows"),
        ({"batch": MAX_BATCH + 1}, "rows"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": MAX_POSITIONS + 1}, "max_length"),
        ({"codec": "int4"}, "wire type"),
        ({"previous": "nobody"}, "peer id"),
        ({"previous": "12D3KooW" + "1" * 10_000}, "peer id"),
        ({"next": pb.PeerAddress(peer_id="")}, "peer id"),
        ({"next": pb.PeerAddress(peer_id=peer_of("a"), maddrs=["/ip4/1.2.3.4/tcp/1"] * 17)}, "addresses"),
        ({"next": pb.PeerAddress(peer_id=peer_of("a"), maddrs=["/" * 257])}, "addresses"),
        ({"left_padding": [1, 2]}, "left_padding"),
        ({"left_padding": [10]}, "left_padding"),
        ({"left_padding": [2**32 - 1]}, "left_padding"),
        ({"price_units": 2**53}, "price_units"),
        ({"priority": 2}, "priority"),
        ({"priority": -(2**31)}, "priority"),
        ({"resumption": pb.Resumption(at_step=MAX_STEPS + 1)}, "out of range"),
        ({"resumption": pb.Resumption(positions=2**64 - 1)}, "out of range"),
    ],
)
def test_an_opening_out_of_its_ranges_is_refused(changes: dict[str, object], reason: str) -> None:
    fields: dict[str, object] = {
        "session_id": b"\1" * 16,
        "nonce": b"\2" * 16,
        "model_digest": DIGEST,
        "first_block": 0,
        "end_block": 4,
        "max_length": 10,
        "batch": 1,
        "codec": "float32",
    }
    assert isinstance(decode(pb.Envelope(open=pb.Open(**fields)).SerializeToString()), Open)  # type: ignore[arg-type]
    _refused(pb.Envelope(open=pb.Open(**fields | changes)), reason)  # type: ignore[arg-type]


def test_an_opening_whose_trace_is_broken_is_an_opening_without_one() -> None:
    opening = Open(SessionId(b"\1" * 16), b"\2" * 16, DIGEST, 0, 4, 10, 1, "float32", None, None)
    envelope = pb.Envelope.FromString(encode(opening))
    for broken in ("", "00-11-22-01", "x" * 60_000):
        envelope.open.trace_parent = broken
        assert decode(envelope.SerializeToString()) == opening


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (pb.Envelope(reroute=pb.Reroute(previous="nobody")), "peer id"),
        (pb.Envelope(reroute=pb.Reroute(previous="1" * 10_000)), "peer id"),
        (pb.Envelope(reroute=pb.Reroute(next=pb.PeerAddress())), "peer id"),
        (pb.Envelope(reroute=pb.Reroute(next=pb.PeerAddress(peer_id=peer_of("a"), maddrs=["/"] * 17))), "addresses"),
        (pb.Envelope(reroute=pb.Reroute(next=pb.PeerAddress(peer_id=peer_of("a"), maddrs=["/" * 257]))), "addresses"),
        (pb.Envelope(rerouted=pb.Rerouted(taken=MAX_STEPS + 1)), "out of range"),
        (pb.Envelope(pong=pb.Pong(taken=MAX_STEPS + 1)), "out of range"),
        (pb.Envelope(pong=pb.Pong(given=2**64 - 1)), "out of range"),
    ],
    ids=str,
)
def test_a_word_about_neighbours_out_of_its_ranges_is_refused(envelope: pb.Envelope, reason: str) -> None:
    _refused(envelope, reason)


def test_a_message_longer_than_a_frame_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_module, "MAX_FRAME_BYTES", 1000)
    assert len(encode(ReceiptIssued(b"x" * 900))) <= 1000
    with pytest.raises(InvalidArgument, match="longer than the 1000 of a frame"):
        encode(ReceiptIssued(b"x" * 1000))


def test_a_link_needs_a_session_id() -> None:
    _refused(pb.Envelope(link=pb.Link(session_id=b"short")), "session id")


def test_an_envelope_with_nothing_known_in_it_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="does not know"):
        decode(b"")
    with pytest.raises(ProtocolViolation, match="does not know"):
        decode(b"\xa2\x06\x01x")  # field 100


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 0.0, 1e9])
def test_a_failure_that_names_no_sensible_time_to_wait_names_none(seconds: float) -> None:
    frame = pb.Envelope(failure=pb.Failure(code="busy", message="full", retry_after=seconds)).SerializeToString()
    failure = decode(frame)
    assert isinstance(failure, Failure)
    assert failure.retry_after is None
    assert failure.to_error().retry_after is None


def test_a_failure_that_talks_for_ever_is_cut() -> None:
    wire = pb.Failure(code="c" * 10_000, message="m" * 10_000, peer_id="p" * 10_000)
    failure = decode(pb.Envelope(failure=wire).SerializeToString())
    assert isinstance(failure, Failure)
    assert max(len(str(value)) for value in dataclasses.astuple(failure)) <= 1000


def _refused(envelope: pb.Envelope, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        decode(envelope.SerializeToString())
