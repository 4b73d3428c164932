"""Money follows receipts that fit: every fact, every border, this session only."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import Receipt, sign_receipt
from tests.support.documents import OTHER_DIGEST, key_of, peer_of, wallet_of
from tests.support.receipts import ASKED, PaperRing

FALSE_ROOT = hashlib.sha256(b"a lie").hexdigest()


@pytest.fixture
def ring() -> PaperRing:
    return PaperRing(borders=(0, 3, 5, 8, 12), steps=(10, 1, 1, 1))


rings = st.builds(
    lambda spans, steps: PaperRing([sum(spans[:count]) for count in range(len(spans) + 1)], steps),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
)


@given(rings)
def test_an_honest_ring_is_paid_for_every_position_in_every_block(ring: PaperRing) -> None:
    verified = ring.verify()
    assert verified.rejected == ()
    assert [done.peer_id for done in verified.contributions] == [hop.node.peer_id for hop in ring.hops]
    positions = sum(ring.steps)
    for done, hop in zip(verified.contributions, ring.hops, strict=True):
        assert (done.blocks, done.wallet) == (hop.blocks, hop.node.wallet)
        assert done.positions == positions
        assert done.token_layers == positions * (hop.end_block - hop.first_block)
        assert done.receipt.receipt.token_layers == done.token_layers
    assert sum(done.token_layers for done in verified.contributions) == positions * ring.borders[-1]


@given(rings, st.data())
def test_every_hop_is_paid_or_rejected_whatever_they_say(ring: PaperRing, data: st.DataObject) -> None:
    """Liars, deserters and late ones, in any mixture: no hop twice, nobody paid for what does not fit."""
    honest = set(range(len(ring.hops)))
    for index in range(len(ring.hops)):
        match data.draw(st.sampled_from(["honest", "honest", "input", "output", "both", "silent", "stopped early"])):
            case "input":
                ring.lie(index, input_root=FALSE_ROOT)
            case "output":
                ring.lie(index, output_root=FALSE_ROOT)
            case "both":
                ring.lie(index, input_root=FALSE_ROOT, output_root=FALSE_ROOT)
            case "silent":
                ring.receipts[index] = {}
            case "stopped early":
                steps = data.draw(st.integers(0, len(ring.steps)))
                ring.receipts[index] = {steps: ring.signed(index, steps)}
                if steps:
                    continue
            case _:
                continue
        honest.discard(index)
    before = copy.deepcopy(ring.receipts)
    verified, paid = ring.verify(), ring.paid()
    assert ring.receipts == before
    again = ring.verify()
    assert again.contributions == verified.contributions, "the same question has the same answer"
    assert [error.message for error in again.rejected] == [error.message for error in verified.rejected]
    assert len(verified.contributions) + len(verified.rejected) == len(ring.hops)
    assert len(paid) == len(verified.contributions)
    assert all(isinstance(error, ReceiptInvalid) and error.facts["peer_id"] for error in verified.rejected)
    for done in verified.contributions:
        assert done.token_layers <= sum(ring.steps) * (done.blocks[1] - done.blocks[0])
    if honest == set(range(len(ring.hops))) and all(len(ring.steps) in held for held in ring.receipts):
        assert paid == honest


@given(rings, st.data())
def test_a_liar_costs_itself_and_the_neighbour_it_contradicts_and_nobody_else(
    ring: PaperRing, data: st.DataObject
) -> None:
    liar = data.draw(st.integers(0, len(ring.hops) - 1))
    side = data.draw(st.sampled_from(["input_root", "output_root"]))
    ring.lie(liar, **{side: FALSE_ROOT})
    contradicted = liar - 1 if side == "input_root" else liar + 1
    assert ring.paid() == set(range(len(ring.hops))) - {liar, contradicted}


@given(rings, st.data())
def test_a_silent_node_costs_only_itself_while_the_others_have_a_witness(ring: PaperRing, data: st.DataObject) -> None:
    silent = data.draw(st.sets(st.integers(0, len(ring.hops) - 1), min_size=1))
    for index in silent:
        ring.receipts[index] = {}
    last = len(ring.hops) - 1
    witnessed = {
        index
        for index in set(range(last + 1)) - silent
        if index == 0 or index == last or not {index - 1, index + 1} <= silent
    }
    assert ring.paid() == witnessed


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("wallet", {"wallet": wallet_of("thief")}),
        ("session_id", {"session_id": "ef" * 16}),
        ("nonce", {"nonce": "00" * 16}),
        ("model_digest", {"model_digest": OTHER_DIGEST}),
        ("first_block", {"first_block": 2}),
        ("end_block", {"end_block": 6}),
        ("quantization", {"quantization": "int8"}),
        ("codec", {"codec": "bfloat16"}),
        ("price_units", {"price_units": 8}),
        ("positions", {"positions": 14}),
        ("positions", {"positions": 12}),
        ("positions", {"steps": 5}),
        ("positions", {"steps": 10**9}),
        ("replayed_positions", {"replayed_positions": 1}),
    ],
)
def test_a_receipt_with_a_fact_that_is_not_so_is_not_paid(ring: PaperRing, field: str, changes: dict[str, Any]) -> None:
    ring.lie(1, **changes)
    verified = ring.verify()
    assert 1 not in ring.paid()
    (error,) = [error for error in verified.rejected if error.facts["peer_id"] == ring.hops[1].node.peer_id]
    assert error.code == "receipt_invalid"
    assert error.facts["field"] == field


def test_a_receipt_of_no_step_is_owed_nothing(ring: PaperRing) -> None:
    ring.lie(1, steps=0)
    assert 1 not in ring.paid()


def test_every_field_of_a_receipt_is_checked_by_a_test_above_or_by_the_borders() -> None:
    by_fact = {"wallet", "session_id", "nonce", "model_digest", "first_block", "end_block"}
    by_fact |= {"quantization", "codec", "price_units", "positions", "steps"}
    by_shape = {"version", "token_layers", "peer_id"}
    by_border = {"input_root", "output_root"}
    by_fact |= {"replayed_positions"}
    told_only = {"issued_at", "cached_positions"}
    assert set(Receipt.model_fields) == by_fact | by_shape | by_border | told_only


def test_a_receipt_of_another_peer_in_the_place_of_ones_own_is_not_paid(ring: PaperRing) -> None:
    other = ring.receipt(1).model_copy(update={"peer_id": peer_of("stranger")})
    ring.receipts[1] = {4: sign_receipt(other, key_of("stranger"))}
    assert 1 not in ring.paid()


def test_a_receipt_of_another_session_is_not_paid_again(ring: PaperRing) -> None:
    earlier = PaperRing(ring.borders, ring.steps, replace(ASKED, session_id=SessionId(b"\x01" * 16)))
    assert earlier.paid() == {0, 1, 2, 3}
    ring.receipts = earlier.receipts
    assert ring.paid() == set()
    assert all(error.facts["field"] == "session_id" for error in ring.verify().rejected)


def test_a_receipt_of_a_session_with_the_same_id_and_another_nonce_is_not_paid(ring: PaperRing) -> None:
    earlier = PaperRing(ring.borders, ring.steps, replace(ASKED, nonce=b"\x02" * 16))
    ring.receipts = earlier.receipts
    assert ring.paid() == set()


def test_two_neighbours_that_agree_on_a_lie_are_found_by_those_around_them(ring: PaperRing) -> None:
    """Hops 1 and 2 invent what passed between them: that cannot be seen here, and gains nothing. But they cannot
    invent what they gave to hop 3 or took from hop 0."""
    ring.lie(1, output_root=FALSE_ROOT)
    ring.lie(2, input_root=FALSE_ROOT)
    assert ring.paid() == {0, 1, 2, 3}
    ring.lie(2, input_root=FALSE_ROOT, output_root=FALSE_ROOT)
    assert ring.paid() == {0, 1}


def test_all_nodes_together_cannot_invent_an_answer_the_client_did_not_get(ring: PaperRing) -> None:
    ring.lie(3, output_root=FALSE_ROOT)
    assert 3 not in ring.paid()


def test_a_single_node_is_confirmed_by_the_client_on_both_sides() -> None:
    ring = PaperRing((0, 5), (3, 1))
    assert ring.paid() == {0}
    for side in ("input_root", "output_root"):
        ring.lie(0, **{side: FALSE_ROOT})
        assert ring.paid() == set()
        ring.lie(0)


def test_the_last_of_several_receipts_counts(ring: PaperRing) -> None:
    for index in range(4):
        ring.receipts[index] = {steps: ring.signed(index, steps) for steps in (1, 2, 4)}
    assert [done.positions for done in ring.verify().contributions] == [13] * 4


def test_at_a_checkpoint_the_receipts_of_that_step_count(ring: PaperRing) -> None:
    for index in range(4):
        ring.receipts[index] = {steps: ring.signed(index, steps) for steps in (2, 4)}
    assert [done.positions for done in ring.verify(at_steps=2).contributions] == [11] * 4
    del ring.receipts[2][2]
    verified = ring.verify(at_steps=2)
    assert len(verified.contributions) == 3
    assert "gave no receipt" in verified.rejected[0].message


def test_nodes_that_computed_a_step_whose_answer_was_lost_are_paid_for_it(ring: PaperRing) -> None:
    """The third node died in step 4: the first two did the work, and say so to each other."""
    ring.receipts = [{4: ring.signed(0)}, {4: ring.signed(1)}, {}, {3: ring.signed(3, 3)}]
    del ring.roots[4, 4]
    assert ring.paid() == {0, 1, 3}


def test_who_contradicts_the_client_is_blamed_and_between_neighbours_both_are_suspected(ring: PaperRing) -> None:
    ann, bob, cid, dan = (hop.node.peer_id for hop in ring.hops)
    assert ring.verify().blamed() == {}
    ring.lie(1, input_root=FALSE_ROOT)
    assert ring.verify().blamed() == {ann: 0.25, bob: 0.25}
    ring.lie(3, output_root=FALSE_ROOT)
    assert ring.verify().blamed() == {ann: 0.25, bob: 0.25, dan: 1.0}, "what left the last of them, the client has seen"
    ring.receipts[2] = {}
    assert cid not in ring.verify().blamed(), "who says nothing does not lie"


def test_who_states_a_fact_that_is_not_so_is_blamed(ring: PaperRing) -> None:
    ring.lie(2, price_units=8)
    assert ring.verify().blamed()[ring.hops[2].node.peer_id] == 1.0
