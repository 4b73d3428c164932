"""Messages to put on a wire, and hypothesis strategies of them."""

from __future__ import annotations

from hypothesis import strategies as st

from discovery.protocol.codec import CODECS, RAW_BYTES, WireTensor, position_bytes
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import (
    MAX_HOPS,
    MAX_PRICE_UNITS,
    MAX_STEPS,
    Close,
    Failure,
    HopTime,
    InfoRequest,
    Link,
    Message,
    NodeInfo,
    Open,
    Opened,
    PeerAddress,
    Ping,
    Pong,
    Priority,
    ReceiptIssued,
    Reroute,
    Rerouted,
    Resumption,
    Step,
)
from discovery.protocol.trace import TraceParent
from tests.support.documents import DIGEST, peer_of

session_ids = st.binary(min_size=16, max_size=16).map(SessionId)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
step_indices = st.integers(0, MAX_STEPS)
peers = st.sampled_from(["first", "second", "third"]).map(peer_of)
addresses = st.builds(PeerAddress, peers, st.lists(st.text(max_size=20), max_size=4).map(tuple))
hop_times = st.builds(HopTime, st.floats(0, 1e6), st.floats(0, 1e6))
resumptions = st.builds(Resumption, step_indices, step_indices, st.booleans())
trace_parents = st.builds(
    TraceParent,
    st.integers(1, 2**128 - 1).map("{:032x}".format),
    st.integers(1, 2**64 - 1).map("{:016x}".format),
    st.booleans(),
)


@st.composite
def tensors(draw: st.DrawFn, positions: int | None = None) -> WireTensor:
    """Small hidden states of any type."""
    dtype = draw(st.sampled_from(CODECS))
    rows, count, width = draw(st.integers(1, 3)), positions or draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = rows * count * position_bytes(dtype, width)
    return WireTensor(dtype, (rows, count, width), draw(st.binary(min_size=size, max_size=size)))


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Any valid step."""
    hidden = draw(tensors())
    rows = draw(st.just(()) | st.lists(uint32, min_size=hidden.shape[0], max_size=hidden.shape[0]).map(tuple))
    index = draw(st.integers(0, MAX_STEPS - 1))
    return Step(
        index=index,
        start_position=draw(st.integers(0, 2**20)),
        hidden=hidden,
        keep=draw(st.integers(0, hidden.shape[1])),
        rows=rows,
        settled=draw(st.integers(0, index)),
        is_replay=draw(st.booleans()),
        times=draw(st.lists(hop_times, max_size=MAX_HOPS).map(tuple)),
    )


@st.composite
def openings(draw: st.DrawFn) -> Open:
    """Any valid Open."""
    first, batch, longest = draw(st.integers(0, 100)), draw(st.integers(1, 256)), draw(st.integers(1, 2**24))
    padding = st.lists(st.integers(0, longest - 1), min_size=batch, max_size=batch).map(tuple)
    return Open(
        session_id=draw(session_ids),
        nonce=draw(st.binary(min_size=16, max_size=16)),
        model_digest=DIGEST,
        first_block=first,
        end_block=draw(st.integers(first + 1, 200)),
        max_length=longest,
        batch=batch,
        codec=draw(st.sampled_from(CODECS)),
        previous=draw(st.none() | peers),
        next=draw(st.none() | addresses),
        price_units=draw(st.integers(0, MAX_PRICE_UNITS)),
        left_padding=draw(st.just(()) | padding),
        priority=draw(st.sampled_from(Priority)),
        share_prefix=draw(st.booleans()),
        prefix_scope=draw(st.binary(max_size=32)),
        resumption=draw(st.none() | resumptions),
        trace_parent=draw(st.none() | trace_parents),
    )


failures = st.builds(
    Failure,
    code=st.text(max_size=64),
    message=st.text(max_size=200),
    retry=st.booleans(),
    retry_after=st.none() | st.floats(0.001, 86_000.0),
    peer_id=st.none() | peers,
)
node_infos = st.builds(
    NodeInfo,
    peer_id=peers,
    wallet=st.text(max_size=42),
    model_id=st.text(max_size=20),
    model_digest=st.just(DIGEST),
    first_block=uint32,
    end_block=uint32,
    block_count=uint32,
    quantization=st.sampled_from(["none", "int8", "nf4"]),
    dtype=st.sampled_from(sorted(RAW_BYTES)),
    software=st.text(max_size=20),
    parameter_count=uint64,
    parameter_bytes=uint64,
    resident_bytes=uint64,
    cache_budget_bytes=uint64,
    cache_used_bytes=uint64,
    open_sessions=uint32,
    token_layers_served=uint64,
    uptime_seconds=uint64,
    device=st.sampled_from(["cpu", "cuda:0"]),
    context_length=uint32,
    max_batch_size=uint32,
    one_by_one=st.text(max_size=20),
    queued_steps=uint32,
    batch_rows=uint32,
    decode_tokens_per_second=st.floats(0, 1e9),
    prefill_tokens_per_second=st.floats(0, 1e9),
    prefix_hits=uint64,
    prefix_positions=uint64,
    prefix_bytes=uint64,
    state=st.sampled_from(["ready", "leaving"]),
    model_digests=st.lists(st.just(DIGEST), max_size=3).map(tuple),
)
questions = st.one_of(
    st.builds(Reroute, uint64, st.none() | peers, st.none() | addresses),
    st.builds(Ping, uint64),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Opened),
    st.builds(Close),
    st.builds(InfoRequest, st.sampled_from(["", DIGEST])),
    st.builds(Link, session_ids),
    st.builds(ReceiptIssued, st.binary(max_size=100)),
    steps(),
    openings(),
    failures,
    node_infos,
    questions,
    st.builds(Rerouted, uint64, step_indices),
    st.builds(Pong, uint64, step_indices, step_indices),
)
