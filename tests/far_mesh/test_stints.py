"""Sessions that lost nodes, on paper: each block is paid once for each position, whatever anybody says."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from discovery.protocol.errors import FarError, ReceiptInvalid
from discovery.protocol.receipt import (
    Receipt,
    SignedReceipt,
    extend_root,
    first_root,
    read_receipt,
    sign_receipt,
)
from far_mesh.contributions import Contribution, OwnView, Stated, Stint, Verified, latest_checkpoint, verify_receipts
from far_mesh.route import RouteHop
from tests.support.documents import announcement, key_of
from tests.support.receipts import ASKED, PaperRing

FALSE_ROOT = hashlib.sha256(b"a lie").hexdigest()
SPANS = ((0, 2), (2, 5), (5, 6))
BLOCKS = 6
EACH_STEP = 4


@dataclass
class Worker:
    """One stint: who, between which links, from which step, and what it says."""

    name: str
    span: tuple[int, int]
    links: tuple[int, int]
    first_step: int = 0
    end_step: int | None = None
    replayed: int = 0
    said: list[Stated] = field(default_factory=list)

    @property
    def stint(self) -> Stint:
        about = announcement(self.name, block_count=BLOCKS, first_block=self.span[0], end_block=self.span[1])
        return Stint(RouteHop(about, *self.span), tuple(self.said), self.first_step, self.end_step)


class PaperSession:
    """A session of three places with steps of four positions; every link's root depends on its number alone."""

    def __init__(self) -> None:
        self.links = len(SPANS) + 1
        self.names = 0
        self.serving = [self.worker(span, (index, index + 1), 0) for index, span in enumerate(SPANS)]
        self.workers = list(self.serving)
        self.steps = 0
        self.positions = [0]
        self.own: dict[tuple[int, int], str] = {}

    def worker(self, span: tuple[int, int], links: tuple[int, int], first_step: int) -> Worker:
        self.names += 1
        return Worker(f"worker{self.names}", span, links, first_step)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.steps += 1
            self.positions.append(self.positions[-1] + EACH_STEP)
            self.own[self.serving[0].links[0], self.steps] = self.root(self.serving[0].links[0], self.steps)
            self.own[self.serving[-1].links[1], self.steps] = self.root(self.serving[-1].links[1], self.steps)

    def lose(self, place: int, at_step: int | None = None, replayed: int | None = None) -> Worker:
        """Somebody else takes a place; its successor had come to ``at_step``."""
        at_step = self.steps if at_step is None else at_step
        gone = self.serving[place]
        gone.end_step = at_step
        links = self.links, self.links + 1
        self.links += 2
        fresh = self.serving[place] = self.worker(gone.span, links, at_step)
        fresh.replayed = self.positions[at_step] if replayed is None else replayed
        if place:
            self.serving[place - 1].links = self.serving[place - 1].links[0], links[0]
        if place + 1 < len(SPANS):
            self.serving[place + 1].links = links[1], self.serving[place + 1].links[1]
        self.workers.append(fresh)
        return fresh

    def root(self, link: int, steps: int) -> str:
        return hashlib.sha256(f"{link} {steps}".encode()).hexdigest()

    def receipt(self, worker: Worker, steps: int | None = None, **lies: Any) -> Receipt:
        steps = self.steps if steps is None else steps
        positions = self.positions[steps] - self.positions[worker.first_step] + worker.replayed
        fields: dict[str, Any] = {
            "session_id": ASKED.session_id.hex(),
            "nonce": ASKED.nonce.hex(),
            "peer_id": worker.stint.hop.node.peer_id,
            "wallet": worker.stint.hop.node.wallet,
            "model_digest": ASKED.model_digest,
            "first_block": worker.span[0],
            "end_block": worker.span[1],
            "quantization": worker.stint.hop.node.quantization,
            "codec": ASKED.codec,
            "steps": steps,
            "positions": positions,
            "replayed_positions": worker.replayed,
            "input_root": self.root(worker.links[0], steps),
            "output_root": self.root(worker.links[1], steps),
            "price_units": ASKED.price_units,
            "issued_at": 1_700_000_000,
        } | lies
        fields["token_layers"] = fields["positions"] * (worker.span[1] - worker.span[0])
        return Receipt.model_validate(fields)

    def say(self, worker: Worker, steps: int | None = None, **lies: Any) -> None:
        signed = sign_receipt(self.receipt(worker, steps, **lies), key_of(worker.name))
        worker.said.append(Stated(signed, *worker.links))

    def all_say(self) -> None:
        for worker in self.serving:
            self.say(worker)

    @property
    def stints(self) -> list[Stint]:
        return [worker.stint for worker in self.workers]

    def verify(self, at_steps: int | None = None) -> Verified:
        return verify_receipts(ASKED, self.stints, OwnView(self.own, self.positions), at_steps)

    def paid(self, worker: Worker) -> int:
        """Positions a worker is owed for."""
        return sum(done.positions for done in self.verify().contributions if done.peer_id == peer(worker))


def peer(worker: Worker) -> str:
    return worker.stint.hop.node.peer_id


def per_block(contributions: tuple[Contribution, ...]) -> list[int]:
    """Upper bound of what each block is paid, in positions."""
    paid = [0] * BLOCKS
    for done in contributions:
        width = done.blocks[1] - done.blocks[0]
        assert done.token_layers == done.positions * width, "all of its blocks have the same history here"
        for block in range(*done.blocks):
            paid[block] += done.positions
    return paid


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_lost_one_is_paid_to_its_last_receipt_and_who_came_for_the_rest(place: int) -> None:
    session = PaperSession()
    session.step(5)
    session.all_say()
    session.step(3)
    lost, fresh = session.serving[place], session.lose(place)
    session.step(2)
    session.all_say()
    assert (session.paid(lost), session.paid(fresh)) == (5 * EACH_STEP, 5 * EACH_STEP)
    assert per_block(session.verify().contributions) == [10 * EACH_STEP] * BLOCKS
    assert session.verify().rejected == ()


def test_a_lost_one_without_a_receipt_leaves_its_pay_to_who_did_it_again() -> None:
    session = PaperSession()
    session.step(4)
    lost, fresh = session.serving[1], session.lose(1)
    session.step(1)
    session.all_say()
    assert (session.paid(lost), session.paid(fresh)) == (0, 5 * EACH_STEP)
    assert "gave no receipt" in session.verify().rejected[0].message


def test_who_did_less_again_is_paid_for_that_only() -> None:
    """What had been taken back was not sent again."""
    session = PaperSession()
    session.step(4)
    fresh = session.lose(1, replayed=3)
    session.step(1)
    session.all_say()
    assert session.paid(fresh) == 3 + EACH_STEP


def test_a_claim_to_have_done_much_again_brings_no_more_than_is_missing() -> None:
    session = PaperSession()
    session.step(4)
    session.all_say()
    session.step(1)
    fresh = session.lose(1, replayed=10**9)
    session.step(1)
    session.all_say()
    assert session.paid(fresh) == 2 * EACH_STEP
    assert per_block(session.verify().contributions) == [6 * EACH_STEP] * BLOCKS


def test_one_place_may_be_taken_several_times() -> None:
    session = PaperSession()
    for _ in range(4):
        session.step(2)
        session.all_say()
        session.step(1)
        session.lose(1)
    session.step(1)
    session.all_say()
    assert per_block(session.verify().contributions) == [13 * EACH_STEP] * BLOCKS


def test_who_takes_over_at_an_earlier_step_than_the_one_before_it_began_is_not_paid_again() -> None:
    """The successor had come to step 5 when the place was taken first; then it was lost too, with answers to 3."""
    session = PaperSession()
    session.step(5)
    session.all_say()
    first = session.lose(1, at_step=5)
    session.say(first, 5)
    second, last = session.lose(1, at_step=3), session.lose(2, at_step=3)
    session.step(1)
    session.all_say()
    assert per_block(session.verify().contributions) == [6 * EACH_STEP] * BLOCKS
    assert (session.paid(second), session.paid(last)) == (EACH_STEP, 3 * EACH_STEP)


@pytest.mark.parametrize("seed", range(150))
def test_no_block_is_paid_twice_for_a_position_whatever_anybody_says(seed: int) -> None:
    chance = random.Random(seed)
    session = PaperSession()
    for _ in range(chance.randint(1, 12)):
        match chance.randrange(4):
            case 0 | 1:
                session.step(chance.randint(1, 4))
            case 2:
                for place in chance.sample(range(3), chance.choice((1, 1, 2))):
                    session.lose(place, chance.randint(0, session.steps), chance.choice((None, 0, 5, 10**6)))
            case _:
                for worker in session.workers:
                    if chance.random() < 0.5:
                        session.say(worker, chance.randint(worker.first_step, session.steps), **_lie(chance))
    session.all_say()
    verified = session.verify()
    assert all(isinstance(error, ReceiptInvalid) and error.facts["peer_id"] for error in verified.rejected)
    assert max(per_block(verified.contributions)) <= session.positions[-1]
    assert len({done.peer_id for done in verified.contributions}) == len(verified.contributions)
    steps = chance.randint(0, session.steps)
    assert max(per_block(session.verify(steps).contributions)) <= session.positions[steps]


def _lie(chance: random.Random) -> dict[str, Any]:
    return chance.choice(
        (
            {},
            {},
            {"input_root": FALSE_ROOT},
            {"output_root": FALSE_ROOT},
            {"positions": 7, "replayed_positions": 7},
            {"replayed_positions": 0},
        )
    )


@pytest.mark.parametrize("side", ["input_root", "output_root"])
def test_a_liar_among_those_who_came_costs_itself_and_whom_it_contradicts(side: str) -> None:
    session = PaperSession()
    session.step(3)
    session.all_say()
    lost, liar = session.serving[1], session.lose(1)
    session.step(2)
    for worker in session.serving:
        lies: dict[str, Any] = {side: FALSE_ROOT} if worker is liar else {}
        session.say(worker, **lies)
    assert session.paid(liar) == 0
    assert session.paid(lost) == 3 * EACH_STEP, "its last receipt still stands"
    contradicted = 0 if side == "input_root" else 2
    assert session.paid(session.serving[contradicted]) == 0
    assert session.paid(session.serving[2 - contradicted]) == 5 * EACH_STEP


def test_what_a_lost_one_says_of_steps_after_it_was_replaced_is_not_paid() -> None:
    session = PaperSession()
    session.step(3)
    session.all_say()
    lost, fresh = session.serving[1], session.lose(1)
    session.step(4)
    session.say(lost, 7)
    session.all_say()
    assert session.paid(lost) == 3 * EACH_STEP
    assert session.paid(fresh) == 4 * EACH_STEP


def test_checkpoints_are_where_all_who_serve_now_have_given_a_receipt() -> None:
    session = PaperSession()
    session.step(2)
    session.all_say()
    assert latest_checkpoint(session.stints, session.steps) == 2
    session.lose(1)
    assert latest_checkpoint(session.stints, session.steps) == 0
    session.step(1)
    session.all_say()
    assert latest_checkpoint(session.stints, session.steps) == 3
    assert latest_checkpoint(session.stints, 2) == 0
    assert latest_checkpoint([], 5) == 0


class TestTenThousandForgeries:
    """Receipts that were changed, said again, with gaps, over others' steps, or signed by somebody else."""

    async def test_none_is_paid(self) -> None:
        chance = random.Random(4)
        ring = PaperRing((0, 3, 5, 8), (10, 1, 1, 1))
        assert ring.paid() == {0, 1, 2}
        honest = ring.receipts[1][4]
        other = PaperRing((0, 3, 5, 8), (10, 1, 1, 1), replace(ASKED, nonce=b"\x01" * 16))
        earlier = other.receipts[1][4]
        raw, refused, unpaid = honest.to_bytes(), 0, 0
        for number in range(10_000):
            match number % 10:
                case 0 | 1 | 2 | 3 | 4 | 5 | 6:  # bytes
                    forged = _changed(raw, chance)
                    try:
                        signed = read_receipt(forged)
                    except ReceiptInvalid:
                        refused += 1
                        continue
                    assert signed == honest, "white space between the fields is not signed"
                    refused += 1
                    continue
                case 7:  # signed again by its own node, with a field that is not so
                    signed = _resigned(ring, chance)
                case 8:  # of another session
                    signed = earlier
                case _:  # by another key, in the name of the node or in its own
                    signed = _usurped(ring, honest, chance)
            stints = ring.stints
            stints[1] = replace(stints[1], receipts=(Stated(signed, 1, 2),))
            verified = verify_receipts(ring.asked, stints, ring.own_view)
            assert ring.hops[1].node.peer_id not in {done.peer_id for done in verified.contributions}, signed.receipt
            unpaid += 1
        assert refused + unpaid == 10_000


def _changed(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at : at + chance.randint(1, 5)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randint(1, 4))
            case _:
                changed[at] = chance.randrange(256)
    return bytes(changed)


def _resigned(ring: PaperRing, chance: random.Random) -> SignedReceipt:
    lies: list[dict[str, Any]] = [
        {"positions": chance.choice((0, 1, 12, 14, 10**6))},
        {"positions": 13 + 5, "replayed_positions": 5},
        {"replayed_positions": chance.randint(1, 13)},
        {"steps": chance.choice((5, 100, 2**53 - 1)), "positions": 13},
        {"input_root": chance.randbytes(32).hex()},
        {"output_root": chance.randbytes(32).hex()},
        {"price_units": chance.choice((0, 8, 2**53 - 1))},
        {"nonce": chance.randbytes(16).hex()},
        {"session_id": chance.randbytes(16).hex()},
        {"model_digest": chance.randbytes(32).hex()},
        {"first_block": 2},
        {"end_block": chance.choice((4, 6, 64))},
        {"codec": "int8"},
        {"quantization": "nf4"},
    ]
    lie = chance.choice(lies)
    steps = lie.pop("steps", None)
    return ring.signed(1, steps, **lie)


def _usurped(ring: PaperRing, honest: SignedReceipt, chance: random.Random) -> SignedReceipt:
    thief = f"thief {chance.randrange(5)}"
    mine = honest.receipt.model_copy(update={"peer_id": announcement(thief).peer_id})
    signed = sign_receipt(chance.choice((honest.receipt, mine)), key_of(thief))
    try:
        return read_receipt(signed.to_bytes())
    except FarError:
        return sign_receipt(mine, key_of(thief))


def test_a_chain_with_a_gap_an_overlap_or_a_step_said_twice_has_another_root() -> None:
    parts = [(start, bytes([start])) for start in range(6)]
    roots = set()
    for said in (parts, parts[:3] + parts[4:], [*parts[:3], parts[2], *parts[3:]], parts[::-1], [*parts, parts[-1]]):
        root = first_root(ASKED.session_id)
        for start, data in said:
            root = extend_root(root, start, (1, 1, 1), "int8", data)
        roots.add(root)
    assert len(roots) == 5
