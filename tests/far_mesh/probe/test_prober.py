"""Probing real nodes in one process: the honest and all kinds of others, with the right answers at hand and without."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from discovery.dht.transport import Channel
from discovery.probe.history import hours_of, observed, summaries
from discovery.probe.observation import Fate, Observation, Reach, Verdict
from discovery.probe.plan import TOKEN_LAYERS_PER_PROBE, Budget, Turns
from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.errors import FarError
from discovery.protocol.ids import new_session_id
from discovery.protocol.messages import (
    LINK_PROTOCOL,
    SESSION_PROTOCOL,
    Failure,
    Link,
    Message,
    Open,
    Opened,
    ReceiptIssued,
    Step,
    WireTensor,
)
from discovery.score import score_of
from far_mesh.probe.exam import Exam
from far_mesh.probe.prober import Prober
from far_mesh.probe.vantage import Vantage
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from tests.support.documents import announcement, peer_of, signed_announcement
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.ring import Ring, blocks_of, source_of

SLOWLY_MS = 60_000.0
"""Nobody is slower than that."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_bundled_tokenizer(
        make_model(tmp_path_factory.mktemp("models") / "asked", vocab_size=BUNDLED_VOCABULARY)
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same shape, and another model."""
    return make_model(tmp_path_factory.mktemp("models") / "other", vocab_size=BUNDLED_VOCABULARY, seed=9)


@pytest.fixture(scope="module")
def known(model: Path) -> Exam:
    return Exam(str(model), weights=True)


@pytest.fixture(scope="module")
def unknown(model: Path) -> Exam:
    return Exam(str(model), weights=False)


@pytest.fixture
async def ring(model: Path) -> AsyncIterator[Ring]:
    ring = Ring(model)
    yield ring
    await ring.close()
    assert not ring.crashes


@dataclass
class Board:
    """Of the ring, and of those who are announced and not there."""

    ring: Ring
    absent: tuple[SignedAnnouncement, ...] = ()

    async def all_nodes(self) -> list[SignedAnnouncement]:
        return [*self.ring.board.signed.values(), *self.absent]


_names = itertools.count()


async def vantage_in(ring: Ring) -> Vantage:
    client, before, behind = (ring.network.join(peer_of(f"visitor {next(_names)}")) for _ in range(3))
    vantage = Vantage(client, before, behind)
    await vantage.start()
    return vantage


async def look(ring: Ring, exam: Exam | None, *absent: SignedAnnouncement) -> dict[str, Observation]:
    """All nodes, once, from a new vantage point: what was seen, by the names of the nodes."""
    return await probed(ring, exam, await vantage_in(ring), *absent)


async def probed(
    ring: Ring, exam: Exam | None, vantage: Vantage, *absent: SignedAnnouncement
) -> dict[str, Observation]:
    """All nodes, once."""
    exams = {} if exam is None else {exam.digest: exam}
    chance = random.Random(1)
    prober = Prober(exams, Turns(0.0, chance), Budget(), chance)
    seen = await prober.round(vantage, Board(ring, absent))
    names = {node.peer_id: node.name for node in ring.nodes} | {one.peer_id: "absent" for one in absent}
    return {names[one.peer_id]: one for one in seen}


def own(path: Path, first: int, end: int) -> Blocks:
    """Blocks that no other node has: those of several nodes run at once."""
    return load_blocks(source_of(path), first, end)


def slowed(path: Path, first: int, end: int, seconds: float) -> Blocks:
    """The same, that take so much longer."""
    blocks = own(path, first, end)
    quick: Callable[..., Any] = blocks.run_together

    def run_together(*arguments: Any) -> Any:
        time.sleep(seconds)
        return quick(*arguments)

    blocks.run_together = run_together  # type: ignore[assignment,method-assign]
    return blocks


async def test_with_the_weights_each_is_known_for_what_it_is(ring: Ring, other: Path, known: Exam) -> None:
    await ring.add(0, 3, name="begins", block_ms=SLOWLY_MS)
    await ring.add(2, 5, name="between", block_ms=SLOWLY_MS)
    await ring.add(3, 6, name="ends", block_ms=SLOWLY_MS)
    await ring.add(0, 6, name="has all", block_ms=SLOWLY_MS, price_units=70)
    await ring.add(1, 4, name="wrong", blocks=blocks_of(other, 1, 4), block_ms=SLOWLY_MS)
    await ring.add(4, 6, name="coarse", quantization="nf4", block_ms=SLOWLY_MS)
    cheap = load_blocks(source_of(ring.path), 3, 5, quantization="nf4")
    await ring.add(3, 5, name="coarser than it says", blocks=cheap, block_ms=SLOWLY_MS)
    await ring.add(2, 4, name="boasts", blocks=slowed(ring.path, 2, 4, 0.05), block_ms=0.001)
    seen = await look(ring, known, signed_announcement("gone", model_digest=known.digest))

    honest = [seen[name] for name in ("begins", "between", "ends", "has all", "coarse", "boasts")]
    assert [one.verdict for one in honest] == [Verdict.RIGHT] * 6
    assert all(one.error is not None and one.error < 1e-3 and one.by == "weights" for one in honest)
    assert all(
        one.receipt and one.reach is Reach.DIRECT and one.fate is Fate.COMPLETED for one in seen.values() if one.verdict
    )
    assert (seen["wrong"].verdict, seen["wrong"].receipt) == (Verdict.WRONG, True)
    assert seen["wrong"].error is not None
    assert seen["wrong"].error > 0.5
    assert seen["coarser than it says"].verdict is Verdict.WRONG
    gone = seen["absent"]
    assert (gone.reach, gone.fate, gone.verdict, gone.reason) == (Reach.NONE, Fate.UNASKED, None, "peer_unavailable")
    hours = {name: hours_of("a prober", [one]) for name, one in seen.items()}
    assert {name: summaries(hours[name])[0].overclaims for name in hours} == {
        **dict.fromkeys((seen.keys() - {"boasts", "absent"}), False),
        "boasts": True,
        "absent": None,
    }
    scores = {name: score_of(observed(those, time.time(), age=7 * 86400)).value for name, those in hours.items()}
    assert scores["wrong"] < scores["absent"] < scores["begins"]
    for node in ring.nodes:
        await node.until_free()
        assert node.handler.token_layers_served == seen[node.name].token_layers <= TOKEN_LAYERS_PER_PROBE


async def test_without_the_weights_most_of_those_who_serve_the_same_blocks_are_right(
    ring: Ring, other: Path, unknown: Exam
) -> None:
    for name, blocks in (("a", (0, 4)), ("b", (1, 6)), ("c", (0, 5))):
        await ring.add(*blocks, name=name)
    await ring.add(1, 4, name="wrong", blocks=blocks_of(other, 1, 4))
    seen = await look(ring, unknown)
    assert {name: one.verdict for name, one in seen.items()} == {
        **dict.fromkeys("abc", Verdict.RIGHT),
        "wrong": Verdict.WRONG,
    }
    assert {one.by for one in seen.values()} == {"majority"}
    assert all(one.receipt for one in seen.values())


async def test_several_nodes_of_one_owner_have_one_voice(ring: Ring, other: Path, unknown: Exam) -> None:
    owner = announcement("one owner").wallet
    for name in ("x", "y", "z"):
        await ring.add(0, 6, name=name, blocks=own(other, 0, 6), wallet=owner)
    await ring.add(0, 6, name="honest")
    seen = await look(ring, unknown)
    assert {one.verdict for one in seen.values()} == {Verdict.UNDECIDED}
    assert {one.fate for one in seen.values()} == {Fate.COMPLETED}


async def test_of_a_model_that_the_prober_does_not_know_nodes_are_looked_at_alone(ring: Ring) -> None:
    node = await ring.add(0, 6, name="node")
    (seen,) = (await look(ring, None)).values()
    assert (seen.reach, seen.fate, seen.token_layers) == (Reach.DIRECT, Fate.UNASKED, 0)
    assert seen.round_trip_ms is not None
    assert node.handler.token_layers_served == 0


async def test_a_node_sees_what_it_sees_of_any_session(ring: Ring, known: Exam) -> None:
    """Who stands in the middle gets its steps from one peer, hands them to another, and is talked to by a third."""
    node = await ring.add(2, 4, name="node", price_units=5)
    heard: list[Open] = []
    admit = node.serving.check

    def check(opening: Open) -> None:
        heard.append(opening)
        admit(opening)

    node.serving.check = check  # type: ignore[method-assign]
    before, after = await look(ring, known), await look(ring, known)
    assert before["node"].verdict is after["node"].verdict is Verdict.RIGHT
    first, second = heard
    assert first.previous is not None
    assert first.next is not None
    assert len({first.previous, first.next.peer_id, second.previous, second.next and second.next.peer_id}) == 4
    assert (first.price_units, first.batch, first.trace_parent) == (5, 1, None)


async def test_who_cannot_reach_the_peer_behind_it_is_not_blamed(ring: Ring, known: Exam) -> None:
    node = await ring.add(2, 4, name="node")
    vantage = await vantage_in(ring)
    ring.network.cut(vantage.behind.peer_id)
    chance = random.Random(1)
    prober = Prober({known.digest: known}, Turns(0.0, chance), Budget(), chance)
    (seen,) = await prober.round(vantage, Board(ring))
    assert (seen.fate, seen.verdict, seen.receipt) == (Fate.COMPLETED, Verdict.RIGHT, True)
    assert not vantage.was_reached
    await node.until_free()


async def test_who_says_that_it_cannot_reach_whom_others_reach_is_not_asked_in_another_way(
    ring: Ring, known: Exam
) -> None:
    """Else it would know that it is asked by a prober, who alone lets go of the one behind."""
    honest = await ring.add(2, 4, name="honest")
    vantage, tries = await vantage_in(ring), list[str]()
    await probed(ring, known, vantage)
    assert vantage.was_reached
    sly = await ring.add(1, 4, name="sly")

    async def refuse(stream: Any) -> None:
        channel = Channel(stream)
        tries.append((await channel.expect(Open)).session_id.hex())
        await channel.send(Failure("peer_unavailable", "cannot be reached", True, peer_id=vantage.behind.peer_id))

    sly.transport.handlers[SESSION_PROTOCOL] = refuse
    seen = await probed(ring, known, vantage)
    assert (seen["sly"].fate, seen["sly"].reason, len(tries)) == (Fate.FAILED, "peer_unavailable", 1)
    assert seen["honest"].verdict is Verdict.RIGHT
    await honest.until_free()


async def test_a_node_cannot_flood_who_asks_it(ring: Ring, known: Exam) -> None:
    """It hands on what was never asked, and is cut off at the second step that nobody waits for."""
    node = await ring.add(2, 4, name="node")
    vantage, sent = await vantage_in(ring), list[int]()

    async def flood(stream: Any) -> None:
        channel = Channel(stream)
        opening = await channel.expect(Open)
        await channel.send(Opened())
        assert opening.next is not None
        link = Channel(await node.transport.open(opening.next, LINK_PROTOCOL))
        await link.send(Link(opening.session_id, 1))
        junk = WireTensor("float32", (1, 64, 64), bytes(4 * 64 * 64))
        with contextlib.suppress(FarError):
            for index in range(10_000):
                await link.send(Step(index, 0, junk))
                sent.append(index)

    node.transport.handlers[SESSION_PROTOCOL] = flood
    seen = await probed(ring, known, vantage)
    assert seen["node"].fate is Fate.FAILED
    assert len(sent) < 100


async def test_who_was_not_asked_hands_nothing_on(ring: Ring) -> None:
    await ring.add(2, 4, name="node")
    vantage = await vantage_in(ring)
    stranger = ring.network.join(peer_of("stranger"))
    taken: list[Step] = []
    session = new_session_id()
    with vantage.expecting(session, peer_of("node"), taken.append):
        link = Channel(await stranger.open(vantage.next, LINK_PROTOCOL))
        await link.send(Link(session, 1))
        assert await link.receive() is None
    assert not vantage.was_reached
    assert taken == []


async def test_a_receipt_of_other_work_is_seen(ring: Ring, known: Exam) -> None:
    node = await ring.add(0, 6, name="node")
    forger = await ring.add(0, 5, name="forger")
    told: list[ReceiptIssued] = []

    def old_ones(message: Message) -> Message:
        if isinstance(message, ReceiptIssued):
            told.append(message)
            return told[0]
        return message

    ring.corrupt(forger, old_ones)
    first, second = await look(ring, known), await look(ring, known)
    assert [one["node"].receipt for one in (first, second)] == [True, True]
    assert [one["forger"].receipt for one in (first, second)] == [True, False]
    assert second["forger"].verdict is Verdict.RIGHT
    await node.until_free()


async def test_what_breaks_off_or_refuses_is_told_apart(ring: Ring, known: Exam) -> None:
    full = await ring.add(0, 6, name="full", max_sessions=1)
    broken = await ring.add(0, 5, name="broken")
    held = await ring.opened(route=ring.route[:1])

    async def hang_up(stream: Any) -> None:
        await stream.receive()

    broken.transport.handlers[SESSION_PROTOCOL] = hang_up
    seen = await look(ring, known)
    assert (seen["full"].fate, seen["full"].verdict) == (Fate.REFUSED, None)
    assert seen["full"].reason in ("busy", "out_of_cache")
    assert (seen["broken"].fate, seen["broken"].verdict) == (Fate.FAILED, None)
    await held.finish()
    await full.until_free()


async def test_nobody_is_asked_for_more_than_the_budget_allows(ring: Ring, known: Exam) -> None:
    node = await ring.add(0, 6, name="node")
    now = [1000.0]
    chance = random.Random(1)
    prober = Prober({known.digest: known}, Turns(0.0, chance), Budget(probes=2), chance, lambda: now[0])
    vantage = await vantage_in(ring)
    fates = []
    for _ in range(3):
        (seen,) = await prober.round(vantage, Board(ring))
        fates.append(seen.fate)
        now[0] += 1.0
    assert fates == [Fate.COMPLETED, Fate.COMPLETED, Fate.UNASKED]
    now[0] += 3600.0
    (seen,) = await prober.round(vantage, Board(ring))
    assert seen.fate is Fate.COMPLETED
    await node.until_free()


def test_a_text_is_used_once_for_a_node(known: Exam) -> None:
    first = known.question(["a"], (0, 2), 20)
    beside = known.question(["b"], (2, 4), 20)
    again = known.question(["a"], (0, 2), 20)
    assert first.answer is not None
    assert beside.answer is not None
    assert torch.equal(first.answer, beside.hidden)
    assert not torch.equal(first.hidden, again.hidden)


def test_the_ends_alone_know_no_answers(unknown: Exam) -> None:
    assert not unknown.knows_answers
    assert unknown.question(["a"], (3, 4), 20).answer is None
    assert unknown.question(["b"], (0, 4), 20).hidden.shape == (1, 20, 64)
