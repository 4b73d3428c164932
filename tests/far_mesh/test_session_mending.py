"""Nodes are lost in the middle of a text: who takes their place, what is computed again, and who is owed for it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import lru_cache, partial
from pathlib import Path

import pytest
import torch

from discovery.protocol.errors import DeadlineExceeded, FarError, PeerUnavailable
from discovery.protocol.messages import Message, Step, WireTensor
from discovery.protocol.receipt import RECEIPT_EVERY_POSITIONS
from far_mesh.config import MeshConfig
from far_mesh.contributions import Verified
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, plan_route
from far_mesh.session import FindOthers, Mended, MeshSession, SessionRequest
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.errors import BadPosition, Busy, ComputeFailed, Leaving, SessionTooLong, SessionUnknown
from far_node.executor import Computed
from tests.support.chaos import ChaosLoop
from tests.support.ring import FAST, Ring, RingNode, a_ring, blocks_of, source_of

SPANS = ((0, 1), (1, 4), (4, 6))
LONGEST = 256
QUICK = dataclasses.replace(
    FAST, suspect_after=0.2, ping_timeout=0.4, mend_timeout=30.0, shun_seconds=0.5, open_timeout=2.0, close_timeout=2.0
)
SOON = 120


@pytest.fixture
async def ring(talker: Path) -> AsyncIterator[Ring]:
    """Two nodes for every range; the first three are the route."""
    async with a_ring(talker) as ring, asyncio.timeout(SOON):
        for span in (*SPANS, *SPANS):
            await join(ring, span)
        yield ring


async def join(ring: Ring, span: tuple[int, int]) -> RingNode:
    """One more node, with blocks of its own: those it takes the place of may still compute."""
    return await ring.add(*span, blocks=_own_blocks(ring.path, span, len(ring.nodes)))


@lru_cache(maxsize=64)
def _own_blocks(path: Path, span: tuple[int, int], number: int) -> Blocks:
    """Those of the node with this number in its ring; the next ring has them after it."""
    return load_blocks(source_of(path), *span)


def finder(ring: Ring) -> FindOthers:
    """Who is on the board, as a client finds them."""

    async def find(
        gone: Sequence[RouteHop], before: str | None, after: str | None, excluded: Collection[str]
    ) -> tuple[RouteHop, ...]:
        nodes = [signed.announcement for signed in ring.board.signed.values()]
        span = gone[0].first_block, gone[-1].end_block
        return plan_route(nodes, ring.shape.block_count, excluded, span=span, before=before, after=after)

    return find


class Talk:
    """A session beside one machine that computes the same."""

    def __init__(self, ring: Ring, session: MeshSession, rows: int, told: list[Mended]) -> None:
        self.ring, self.session, self.rows, self.told = ring, session, rows, told
        self._blocks = blocks_of(ring.path, 0, 6)
        self._cache = self._blocks.new_cache()
        self._seed = 0
        self.position = self.computed = self.taken_back = 0

    @classmethod
    async def open(cls, ring: Ring, config: MeshConfig = QUICK, rows: int = 1, route: Sequence[RouteHop] = ()) -> Talk:
        told: list[Mended] = []
        request = SessionRequest(ring.source.digest, LONGEST, "float32", rows)
        session = MeshSession(tuple(route) or ring.route[:3], request, config, finder(ring), told.append)
        await session.open(ring.client)
        return cls(ring, session, rows, told)

    async def say(self, count: int, back: int = 0, rows: tuple[int, ...] = ()) -> None:
        """A step, after taking back so many positions, whose answer is right."""
        expected, answer = self.begin(count, back, rows)
        self.check(await answer, expected)

    def begin(
        self, count: int, back: int = 0, rows: tuple[int, ...] = ()
    ) -> tuple[torch.Tensor, asyncio.Task[WireTensor]]:
        """The same, on its way."""
        self._seed += 1
        hidden = self.ring.random_hidden(count, rows=self.rows, seed=self._seed)
        start = self.position - back
        self._cache.rewind(start)
        if rows:
            self._cache.select_rows(torch.tensor(rows))
        expected = self._blocks.run(self.ring.tensor(hidden), self._cache, 0, 6)
        self.position = start + count
        self.computed += count * self.rows
        self.taken_back += back * self.rows
        return expected, asyncio.create_task(self.session.step(hidden, start, rows=rows))

    def check(self, got: WireTensor, expected: torch.Tensor) -> None:
        assert got.shape == tuple(expected.shape)
        assert (self.ring.tensor(got) - expected).abs().max() <= 1e-4 * expected.abs().max()

    async def finish(self) -> Verified:
        """Each block is paid once for each position. What was taken back before the node that computed it was lost,
        without a receipt for it, nobody computes again.
        """
        verified = await self.session.finish()
        assert self.session.expected_token_layers == 6 * self.computed
        paid: dict[int, int] = dict.fromkeys(range(6), 0)
        for done in verified.contributions:
            for block in range(*done.blocks):
                paid[block] += done.token_layers // (done.blocks[1] - done.blocks[0])
        assert all(self.computed - self.taken_back <= positions <= self.computed for positions in paid.values())
        return verified


def node_of(ring: Ring, hop: RouteHop) -> RingNode:
    return next(node for node in ring.nodes if node.peer_id == hop.node.peer_id)


def failing(error: FarError) -> Callable[..., Awaitable[Computed]]:
    """In the place of an executor's ``compute``."""

    async def compute(*_: object) -> Computed:
        raise error

    return compute


def peers(talk: Talk) -> list[int]:
    return [talk.ring.nodes.index(node_of(talk.ring, hop)) for hop in talk.session.route]


class TestALostNode:
    """Who is cut off, killed or stopped."""

    @pytest.mark.parametrize("how", ["cut", "frozen"])
    @pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)], ids=str)
    async def test_costs_a_pause_and_nothing_else(self, ring: Ring, lost: tuple[int, ...], how: str) -> None:
        talk = await Talk.open(ring)
        for count in (9, 1, 1):
            await talk.say(count)
        for index in lost:
            peer = ring.nodes[index].transport.peer_id
            ring.network.cut(peer) if how == "cut" else ring.network.freeze(peer)
        for count in (1, 3, 1):
            await talk.say(count)
        assert peers(talk) == [index + 3 if index in lost else index for index in range(3)]
        verified = await talk.finish()
        assert {done.peer_id for done in verified.contributions} == {ring.nodes[index].peer_id for index in peers(talk)}

    async def test_nobody_else_computes_anything_again(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(30)
        before = [node.handler.token_layers_served for node in ring.nodes[:3]]
        ring.network.cut(ring.nodes[1].transport.peer_id)
        await talk.say(1)
        after = [node.handler.token_layers_served for node in (*ring.nodes[:3], ring.nodes[4])]
        assert (after[0] - before[0], after[2] - before[2]) == (1, 2)
        assert after[3] == 31 * 3
        await talk.finish()

    async def test_steps_in_flight_arrive(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        begun = [talk.begin(2) for _ in range(4)]
        await asyncio.sleep(0)
        ring.network.cut(ring.nodes[1].transport.peer_id)
        begun += [talk.begin(1) for _ in range(3)]
        for expected, answer in begun:
            talk.check(await answer, expected)
        await talk.finish()

    async def test_is_replaced_while_nothing_is_asked(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        ring.network.cut(ring.nodes[2].transport.peer_id)
        while not talk.told:
            await asyncio.sleep(0.01)
        assert peers(talk) == [0, 1, 5]
        await talk.say(1)
        await talk.finish()

    async def test_may_be_the_one_that_took_the_place_of_another(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(7)
        for index in (1, 4):
            if index == 4:
                await join(ring, SPANS[1])
            ring.network.cut(ring.nodes[index].transport.peer_id)
            await talk.say(2)
        assert peers(talk) == [0, 6, 2]
        await talk.finish()

    async def test_is_replaced_by_several_where_no_one_serves_all(self, talker: Path) -> None:
        async with a_ring(talker, (0, 1), (1, 5), (5, 6), (1, 2), (2, 4), (3, 6)) as ring, asyncio.timeout(SOON):
            talk = await Talk.open(ring)
            await talk.say(150)
            await talk.say(1)
            ring.network.cut(ring.nodes[1].transport.peer_id)
            for count in (1, 4):
                await talk.say(count)
            assert [hop.blocks for hop in talk.session.route] == [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
            ring.network.cut(ring.nodes[4].transport.peer_id)
            await join(ring, (2, 4))
            await talk.say(1)
            await talk.finish()

    async def test_may_come_back_where_there_is_no_other(self, talker: Path) -> None:
        async with a_ring(talker, *SPANS) as ring, asyncio.timeout(SOON):
            talk = await Talk.open(ring)
            await talk.say(5)
            peer = ring.nodes[1].transport.peer_id
            ring.network.freeze(peer)
            expected, answer = talk.begin(1)
            await asyncio.sleep(1.0)
            ring.network.freeze(peer, frozen=False)
            talk.check(await answer, expected)
            await talk.finish()

    async def test_may_take_its_own_place_though_it_has_not_heard_of_its_loss(self, talker: Path) -> None:
        async with a_ring(talker, *SPANS) as ring, asyncio.timeout(SOON):
            talk = await Talk.open(ring)
            await talk.say(5)
            lost = talk.session._hops[1]
            lost.abandon = asyncio.sleep  # type: ignore[method-assign,assignment]  # nor does it hear of its end
            lost.finish = asyncio.sleep  # type: ignore[method-assign,assignment]
            talk.session._suspect(lost, PeerUnavailable("a mistake", peer_id=lost.peer_id))
            while not talk.session.mended:
                await asyncio.sleep(0.01)
            await talk.say(2)
            assert peers(talk) == [0, 1, 2]
            assert ring.nodes[1].handler.open_sessions == 1
            await talk.finish()

    async def test_is_found_where_only_the_link_between_two_is_dead(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        ring.network.freeze(ring.nodes[0].transport.peer_id, ring.nodes[1].transport.peer_id)
        await talk.say(1)
        assert peers(talk) == [0, 4, 2]
        await talk.finish()

    async def test_that_only_takes_long_is_left_alone(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        node = ring.nodes[1]
        holding = asyncio.Event()

        def hold() -> None:
            loop.call_soon_threadsafe(holding.set)
            time.sleep(1.5)

        loop = asyncio.get_running_loop()
        busy = asyncio.create_task(node.executor.run(hold))
        await holding.wait()
        await talk.say(1)
        await busy
        assert peers(talk) == [0, 1, 2]
        assert talk.told == []
        await talk.finish()


class TestAStalledConnection:
    """A host was cut off and is back, and the connections to it still carry nothing."""

    async def test_a_session_opens_over_a_new_one(self, ring: Ring) -> None:
        for node in ring.nodes[:3]:
            ring.network.stall(ring.client.peer_id, node.transport.peer_id)
        talk = await Talk.open(ring)
        await talk.say(5)
        assert peers(talk) == [0, 1, 2]
        await talk.finish()

    @pytest.mark.parametrize("lost", [0, 1, 2])
    async def test_who_takes_a_place_is_reached_over_new_ones(self, ring: Ring, lost: int) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        fresh = ring.nodes[lost + 3].transport.peer_id
        for other in (ring.client, ring.nodes[0].transport, ring.nodes[2].transport):
            if other.peer_id != ring.nodes[lost].peer_id:
                ring.network.stall(other.peer_id, fresh)
        ring.network.cut(ring.nodes[lost].transport.peer_id)
        await talk.say(1)
        assert [mended.replaced_by for mended in talk.told] == [(fresh,)]
        await talk.finish()

    async def test_a_node_that_steps_do_not_get_through_to_may_take_its_own_place_soon(self, talker: Path) -> None:
        async with a_ring(talker, *SPANS) as ring, asyncio.timeout(SOON):
            talk = await Talk.open(ring, dataclasses.replace(QUICK, shun_seconds=SOON))
            await talk.say(5)
            ring.network.stall(ring.nodes[0].transport.peer_id, ring.nodes[1].transport.peer_id)
            await talk.say(1)
            assert talk.session.mended[0].replaced_by == (ring.nodes[1].peer_id,)
            await talk.say(1)
            assert len(talk.session.mended) == 1
            await talk.finish()


class TestLossesThatFollowEachOther:
    """Who takes a place is not there yet when its neighbours are lost."""

    async def test_the_predecessor_is_lost_before_it_has_sent_all_again(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(30)
        lost, fresh = ring.nodes[1], ring.nodes[4]
        ring.network.freeze(ring.nodes[0].transport.peer_id, fresh.transport.peer_id)
        ring.network.cut(lost.transport.peer_id)
        while not talk.told:
            await asyncio.sleep(0.01)
        ring.network.cut(ring.nodes[0].transport.peer_id)
        await talk.say(2)
        assert peers(talk) == [3, 4, 2]
        await talk.say(1)
        await talk.finish()

    @pytest.mark.parametrize("also", [0, 2])
    async def test_a_neighbour_is_stopped_while_the_place_is_taken(self, ring: Ring, also: int) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        ring.network.cut(ring.nodes[1].transport.peer_id)
        ring.network.freeze(ring.nodes[also].transport.peer_id)
        await talk.say(1)
        assert also not in peers(talk)
        await talk.finish()


class TestRowsAndRollbacks:
    """What is sent again is the text as it stands."""

    async def test_what_was_taken_back_is_not_sent_again(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(20)
        await talk.say(6, back=3)
        await talk.say(1, back=5)
        await talk.say(1)
        ring.network.cut(ring.nodes[1].transport.peer_id)
        while not talk.told:
            await asyncio.sleep(0.01)
        standing = talk.position
        await talk.say(2)
        await talk.say(2, back=4)
        assert ring.nodes[4].handler.token_layers_served == 3 * (standing + 4)
        await talk.finish()

    @pytest.mark.parametrize("lost", [0, 1, 2])
    async def test_rows_stand_where_they_were_moved(self, ring: Ring, lost: int) -> None:
        talk = await Talk.open(ring, rows=3)
        await talk.say(8)
        for rows in ((1, 1, 0), (2, 0, 1), (0, 0, 0)):
            await talk.say(1, rows=rows)
        ring.network.cut(ring.nodes[lost].transport.peer_id)
        await talk.say(1, rows=(2, 1, 1))
        await talk.say(2)
        await talk.finish()


class TestPay:
    """Each block is paid once for each position."""

    async def test_the_lost_node_is_paid_to_its_last_receipt_and_the_next_one_for_the_rest(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(RECEIPT_EVERY_POSITIONS)
        await talk.say(10)
        await talk.say(1)
        ring.network.freeze(ring.nodes[1].transport.peer_id)
        await talk.say(5)
        paid = {done.peer_id: done for done in (await talk.finish()).contributions}
        lost, fresh = paid[ring.nodes[1].peer_id], paid[ring.nodes[4].peer_id]
        assert lost.positions == RECEIPT_EVERY_POSITIONS
        assert fresh.positions == 16
        receipt = fresh.receipt.receipt
        assert receipt.replayed_positions == RECEIPT_EVERY_POSITIONS + 11
        assert receipt.positions == RECEIPT_EVERY_POSITIONS + 16

    async def test_a_node_that_is_there_though_not_reached_by_its_neighbour_is_paid_for_all_it_did(
        self, ring: Ring
    ) -> None:
        talk = await Talk.open(ring)
        await talk.say(10)
        ring.network.freeze(ring.nodes[0].transport.peer_id, ring.nodes[1].transport.peer_id)
        await talk.say(1)
        paid = {done.peer_id: done.positions for done in (await talk.finish()).contributions}
        assert (paid[ring.nodes[1].peer_id], paid[ring.nodes[4].peer_id]) == (10, 1)

    async def test_checkpoints_go_on_after_a_loss(self, ring: Ring) -> None:
        talk = await Talk.open(ring)
        await talk.say(70)
        await talk.say(1)
        first = talk.session.verified_checkpoint()
        assert first is not None
        ring.network.cut(ring.nodes[0].transport.peer_id)
        await talk.say(60)
        await talk.say(1)
        await talk.say(1)
        second = talk.session.verified_checkpoint()
        assert second is not None
        assert sum(done.token_layers for done in second.contributions) == talk.session.token_layers_at_checkpoint()
        assert talk.session.token_layers_at_checkpoint() > 70 * 6
        await talk.finish()


class TestErrors:
    """What a retry mends and what it does not."""

    @pytest.mark.parametrize("lost", [0, 1, 2])
    @pytest.mark.parametrize("kind", [ComputeFailed, Busy, Leaving, SessionUnknown, DeadlineExceeded])
    async def test_a_node_that_fails_is_replaced(
        self, ring: Ring, monkeypatch: pytest.MonkeyPatch, kind: type[FarError], lost: int
    ) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        monkeypatch.setattr(ring.nodes[lost].executor, "compute", failing(kind("not today")))
        for _ in range(2):
            await talk.say(1)
        assert peers(talk)[lost] == lost + 3
        await talk.finish()

    @pytest.mark.parametrize("kind", [BadPosition, SessionTooLong])
    async def test_what_would_fail_anywhere_ends_at_once(
        self, ring: Ring, monkeypatch: pytest.MonkeyPatch, kind: type[FarError]
    ) -> None:
        talk = await Talk.open(ring)
        await talk.say(5)
        monkeypatch.setattr(ring.nodes[1].executor, "compute", failing(kind("never")))
        with pytest.raises(kind):
            await talk.begin(1)[1]
        assert talk.told == []
        await talk.session.finish()

    async def test_a_node_that_sends_nonsense_is_replaced(self, ring: Ring) -> None:
        def nonsense(message: Message) -> Message:
            if not isinstance(message, Step) or message.index < 1:
                return message
            return dataclasses.replace(message, index=message.index + 1)

        ring.corrupt(ring.nodes[2], nonsense)
        talk = await Talk.open(ring)
        for count in (5, 1, 1):
            await talk.say(count)
        assert peers(talk) == [0, 1, 5]
        await talk.finish()

    async def test_without_anybody_in_its_place_it_says_that_it_waits_and_then_which_blocks_are_missing(
        self, talker: Path
    ) -> None:
        async with a_ring(talker, *SPANS) as ring, asyncio.timeout(SOON):
            config = dataclasses.replace(QUICK, mend_timeout=1.0)
            talk = await Talk.open(ring, config)
            await talk.say(5)
            ring.network.cut(ring.nodes[1].transport.peer_id)
            del ring.board.signed[ring.nodes[1].peer_id]
            _, answer = talk.begin(1)
            with pytest.raises(NoRoute, match="1:4") as failure:
                await answer
            assert failure.value.facts["uncovered"] == [(1, 4)]
            assert talk.told[0].waiting_for
            assert talk.told[0].blocks == (1, 4)
            with pytest.raises(NoRoute):
                await talk.begin(1)[1]
            await talk.session.finish()

    async def test_who_comes_while_it_waits_takes_the_place(self, talker: Path) -> None:
        async with a_ring(talker, *SPANS) as ring, asyncio.timeout(SOON):
            talk = await Talk.open(ring)
            await talk.say(5)
            ring.network.cut(ring.nodes[1].transport.peer_id)
            del ring.board.signed[ring.nodes[1].peer_id]
            expected, answer = talk.begin(1)
            while not talk.told:
                await asyncio.sleep(0.01)
            await join(ring, (1, 4))
            talk.check(await answer, expected)
            await talk.finish()


class TestAnyOrder:
    """What is ready at the same time may come in any order."""

    @pytest.mark.parametrize("seed", [12, 83, 98])
    def test_who_took_a_place_is_paid(self, talker: Path, seed: int) -> None:
        with asyncio.Runner(loop_factory=partial(ChaosLoop, seed)) as runner:
            runner.run(self.one_is_lost(talker))

    async def one_is_lost(self, talker: Path) -> None:
        async with a_ring(talker) as ring, asyncio.timeout(SOON):
            for span in (*SPANS, *SPANS):
                await join(ring, span)
            talk = await Talk.open(ring)
            await talk.say(30)
            ring.network.cut(ring.nodes[1].transport.peer_id)
            for _ in range(2):
                await talk.say(1)
            assert peers(talk) == [0, 4, 2]
            await talk.finish()


class TestAnyFaults:
    """Whatever happens when."""

    @pytest.mark.parametrize("seed", range(16))
    async def test_the_text_is_the_same(self, ring: Ring, seed: int) -> None:
        chance = random.Random(seed)
        talk = await Talk.open(ring)
        await talk.say(chance.randint(1, 80))
        broken = 0
        for _ in range(12):
            begun = []
            for _ in range(chance.choice((1, 1, 1, 3))):
                back = chance.choice((0, 0, 0, min(3, talk.position - 1)))
                begun.append(talk.begin(chance.randint(1, 4), back))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.005)
            while broken < 4 and chance.random() < 0.3:
                await self.something_breaks(ring, talk, chance)
                broken += 1
            for expected, answer in begun:
                talk.check(await answer, expected)
        await talk.finish()

    async def something_breaks(self, ring: Ring, talk: Talk, chance: random.Random) -> None:
        index = chance.randrange(3)
        node = node_of(ring, talk.session.route[index])
        match chance.choice(("cut", "freeze", "link")):
            case "cut":
                ring.network.cut(node.transport.peer_id)
            case "freeze":
                ring.network.freeze(node.transport.peer_id)
            case _:
                if index + 1 < 3:
                    following = node_of(ring, talk.session.route[index + 1])
                    ring.network.freeze(node.transport.peer_id, following.transport.peer_id)
        await join(ring, SPANS[index])
