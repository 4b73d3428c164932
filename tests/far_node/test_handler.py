"""The node's door: whatever comes in, the sessions of others go on and the next one is served."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.dht.transport import Channel, Stream
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
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
    encode,
)
from discovery.protocol.receipt import read_receipt
from far_node import handler as handler_module
from far_node.blocks.wire import to_wire
from tests.support import messages as some
from tests.support.documents import OTHER_DIGEST, peer_of
from tests.support.door import knock, opened, opening, refusal, serves
from tests.support.models import BLOCKS
from tests.support.ring import Ring, a_ring


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here is on the other side of the world."""
    monkeypatch.setattr(handler_module, "LINK_WAIT_SECONDS", 0.05)


class TestInfo:
    """rpc_info."""

    async def test_a_node_tells_exactly_what_it_holds(self, ring: Ring) -> None:
        whole = 0
        for node in ring.nodes:
            channel = await knock(ring, node, INFO_PROTOCOL)
            await channel.send(InfoRequest())
            info = await channel.expect(NodeInfo)
            assert (info.peer_id, info.wallet) == (node.peer_id, node.announcement.wallet)
            assert (info.first_block, info.end_block, info.block_count) == (*node.announcement.blocks, BLOCKS)
            assert info.model_digest == ring.source.digest
            assert info.parameter_count == node.blocks.parameter_count()
            assert info.resident_bytes > 0
            assert info.open_sessions == info.cache_used_bytes == 0
            whole += info.parameter_count
        per_block = ring.nodes[0].blocks.parameter_count()
        assert whole == BLOCKS * per_block

    async def test_an_open_session_shows_in_the_cache_and_the_work(self, ring: Ring) -> None:
        node = ring.nodes[0]
        channel = await opened(ring, node)
        await channel.send(Step(0, 0, ring.random_hidden(5)))
        await channel.expect(Step)
        info = node.handler.info()
        assert (info.open_sessions, info.token_layers_served) == (1, 5)
        assert 0 < info.cache_used_bytes <= info.cache_budget_bytes
        await channel.close()
        await node.until_free()
        assert node.handler.info().token_layers_served == 5

    async def test_a_question_that_is_none_gets_no_answer(self, ring: Ring) -> None:
        channel = await knock(ring, ring.nodes[0], INFO_PROTOCOL)
        await channel.send(Close())
        assert await channel.receive() is None
        await serves(ring, ring.nodes[0])


class TestOpening:
    """What a node refuses at the door, by its own name."""

    @pytest.mark.parametrize(
        ("changes", "code", "reason"),
        [
            ({"model_digest": OTHER_DIGEST}, "blocks_not_served", "not the model asked for"),
            ({"first_block": 0}, "blocks_not_served", "0:4 are asked for, 1:4 are here"),
            ({"end_block": 5}, "blocks_not_served", "1:5 are asked for, 1:4 are here"),
            ({"first_block": 4, "end_block": 6}, "blocks_not_served", "4:6 are asked for"),
            ({"max_length": 257}, "session_too_long", "257 positions are asked for, the longest session here has 256"),
            ({"next": PeerAddress(peer_of("nobody"))}, "peer_unavailable", "cannot be reached"),
        ],
    )
    async def test_what_a_node_cannot_do_it_says(self, ring: Ring, changes: Any, code: str, reason: str) -> None:
        node = ring.nodes[1]
        channel = await knock(ring, node)
        await channel.send(opening(ring, node, **changes))
        error = await refusal(channel)
        assert (error.code, reason in error.message) == (code, True), error.message
        assert await channel.receive() is None
        await node.until_free()
        await serves(ring, node)

    async def test_a_lost_successor_is_blamed_by_name(self, ring: Ring) -> None:
        channel = await knock(ring, ring.nodes[0])
        await channel.send(opening(ring, ring.nodes[0], next=PeerAddress(peer_of("nobody"))))
        failure = await channel.receive()
        assert isinstance(failure, Failure)
        assert failure.peer_id == peer_of("nobody")

    async def test_a_session_id_that_is_taken_is_not_given_twice(self, ring: Ring) -> None:
        node, same = ring.nodes[0], new_session_id()
        first = await opened(ring, node, session_id=same)
        other = ring.network.join(peer_of("somebody else"))
        second = Channel(await other.open(PeerAddress(PeerId(node.peer_id)), SESSION_PROTOCOL))
        await second.send(opening(ring, node, session_id=same))
        assert (await refusal(second)).code == "busy"
        await first.send(Step(0, 0, ring.random_hidden(1)))
        await first.expect(Step)
        await first.close()
        await node.until_free()

    async def test_who_opens_a_session_again_gets_it_anew(self, ring: Ring) -> None:
        node, same = ring.nodes[0], new_session_id()
        first = await opened(ring, node, session_id=same)
        second = await opened(ring, node, session_id=same)
        assert (await refusal(first)).code == "session_unknown"
        await second.send(Step(0, 0, ring.random_hidden(1)))
        await second.expect(Step)
        await second.close()
        await node.until_free()

    async def test_a_node_with_too_many_sessions_is_busy_and_says_when_to_come_back(self, tiny: Path) -> None:
        async with a_ring(tiny) as ring:
            node = await ring.add(0, 6, max_sessions=2)
            channels = [await opened(ring, node) for _ in range(2)]
            late = await knock(ring, node)
            await late.send(opening(ring, node))
            error = await refusal(late)
            assert (error.code, error.retry) == ("busy", True)
            assert error.retry_after is not None
            assert error.retry_after > 0
            await channels[0].close()
            async with asyncio.timeout(20):
                while node.handler.open_sessions == 2:
                    await asyncio.sleep(0)
            await opened(ring, node)

    async def test_a_session_that_does_not_fit_the_cache_is_refused_until_another_ends(self, tiny: Path) -> None:
        async with a_ring(tiny) as ring:
            sizer = await ring.add(0, 6, name="sizer")
            sized = await opened(ring, sizer, max_length=128)
            bytes_needed = sizer.budget.used_bytes
            assert bytes_needed == 128 * 6 * 2 * 2 * 16 * 4, (
                "positions × blocks × (keys, values) × heads × size × float32"
            )
            await sized.close()
            node = await ring.add(0, 6, cache_bytes=bytes_needed)
            first = await opened(ring, node, max_length=60)
            second = await knock(ring, node)
            await second.send(opening(ring, node, max_length=65))
            error = await refusal(second)
            assert (error.code, error.retry_after is not None) == ("out_of_cache", True)
            assert node.budget.used_bytes == bytes_needed // 2
            await opened(ring, node, max_length=40)
            assert node.budget.used_bytes == bytes_needed
            await first.close()
            async with asyncio.timeout(20):
                while node.handler.open_sessions == 2:
                    await asyncio.sleep(0)
            await opened(ring, node, max_length=60)

    @pytest.mark.parametrize("rows", [1, 2, 7])
    async def test_rows_count_in_the_cache(self, tiny: Path, rows: int) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            one = await opened(ring, node, max_length=10)
            of_one = node.budget.used_bytes
            await opened(ring, node, max_length=10, batch=rows)
            assert node.budget.used_bytes == (1 + rows) * of_one
            await one.close()


class TestSteps:
    """Steps on the client's own stream."""

    @pytest.mark.parametrize(
        ("hidden", "start", "more", "code"),
        [
            ((1, 2, 64), 1, {}, "bad_position"),
            ((1, 2, 64), 31, {}, "session_too_long"),
            ((1, 33, 64), 0, {}, "session_too_long"),
            ((1, 2, 63), 0, {}, "protocol_violation"),
            ((1, 2, 6400), 0, {}, "protocol_violation"),
            ((2, 2, 64), 0, {}, "protocol_violation"),
            ((1, 2, 64), 0, {"rows": (1,)}, "bad_position"),
            ((1, 2, 64), 2**23, {}, "session_too_long"),
        ],
    )
    async def test_a_step_that_does_not_fit_ends_its_own_session_only(
        self, ring: Ring, hidden: tuple[int, int, int], start: int, more: Any, code: str
    ) -> None:
        node = ring.nodes[0]
        other = await opened(ring, node)
        await other.send(Step(0, 0, ring.random_hidden(2)))
        await other.expect(Step)
        channel = await opened(ring, node)
        rows, positions, size = hidden
        await channel.send(Step(0, start, WireTensor("float32", hidden, bytes(4 * rows * positions * size)), **more))
        assert (await refusal(channel)).code == code
        await other.send(Step(1, 2, ring.random_hidden(1)))
        assert (await other.expect(Step)).index == 1
        await channel.close()
        await other.close()
        await node.until_free()
        await serves(ring, node)

    async def test_steps_come_in_the_wire_type_that_the_session_was_opened_with(self, ring: Ring) -> None:
        node = ring.nodes[0]
        channel = await opened(ring, node, codec="bfloat16")
        await channel.send(Step(0, 0, to_wire(torch.ones(1, 2, 64), "bfloat16")))
        answer = await channel.expect(Step)
        assert answer.hidden.dtype == "bfloat16"
        assert len(answer.hidden.data) == 2 * 2 * 64
        await channel.send(Step(1, 2, ring.random_hidden(2)))
        error = await refusal(channel)
        assert (error.code, "bfloat16, not float32" in error.message) == ("protocol_violation", True)
        await channel.close()

    @pytest.mark.parametrize(
        "message",
        [Opened(), InfoRequest(), Link(new_session_id()), ReceiptIssued(b"x")],
        ids=lambda it: type(it).__name__,
    )
    async def test_a_message_that_is_not_due_ends_the_session(self, ring: Ring, message: Any) -> None:
        node = ring.nodes[0]
        channel = await opened(ring, node)
        await channel.send(message)
        assert (await refusal(channel)).code == "protocol_violation"
        await node.until_free()

    async def test_a_step_at_a_node_that_gets_its_steps_from_another_is_a_violation(self, ring: Ring) -> None:
        channel = await opened(ring, ring.nodes[1], previous=PeerId(ring.nodes[0].peer_id))
        await channel.send(Step(0, 0, ring.random_hidden(1)))
        assert (await refusal(channel)).code == "protocol_violation"
        await ring.nodes[1].until_free()

    async def test_a_client_that_vanishes_leaves_no_session_behind(self, ring: Ring) -> None:
        session = await ring.opened()
        await session.step(ring.random_hidden(4), 0)
        assert [node.handler.open_sessions for node in ring.nodes] == [1, 1, 1]
        ring.network.cut(ring.client.peer_id)
        for node in ring.nodes:
            await node.until_free()
            assert node.budget.used_bytes == 0
            assert node.handler.token_layers_served == 4 * (node.blocks.end - node.blocks.first)
        ring.client = ring.network.join(peer_of("client"))
        await serves(ring, ring.nodes[0])

    async def test_a_client_that_asks_for_a_receipt_at_once_gets_one_for_nothing(self, ring: Ring) -> None:
        channel = await opened(ring, ring.nodes[0])
        await channel.send(Close())
        receipt = read_receipt((await channel.expect(ReceiptIssued)).document).receipt
        assert (receipt.steps, receipt.positions, receipt.token_layers) == (0, 0, 0)
        assert receipt.input_root == receipt.output_root


class TestLinks:
    """Streams between nodes."""

    async def test_only_the_announced_predecessor_may_link(self, ring: Ring) -> None:
        node = ring.nodes[1]
        session_id = new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=PeerId(ring.nodes[0].peer_id))
        stranger = ring.network.join(peer_of("stranger"))
        link = Channel(await stranger.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await link.send(Link(session_id))
        await link.send(Step(0, 0, ring.random_hidden(1)))
        assert await link.receive() is None, "the stranger is turned away"
        right = Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await right.send(Link(session_id))
        await right.send(Step(0, 0, ring.random_hidden(2)))
        answer = await control.expect(Step)
        assert answer.hidden.shape[1] == 2, "the session took the predecessor's step, not the stranger's"
        assert node.handler.token_layers_served == 2 * 3
        await control.close()

    async def test_until_a_step_has_come_the_later_of_two_links_counts(self, ring: Ring) -> None:
        node, session_id = ring.nodes[1], new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=PeerId(ring.nodes[0].peer_id))
        links = []
        for opened_at in (2, 5, 4):
            links.append(Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL)))
            await links[-1].send(Link(session_id, opened_at))
        assert await links[0].receive() is None
        assert await links[2].receive() is None
        await links[1].send(Step(0, 0, ring.random_hidden(2)))
        assert (await control.expect(Step)).hidden.shape[1] == 2
        late = Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await late.send(Link(session_id, 9))
        assert await late.receive() is None, "steps came over another"
        await links[1].send(Step(1, 2, ring.random_hidden(1)))
        await control.expect(Step)
        await control.close()

    async def test_who_loses_a_link_before_a_step_may_link_again(self, ring: Ring) -> None:
        node, session_id = ring.nodes[1], new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=PeerId(ring.nodes[0].peer_id))
        for opened_at in (1, 2):
            link = Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
            await link.send(Link(session_id, opened_at))
            if opened_at == 1:
                await link.close()
        await link.send(Step(0, 0, ring.random_hidden(1)))
        await control.expect(Step)
        await control.close()

    async def test_a_link_to_a_session_that_is_fed_by_its_client_is_refused(self, ring: Ring) -> None:
        node, session_id = ring.nodes[0], new_session_id()
        control = await opened(ring, node, session_id=session_id)
        link = await knock(ring, node, LINK_PROTOCOL)
        await link.send(Link(session_id))
        assert await link.receive() is None
        await control.send(Step(0, 0, ring.random_hidden(1)))
        await control.expect(Step)
        await control.close()

    async def test_a_link_to_no_session_is_refused_after_a_while(self, ring: Ring) -> None:
        link = await knock(ring, ring.nodes[1], LINK_PROTOCOL)
        await link.send(Link(new_session_id()))
        assert await link.receive() is None

    async def test_a_link_may_come_before_its_session(self, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handler_module, "LINK_WAIT_SECONDS", 20.0)
        node, session_id = ring.nodes[1], new_session_id()
        link = Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await link.send(Link(session_id))
        await link.send(Step(0, 0, ring.random_hidden(2)))
        control = await opened(ring, node, session_id=session_id, previous=PeerId(ring.nodes[0].peer_id))
        assert (await control.expect(Step)).hidden.shape[1] == 2
        await control.close()

    async def test_a_predecessor_that_sends_nonsense_is_blamed_by_name(self, ring: Ring) -> None:
        node, session_id = ring.nodes[1], new_session_id()
        control = await opened(ring, node, session_id=session_id, previous=PeerId(ring.nodes[0].peer_id))
        link = Channel(await ring.nodes[0].transport.open(PeerAddress(PeerId(node.peer_id)), LINK_PROTOCOL))
        await link.send(Link(session_id))
        await link.send(Close())
        failure = await control.receive()
        assert isinstance(failure, Failure)
        assert (failure.code, failure.peer_id) == ("protocol_violation", ring.nodes[0].peer_id)
        await control.close()
        await node.until_free()

    async def test_a_successor_lost_on_the_way_is_blamed_by_name(self, ring: Ring) -> None:
        async def listen(stream: Stream) -> None:
            while await stream.receive() is not None:
                continue

        successor = ring.network.join(peer_of("successor"))
        await successor.serve(LINK_PROTOCOL, listen)
        control = await opened(ring, ring.nodes[0], next=PeerAddress(successor.peer_id))
        ring.network.cut(successor.peer_id)
        await control.send(Step(0, 0, ring.random_hidden(1)))
        failure = await control.receive()
        assert isinstance(failure, Failure)
        assert (failure.code, failure.retry, failure.peer_id) == ("peer_unavailable", True, successor.peer_id)
        await control.close()

    async def test_a_predecessor_that_is_lost_is_reported_by_name(self, ring: Ring) -> None:
        session = await ring.opened()
        await session.step(ring.random_hidden(2), 0)
        ring.network.cut(ring.nodes[0].transport.peer_id)
        with pytest.raises(FarError) as failure:
            await session.step(ring.random_hidden(1), 2)
        assert failure.value.code == "peer_unavailable"
        assert failure.value.facts["peer_id"] == ring.nodes[0].peer_id
        await session.abandon()
        for node in ring.nodes[1:]:
            await node.until_free()


class TestHostileStreams:
    """Bytes that are not ours."""

    @pytest.mark.parametrize("protocol", [SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL])
    async def test_a_node_survives_every_kind_of_first_frame(self, ring: Ring, protocol: str) -> None:
        node = ring.nodes[0]
        step = encode(Step(0, 0, ring.random_hidden(1)))
        frames = [b"", b"\0", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", step, step[:-1], b"\x1a\xff\xff\xff\xff\x0f"]
        for frame in frames:
            stream = await ring.client.open(PeerAddress(PeerId(node.peer_id)), protocol)
            await stream.send(frame)
            while (answer := await stream.receive()) is not None:
                assert len(answer) < 2000, "nothing but a short refusal"
        await node.until_free()
        await serves(ring, node)

    async def test_a_stream_that_says_nothing_is_ended(self, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handler_module, "FIRST_MESSAGE_SECONDS", 0.05)
        for protocol in (SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL):
            stream = await ring.client.open(PeerAddress(PeerId(ring.nodes[0].peer_id)), protocol)
            async with asyncio.timeout(20):
                while await stream.receive() is not None:
                    continue
        await serves(ring, ring.nodes[0])

    @settings(max_examples=40)
    @given(st.lists(some.messages.map(encode) | st.binary(max_size=60), min_size=1, max_size=4))
    def test_no_talk_of_a_stranger_stops_a_node(self, tiny: Path, frames: list[bytes]) -> None:
        async def talk() -> None:
            async with a_ring(tiny, (0, 6)) as ring:
                (node,) = ring.nodes
                for protocol in (SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL):
                    stream = await ring.client.open(PeerAddress(PeerId(node.peer_id)), protocol)
                    for frame in frames:
                        try:
                            await stream.send(frame)
                        except FarError:
                            break
                    await stream.close()
                await node.until_free()
                await serves(ring, node)

        asyncio.run(talk())

    @settings(max_examples=40)
    @given(st.lists(st.one_of(some.steps(), some.failures, some.node_infos), min_size=1, max_size=4), st.data())
    def test_no_talk_in_an_open_session_stops_a_node(
        self, tiny: Path, messages: list[Any], data: st.DataObject
    ) -> None:
        async def talk() -> None:
            async with a_ring(tiny, (0, 6)) as ring:
                (node,) = ring.nodes
                batch = data.draw(st.integers(1, 3))
                padding = data.draw(st.just(()) | st.tuples(*[st.integers(0, 31)] * batch))
                channel = await opened(ring, node, batch=batch, left_padding=padding)
                for message in messages:
                    if isinstance(message, Step):
                        message = _widened(message, ring.shape.hidden_size, data)
                    try:
                        await channel.send(message)
                    except FarError:
                        break
                await channel.close()
                await node.until_free()
                await serves(ring, node)

        asyncio.run(talk())


def _widened(step: Step, size: int, data: st.DataObject) -> Step:
    """The step with hidden states of the model's own width, so that it reaches the blocks."""
    rows, positions, _ = step.hidden.shape
    filling = data.draw(
        st.sampled_from([b"\x00\x00\x00\x00", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\x3f"])
    )
    hidden = WireTensor("float32", (rows, positions, size), filling * (rows * positions * size))
    start = data.draw(st.sampled_from([0, 1, step.start_position]))
    return dataclasses.replace(step, hidden=hidden, start_position=start)
