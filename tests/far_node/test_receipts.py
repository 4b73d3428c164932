"""What a node writes down while it works is what it signs."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.codec import WireTensor
from discovery.protocol.ids import SessionId
from discovery.protocol.messages import MAX_STEPS, Open, Resumption, Step
from discovery.protocol.receipt import RECEIPT_EVERY_POSITIONS, extend_root, first_root, read_receipt
from far_node.receipts import Signer, WorkLog
from tests.support.documents import DIGEST, announcement, key_of, peer_of

OPENING = Open(SessionId(b"s" * 16), b"n" * 16, DIGEST, 1, 4, 512, 1, "bfloat16", None, None, price_units=6)


def log(resumption: Resumption | None = None) -> WorkLog:
    return WorkLog(replace(OPENING, resumption=resumption), Signer(key_of("node"), announcement()))


def wire(rows: int, positions: int, filling: int = 1) -> WireTensor:
    shape = (rows, positions, 2)
    return WireTensor("bfloat16", shape, bytes([filling]) * (2 * math.prod(shape)))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 100), st.integers(0, 255)), max_size=8))
def test_a_receipt_tells_all_work_and_its_roots(steps: list[tuple[int, int, int]]) -> None:
    work, start = log(), 0
    taken_root = given_root = first_root(OPENING.session_id)
    for index, (rows, positions, filling) in enumerate(steps):
        taken, given = wire(rows, positions, filling), wire(rows, 1, filling ^ 1)
        work.record(Step(index, start, taken), given=given)
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


def root_of(*parts: tuple[int, WireTensor]) -> str:
    root = first_root(OPENING.session_id)
    for start, tensor in parts:
        root = extend_root(root, start, tensor.shape, tensor.dtype, tensor.data)
    return root.hex()


@given(st.lists(st.integers(1, 90), min_size=1, max_size=30), st.data())
def test_who_takes_a_place_has_receipts_due_at_the_same_steps_as_the_others(
    steps: list[int], data: st.DataObject
) -> None:
    """Whatever was replayed to it, and in steps of whatever size."""
    at_step = data.draw(st.integers(0, len(steps)))
    again = data.draw(st.integers(0, at_step))
    there, fresh = log(), log(Resumption(at_step, sum(steps[:at_step])))
    due: dict[str, list[int]] = {"there": [], "fresh": []}
    for index, positions in enumerate(steps):
        there.record(Step(index, 0, wire(1, positions)))
        if there.interim_receipt() is not None and index >= at_step:
            due["there"].append(index)
    for positions in data.draw(st.lists(st.integers(1, 300), max_size=4)):
        fresh.record(Step(at_step, 0, wire(1, positions), is_replay=True))
        assert fresh.interim_receipt() is None, "others come due with the session's own steps only"
    for index in range(again, len(steps)):
        fresh.record(Step(index, 0, wire(1, steps[index])))
        receipt = fresh.interim_receipt()
        if receipt is not None:
            due["fresh"].append(index)
            assert receipt.receipt.steps == index + 1
    assert due["fresh"] == due["there"]


@given(st.integers(0, 5), st.lists(st.integers(1, 50), max_size=4), st.lists(st.integers(1, 50), max_size=6))
def test_what_was_done_again_is_told_apart_from_what_is_new(again: int, replays: list[int], steps: list[int]) -> None:
    work = log(Resumption(5, 100))
    parts, start = [], 0
    for positions in replays:
        work.record(Step(5, start, wire(1, positions), is_replay=True))
        parts.append((start, wire(1, positions)))
        start += positions
    for index, positions in enumerate(steps, 5 - again):
        work.record(Step(index, start, wire(1, positions)))
        parts.append((start, wire(1, positions)))
        start += positions
    receipt = work.receipt().receipt
    assert receipt.positions == start
    assert receipt.replayed_positions == sum(replays) + sum(steps[:again])
    assert receipt.steps == work.steps == max(5, 5 - again + len(steps))
    assert receipt.input_root == root_of(*parts)


def test_a_new_predecessor_begins_a_chain_with_its_first_step() -> None:
    work = log()
    old, new = wire(1, 3, 7), wire(1, 2, 8)
    work.record(Step(0, 0, old))
    work.new_predecessor()
    assert work.receipt().receipt.input_root == root_of((0, old)), "nothing has come from it yet"
    work.record(Step(1, 3, new))
    assert work.receipt().receipt.input_root == root_of((3, new))
    work.record(Step(2, 5, old))
    assert work.receipt().receipt.input_root == root_of((3, new), (5, old))
    assert (work.receipt().receipt.steps, work.receipt().receipt.positions) == (3, 8)


def test_a_new_successor_begins_a_chain_at_once_and_work_goes_on() -> None:
    work = log()
    work.record(Step(0, 0, wire(1, 3)), given=wire(1, 3, 9))
    work.new_successor()
    receipt = work.receipt().receipt
    assert receipt.output_root == first_root(OPENING.session_id).hex()
    assert receipt.input_root == root_of((0, wire(1, 3)))
    work.give_again(0, wire(1, 3, 4))
    assert work.receipt().receipt.output_root == root_of((0, wire(1, 3, 4)))
    assert (receipt.steps, receipt.positions) == (1, 3)


def test_absurd_numbers_of_a_client_are_written_down_as_they_are() -> None:
    work = log(Resumption(MAX_STEPS - 1, MAX_STEPS))
    assert work.is_empty
    work.record(Step(MAX_STEPS - 1, 0, wire(1, 1)))
    receipt = work.interim_receipt()
    assert read_receipt(work.receipt().to_bytes()).receipt.steps == MAX_STEPS
    assert receipt is None or receipt.receipt.positions == 1
    assert not work.is_empty
