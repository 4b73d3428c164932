"""Strangers at a node's door: nothing they say, or do not say, harms the node or the sessions of others."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import torch

from discovery.dht.transport import Channel, Stream
from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
    MAX_PLAIN_BYTES,
    SESSION_PROTOCOL,
    Close,
    Failure,
    InfoRequest,
    Link,
    NodeInfo,
    Opened,
    PeerAddress,
    ReceiptIssued,
    Step,
    WireTensor,
)
from far_node import handler as handler_module
from far_node.blocks.wire import to_wire
from far_node.limits import Limits
from far_node.receipts import Signer
from far_node.serving import Serving
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.documents import OTHER_DIGEST, key_of, peer_of
from tests.support.door import knock, opened, opening, refusal, serves
from tests.support.models import BLOCKS, make_model
from tests.support.ring import Ring, RingNode, a_ring
from tests.support.siege import CACHE_BYTES, LIMITS, Overheard, Siege, impatient, overheard, resident_bytes

SOON = 60.0
CLOSE = 1e-4  # relative, of the same steps in a batch and alone


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.01)


async def the_end(channel: Channel) -> FarError | None:
    """What the other side fails with before it closes the stream, if it says so."""
    failure = None
    async with asyncio.timeout(SOON):
        try:
            while (message := await channel.receive()) is not None:
                if isinstance(message, Failure):
                    failure = message.to_error()
        except PeerUnavailable as error:
            return failure or error
    return failure


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


@asynccontextmanager
async def impatient_ring(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, idle_timeout: float = 0.4
) -> AsyncIterator[tuple[Ring, RingNode]]:
    """One node with all blocks, which closes a session soon when there is no step."""
    monkeypatch.setattr(handler_module, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(handler_module, "HANG_UP_SECONDS", 0.2)
    async with a_ring(tiny) as ring:
        yield ring, await ring.add(0, 6, limits=Limits(idle_timeout=idle_timeout))


class Pupil:
    """An honest session of one peer with one node, whose answers are compared with those it would get alone."""

    def __init__(self, ring: Ring, channel: Channel, seed: int) -> None:
        self._ring, self._channel, self._seed = ring, channel, seed
        self.answers: list[torch.Tensor] = []

    @classmethod
    async def at(cls, ring: Ring, node: RingNode, seed: int, name: str = "pupil") -> Pupil:
        by = ring.network.peers.get(peer_of(name)) or ring.network.join(peer_of(name))
        return cls(ring, await opened(ring, node, by=by, max_length=256), seed)

    async def step(self, positions: int = 1) -> None:
        index = len(self.answers)
        at = sum(answer.shape[1] for answer in self.answers)
        hidden = self._ring.random_hidden(positions, seed=1000 * self._seed + index)
        await self._channel.send(Step(index, at, hidden))
        async with asyncio.timeout(SOON):
            while isinstance(message := await self._channel.receive(), ReceiptIssued):
                continue  # one comes every now and then
        assert isinstance(message, Step), message
        self.answers.append(self._ring.tensor(message.hidden))

    async def leave(self) -> None:
        await self._channel.send(Close())
        await self._channel.expect(ReceiptIssued)
        await self._channel.close()

    async def learned_right(self, node: RingNode) -> None:
        """The same steps again, alone, give the same."""
        again = await Pupil.at(self._ring, node, self._seed, "pupil who repeats")
        for expected in self.answers:
            await again.step(expected.shape[1])
            assert (again.answers[-1] - expected).abs().max() <= CLOSE * expected.abs().max()
        await again.leave()


class TestSilence:
    """Those who come and say nothing."""

    async def test_a_client_that_opens_and_never_steps_is_sent_away(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with impatient_ring(tiny, monkeypatch, 3.0) as (ring, node):  # a pause that a busy machine does not make
            silent = await opened(ring, node)
            talking = await Pupil.at(ring, node, 1)
            while node.handler.open_sessions == 2:
                await talking.step()
                await asyncio.sleep(0.1)
            assert node.budget.sessions == 1
            error = await the_end(silent)
            assert error is not None
            assert (error.code, error.retry) == ("session_expired", True)
            await talking.leave()

    async def test_a_client_that_never_reads_waits_and_is_sent_away(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = 0

        async def talk(channel: Channel) -> None:
            nonlocal sent
            while True:
                await channel.send(Step(sent, 0, ring.random_hidden(256)))  # 64 kB, and as much is answered
                sent += 1

        async with impatient_ring(tiny, monkeypatch) as (ring, node):
            deaf = await opened(ring, node, max_length=256)
            talking = asyncio.create_task(talk(deaf))
            other = await Pupil.at(ring, node, 2)
            kept = 0
            while node.handler.open_sessions == 2:
                kept = sent
                await other.step()
                await asyncio.sleep(0.02)
            with pytest.raises(PeerUnavailable):
                await asyncio.wait_for(talking, SOON)
            assert 0 < kept < 30, "of the answers no more are kept than a stream holds, and of the steps"
            assert node.budget.sessions == 1
            await other.leave()
            await node.until_free()

    async def test_a_session_whose_step_waits_for_the_device_is_not_idle(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with impatient_ring(tiny, monkeypatch) as (ring, node):
            channel = await opened(ring, node)
            with busy_device(node):
                await channel.send(Step(0, 0, ring.random_hidden(2)))
                await asyncio.sleep(1.0)
            await channel.expect(Step)
            await channel.close()

    @pytest.mark.parametrize("protocol", [SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL])
    async def test_streams_that_say_nothing_are_few_and_stand_in_nobodys_way(self, tiny: Path, protocol: str) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            pupil = await Pupil.at(ring, node, 3)
            crowd = [await knock(ring, node, protocol) for _ in range(1000)]
            await pupil.step(5)
            refused = [await the_end(channel) for channel in crowd[handler_module.STREAMS_WAITING_PER_PEER :]]
            if protocol != LINK_PROTOCOL:  # where nobody listens
                assert {error.code for error in refused if error} == {"busy"}
                assert all(refused)
            assert len(node.handler._lobby) == handler_module.STREAMS_WAITING_PER_PEER
            await pupil.step()
            await pupil.leave()
            await pupil.learned_right(node)
            for channel in crowd:
                await channel.close()
            await until(lambda: len(node.handler._lobby) == 0)

    async def test_many_peers_that_say_nothing_make_room_for_who_comes_last(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            for name in range(30):
                by = ring.network.join(peer_of(f"silent {name}"))
                for _ in range(30):
                    await knock(ring, node, by=by)
            await serves(ring, node)
            assert len(node.handler._lobby) == handler_module.STREAMS_WAITING - 1, "it has left the lobby"

    async def test_links_that_wait_for_sessions_that_never_open_are_few(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            for _ in range(300):
                link = await knock(ring, node, LINK_PROTOCOL)
                await link.send(Link(new_session_id()))
                await asyncio.sleep(0)
            await until(lambda: len(node.handler._lobby) == handler_module.STREAMS_WAITING_PER_PEER)
            await asyncio.sleep(0.05)
            assert len(node.handler._lobby) == handler_module.STREAMS_WAITING_PER_PEER
            await serves_another(ring, node)


async def serves_another(ring: Ring, node: RingNode) -> None:
    """A peer who has nothing to do with it is served."""
    pupil = await Pupil.at(ring, node, 4)
    await pupil.step(3)
    await pupil.leave()


class TestSizes:
    """A frame is no longer than what may be in it."""

    @pytest.mark.parametrize("code", ["busy", "weights_damaged", "made_up"])
    async def test_a_stranger_does_not_say_what_our_errors_are(self, ring: Ring, code: str) -> None:
        for protocol in (SESSION_PROTOCOL, INFO_PROTOCOL):
            channel = await knock(ring, ring.nodes[0], protocol)
            await channel.send(Failure(code, "look what they did", retry=True))
            error = await the_end(channel)
            assert (error.code if error else None) == ("protocol_violation" if protocol == SESSION_PROTOCOL else None)

    @pytest.mark.parametrize("protocol", [SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL])
    async def test_a_first_message_is_short(self, ring: Ring, protocol: str) -> None:
        for length in (MAX_PLAIN_BYTES, MAX_PLAIN_BYTES + 1, 2**24):
            stream = await ring.client.open(PeerAddress(PeerId(ring.nodes[0].peer_id)), protocol)
            await stream.send(bytes(length))
            error = await the_end(Channel(stream))
            assert error is None or error.code == "protocol_violation"
            assert (error is not None and f"a frame of {length} bytes" in error.message) == (
                length > MAX_PLAIN_BYTES and protocol == SESSION_PROTOCOL
            )

    async def test_a_step_is_as_long_as_its_session_at_most(self, ring: Ring) -> None:
        node = ring.nodes[0]
        size = ring.shape.hidden_size
        for positions, code in ((256, None), (257, "session_too_long"), (1024, "protocol_violation")):
            channel = await opened(ring, node, max_length=256, batch=2)
            await channel.send(Step(0, 0, WireTensor("float32", (2, positions, size), bytes(8 * positions * size))))
            answer = await channel.receive()
            assert (answer.code if isinstance(answer, Failure) else None) == code
            await channel.close()
        await node.until_free()

    async def test_on_the_control_stream_of_a_session_that_is_fed_by_another_nothing_long_comes(
        self, ring: Ring
    ) -> None:
        channel = await opened(ring, ring.nodes[1], previous=PeerId(ring.nodes[0].peer_id), max_length=256, batch=4)
        await channel.send(Step(0, 0, ring.random_hidden(256, rows=4)))
        error = await the_end(channel)
        assert error is not None
        assert "the most here is 65536" in error.message

    async def test_an_answer_that_the_wire_type_cannot_hold_is_not_sent_on(self, ring: Ring) -> None:
        channel = await opened(ring, ring.nodes[0], codec="float16")
        most = torch.full((1, 2, ring.shape.hidden_size), torch.finfo(torch.float16).max)
        await channel.send(Step(0, 0, to_wire(most, "float16")))
        error = await refusal(channel)
        assert error.code == "compute_failed"
        assert "not finite in float16" in error.message
        await channel.close()


class TestIds:
    """Who a session is."""

    async def test_an_id_that_is_open_for_one_model_is_not_given_for_another(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            other = await _another_model(node)
            same = new_session_id()
            first = await opened(ring, node, session_id=same)
            second = await knock(ring, node, by=ring.network.join(peer_of("second")))
            await second.send(opening(ring, node, session_id=same, model_digest=OTHER_DIGEST))
            assert (await refusal(second)).code == "busy"
            await first.close()
            await node.until_free()
            third = await opened(ring, node, session_id=same, model_digest=OTHER_DIGEST)
            assert (node.budget.sessions, other.budget.sessions) == (0, 1)
            await third.close()
            await until(lambda: other.budget.sessions == 0)

    async def test_of_many_who_want_one_id_at_once_one_gets_it(self, ring: Ring) -> None:
        node, same = ring.nodes[0], new_session_id()
        clients = [ring.network.join(peer_of(f"client {number}")) for number in range(20)]
        channels = [await knock(ring, node, by=client) for client in clients]
        await asyncio.gather(*(channel.send(opening(ring, node, session_id=same)) for channel in channels))
        answers = await asyncio.gather(*(channel.receive() for channel in channels))
        assert sum(isinstance(answer, Opened) for answer in answers) == 1
        assert {answer.code for answer in answers if isinstance(answer, Failure)} == {"busy"}
        assert node.budget.sessions == 1
        for channel in channels:
            await channel.close()
        await node.until_free()

    async def test_an_id_can_be_used_again_as_soon_as_its_session_has_ended(self, ring: Ring) -> None:
        node, same = ring.nodes[0], new_session_id()
        for _ in range(5):
            channel = await opened(ring, node, session_id=same)
            await channel.send(Step(0, 0, ring.random_hidden(3)))
            await channel.expect(Step)
            await channel.send(Close())
            assert await the_end(channel) is None


async def _another_model(node: RingNode) -> Serving:
    """The same blocks under another name."""
    about = node.announcement.model_copy(update={"model_digest": OTHER_DIGEST})
    serving = await Serving.prepare(
        about, node.blocks, Signer(key_of(node.name), about), node.executor, cache_bytes=1 << 24, context_length=256
    )
    node.handler.add(serving)
    return serving


class TestNeighbours:
    """Links that do not come as they should."""

    async def test_a_session_has_one_link_and_keeps_it(self, ring: Ring) -> None:
        node, session_id = ring.nodes[0], new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=ring.client.peer_id)
        links = [await knock(ring, node, LINK_PROTOCOL) for _ in range(3)]
        for link in links:
            await link.send(Link(session_id))
            await asyncio.sleep(0.01)
        await links[0].send(Step(0, 0, ring.random_hidden(2)))
        assert (await control.expect(Step)).hidden.shape[1] == 2
        for link in links[1:]:
            assert await link.receive() is None, "one too many"
        await links[0].send(Step(1, 2, ring.random_hidden(1)))
        assert (await control.expect(Step)).index == 1
        await control.close()

    async def test_a_client_that_names_itself_as_successor_and_serves_nothing_is_told(self, ring: Ring) -> None:
        channel = await knock(ring, ring.nodes[0])
        await channel.send(opening(ring, ring.nodes[0], next=PeerAddress(ring.client.peer_id)))
        assert (await refusal(channel)).code == "peer_unavailable"
        assert await channel.receive() is None

    async def test_a_link_ends_with_its_session(self, ring: Ring) -> None:
        node, session_id = ring.nodes[0], new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=ring.client.peer_id)
        link = await knock(ring, node, LINK_PROTOCOL)
        await link.send(Link(session_id))
        await link.send(Step(0, 0, ring.random_hidden(2)))
        await control.expect(Step)
        await control.close()
        async with asyncio.timeout(SOON):
            assert await link.receive() is None
        await node.until_free()

    async def test_a_step_that_comes_before_the_successor_is_reached_waits_for_it(
        self, ring: Ring, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node, session_id, heard = ring.nodes[0], new_session_id(), asyncio.Queue[object]()
        successor = await _successor(ring, heard)
        reach = _slow_to_reach(node, monkeypatch)
        control = await knock(ring, node)
        await control.send(
            opening(ring, node, session_id=session_id, previous=ring.client.peer_id, next=PeerAddress(successor))
        )
        link = await knock(ring, node, LINK_PROTOCOL)
        await link.send(Link(session_id))
        await link.send(Step(0, 0, ring.random_hidden(2)))
        await asyncio.sleep(0.2)
        reach.set()
        await control.expect(Opened)
        assert isinstance(await heard.get(), Link)
        assert isinstance(await heard.get(), Step)
        await control.close()
        await node.until_free()

    async def test_a_session_that_ends_before_its_successor_is_reached_leaves_no_stream_behind(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heard = asyncio.Queue[object]()
        async with impatient_ring(tiny, monkeypatch) as (ring, node):
            successor = await _successor(ring, heard)
            reach = _slow_to_reach(node, monkeypatch)
            control = await knock(ring, node)
            await control.send(opening(ring, node, next=PeerAddress(successor)))
            error = await the_end(control)
            assert error is not None
            assert error.code == "session_expired"
            reach.set()
            async with asyncio.timeout(SOON):
                while await heard.get() is not None:
                    continue
            await node.until_free()


async def _successor(ring: Ring, heard: asyncio.Queue[object]) -> PeerId:
    async def listen(stream: Stream) -> None:
        channel = Channel(stream)
        while True:
            message = await channel.receive()
            await heard.put(message)
            if message is None:
                return

    transport = ring.network.join(peer_of("successor"))
    await transport.serve(LINK_PROTOCOL, listen)
    return transport.peer_id


def _slow_to_reach(node: RingNode, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Streams that the node opens stay unopened until the event."""
    reach, open_now = asyncio.Event(), node.transport.open

    async def open_later(address: PeerAddress, protocol: str) -> Stream:
        await reach.wait()
        return await open_now(address, protocol)

    monkeypatch.setattr(node.transport, "open", open_later)
    return reach


class TestLeftovers:
    """A session that ends while its step is on the way to the device."""

    async def test_its_rows_go_to_another_whom_it_does_not_harm(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            keeper = await opened(ring, node, max_length=256)
            link, control = await _fed_by_link(ring, node, 2)
            with busy_device(node):
                await link.send(Step(1, 2, ring.random_hidden(40, seed=7)))
                await until(lambda: node.executor.load().queued == 1)
                await control.close()
                await until(lambda: node.budget.sessions == 1 and node.executor.load().queued == 0)
                pupil = await Pupil.at(ring, node, 5)
                asking = asyncio.create_task(pupil.step(3))
                await until(lambda: node.executor.load().queued == 1)
            await asking
            for _ in range(4):
                await pupil.step()
            await pupil.leave()
            await pupil.learned_right(node)
            assert node.executor.load().queued == 0
            await keeper.close()

    async def test_it_is_not_in_one_pass_with_the_next_owner_of_its_rows(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            batcher = node.executor._worker.batcher
            keeper = await opened(ring, node, max_length=256)  # without it the slab would go with its last session
            await serves(ring, node, until_free=False)  # this client was served last, so the next one goes first
            link, control = await _fed_by_link(ring, node, 0)
            # the device waits for company, as it does where there has been some
            monkeypatch.setattr(batcher, "patience", lambda waiting: 0.5 if len(waiting) == 1 else 0.0)
            await link.send(Step(0, 0, ring.random_hidden(1, seed=7)))
            await until(lambda: len(node.executor._worker._steps) == 1)
            await control.close()
            await until(lambda: node.budget.sessions == 1)
            pupil = await Pupil.at(ring, node, 6)
            await pupil.step()
            monkeypatch.undo()
            for _ in range(4):
                await pupil.step()
            await pupil.leave()
            await pupil.learned_right(node)
            await keeper.close()

    async def test_the_memory_of_its_rows_is_given_back_though_others_stay(self, tmp_path: Path) -> None:
        model = make_model(tmp_path / "long", max_position_embeddings=4096, num_key_value_heads=4)
        async with a_ring(model) as ring:
            node = await ring.add(0, 6, limits=Limits(prefix_cache_bytes=0))
            channels = [await opened(ring, node, max_length=4096) for _ in range(16)]
            empty = resident_bytes()
            for channel in channels:
                await channel.send(Step(0, 0, ring.random_hidden(1500), 1))
                await channel.expect(Step)
            full = resident_bytes()
            rows = 1500 * BLOCKS * 2 * 4 * 16 * 4  # keys and values of four heads in float32
            assert full - empty > 0.9 * 16 * rows
            for channel in channels[1:]:
                await channel.close()
            await until(lambda: node.budget.sessions == 1)
            await node.executor.run(lambda: None)
            assert full - resident_bytes() > 0.8 * 15 * rows
            await channels[0].close()

    @pytest.mark.parametrize("max_length", [33, 256])
    async def test_its_rows_are_cleared_without_a_word(self, tiny: Path, max_length: int) -> None:
        with overheard() as heard:
            async with a_ring(tiny, (0, 6)) as ring:
                (node,) = ring.nodes
                channels = [await opened(ring, node, max_length=max_length, batch=rows) for rows in (1, 3, 2)]
                for channel, rows in zip(channels, (1, 3, 2), strict=True):
                    await channel.send(Step(0, 0, ring.random_hidden(2, rows=rows)))
                    await channel.expect(Step)
                for channel in channels[1:]:
                    await channel.close()
                await until(lambda: node.budget.sessions == 1)
                await node.executor.run(lambda: None)
                await channels[0].close()
                await node.until_free()
            gc.collect()
        assert not heard.alarms

    async def test_drained_while_it_opens_it_ends(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        heard = asyncio.Queue[object]()
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            reach = _slow_to_reach(node, monkeypatch)
            control = await knock(ring, node)
            await control.send(opening(ring, node, next=PeerAddress(await _successor(ring, heard))))
            await until(lambda: node.handler.open_sessions == 1)
            assert await node.handler.drain(ring.source.digest, 0.1) is False
            late = await knock(ring, node)
            await late.send(opening(ring, node))
            assert (await refusal(late)).code == "node_leaving"
            reach.set()
            error = await the_end(control)
            assert error is not None
            assert error.code == "node_leaving"
            await node.until_free()
            async with asyncio.timeout(SOON):
                while await heard.get() is not None:
                    continue


async def _fed_by_link(ring: Ring, node: RingNode, positions: int) -> tuple[Channel, Channel]:
    """A session that gets its steps from the client over a link; ``positions`` of it have been computed."""
    session_id = new_session_id()
    control = await opened(ring, node, session_id=session_id, previous=ring.client.peer_id, max_length=256)
    link = await knock(ring, node, LINK_PROTOCOL)
    await link.send(Link(session_id))
    if positions:
        await link.send(Step(0, 0, ring.random_hidden(positions)))
        await control.expect(Step)
    return link, control


async def test_a_question_about_the_node_is_answered_in_between(ring: Ring) -> None:
    node = ring.nodes[0]
    with busy_device(node):
        channel = await knock(ring, node, INFO_PROTOCOL)
        await channel.send(InfoRequest())
        assert isinstance(await channel.receive(), NodeInfo)


class TestSiege:
    """Tens of thousands of messages from eight strangers, while an honest client goes on."""

    async def test_nothing_that_strangers_say_moves_a_node(self, tmp_path: Path) -> None:
        model = make_model(
            tmp_path / "small",
            hidden_size=32,
            num_hidden_layers=3,
            intermediate_size=48,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        with impatient(), overheard() as heard:
            async with _besieged(model, (0, 1), (1, 3)) as siege:
                await siege.run(5_000)
                before, tasks = resident_bytes(), len(asyncio.all_tasks())
                await siege.run(15_000)
                assert resident_bytes() - before < 2**24
                assert len(asyncio.all_tasks()) <= tasks
            gc.collect()
        _stood(siege, heard)
        assert siege.messages >= 20_000
        assert set(siege.reactions) >= {
            *("opened", "a step's answer", "a receipt", "told about the node", "closed", "busy", "out_of_cache"),
            *("protocol_violation", "blocks_not_served", "session_too_long", "bad_position", "peer_unavailable"),
        }
        assert heard.events["session_expired"], "of those who stay and say nothing"

    @pytest.mark.parametrize("kind", ["lfm2", "gemma3_text", "one by one"])
    async def test_nor_one_that_serves_another_kind_of_model(self, tmp_path: Path, kind: str) -> None:
        if kind == "one by one":
            model = make_model(tmp_path / "model", rope_parameters={"rope_type": "dynamic", "factor": 2.0})
        else:
            model = make_architecture(tmp_path / "model", next(one for one in ARCHITECTURES if one.name == kind))
        with impatient(), overheard() as heard:
            async with _besieged(model, (0, 4), (4, 6), can_rewind=kind != "lfm2") as siege:
                assert (siege.nodes[0].blocks.one_by_one is not None) == (kind == "one by one")
                await siege.run(2_000)
            gc.collect()
        _stood(siege, heard)
        assert siege.reactions["a step's answer"] > 100


@asynccontextmanager
async def _besieged(model: Path, *spans: tuple[int, int], can_rewind: bool = True) -> AsyncIterator[Siege]:
    async with a_ring(model) as ring:
        for first, end in spans:
            await ring.add(first, end, cache_bytes=CACHE_BYTES, limits=LIMITS)
        siege = Siege(ring, 1, can_rewind=can_rewind)
        await siege.learn()
        yield siege


def _stood(siege: Siege, heard: Overheard) -> None:
    """Nothing was wrong, and the honest client was answered as in quiet."""
    assert not siege.complaints, siege.complaints[0]
    assert not heard.alarms, heard.alarms[0]
    assert siege.lessons >= 1
    assert siege.difference <= CLOSE
