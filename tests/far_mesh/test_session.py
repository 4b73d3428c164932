"""A ring that remembers a text: what goes round, what comes back, who is owed for it, and how it breaks."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch

from discovery.protocol.errors import FarError, ProtocolViolation
from discovery.protocol.messages import Failure, Message, Opened, ReceiptIssued, Step, WireTensor
from discovery.protocol.receipt import RECEIPT_EVERY_POSITIONS, read_receipt, sign_receipt
from far_mesh.config import MeshConfig
from far_mesh.route import RouteHop
from far_mesh.session import MeshSession
from far_node.blocks.wire import to_wire
from tests.support.documents import key_of, peer_of
from tests.support.ring import FAST, Ring, a_ring, blocks_of

TOLERANCE = 1e-4


def by_one_node(ring: Ring, *chunks: WireTensor) -> list[torch.Tensor]:
    """The same hidden states through all blocks in one place."""
    blocks = blocks_of(ring.path, 0, 6)
    cache = blocks.new_cache()
    return [blocks.run(ring.tensor(chunk), cache, 0, 6) for chunk in chunks]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Within a part of the largest value: rows that share a pass are rounded in another order."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= TOLERANCE * expected.abs().max()


class TestTheWayRound:
    """What comes back."""

    async def test_the_ring_computes_what_one_machine_would(self, ring: Ring) -> None:
        chunks = [ring.random_hidden(count, seed=count) for count in (9, 1, 1, 4, 1)]
        session, start = await ring.opened(), 0
        for chunk, expected in zip(chunks, by_one_node(ring, *chunks), strict=True):
            close(ring.tensor(await session.step(chunk, start)), expected)
            start += chunk.shape[1]
        await session.finish()

    async def test_only_the_positions_asked_for_come_back(self, ring: Ring) -> None:
        prompt = ring.random_hidden(9)
        (expected,) = by_one_node(ring, prompt)
        session = await ring.opened()
        answer = ring.tensor(await session.step(prompt, 0, keep=2))
        assert answer.shape == (1, 2, ring.shape.hidden_size)
        close(answer, expected[:, -2:])
        await session.finish()

    async def test_steps_in_flight_together_are_answered_in_order(self, ring: Ring) -> None:
        chunks = [ring.random_hidden(3, seed=count) for count in range(8)]
        session = await ring.opened()
        answers = await asyncio.gather(*(session.step(chunk, 3 * index) for index, chunk in enumerate(chunks)))
        for answer, expected in zip(answers, by_one_node(ring, *chunks), strict=True):
            close(ring.tensor(answer), expected)
        verified = await session.finish()
        assert len(verified.contributions) == 3

    async def test_a_step_that_starts_earlier_takes_the_text_back(self, ring: Ring) -> None:
        first, wrong, right = (ring.random_hidden(count, seed=count) for count in (6, 2, 3))
        expected = by_one_node(ring, first, right)[1]
        session = await ring.opened()
        await session.step(first, 0)
        await session.step(wrong, 6)
        close(ring.tensor(await session.step(right, 6)), expected)
        verified = await session.finish()
        assert {done.positions for done in verified.contributions} == {11}, "work that was thrown away was work"

    async def test_rows_go_on_from_the_rows_they_name(self, ring: Ring) -> None:
        prompt, after = ring.random_hidden(5, rows=3), ring.random_hidden(1, rows=3, seed=4)
        chosen = (1, 1, 0)
        picked = to_wire(ring.tensor(prompt)[list(chosen)], "float32")
        expected = by_one_node(ring, picked, after)[1]
        session = await ring.opened(rows=3)
        await session.step(prompt, 0)
        close(ring.tensor(await session.step(after, 5, rows=chosen)), expected)
        verified = await session.finish()
        assert {done.positions for done in verified.contributions} == {18}

    async def test_a_route_may_use_a_span_in_part(self, talker: Path) -> None:
        async with a_ring(talker, (0, 4), (2, 6)) as ring:
            first, second = ring.nodes
            route = (RouteHop(first.announcement, 0, 3), RouteHop(second.announcement, 3, 6))
            session = await ring.opened(route=route)
            prompt = ring.random_hidden(7)
            close(ring.tensor(await session.step(prompt, 0)), by_one_node(ring, prompt)[0])
            verified = await session.finish()
            assert [(done.blocks, done.token_layers) for done in verified.contributions] == [((0, 3), 21), ((3, 6), 21)]

    async def test_sessions_share_the_nodes_without_mixing(self, ring: Ring) -> None:
        async def talk(seed: int) -> None:
            chunks = [ring.random_hidden(count, seed=10 * seed + count) for count in (5, 1, 1)]
            session, start = await ring.opened(), 0
            for chunk, expected in zip(chunks, by_one_node(ring, *chunks), strict=True):
                close(ring.tensor(await session.step(chunk, start)), expected)
                start += chunk.shape[1]
            assert len((await session.finish()).contributions) == 3

        for _ in range(1):
            await asyncio.gather(*(talk(seed) for seed in range(6)))


class TestReceipts:
    """Who is owed."""

    async def test_everybody_is_owed_for_every_position_in_every_block(self, ring: Ring) -> None:
        session = await ring.opened(price_units=5)
        await session.step(ring.random_hidden(10), 0)
        await session.step(ring.random_hidden(1), 10)
        verified = await session.finish()
        assert verified.rejected == ()
        assert [(done.peer_id, done.wallet, done.blocks) for done in verified.contributions] == [
            (node.peer_id, node.announcement.wallet, node.announcement.blocks) for node in ring.nodes
        ]
        assert [done.token_layers for done in verified.contributions] == [11, 33, 22]
        assert session.expected_token_layers == 66
        assert {done.receipt.receipt.price_units for done in verified.contributions} == {5}
        for node in ring.nodes:
            await node.until_free()

    async def test_a_session_without_steps_owes_nothing(self, ring: Ring) -> None:
        session = await ring.opened()
        verified = await session.finish()
        assert verified.contributions == ()
        assert session.expected_token_layers == 0

    async def test_receipts_come_on_the_way_and_are_verified_once(self, ring: Ring) -> None:
        session = await ring.opened(max_length=200)
        assert session.verified_checkpoint() is None
        await session.step(ring.random_hidden(RECEIPT_EVERY_POSITIONS - 1), 0)
        assert session.verified_checkpoint() is None
        await session.step(ring.random_hidden(2), RECEIPT_EVERY_POSITIONS - 1)
        await session.step(ring.random_hidden(1), RECEIPT_EVERY_POSITIONS + 1)  # all have said it by now
        verified = session.verified_checkpoint()
        assert verified is not None
        assert [done.positions for done in verified.contributions] == [RECEIPT_EVERY_POSITIONS + 1] * 3
        assert session.token_layers_at_checkpoint() == (RECEIPT_EVERY_POSITIONS + 1) * 6
        assert session.verified_checkpoint() is None, "it is told once"
        last = await session.finish()
        assert [done.positions for done in last.contributions] == [RECEIPT_EVERY_POSITIONS + 2] * 3

    @pytest.mark.parametrize("liar", [0, 1, 2])
    async def test_a_node_that_forges_its_receipt_is_not_paid_and_the_others_are(self, ring: Ring, liar: int) -> None:
        def forge(message: Message) -> Message:
            if not isinstance(message, ReceiptIssued):
                return message
            receipt = read_receipt(message.document).receipt
            generous = receipt.model_copy(
                update={"positions": 1000, "token_layers": 1000 * (receipt.end_block - receipt.first_block)}
            )
            return ReceiptIssued(sign_receipt(generous, key_of(ring.nodes[liar].name)).to_bytes())

        ring.corrupt(ring.nodes[liar], forge)
        session = await ring.opened()
        await session.step(ring.random_hidden(4), 0)
        verified = await session.finish()
        honest = [node.peer_id for index, node in enumerate(ring.nodes) if index != liar]
        assert [done.peer_id for done in verified.contributions] == honest
        assert [error.facts["field"] for error in verified.rejected] == ["positions"]

    @pytest.mark.parametrize("kind", ["another key", "one byte changed", "garbage", "none"])
    async def test_a_receipt_that_is_no_good_is_none(self, ring: Ring, kind: str) -> None:
        def spoil(message: Message) -> Message | None:
            if not isinstance(message, ReceiptIssued):
                return message
            document = message.document
            match kind:
                case "another key":
                    receipt = read_receipt(document).receipt.model_copy(update={"peer_id": peer_of("accomplice")})
                    return ReceiptIssued(sign_receipt(receipt, key_of("accomplice")).to_bytes())
                case "one byte changed":
                    return ReceiptIssued(document.replace(b"positions", b"Positions"))
                case "garbage":
                    return ReceiptIssued(b"\xff" * 50)
            return None

        ring.corrupt(ring.nodes[1], spoil)
        session = ring.session(config=dataclasses.replace(FAST, close_timeout=1.0))
        await session.open(ring.client)
        await session.step(ring.random_hidden(4), 0)
        verified = await session.finish()
        assert [done.peer_id for done in verified.contributions] == [ring.nodes[0].peer_id, ring.nodes[2].peer_id]
        assert ["gave no receipt" in error.message for error in verified.rejected] == [True]

    async def test_a_node_that_changes_what_it_hands_on_cannot_have_both_neighbours_confirm_it(
        self, ring: Ring
    ) -> None:
        """The last node answers something else than it receipted: the client's own root tells."""

        def meddle(message: Message) -> Message:
            if not isinstance(message, Step):
                return message
            zeros = dataclasses.replace(message.hidden, data=bytes(len(message.hidden.data)))
            return dataclasses.replace(message, hidden=zeros)

        ring.corrupt(ring.nodes[2], meddle)
        session = await ring.opened()
        await session.step(ring.random_hidden(4), 0)
        verified = await session.finish()
        assert [done.peer_id for done in verified.contributions] == [node.peer_id for node in ring.nodes[:2]]
        assert "do not fit" in verified.rejected[0].message


class TestBreaking:
    """How it ends when it does not end well."""

    @pytest.mark.parametrize("lost", [0, 1, 2])
    async def test_a_node_lost_in_the_middle_is_a_retryable_error_and_the_rest_is_owed(
        self, ring: Ring, lost: int
    ) -> None:
        session = await ring.opened()
        await session.step(ring.random_hidden(4), 0)
        ring.network.cut(ring.nodes[lost].transport.peer_id)
        with pytest.raises(FarError) as failure:
            await session.step(ring.random_hidden(1), 4)
        assert (failure.value.code, failure.value.retry) == ("peer_unavailable", True)
        with pytest.raises(FarError) as again:
            await session.step(ring.random_hidden(1), 4)
        assert again.value.code == "peer_unavailable"
        verified = await session.finish()
        owed = {done.peer_id for done in verified.contributions}
        assert owed <= {node.peer_id for index, node in enumerate(ring.nodes) if index != lost}
        assert ring.nodes[lost].peer_id in {error.facts["peer_id"] for error in verified.rejected}
        for index, node in enumerate(ring.nodes):
            if index != lost:
                await node.until_free()

    async def test_a_node_that_falls_silent_is_noticed_at_the_deadline(self, ring: Ring) -> None:
        ring.corrupt(ring.nodes[2], lambda message: None if isinstance(message, Step) else message)
        session = ring.session(config=MeshConfig(step_timeout=0.2, close_timeout=1.0))
        await session.open(ring.client)
        with pytest.raises(FarError) as failure:
            await session.step(ring.random_hidden(2), 0)
        assert (failure.value.code, failure.value.retry) == ("deadline_exceeded", True)
        await session.finish()

    @pytest.mark.parametrize(
        "change",
        [
            {"index": 1},
            {"index": 2**63},
            {"hidden": WireTensor("float32", (1, 3, 64), bytes(4 * 3 * 64))},
            {"hidden": WireTensor("float32", (2, 4, 64), bytes(4 * 8 * 64))},
            {"hidden": WireTensor("float32", (1, 4, 65), bytes(4 * 4 * 65))},
            {"hidden": WireTensor("float32", (1, 1, 1), bytes(4))},
        ],
        ids=["next index", "huge index", "too few positions", "too many rows", "too wide", "a single number"],
    )
    async def test_an_answer_that_is_not_one_is_a_violation(self, ring: Ring, change: dict[str, object]) -> None:
        def meddle(message: Message) -> Message:
            return dataclasses.replace(message, **change) if isinstance(message, Step) else message  # type: ignore[arg-type]

        ring.corrupt(ring.nodes[2], meddle)
        session = await ring.opened()
        with pytest.raises(ProtocolViolation) as failure:
            await session.step(ring.random_hidden(4), 0)
        assert failure.value.facts["peer_id"] == ring.nodes[2].peer_id
        await session.finish()

    @pytest.mark.parametrize("usurper", [0, 1])
    async def test_only_the_last_node_of_the_route_answers(self, ring: Ring, usurper: int) -> None:
        """Another could put words in its mouth, and make its honest receipt look like a lie."""
        answer = Step(0, 0, ring.random_hidden(1))
        ring.corrupt(ring.nodes[usurper], lambda message: answer if isinstance(message, ReceiptIssued) else message)
        session = await ring.opened(max_length=100)
        with pytest.raises(ProtocolViolation, match="not the last") as failure:
            await _until_it_breaks(session, ring)
        assert failure.value.facts["peer_id"] == ring.nodes[usurper].peer_id
        await session.finish()

    async def test_an_answer_that_nobody_asked_for_is_a_violation(self, ring: Ring) -> None:
        unasked = Step(0, 0, ring.random_hidden(1))
        ring.corrupt(ring.nodes[2], lambda message: unasked if isinstance(message, ReceiptIssued) else message)
        session = await ring.opened(max_length=100)
        with pytest.raises(ProtocolViolation):
            await _until_it_breaks(session, ring)
        await session.finish()

    @pytest.mark.parametrize(
        "message", [Opened(), Failure("no_such_code", "because", retry=True)], ids=["opened", "failure"]
    )
    async def test_what_a_node_says_out_of_turn_ends_the_session(self, ring: Ring, message: Message) -> None:
        ring.corrupt(ring.nodes[2], lambda said: message if isinstance(said, Step) else said)
        session = await ring.opened()
        with pytest.raises(FarError) as failure:
            await session.step(ring.random_hidden(1), 0)
        assert failure.value.code in ("protocol_violation", "remote_error")
        assert not failure.value.retry
        assert failure.value.facts["peer_id"] == ring.nodes[2].peer_id
        await session.finish()

    async def test_a_session_that_one_node_refuses_is_open_nowhere(self, ring: Ring) -> None:
        session = ring.session(max_length=10_000)
        with pytest.raises(FarError) as failure:
            await session.open(ring.client)
        assert failure.value.code == "session_too_long"
        assert failure.value.facts["peer_id"] in {node.peer_id for node in ring.nodes}
        for node in ring.nodes:
            await node.until_free()

    async def test_a_node_that_never_opens_is_given_up(self, ring: Ring) -> None:
        ring.corrupt(ring.nodes[1], lambda message: None if isinstance(message, Opened) else message)
        session = ring.session(config=MeshConfig(open_timeout=0.2))
        with pytest.raises(FarError) as failure:
            await session.open(ring.client)
        assert (failure.value.code, failure.value.retry) == ("deadline_exceeded", True)
        for node in ring.nodes:
            await node.until_free()

    async def test_a_session_that_is_abandoned_frees_its_nodes(self, ring: Ring) -> None:
        session = await ring.opened()
        await session.step(ring.random_hidden(3), 0)
        await session.abandon()
        for node in ring.nodes:
            await node.until_free()


async def _until_it_breaks(session: MeshSession, ring: Ring) -> None:
    for position in range(100):
        await session.step(ring.random_hidden(1), position)
