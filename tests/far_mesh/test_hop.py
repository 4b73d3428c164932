"""One node of a route: what it is asked and answers, and what becomes of the answer when it, or another, is lost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from discovery.protocol.errors import FarError, PeerUnavailable, ProtocolViolation
from discovery.protocol.ids import new_session_id
from discovery.protocol.messages import (
    Failure,
    Message,
    Open,
    Opened,
    PeerAddress,
    Pong,
    Reroute,
    Rerouted,
    Resumption,
    Step,
)
from far_mesh.config import MeshConfig
from far_mesh.hop import Hop
from far_mesh.route import RouteHop
from far_mesh.session import MeshSession, SessionRequest
from tests.support.documents import peer_of
from tests.support.ring import FAST, Ring, a_ring

SOON = 60.0


@pytest.fixture
async def ring(talker: Path) -> AsyncIterator[Ring]:
    async with a_ring(talker, (0, 3), (3, 6)) as ring, asyncio.timeout(SOON):
        yield ring


@dataclass
class Ear:
    """What a hop tells of."""

    results: list[Step] = field(default_factory=list)
    failures: list[tuple[str, str, bool]] = field(default_factory=list)

    def result(self, hop: Hop, step: Step) -> None:
        self.results.append(step)

    def failure(self, hop: Hop, error: FarError, is_own_finding: bool) -> None:
        self.failures.append((error.code, str(error.facts["peer_id"]), is_own_finding))

    async def until_failed(self) -> tuple[str, str, bool]:
        async with asyncio.timeout(SOON):
            while not self.failures:
                await asyncio.sleep(0.005)
        return self.failures[0]


def opening(ring: Ring, **changes: object) -> Open:
    fields: dict[str, object] = {
        "session_id": new_session_id(),
        "nonce": secrets.token_bytes(16),
        "model_digest": ring.source.digest,
        "first_block": 0,
        "end_block": 3,
        "max_length": 32,
        "batch": 1,
        "codec": "float32",
        "previous": None,
        "next": None,
    }
    return Open(**fields | changes)  # type: ignore[arg-type]


async def opened(ring: Ring, ear: Ear, **changes: object) -> Hop:
    hop = Hop(ring.route[0], ear.result, ear.failure, (0, 1))
    await hop.open(ring.client, opening(ring, **changes))
    return hop


class TestQuestions:
    """Pings and reroutes."""

    async def test_a_ping_tells_how_far_the_node_has_come(self, ring: Ring) -> None:
        ear = Ear()
        hop = await opened(ring, ear)
        assert await hop.ping() == Pong(1, 0, 0)
        await hop.send(Step(0, 0, ring.random_hidden(3)))
        while not ear.results:
            await asyncio.sleep(0)
        assert await hop.ping() == Pong(2, 1, 1)
        await hop.finish(5.0)
        assert [one.signed.receipt.steps for one in hop.receipts] == [1]

    async def test_answers_find_who_asked_whatever_their_order(self, ring: Ring) -> None:
        kept: list[Pong] = []

        def backwards(message: Message) -> Message | None:
            if not isinstance(message, Pong):
                return message
            kept.append(message)
            return None

        ring.corrupt(ring.nodes[0], backwards)
        hop = await opened(ring, Ear())
        asking = [asyncio.create_task(hop.ping()) for _ in range(5)]
        while len(kept) < 5:
            await asyncio.sleep(0.001)
        for pong in reversed(kept):
            hop._settle(pong)
        assert [pong.number for pong in await asyncio.gather(*asking)] == [1, 2, 3, 4, 5]
        hop._settle(Pong(99, 0, 0))
        await hop.abandon()

    async def test_a_question_to_a_node_that_is_lost_fails(self, ring: Ring) -> None:
        ear = Ear()
        ring.corrupt(ring.nodes[0], lambda message: None if isinstance(message, Pong) else message)
        hop = await opened(ring, ear)
        asking = asyncio.create_task(hop.ping())
        await asyncio.sleep(0.02)
        ring.network.cut(ring.nodes[0].transport.peer_id)
        with pytest.raises(PeerUnavailable):
            await asking
        assert await ear.until_failed() == ("peer_unavailable", hop.peer_id, True)
        with pytest.raises(PeerUnavailable):
            await hop.ping()
        await hop.abandon()

    async def test_a_successor_that_cannot_be_reached_answers_the_question_about_it(self, ring: Ring) -> None:
        ear = Ear()
        following = ring.nodes[1].transport.peer_id
        # a link waits for its session: nobody needs to open one there
        hop = await opened(ring, ear, next=PeerAddress(following))
        with pytest.raises(PeerUnavailable) as failure:
            await hop.lead(PeerAddress(peer_of("nobody")), 7)
        assert failure.value.facts["peer_id"] == peer_of("nobody")
        assert hop.output_link == 1, "nothing has changed"
        await hop.lead(PeerAddress(following), 8)
        assert hop.output_link == 8
        await hop.abandon()

    async def test_a_failure_of_somebody_else_answers_no_question(self, ring: Ring) -> None:
        ear = Ear()

        def blame(message: Message) -> Message:
            return Failure("busy", "not I", True, None, peer_of("somebody")) if isinstance(message, Pong) else message

        ring.corrupt(ring.nodes[0], blame)
        hop = await opened(ring, ear)
        asking = asyncio.create_task(hop.ping())
        assert await ear.until_failed() == ("busy", peer_of("somebody"), False)
        assert not asking.done()
        asking.cancel()
        await hop.abandon()


class TestLinks:
    """Receipts are filed under the links that the node stood between when it gave them."""

    async def test_a_receipt_after_the_answer_is_of_the_new_link(self, ring: Ring) -> None:
        ear = Ear()
        following = ring.nodes[1].transport.peer_id
        hop = await opened(ring, ear, next=PeerAddress(following))
        await hop.send(Step(0, 0, ring.random_hidden(3)))
        while (await hop.ping()).given < 1:
            await asyncio.sleep(0.005)
        await hop.lead(PeerAddress(following), 8)
        while len(hop.receipts) < 2:
            await asyncio.sleep(0.005)
        assert [(one.input_link, one.output_link) for one in hop.receipts] == [(0, 1), (0, 8)]
        await hop.abandon()

    async def test_what_was_taken_over_the_old_link_stays_with_it(self, ring: Ring) -> None:
        ear = Ear()
        hop = await opened(ring, ear, previous=ring.client.peer_id)
        assert (await hop.follow(peer_of("another"), 9)).taken == 0
        assert [one.input_link for one in hop.receipts] == [0]
        assert (hop.input_link, hop.output_link) == (9, 1)
        await hop.finish(5.0)
        assert [(one.input_link, one.output_link) for one in hop.receipts] == [(0, 1), (0, 1)], "no step came over 9"

    async def test_its_part_is_from_the_step_it_began_with(self, ring: Ring) -> None:
        hop = Hop(ring.route[0], Ear().result, Ear().failure, (4, 5), first_step=3)
        await hop.open(ring.client, opening(ring, resumption=Resumption(3, 10)))
        await hop.send(Step(3, 0, ring.random_hidden(10), settled=3, is_replay=True))
        await hop.send(Step(3, 10, ring.random_hidden(1), settled=3))
        await hop.finish(5.0)
        (stated,) = hop.stint.receipts
        assert (hop.stint.first_step, hop.stint.end_step, stated.steps) == (3, None, 4)
        assert (stated.signed.receipt.positions, stated.signed.receipt.replayed_positions) == (11, 10)


class TestEndings:
    """How it says that it is over."""

    async def test_a_refusal_names_the_node(self, ring: Ring) -> None:
        hop = Hop(ring.route[0], Ear().result, Ear().failure)
        with pytest.raises(FarError) as failure:
            await hop.open(ring.client, opening(ring, end_block=6))
        assert (failure.value.code, failure.value.facts["peer_id"]) == ("blocks_not_served", hop.peer_id)
        await hop.abandon()

    @pytest.mark.parametrize("message", [Opened(), Reroute(1)], ids=repr)
    async def test_what_is_not_due_is_our_own_finding(self, ring: Ring, message: Message) -> None:
        ear = Ear()
        ring.corrupt(ring.nodes[0], lambda said: message if isinstance(said, Pong) else said)
        hop = await opened(ring, ear)
        asking = asyncio.create_task(hop.ping())
        assert await ear.until_failed() == ("protocol_violation", hop.peer_id, True)
        with pytest.raises(ProtocolViolation):
            await asking
        await hop.abandon()

    async def test_after_goodbye_nothing_is_a_failure(self, ring: Ring) -> None:
        ear = Ear()
        hop = await opened(ring, ear)
        ring.network.cut(ring.nodes[0].transport.peer_id)
        await hop.finish(0.5)
        assert [failure for failure in ear.failures if failure[0] != "peer_unavailable"] == []


@pytest.mark.parametrize("taken", [0, 4, 2**53 - 1])
async def test_a_node_that_lies_about_what_it_took_is_itself_replaced(talker: Path, taken: int) -> None:
    """From what it says, a new node is told where to begin, and who is owed for what."""
    async with a_ring(talker, (0, 3), (3, 6)) as ring, asyncio.timeout(SOON):
        spares = [await ring.add(*span) for span in ((0, 3), (3, 6))]

        def lie(message: Message) -> Message:
            return Rerouted(message.number, taken) if isinstance(message, Rerouted) else message

        ring.corrupt(ring.nodes[1], lie)

        async def find(gone: object, before: object, after: object, excluded: object) -> tuple[RouteHop, ...]:
            assert isinstance(gone, list)
            by_span = {node.announcement.blocks: node for node in spares}
            return tuple(RouteHop(by_span[hop.blocks].announcement, *hop.blocks) for hop in gone)

        config = MeshConfig(**{**FAST.__dict__, "ping_timeout": 1.0, "mend_timeout": 5.0})
        session = MeshSession(ring.route[:2], SessionRequest(ring.source.digest, 64, "float32"), config, find)
        await session.open(ring.client)
        for index in range(3):
            await session.step(ring.random_hidden(2, seed=index), 2 * index)
        ring.network.cut(ring.nodes[0].transport.peer_id)
        await session.step(ring.random_hidden(1), 6)
        assert [hop.node.peer_id for hop in session.route] == [spare.peer_id for spare in spares]
        assert ring.nodes[1].peer_id in {peer for mended in session.mended for peer in mended.lost}
        verified = await session.finish()
        assert sum(done.token_layers for done in verified.contributions) <= session.expected_token_layers
