"""What was computed once is not computed again: only for those it belongs to, and with the same result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from discovery.dht.transport import Channel
from discovery.protocol.codec import join_positions, slice_positions
from discovery.protocol.messages import Close, ReceiptIssued, Step, WireTensor
from discovery.protocol.receipt import Receipt, read_receipt
from far_node.blocks.load import load_blocks
from far_node.blocks.prefix import PREFIX_POSITIONS, Keys, PrefixCache, prefix_keys
from far_node.blocks.run import Blocks
from far_node.blocks.slots import SlotRows
from far_node.blocks.source import find_model
from far_node.blocks.wire import from_wire, to_wire
from far_node.limits import Limits
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.documents import peer_of
from tests.support.door import opened
from tests.support.models import KINDS, make_model
from tests.support.ring import Ring, RingNode, a_ring
from tests.support.talks import difference, noise, slab_of

TOLERANCE = 1e-4
P = PREFIX_POSITIONS
SPAN = (1, 5)


def keys_of(hidden: Tensor, owner: bytes | None = b"ann", span: tuple[int, int] = SPAN) -> Keys:
    return prefix_keys(owner, span, to_wire(hidden, "float32"))


class TestKeys:
    """By what a prompt is known."""

    @pytest.mark.parametrize(("positions", "count"), [(1, 0), (P - 1, 0), (P, 1), (P + 1, 1), (3 * P, 3)])
    def test_there_is_one_for_each_whole_piece(self, positions: int, count: int) -> None:
        assert len(keys_of(torch.zeros(1, positions, 8))) == count

    @given(st.integers(0, 3 * P - 1), st.integers(0, 7))
    def test_each_depends_on_every_byte_up_to_its_end_and_on_none_after(self, position: int, value: int) -> None:
        hidden = torch.zeros(1, 3 * P, 8)
        changed = hidden.clone()
        changed[0, position, value] = 1e-30
        same = [one == other for one, other in zip(keys_of(hidden), keys_of(changed), strict=True)]
        assert same == [piece < position // P for piece in range(3)]

    def test_they_are_of_their_owner_range_and_wire_type(self) -> None:
        hidden = torch.zeros(1, P, 8)
        wire = to_wire(hidden, "bfloat16")
        others = [
            keys_of(hidden),
            keys_of(hidden, b"bob"),
            keys_of(hidden, b""),
            keys_of(hidden, None),
            keys_of(hidden, b"shared"),
            keys_of(hidden, span=(1, 4)),
            keys_of(hidden, span=(0, 5)),
            prefix_keys(b"ann", SPAN, wire),
            prefix_keys(b"ann", SPAN, dataclasses.replace(wire, dtype="float16")),
        ]
        assert len(set(others)) == len(others)
        assert keys_of(hidden) == keys_of(hidden.clone())


class Server:
    """Sessions on blocks, computed with a prefix cache between them."""

    def __init__(self, blocks: Blocks, capacity_bytes: int = 1 << 30) -> None:
        self.blocks, self.prefixes = blocks, PrefixCache(capacity_bytes)

    @torch.inference_mode()
    def serve(
        self, hidden: Tensor, steps: Sequence[Tensor] = (), owner: bytes | None = b"ann", part: int | None = None
    ) -> tuple[int, float]:
        """A session of a prompt, which comes in steps of ``part`` positions, and further steps; how many positions were
        known, and how far it is from one alone.
        """
        blocks, keys = self.blocks, keys_of(hidden, owner)
        rows, restored = SlotRows(slab_of(8 * P, 2), 1, 1), 0
        answers = []
        for start in range(0, hidden.shape[1], part or hidden.shape[1]):
            prompt = hidden[:, start : start + (part or hidden.shape[1])]
            so_far = keys[: (start + prompt.shape[1]) // P]
            known = self.prefixes.restore(so_far, rows, start)
            found = 0 if known is None else known.shape[1]
            assert rows.length == start + found
            output = blocks.run_together([(prompt[:, found:], rows)], *SPAN)[0] if found < prompt.shape[1] else None
            answers.append(torch.cat([one for one in (known, output) if one is not None], dim=1))
            self.prefixes.store(so_far, rows, answers[-1], start)
            restored += found
        answers += [blocks.run_together([(step, rows)], *SPAN)[0] for step in steps]
        told = torch.cat([hidden, *steps], dim=1)
        expected = blocks.run(told, blocks.new_cache(), *SPAN)
        return restored, difference(torch.cat(answers, dim=1), expected)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    path = make_model(tmp_path_factory.mktemp("models") / "llama", max_position_embeddings=1024)
    return load_blocks(find_model(str(path)), *SPAN)


@pytest.fixture
def server(llama: Blocks) -> Server:
    return Server(llama)


class TestHits:
    """What a session finds."""

    @pytest.mark.parametrize("kind", [*KINDS, "longcat_flash", "deepseek_v3", "gemma3_text"])
    def test_outputs_and_all_steps_after_a_hit_are_as_without(self, tmp_path: Path, kind: str) -> None:
        if kind in KINDS:
            path = make_model(tmp_path / "model", kind)
        else:
            path = make_architecture(tmp_path / "model", next(one for one in ARCHITECTURES if one.name == kind))
        server = Server(load_blocks(find_model(str(path)), *SPAN))
        prompt = noise(server.blocks, 2 * P + 10)
        steps = [noise(server.blocks, count, seed=count) for count in (1, 3, 1)]
        tolerance = (
            10 * TOLERANCE if kind == "longcat_flash" else TOLERANCE
        )  # which experts take part may hang on a hair
        for known in (0, 2 * P):
            restored, error = server.serve(prompt, steps)
            assert restored == known
            assert error < tolerance

    def test_a_suffix_of_its_own_is_all_that_is_computed(self, server: Server) -> None:
        prompt = noise(server.blocks, 3 * P + 5)
        server.serve(prompt)
        for same in (2 * P, 2 * P + 30):
            other = torch.cat([prompt[:, :same], noise(server.blocks, 2 * P, seed=same)], dim=1)
            restored, error = server.serve(other)
            assert restored == 2 * P
            assert error < TOLERANCE

    @pytest.mark.parametrize("positions", [2 * P, 2 * P - 1, P + 1, P])
    def test_all_that_is_whole_is_known(self, server: Server, positions: int) -> None:
        prompt = noise(server.blocks, 2 * P)
        server.serve(prompt)
        restored, error = server.serve(prompt[:, :positions], [noise(server.blocks, 1)])
        assert restored == positions // P * P
        assert error < TOLERANCE

    @pytest.mark.parametrize("first", [P, 2 * P, None])
    @pytest.mark.parametrize("second", [P, 2 * P, None])
    def test_a_prompt_may_come_in_parts(self, server: Server, first: int | None, second: int | None) -> None:
        prompt = noise(server.blocks, 5 * P + 3)
        server.serve(prompt, part=first)
        restored, error = server.serve(prompt, [noise(server.blocks, 1)], part=second)
        assert restored == 5 * P
        assert error < TOLERANCE
        other = torch.cat([prompt[:, : 3 * P], noise(server.blocks, 2 * P, seed=7)], dim=1)
        restored, error = server.serve(other, part=second)
        assert restored == 3 * P
        assert error < TOLERANCE

    def test_the_longest_match_wins(self, server: Server) -> None:
        prompt = noise(server.blocks, 4 * P + 1)
        for positions in (P, 3 * P, 2 * P):
            server.serve(prompt[:, :positions])
        assert server.serve(prompt)[0] == 3 * P
        assert server.serve(prompt)[0] == 4 * P

    def test_the_same_bytes_elsewhere_in_a_prompt_are_no_match(self, server: Server) -> None:
        prompt = noise(server.blocks, 3 * P)
        server.serve(prompt)
        assert server.serve(prompt[:, P:])[0] == 0

    def test_what_others_are_answered_is_theirs(self, server: Server) -> None:
        prompt = noise(server.blocks, 2 * P)
        server.serve(prompt)
        assert server.serve(prompt, owner=b"bob")[0] == 0
        assert server.serve(prompt, owner=None)[0] == 0
        assert server.serve(prompt, owner=None)[0] == 2 * P
        assert server.serve(prompt, owner=b"bob")[0] == 2 * P

    def test_states_of_another_range_are_not_found(self, server: Server, llama: Blocks) -> None:
        prompt = noise(llama, 2 * P)
        server.serve(prompt)
        rows = SlotRows(slab_of(256, 1), 0, 1)
        assert server.prefixes.restore(keys_of(prompt, span=(1, 4)), rows) is None
        assert rows.length == 0

    def test_hits_are_counted(self, server: Server) -> None:
        prompt = noise(server.blocks, 2 * P + 1)
        for _ in range(3):
            server.serve(prompt)
        assert (server.prefixes.hits, server.prefixes.positions_reused) == (2, 4 * P)

    def test_what_a_session_does_with_its_rows_later_changes_nothing(self, server: Server) -> None:
        prompt = noise(server.blocks, 2 * P + 1)
        server.serve(prompt)
        rows = SlotRows(slab_of(256, 1), 0, 1)
        with torch.inference_mode():
            known = server.prefixes.restore(keys_of(prompt), rows)
            assert known is not None
            for tensor in rows.slab.all_held():
                tensor.fill_(torch.nan)
        restored, error = server.serve(prompt)
        assert (restored, error < TOLERANCE) == (2 * P, True)


class TestBudget:
    """Least recently used goes first, and never more than there is room for."""

    @pytest.fixture
    def piece_bytes(self, server: Server) -> int:
        server.serve(noise(server.blocks, P))
        return server.prefixes.used_bytes

    def test_an_entry_takes_keys_values_and_outputs(self, piece_bytes: int) -> None:
        layers, heads, size, hidden = 4, 2, 16, 64
        assert piece_bytes == P * (layers * 2 * heads * size + hidden) * 4

    def test_a_longer_prompt_takes_the_place_of_its_beginning(self, server: Server, piece_bytes: int) -> None:
        prompt = noise(server.blocks, 3 * P)
        for positions in (P, 2 * P, 3 * P, 2 * P):
            server.serve(prompt[:, :positions])
        assert server.prefixes.used_bytes == 3 * piece_bytes

    def test_the_least_recently_used_goes(self, llama: Blocks, piece_bytes: int) -> None:
        server = Server(llama, 2 * piece_bytes)
        prompts = [noise(llama, P + 1, seed=seed) for seed in range(3)]
        known = [server.serve(prompts[which])[0] for which in (0, 1, 0, 2, 0, 1, 2, 0)]
        assert known == [0, 0, P, 0, P, 0, 0, 0]
        assert server.prefixes.used_bytes == 2 * piece_bytes

    @pytest.mark.parametrize("used", [0, 1], ids=["older", "newer"])
    def test_of_two_that_begin_alike_either_is_enough_for_a_third(
        self, llama: Blocks, piece_bytes: int, used: int
    ) -> None:
        server = Server(llama, 5 * piece_bytes)
        begin = noise(llama, P)
        alike = [torch.cat([begin, noise(llama, P + 1, seed=seed)], dim=1) for seed in (1, 2, 3)]
        for prompt in (*alike[:2], alike[used]):
            server.serve(prompt)
        server.serve(noise(llama, 2 * P, seed=9))  # drives out the other of the two
        assert server.serve(alike[2])[0] == P

    def test_a_prompt_larger_than_all_is_not_kept_and_drives_nobody_out(self, llama: Blocks, piece_bytes: int) -> None:
        server = Server(llama, 2 * piece_bytes)
        small, large = noise(llama, P + 1), noise(llama, 3 * P, seed=1)
        server.serve(small)
        server.serve(large)
        assert server.serve(large)[0] == 0
        assert server.serve(small)[0] == P

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 5)), max_size=25), st.integers(0, 9))
    def test_it_never_holds_more_than_it_may_and_its_books_are_right(
        self, prompts: list[tuple[int, int, int]], pieces: int
    ) -> None:
        one_piece = P * (2 * 1 * 2 + 4) * 4
        prefixes = PrefixCache(pieces * one_piece + 3)
        for which, length, fork in prompts:
            hidden = torch.full((1, length * P, 4), float(which))
            hidden[:, fork * P :] += 0.5
            keys = keys_of(hidden)
            rows = SlotRows(slab_of(5 * P, 1), 0, 1)
            prefixes.restore(keys, rows)
            with torch.inference_mode():
                rows.prepare()
                rows.slab.put(0, 0, torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
                prefixes.store(keys, rows, torch.zeros(1, length * P, 4))
            held = list(prefixes._stored.values())
            assert prefixes.used_bytes == sum(entry.bytes for entry in held) <= prefixes.capacity_bytes
            assert all(key in entry.keys for key, (entry, _) in prefixes._by_key.items())
            assert {id(entry) for entry, _ in prefixes._by_key.values()} <= {id(entry) for entry in held}
            if length <= pieces:
                assert keys[-1] in prefixes._by_key


PROMPT = 2 * P + 7


class Visitor:
    """A client's session at a node, from the first step to the receipt."""

    def __init__(self, ring: Ring, node: RingNode, channel: Channel) -> None:
        self.ring, self.node, self.channel = ring, node, channel
        self.steps = 0

    @classmethod
    async def at(cls, ring: Ring, node: RingNode, who: str = "client", **changes: Any) -> Visitor:
        peer = peer_of(who)
        transport = ring.network.peers.get(peer) or ring.network.join(peer)
        return cls(ring, node, await opened(ring, node, by=transport, max_length=200, **changes))

    async def ask(self, hidden: WireTensor, start: int = 0) -> Tensor:
        await self.channel.send(Step(self.steps, start, hidden))
        self.steps += 1
        while not isinstance(message := await self.channel.receive(), Step):
            assert isinstance(message, ReceiptIssued), message
        return self.ring.tensor(message.hidden)

    async def leave(self) -> Receipt:
        await self.channel.send(Close())
        receipts = []
        while (message := await self.channel.receive()) is not None:
            assert isinstance(message, ReceiptIssued), message
            receipts.append(read_receipt(message.document).receipt)
        return receipts[-1]


async def known_to(visitor: Visitor, hidden: WireTensor) -> int:
    """How many positions of a prompt the node knew, which is told alike by the receipt and by the node."""
    before = visitor.node.handler.info()
    rows = hidden.shape[0]
    answer = await visitor.ask(hidden)
    expected = await _alone(visitor, hidden)
    assert difference(answer, expected) < TOLERANCE
    after = visitor.node.handler.info()
    receipt = await visitor.leave()
    reused = after.prefix_positions - before.prefix_positions
    assert receipt.cached_positions == reused
    assert receipt.positions == rows * hidden.shape[1]
    assert after.prefix_hits - before.prefix_hits == bool(reused)
    return reused


async def _alone(visitor: Visitor, hidden: WireTensor) -> Tensor:
    blocks = visitor.node.blocks
    told = from_wire(hidden, torch.device("cpu"), torch.float32)
    return await visitor.node.executor.run(lambda: blocks.run(told, blocks.new_cache(), 0, 6))


class TestAtTheDoor:
    """Whose prompts are reused, as clients of a node see it."""

    async def test_a_client_that_comes_again_with_the_same_prompt(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT)
            assert [await known_to(await Visitor.at(ring, node), prompt) for _ in range(2)] == [0, 2 * P]
            assert node.handler.info().prefix_bytes == node.serving.prefixes.used_bytes > 0

    async def test_steps_after_a_hit_are_as_without(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            answers = []
            for _ in range(2):
                visitor = await Visitor.at(ring, node)
                steps = [await visitor.ask(ring.random_hidden(PROMPT))]
                for at, count in enumerate((1, 1, 5)):
                    length = sum(step.shape[1] for step in steps)
                    steps.append(await visitor.ask(ring.random_hidden(count, seed=at + 1), length))
                answers.append(torch.cat(steps, dim=1))
                await visitor.leave()
            assert difference(answers[1], answers[0]) < TOLERANCE
            assert node.handler.info().prefix_hits == 1

    async def test_another_client_finds_it_only_if_both_share(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT)
            visits = [
                ("ann", False, 0),
                ("bob", False, 0),
                ("bob", True, 0),  # what was not shared is not shared by asking for it
                ("cem", True, 2 * P),
                ("dee", False, 0),
                ("ann", False, 2 * P),
            ]
            for who, share, known in visits:
                visitor = await Visitor.at(ring, node, who, share_prefix=share)
                assert await known_to(visitor, prompt) == known, who

    async def test_scopes_of_one_client_do_not_meet(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT)
            visits = [(b"user 1", 0), (b"user 2", 0), (b"", 0), (b"user 1", 2 * P)]
            for scope, known in visits:
                assert await known_to(await Visitor.at(ring, node, prefix_scope=scope), prompt) == known

    async def test_other_blocks_and_other_wire_types_find_nothing(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT)
            await known_to(await Visitor.at(ring, node), prompt)
            for first, end in ((0, 4), (1, 6)):
                await (await Visitor.at(ring, node, first_block=first, end_block=end)).ask(prompt)
            coarse = await Visitor.at(ring, node, codec="bfloat16")
            await coarse.channel.send(Step(0, 0, to_wire(ring.tensor(prompt), "bfloat16")))
            await coarse.channel.expect(Step)
            assert node.handler.info().prefix_hits == 0

    async def test_what_counts_is_that_the_text_begins_so_not_when_it_was_sent(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT)
            await known_to(await Visitor.at(ring, node), prompt)
            late = await Visitor.at(ring, node)
            await late.ask(ring.random_hidden(1, seed=5))
            await late.ask(prompt, 1)
            assert node.handler.info().prefix_hits == 0, "the same after something else is something else"
            answer = await late.ask(prompt, 0)
            assert difference(answer, await _alone(late, prompt)) < TOLERANCE
            assert node.handler.info().prefix_hits == 1

    async def test_a_prompt_in_parts_is_known_as_far_as_it_is_the_same(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt, other = ring.random_hidden(PROMPT), ring.random_hidden(PROMPT, seed=8)
            await known_to(await Visitor.at(ring, node), prompt)
            late = await Visitor.at(ring, node)
            parts = [
                slice_positions(prompt, 0, P),
                slice_positions(prompt, P, 2 * P),
                slice_positions(other, 2 * P, PROMPT),
            ]
            answers = [await late.ask(part, start) for part, start in zip(parts, (0, P, 2 * P), strict=True)]
            told = join_positions([(part, (0,)) for part in parts])
            assert difference(torch.cat(answers, dim=1), await _alone(late, told)) < TOLERANCE
            assert (await late.leave()).cached_positions == 2 * P

    @pytest.mark.parametrize(
        ("rows", "changes"), [(2, {}), (1, {"left_padding": (3,)})], ids=["several rows", "padding"]
    )
    async def test_sessions_of_several_rows_or_with_padding_have_no_part_in_it(
        self, tiny: Path, rows: int, changes: dict[str, Any]
    ) -> None:
        async with a_ring(tiny, (0, 6)) as ring:
            (node,) = ring.nodes
            prompt = ring.random_hidden(PROMPT, rows=rows)
            for _ in range(2):
                visitor = await Visitor.at(ring, node, batch=rows, **changes)
                await visitor.ask(prompt)
                assert (await visitor.leave()).cached_positions == 0
            assert node.handler.info().prefix_bytes == 0

    async def test_without_memory_for_it_nothing_is_kept(self, tiny: Path) -> None:
        async with a_ring(tiny) as ring:
            node = await ring.add(0, 6, limits=Limits(prefix_cache_bytes=0))
            prompt = ring.random_hidden(PROMPT)
            assert [await known_to(await Visitor.at(ring, node), prompt) for _ in range(2)] == [0, 0]
            assert node.handler.info().prefix_bytes == 0

    async def test_each_node_of_a_ring_knows_its_own_part(self, ring: Ring) -> None:
        prompt = ring.random_hidden(PROMPT)
        answers = []
        for _ in range(2):
            session = await ring.opened(200)
            answers.append(ring.tensor(await session.step(prompt, 0)))
            await session.abandon()
        assert difference(answers[1], answers[0]) < TOLERANCE
        assert [node.handler.info().prefix_positions for node in ring.nodes] == [2 * P] * 3
