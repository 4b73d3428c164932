"""What a node writes down while it works is what it signs."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.codec import WireTensor
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import Open, Step
from discovery.protocol.receipt import RECEIPT_EVERY_POSITIONS, extend_root, first_root, read_receipt
from far_node.receipts import Signer, WorkLog
from tests.support.documents import DIGEST, announcement, key_of, peer_of

OPENING = Open(SessionId(b"s" * 16), b"n" * 16, DIGEST, 1, 4, 512, 1, "bfloat16", None, None, price_units=6)


def log() -> WorkLog:
    return WorkLog(OPENING, Signer(key_of("node"), announcement()))


def wire(rows: int, positions: int, filling: int = 1) -> WireTensor:
    shape = (rows, positions, 2)
    return WireTensor("bfloat16", shape, bytes([filling]) * (2 * math.prod(shape)))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 100), st.integers(0, 255)), max_size=8))
def test_a_receipt_tells_all_work_and_its_roots(steps: list[tuple[int, int, int]]) -> None:
    work, start = log(), 0
    taken_root = given_root = first_root(OPENING.session_id)
    for index, (rows, positions, filling) in enumerate(steps):
        taken, given = wire(rows, positions, filling), wire(rows, 1, filling ^ 1)
        work.record(Step(index, start, taken))
        work.hand_on(start, given)
        taken_root = extend_root(taken_root, start, taken.shape, taken.dtype, taken.data)
        given_root = extend_root(given_root, start, given.shape, given.dtype, given.data)
        start += positions
    receipt = read_receipt(work.receipt().to_bytes()).receipt
    total = sum(rows * positions for rows, positions, _ in steps)
    assert (receipt.steps, receipt.positions, receipt.token_layers) == (len(steps), total, 3 * total)
    assert work.token_layers == 3 * total
    assert (receipt.input_root, receipt.output_root) == (taken_root.hex(), given_root.hex())
    assert (receipt.peer_id, receipt.blocks, receipt.codec, receipt.price_units) == (
        peer_of("node"),
        (1, 4),
        "bfloat16",
        6,
    )
    assert (receipt.session_id, receipt.nonce) == (OPENING.session_id.hex(), OPENING.nonce.hex())


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_a_receipt_on_the_way_comes_once_for_every_64_positions(steps: list[int]) -> None:
    work, done = log(), 0
    for index, positions in enumerate(steps):
        before, done = done, done + positions
        work.record(Step(index, before, wire(1, positions)))
        due = done // RECEIPT_EVERY_POSITIONS > before // RECEIPT_EVERY_POSITIONS
        receipt = work.interim_receipt()
        assert (receipt is not None) == due
        if receipt is not None:
            assert receipt.receipt.positions == done
        assert work.interim_receipt() is None
