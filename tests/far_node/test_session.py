"""One session on a node: neighbours that are exchanged, replays, and questions, over a network of queues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from discovery.dht.memory import MemoryTransport
from discovery.dht.transport import Channel, Stream
from discovery.protocol.codec import WireTensor
from discovery.protocol.ids import PeerId, SessionId, new_session_id
from discovery.protocol.messages import (
    LINK_PROTOCOL,
    MAX_STEPS,
    Close,
    Failure,
    Link,
    Message,
    PeerAddress,
    Ping,
    Pong,
    ReceiptIssued,
    Reroute,
    Rerouted,
    Resumption,
    Step,
)
from discovery.protocol.receipt import Receipt, extend_root, first_root, read_receipt
from far_node import handler as handler_module
from far_node.limits import Limits
from tests.support.documents import peer_of
from tests.support.door import opened, refusal, serves
from tests.support.ring import Ring, RingNode, a_ring, blocks_of

SOON = 60.0
CLOSE = 1e-4  # relative, of the same positions in other steps
SPAN = (1, 4)


@dataclass
class Neighbour:
    """A peer that takes streams of others, and what it hears on them."""

    transport: MemoryTransport
    heard: list[Message] = field(default_factory=list)
    ended: int = 0

    @classmethod
    async def join(cls, ring: Ring, name: str) -> Neighbour:
        neighbour = cls(ring.network.join(peer_of(name)))
        await neighbour.transport.serve(LINK_PROTOCOL, neighbour._listen)
        return neighbour

    @property
    def peer_id(self) -> PeerId:
        return self.transport.peer_id

    @property
    def address(self) -> PeerAddress:
        return PeerAddress(self.peer_id)

    @property
    def steps(self) -> list[Step]:
        return [message for message in self.heard if isinstance(message, Step)]

    async def until(self, steps: int) -> list[Step]:
        async with asyncio.timeout(SOON):
            while len(self.steps) < steps:
                await asyncio.sleep(0.002)
        return self.steps

    async def until_ended(self) -> None:
        async with asyncio.timeout(SOON):
            while not self.ended:
                await asyncio.sleep(0.002)

    async def link(self, node: RingNode, session_id: SessionId) -> Channel:
        """Be the one before."""
        channel = Channel(await self.transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await channel.send(Link(session_id))
        return channel

    async def _listen(self, stream: Stream) -> None:
        channel = Channel(stream)
        try:
            while (message := await channel.receive()) is not None:
                self.heard.append(message)
        finally:
            self.ended += 1


@pytest.fixture
async def ring(tiny: Path) -> AsyncIterator[Ring]:
    async with a_ring(tiny, SPAN) as ring, asyncio.timeout(SOON * 2):
        yield ring


@pytest.fixture
def node(ring: Ring) -> RingNode:
    return ring.nodes[0]


async def told(channel: Channel, kind: type[Message]) -> Message:
    """The next message of a kind; receipts in between are passed over."""
    async with asyncio.timeout(SOON):
        while isinstance(message := await channel.receive(), ReceiptIssued) and kind is not ReceiptIssued:
            continue
    assert isinstance(message, kind), message
    return message


async def receipt(channel: Channel) -> Receipt:
    message = await told(channel, ReceiptIssued)
    assert isinstance(message, ReceiptIssued)
    return read_receipt(message.document).receipt


async def pong(channel: Channel, number: int = 7) -> tuple[int, int]:
    await channel.send(Ping(number))
    message = await told(channel, Pong)
    assert isinstance(message, Pong)
    assert message.number == number
    return message.taken, message.given


async def rerouted(channel: Channel, reroute: Reroute) -> int:
    await channel.send(reroute)
    message = await told(channel, Rerouted)
    assert isinstance(message, Rerouted)
    assert message.number == reroute.number
    return message.taken


def chain(session_id: SessionId, steps: Sequence[Step]) -> str:
    root = first_root(session_id)
    for step in steps:
        root = extend_root(root, step.start_position, step.hidden.shape, step.hidden.dtype, step.hidden.data)
    return root.hex()


def through(ring: Ring, chunks: Sequence[WireTensor]) -> torch.Tensor:
    """What the node's blocks make of hidden states that come one after the other."""
    blocks = blocks_of(ring.path, *SPAN)
    return blocks.run(torch.cat([ring.tensor(chunk) for chunk in chunks], dim=1), blocks.new_cache(), *SPAN)


def given(ring: Ring, steps: Sequence[Step]) -> torch.Tensor:
    """What stands in the cache of somebody who was given these steps."""
    text = torch.zeros(1, 0, ring.shape.hidden_size)
    for step in steps:
        assert step.start_position <= text.shape[1], "a gap"
        text = torch.cat([text[:, : step.start_position], ring.tensor(step.hidden)], dim=1)
    return text


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= CLOSE * expected.abs().max()


@contextmanager
def busy_device(node: RingNode) -> Iterator[None]:
    """The device computes something else; what is asked of it waits."""
    go_on = threading.Event()
    working = asyncio.ensure_future(node.executor.run(go_on.wait))
    try:
        yield
    finally:
        go_on.set()
        working.add_done_callback(lambda done: done.exception())


class TestSuccessor:
    """Who takes what the node gives."""

    async def test_a_new_one_gets_all_that_was_given_before_and_what_follows(self, ring: Ring, node: RingNode) -> None:
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        chunks = [ring.random_hidden(count, seed=count) for count in (9, 1, 2, 1)]
        control = await opened(ring, node, next=old.address)
        for index, start in enumerate((0, 9, 10)):
            await control.send(Step(index, start, chunks[index], settled=max(0, index - 1)))
        before = await old.until(3)
        assert await rerouted(control, Reroute(1, next=new.address)) == 3
        await control.send(Step(3, 12, chunks[3], settled=3))
        after = await new.until(4)
        assert isinstance(new.heard[0], Link)
        assert [(step.index, step.is_replay) for step in after] == [(1, True), (1, False), (2, False), (3, False)]
        assert after[0].hidden == before[0].hidden
        assert after[1:3] == before[1:], "those in flight as they were"
        close(given(ring, after), through(ring, chunks))
        await old.until_ended()
        assert len(old.steps) == 3
        await control.close()
        await new.until_ended()

    async def test_what_it_is_given_is_counted_anew_after_a_receipt_for_the_old_one(
        self, ring: Ring, node: RingNode
    ) -> None:
        """The client files receipts under the link that was when they came: before the answer the old, then the new."""
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        session_id = new_session_id()
        control = await opened(ring, node, session_id=session_id, next=old.address)
        said = [Step(0, 0, ring.random_hidden(5)), Step(1, 5, ring.random_hidden(1), settled=1)]
        for step in said:
            await control.send(step)
        await old.until(2)
        await control.send(Reroute(5, next=new.address))
        messages = [await control.receive() for _ in range(3)]
        assert [type(message) for message in messages] == [ReceiptIssued, Rerouted, ReceiptIssued]
        receipts = [read_receipt(one.document).receipt for one in messages if isinstance(one, ReceiptIssued)]
        assert [one.output_root for one in receipts] == [chain(session_id, old.steps), chain(session_id, new.steps)]
        assert [one.input_root for one in receipts] == [chain(session_id, said)] * 2
        assert [(one.steps, one.positions) for one in receipts] == [(2, 6)] * 2
        await control.send(Close())
        assert (await receipt(control)).output_root == receipts[1].output_root

    async def test_one_that_is_lost_is_told_by_name_and_the_session_goes_on(self, ring: Ring, node: RingNode) -> None:
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        chunks = [ring.random_hidden(count, seed=count) for count in (4, 1, 2)]
        control = await opened(ring, node, next=old.address)
        await control.send(Step(0, 0, chunks[0]))
        await old.until(1)
        ring.network.cut(old.peer_id)
        await control.send(Step(1, 4, chunks[1]))
        failure = await told(control, Failure)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.retry, failure.peer_id) == ("peer_unavailable", True, old.peer_id)
        await control.send(Step(2, 5, chunks[2]))
        assert await rerouted(control, Reroute(1, next=new.address)) == 3
        close(given(ring, await new.until(3)), through(ring, chunks))
        assert await pong(control) == (3, 3)
        await control.close()
        await node.until_free()

    async def test_one_that_cannot_be_reached_is_told_and_another_may_be_named(
        self, ring: Ring, node: RingNode
    ) -> None:
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        chunk = ring.random_hidden(4)
        control = await opened(ring, node, next=old.address)
        await control.send(Step(0, 0, chunk))
        await old.until(1)
        for number in range(3):
            await control.send(Reroute(number, next=PeerAddress(peer_of("nobody"))))
            failure = await told(control, Failure)
            assert isinstance(failure, Failure)
            assert (failure.code, failure.peer_id) == ("peer_unavailable", peer_of("nobody"))
        await rerouted(control, Reroute(9, next=new.address))
        close(given(ring, await new.until(1)), through(ring, [chunk]))
        await control.close()
        await node.until_free()

    @pytest.mark.parametrize("times", [1, 4])
    async def test_a_send_that_is_blocked_does_not_block_a_reroute(
        self, ring: Ring, node: RingNode, times: int
    ) -> None:
        """The old one takes nothing any more; and so do those that are named after it, but for the last."""
        peers = [await Neighbour.join(ring, f"peer{number}") for number in range(times + 1)]
        chunks = [ring.random_hidden(40, seed=seed, rows=16) for seed in range(6)]  # more than a stream holds
        for peer in peers[:-1]:
            ring.network.freeze(peer.peer_id, PeerId(node.peer_id))
        control = await opened(ring, node, max_length=256, batch=16, next=peers[0].address)
        for index, chunk in enumerate(chunks):
            await control.send(Step(index, 40 * index, chunk, settled=max(0, index - 2)))
        async with asyncio.timeout(SOON):
            while await pong(control) != (6, 4) or node.handler.token_layers_served < 5 * 16 * 40 * 3:
                await asyncio.sleep(0.01)
        for number, peer in enumerate(peers[1:]):
            async with asyncio.timeout(SOON):
                await control.send(Reroute(number, next=peer.address))
                while not isinstance(message := await control.receive(), Rerouted):
                    assert isinstance(message, ReceiptIssued | Failure)
                assert (message.number, message.taken) == (number, len(chunks))
        async with asyncio.timeout(SOON):
            while not (steps := peers[-1].steps) or steps[-1].index < 5:
                await asyncio.sleep(0.002)
        assert sum(step.hidden.shape[1] for step in steps) == 6 * 40, "nothing twice, nothing left out"
        assert [(step.index, step.is_replay) for step in steps[-3:]] == [(3, False), (4, False), (5, False)]
        assert await pong(control) == (len(chunks), len(chunks))
        await control.close()
        await node.until_free()

    async def test_a_step_that_waits_while_a_new_one_is_given_all_again_is_in_no_receipt_before_its_turn(
        self, ring: Ring, node: RingNode
    ) -> None:
        """Else it would tell of more steps than of what they gave, and contradict what the new one says."""
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        session_id = new_session_id()
        chunks = [ring.random_hidden(40, seed=seed, rows=16) for seed in range(6)]  # more than a stream holds
        control = await opened(ring, node, session_id=session_id, max_length=256, batch=16, next=old.address)
        for index, chunk in enumerate(chunks[:5]):
            await control.send(Step(index, 40 * index, chunk, settled=index))
        await old.until(5)
        ring.network.freeze(new.peer_id, PeerId(node.peer_id))
        await rerouted(control, Reroute(1, next=new.address))
        await control.send(Step(5, 200, chunks[5], settled=5))
        (entry,) = node.handler._sessions.by_id.values()
        async with asyncio.timeout(SOON):
            while entry.session.spent.steps < 6:
                await asyncio.sleep(0.002)
        ring.network.freeze(new.peer_id, PeerId(node.peer_id), frozen=False)
        between = await receipt(control)
        await control.send(Close())
        while (last := await receipt(control)).steps < 6:
            continue
        *again, following = await new.until(3)
        assert (following.index, following.is_replay) == (5, False)
        assert (between.steps, between.positions) == (5, 5 * 40 * 16)
        assert between.output_root == chain(session_id, again)
        assert last.output_root == chain(session_id, [*again, following])

    async def test_it_may_be_exchanged_for_itself(self, ring: Ring, node: RingNode) -> None:
        same = await Neighbour.join(ring, "same")
        control = await opened(ring, node, next=same.address)
        await control.send(Step(0, 0, ring.random_hidden(2)))
        await same.until(1)
        await rerouted(control, Reroute(0, next=same.address))
        first, again = await same.until(2)
        assert first == again
        await control.close()
        await node.until_free()

    async def test_the_last_node_goes_on_answering_its_client(self, ring: Ring, node: RingNode) -> None:
        nobodys = await Neighbour.join(ring, "nobody's successor")
        control = await opened(ring, node)
        for index in range(3):
            await control.send(Step(index, index, ring.random_hidden(1)))
            assert isinstance(await told(control, Step), Step)
            await rerouted(control, Reroute(index, next=nobodys.address))
        assert nobodys.steps == []
        await control.close()
        await node.until_free()

    async def test_a_session_that_ends_while_its_new_successor_is_not_reached_yet_leaves_nothing_behind(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handler_module, "SWEEP_SECONDS", 0.05)
        monkeypatch.setattr(handler_module, "HANG_UP_SECONDS", 0.2)
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(*SPAN, limits=Limits(idle_timeout=0.3))
            old = await Neighbour.join(ring, "old")
            control = await opened(ring, node, next=old.address)
            never = asyncio.Event()

            async def open_never(address: PeerAddress, protocol: str) -> Stream:
                await never.wait()
                raise AssertionError

            monkeypatch.setattr(node.transport, "open", open_never)
            await control.send(Reroute(1, next=PeerAddress(peer_of("far away"))))
            assert (await told(control, Failure)).code == "session_expired"  # type: ignore[union-attr]
            while node.transport.tasks:
                await asyncio.sleep(0.01)
            assert node.handler.open_sessions == 0

    async def test_no_more_is_kept_for_it_than_the_session_is_long(self, ring: Ring, node: RingNode) -> None:
        """Who never says what has been answered cannot fill the memory."""
        successor = await Neighbour.join(ring, "successor")
        control = await opened(ring, node, max_length=256, next=successor.address)
        for index in range(40):
            await control.send(Step(index, 0, ring.random_hidden(256)))
        failure = await told(control, Failure)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.peer_id) == ("session_too_long", None)
        assert 16 <= len(successor.steps) < 20, "a session and a MiB"
        await control.close()
        await node.until_free()


class TestPredecessor:
    """Who gives the node its steps."""

    async def test_a_new_one_goes_on_where_the_old_one_stopped(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        control = await opened(ring, node, session_id=session_id, previous=old.peer_id)
        chunks = [ring.random_hidden(count, seed=count) for count in (5, 2, 1)]
        link = await old.link(node, session_id)
        said = [Step(index, start, chunk) for index, (start, chunk) in enumerate(zip((0, 5, 7), chunks, strict=True))]
        for step in said[:2]:
            await link.send(step)
            await told(control, Step)
        assert await rerouted(control, Reroute(3, previous=new.peer_id)) == 2
        assert await link.receive() is None, "the old one is let go"
        link = await new.link(node, session_id)
        await link.send(said[2])
        answer = await told(control, Step)
        assert isinstance(answer, Step)
        close(ring.tensor(answer.hidden), through(ring, chunks)[:, 7:])
        await control.send(Close())
        last = await receipt(control)
        assert (last.steps, last.positions, last.replayed_positions) == (3, 8, 0)
        assert last.input_root == chain(session_id, said[2:]), "the new one has seen nothing of the old chain"

    async def test_a_receipt_of_what_the_old_one_gave_comes_before_the_answer(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        control = await opened(ring, node, session_id=session_id, previous=old.peer_id)
        link = await old.link(node, session_id)
        said = Step(0, 0, ring.random_hidden(3))
        await link.send(said)
        await told(control, Step)
        await control.send(Reroute(3, previous=new.peer_id))
        first, second = await control.receive(), await control.receive()
        assert isinstance(first, ReceiptIssued)
        assert isinstance(second, Rerouted)
        assert read_receipt(first.document).receipt.input_root == chain(session_id, [said])
        await control.send(Close())
        assert (await receipt(control)).input_root == chain(session_id, [said]), "until the new one has given a step"

    async def test_late_steps_of_the_old_one_are_not_taken(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        control = await opened(ring, node, session_id=session_id, previous=old.peer_id)
        late = await old.link(node, session_id)
        await late.send(Step(0, 0, ring.random_hidden(3)))
        await told(control, Step)
        with busy_device(node):
            await late.send(Step(1, 3, ring.random_hidden(1, seed=1)))
            async with asyncio.timeout(SOON):
                while (await pong(control))[0] < 2:
                    await asyncio.sleep(0.002)
            await control.send(Reroute(1, previous=new.peer_id))
            await late.send(Step(2, 4, ring.random_hidden(1, seed=2)))
            await late.send(Step(7, 9, ring.random_hidden(1, seed=2)))
            link = await new.link(node, session_id)
            await link.send(Step(2, 4, ring.random_hidden(1, seed=3)))
        taken = None
        answers: list[Step] = []
        async with asyncio.timeout(SOON):
            while len(answers) < 2 or taken is None:
                message = await control.receive()
                assert isinstance(message, Rerouted | ReceiptIssued | Step), message
                if isinstance(message, Rerouted):
                    taken = message.taken
                elif isinstance(message, Step):
                    answers.append(message)
        if taken == 2:
            chunks = [ring.random_hidden(3), ring.random_hidden(1, seed=1), ring.random_hidden(1, seed=3)]
            close(ring.tensor(answers[1].hidden), through(ring, chunks)[:, 4:])
        assert [answer.index for answer in answers] == [1, 2]
        await control.close()
        await node.until_free()

    async def test_one_that_is_lost_is_told_by_name_and_what_it_gave_is_computed(
        self, ring: Ring, node: RingNode
    ) -> None:
        session_id = new_session_id()
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        control = await opened(ring, node, session_id=session_id, previous=old.peer_id)
        link = await old.link(node, session_id)
        with busy_device(node):
            for index in range(3):
                await link.send(Step(index, index, ring.random_hidden(1, seed=index)))
            async with asyncio.timeout(SOON):
                while (await pong(control))[0] < 3:
                    await asyncio.sleep(0.002)
            ring.network.cut(old.peer_id)
            failure = await told(control, Failure)
            assert isinstance(failure, Failure)
            assert (failure.code, failure.retry, failure.peer_id) == ("peer_unavailable", True, old.peer_id)
        for index in range(3):
            answer = await told(control, Step)
            assert isinstance(answer, Step)
            assert answer.index == index
        assert await rerouted(control, Reroute(1, previous=new.peer_id)) == 3
        link = await new.link(node, session_id)
        await link.send(Step(3, 3, ring.random_hidden(1, seed=3)))
        await told(control, Step)
        await control.close()
        await node.until_free()

    async def test_only_the_one_that_was_named_last_may_link(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        peers = [await Neighbour.join(ring, f"peer{number}") for number in range(4)]
        control = await opened(ring, node, session_id=session_id, previous=peers[0].peer_id)
        for number, peer in enumerate(peers[1:]):
            await rerouted(control, Reroute(number, previous=peer.peer_id))
        for peer in peers[:-1]:
            assert await (await peer.link(node, session_id)).receive() is None
        link = await peers[-1].link(node, session_id)
        await link.send(Step(0, 0, ring.random_hidden(1)))
        await told(control, Step)
        await control.close()
        await node.until_free()

    async def test_both_sides_are_exchanged_at_once(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        before, after, another, other = [await Neighbour.join(ring, name) for name in ("b", "a", "b2", "a2")]
        control = await opened(ring, node, session_id=session_id, previous=before.peer_id, next=after.address)
        link = await before.link(node, session_id)
        chunks = [ring.random_hidden(3), ring.random_hidden(2, seed=1)]
        await link.send(Step(0, 0, chunks[0]))
        await after.until(1)
        assert await rerouted(control, Reroute(1, previous=another.peer_id, next=other.address)) == 1
        link = await another.link(node, session_id)
        await link.send(Step(1, 3, chunks[1]))
        close(given(ring, await other.until(2)), through(ring, chunks))
        await control.close()
        await node.until_free()

    async def test_a_client_that_names_another_in_its_own_place_has_said_its_last_word(
        self, ring: Ring, node: RingNode
    ) -> None:
        control = await opened(ring, node)
        await control.send(Reroute(1, previous=peer_of("another")))
        async with asyncio.timeout(SOON):
            while await control.receive() is not None:
                continue
        await node.until_free()
        await serves(ring, node)

    @pytest.mark.parametrize("index", [0, 2, 4, 2**40])
    async def test_a_step_that_is_not_the_next_is_a_violation_of_who_sent_it(
        self, ring: Ring, node: RingNode, index: int
    ) -> None:
        session_id = new_session_id()
        feeder = await Neighbour.join(ring, "feeder")
        control = await opened(ring, node, session_id=session_id, previous=feeder.peer_id)
        link = await feeder.link(node, session_id)
        for number in range(3):
            await link.send(Step(number, number, ring.random_hidden(1)))
            await told(control, Step)
        await link.send(Step(index, 3, ring.random_hidden(1)))
        failure = await told(control, Failure)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.peer_id) == ("protocol_violation", feeder.peer_id)
        assert f"step {index} came where 3 is due" in failure.message
        await control.close()
        await node.until_free()


class TestResumption:
    """Who takes a lost node's place."""

    @pytest.mark.parametrize("feeds_new", [False, True])
    async def test_only_what_its_successor_lacks_is_handed_on(
        self, ring: Ring, node: RingNode, feeds_new: bool
    ) -> None:
        session_id = new_session_id()
        successor = await Neighbour.join(ring, "successor")
        resumption = Resumption(at_step=4, positions=9, feeds_new=feeds_new)
        control = await opened(ring, node, session_id=session_id, next=successor.address, resumption=resumption)
        chunks = [ring.random_hidden(count, seed=count) for count in (6, 1, 2, 3)]
        said = [
            Step(3, 0, chunks[0], settled=3, is_replay=True),
            Step(3, 6, chunks[1], settled=3),
            Step(4, 7, chunks[2], settled=3),
            Step(5, 9, chunks[3], settled=4),
        ]
        for step in said:
            await control.send(step)
        steps = await successor.until(4 if feeds_new else 2)
        assert [(step.index, step.is_replay) for step in steps][-2:] == [(4, False), (5, False)]
        assert [step.is_replay for step in steps[:-2]] == ([True, False] if feeds_new else [])
        expected = through(ring, chunks)
        close(torch.cat([ring.tensor(step.hidden) for step in steps], dim=1), expected[:, 0 if feeds_new else 7 :])
        await control.send(Close())
        last = await receipt(control)
        assert (last.steps, last.positions, last.replayed_positions) == (6, 12, 7)
        assert (last.input_root, last.output_root) == (chain(session_id, said), chain(session_id, steps))

    async def test_its_results_before_that_step_are_not_the_clients(self, ring: Ring, node: RingNode) -> None:
        control = await opened(ring, node, resumption=Resumption(2, 3))
        await control.send(Step(1, 0, ring.random_hidden(2), settled=1, is_replay=True))
        await control.send(Step(1, 2, ring.random_hidden(1), settled=1))
        await control.send(Step(2, 3, ring.random_hidden(1), settled=1))
        answer = await told(control, Step)
        assert isinstance(answer, Step)
        assert answer.index == 2
        assert await pong(control) == (3, 3)
        await control.close()

    async def test_all_that_it_kept_goes_to_who_comes_after_it(self, ring: Ring, node: RingNode) -> None:
        """Also what its first successor did not need."""
        first, second = [await Neighbour.join(ring, name) for name in ("first", "second")]
        control = await opened(ring, node, next=first.address, resumption=Resumption(2, 8))
        chunks = [ring.random_hidden(count, seed=count) for count in (8, 1)]
        await control.send(Step(2, 0, chunks[0], settled=2, is_replay=True))
        await control.send(Step(2, 8, chunks[1], settled=2))
        assert [step.index for step in await first.until(1)] == [2]
        await rerouted(control, Reroute(1, next=second.address))
        close(given(ring, await second.until(2)), through(ring, chunks))
        await control.close()
        await node.until_free()

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ([("replay", 0)], "nobody is replaced here"),
            ([("step", 0), ("replay", 0)], "nobody is replaced here"),
        ],
    )
    async def test_a_replay_where_nobody_is_replaced_is_a_violation(
        self, ring: Ring, node: RingNode, said: list[tuple[str, int]], reason: str
    ) -> None:
        control = await opened(ring, node)
        await self.say(ring, control, said)
        error = await refusal(control) if len(said) == 1 else (await told_after(control)).to_error()
        assert (error.code, reason in error.message) == ("protocol_violation", True)
        await control.close()
        await node.until_free()

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            ([("replay", 0), ("step", 4)], "step 4 came where the steps up to 3 are due"),
            ([("step", 3), ("replay", 1)], "nobody is replaced here"),
            ([("replay", 0), ("replay", 0)], "replay"),
            ([("replay", 0), ("replay", 1), ("replay", 0)], "replay"),
            ([("replay", 3)], "replay"),
            ([("replay", 0), ("replay", 2)], "replay"),
            ([("step", 1), ("step", 3)], "step 3 came where 2 is due"),
        ],
        ids=str,
    )
    async def test_a_replay_out_of_order_is_a_violation(
        self, ring: Ring, node: RingNode, said: list[tuple[str, int]], reason: str
    ) -> None:
        """A replay comes once, from the beginning: else nodes that name each other would go round for ever."""
        control = await opened(ring, node, resumption=Resumption(3, 3))
        await self.say(ring, control, said)
        error = (await told_after(control)).to_error()
        assert (error.code, reason in error.message) == ("protocol_violation", True), error.message
        await control.close()
        await node.until_free()

    async def say(self, ring: Ring, control: Channel, said: list[tuple[str, int]]) -> None:
        """Replays at a position, steps of an index."""
        position = 0
        for kind, number in said:
            if kind == "replay":
                await control.send(Step(3, number, ring.random_hidden(1), settled=3, is_replay=True))
                position = number + 1
            else:
                await control.send(Step(number, position, ring.random_hidden(1)))
                position += 1

    async def test_a_new_predecessor_replays_from_the_beginning(self, ring: Ring, node: RingNode) -> None:
        session_id = new_session_id()
        old, new = [await Neighbour.join(ring, name) for name in ("old", "new")]
        resumption = Resumption(3, 12)
        control = await opened(ring, node, session_id=session_id, previous=old.peer_id, resumption=resumption)
        link = await old.link(node, session_id)
        whole = [ring.random_hidden(4, seed=1), ring.random_hidden(8, seed=2), ring.random_hidden(1, seed=3)]
        await link.send(Step(3, 0, whole[0], settled=3, is_replay=True))
        async with asyncio.timeout(SOON):
            while node.handler.token_layers_served < 4 * 3:
                await asyncio.sleep(0.002)
        ring.network.cut(old.peer_id)
        await told(control, Failure)
        assert await rerouted(control, Reroute(1, previous=new.peer_id)) == 3
        link = await new.link(node, session_id)
        said = [
            Step(3, 0, whole[0], settled=3, is_replay=True),
            Step(3, 4, whole[1], settled=3, is_replay=True),
            Step(3, 12, whole[2], settled=3),
        ]
        for step in said:
            await link.send(step)
        answer = await told(control, Step)
        assert isinstance(answer, Step)
        close(ring.tensor(answer.hidden), through(ring, whole)[:, 12:])
        await control.send(Close())
        last = await receipt(control)
        assert (last.positions, last.replayed_positions) == (4 + 12 + 1, 4 + 12)
        assert last.input_root == chain(session_id, said)

    async def test_after_the_last_step_of_all_there_is_none(self, ring: Ring, node: RingNode) -> None:
        control = await opened(ring, node, resumption=Resumption(MAX_STEPS - 1, MAX_STEPS))
        await control.send(Step(MAX_STEPS - 1, 0, ring.random_hidden(2)))
        await control.expect(Step)
        assert (await receipt(control)).steps == MAX_STEPS
        await control.send(Step(MAX_STEPS, 2, ring.random_hidden(1)))
        assert (await refusal(control)).code == "protocol_violation"
        await node.until_free()
        await serves(ring, node)


async def told_after(channel: Channel) -> Failure:
    """The failure that comes after whatever else."""
    async with asyncio.timeout(SOON):
        while not isinstance(message := await channel.receive(), Failure):
            assert message is not None
    return message


class TestQuestions:
    """Are you there, and how far?"""

    async def test_a_ping_is_answered_while_a_step_computes(self, ring: Ring, node: RingNode) -> None:
        control = await opened(ring, node)
        with busy_device(node):
            for index in range(3):
                await control.send(Step(index, index, ring.random_hidden(1)))
            async with asyncio.timeout(5):
                assert await pong(control, 2**64 - 1) == (3, 0)
        for _ in range(3):
            await told(control, Step)
        assert await pong(control) == (3, 3)
        await control.close()
        await node.until_free()

    async def test_a_ping_is_answered_while_the_successor_takes_nothing(self, ring: Ring, node: RingNode) -> None:
        frozen = await Neighbour.join(ring, "frozen")
        ring.network.freeze(frozen.peer_id, PeerId(node.peer_id))
        control = await opened(ring, node, max_length=256, batch=16, next=frozen.address)
        for index in range(6):
            await control.send(Step(index, 40 * index, ring.random_hidden(40, rows=16)))
        async with asyncio.timeout(SOON):
            while await pong(control) != (6, 4):  # what a stream holds is given
                await asyncio.sleep(0.01)
        await control.close()
        await node.until_free()

    async def test_questions_keep_no_session_open(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handler_module, "SWEEP_SECONDS", 0.05)
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(*SPAN, limits=Limits(idle_timeout=0.3))
            control = await opened(ring, node)
            asking = asyncio.create_task(self.ask_for_ever(control))
            failure = await told_after(control)
            assert failure.code == "session_expired"
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await node.until_free()

    async def ask_for_ever(self, control: Channel) -> None:
        while True:
            await control.send(Ping(1))
            await asyncio.sleep(0.01)

    @pytest.mark.parametrize("message", [Pong(1, 0, 0), Rerouted(1, 0)], ids=repr)
    async def test_an_answer_to_what_nobody_asked_is_a_violation(
        self, ring: Ring, node: RingNode, message: Message
    ) -> None:
        control = await opened(ring, node)
        await control.send(message)
        assert (await refusal(control)).code == "protocol_violation"
        await node.until_free()

    @pytest.mark.parametrize("message", [Ping(1), Reroute(1), Pong(1, 0, 0)], ids=repr)
    async def test_on_a_link_nothing_is_asked(self, ring: Ring, node: RingNode, message: Message) -> None:
        session_id = new_session_id()
        feeder = await Neighbour.join(ring, "feeder")
        control = await opened(ring, node, session_id=session_id, previous=feeder.peer_id)
        link = await feeder.link(node, session_id)
        await link.send(message)
        failure = await told(control, Failure)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.peer_id) == ("protocol_violation", feeder.peer_id)
        await control.close()
        await node.until_free()

    async def test_each_node_adds_what_a_step_took_in_it(self, ring: Ring, node: RingNode) -> None:
        control = await opened(ring, node)
        await control.send(Step(0, 0, ring.random_hidden(3)))
        answer = await told(control, Step)
        assert isinstance(answer, Step)
        (mine,) = answer.times
        assert mine.waited >= 0
        assert mine.computed > 0
        await control.close()
