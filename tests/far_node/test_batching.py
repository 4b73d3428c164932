"""Many clients at one node, through its door: together they are served sooner, and each as if he were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovery.dht.memory import MemoryTransport
from discovery.dht.transport import Channel
from discovery.protocol.messages import INFO_PROTOCOL, Close, Failure, InfoRequest, NodeInfo, ReceiptIssued, Step
from far_node import handler as handler_module
from far_node.errors import BlocksNotServed
from far_node.limits import Limits
from far_node.receipts import Signer
from far_node.serving import Serving
from tests.support.documents import announcement, key_of, peer_of
from tests.support.door import knock, opened, opening, refusal
from tests.support.models import BLOCKS, make_model
from tests.support.ring import Ring, RingNode, a_ring, blocks_of, source_of
from tests.support.talks import difference

TOLERANCE = 1e-4
SOON = 60.0


class Client:
    """A peer with one session at a node."""

    def __init__(self, ring: Ring, node: RingNode, channel: Channel) -> None:
        self.ring, self.node, self.channel = ring, node, channel
        self.asked, self.answers = list[Tensor](), list[Tensor]()

    @classmethod
    async def at(cls, ring: Ring, node: RingNode, who: str, **changes: Any) -> Client:
        return cls(ring, node, await opened(ring, node, by=peer(ring, who), **changes))

    @property
    def length(self) -> int:
        return sum(hidden.shape[1] for hidden in self.asked)

    async def step(self, positions: int = 1, *, seed: int = 0) -> None:
        wire = self.ring.random_hidden(positions, seed=seed)
        await self.channel.send(Step(len(self.asked), self.length, wire))
        self.asked.append(self.ring.tensor(wire))
        while not isinstance(message := await self.channel.receive(), Step):
            assert isinstance(message, ReceiptIssued), message
        self.answers.append(self.ring.tensor(message.hidden))

    async def leave(self) -> None:
        await self.channel.send(Close())
        while await self.channel.receive() is not None:
            continue

    async def check(self) -> None:
        """Whether all answers are those of a session that is alone in the world."""
        blocks, told = self.node.blocks, torch.cat(self.asked, dim=1)
        alone = await self.node.executor.run(lambda: blocks.run(told, blocks.new_cache(), 0, BLOCKS))
        assert difference(torch.cat(self.answers, dim=1), alone) < TOLERANCE


def peer(ring: Ring, who: str) -> MemoryTransport:
    return ring.network.peers.get(peer_of(who)) or ring.network.join(peer_of(who))


@contextmanager
def passes(node: RingNode) -> Iterator[list[int]]:
    """Tokens of each forward pass."""
    seen = list[int]()
    hook = node.blocks._held[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2].numel()))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.fixture(params=[True, False], ids=["packed", "padded"])
def packs(request: pytest.FixtureRequest, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The two ways in which steps share a pass."""
    monkeypatch.setattr(blocks_of(tiny, 0, BLOCKS), "packs", request.param)
    return bool(request.param)


class TestTogether:
    """Sixteen who decode."""

    async def test_their_steps_share_passes_and_are_answered_as_if_they_were_alone(
        self, tiny: Path, packs: bool
    ) -> None:
        async def decode(number: int) -> Client:
            client = await Client.at(ring, node, f"client {number}")
            await client.step(number % 5 + 1, seed=number)
            for turn in range(10):
                await client.step(seed=100 * number + turn)
                rows.add(node.handler.info().batch_rows)
            return client

        async with a_ring(tiny, (0, BLOCKS)) as ring, asyncio.timeout(SOON):
            (node,) = ring.nodes
            rows = set[int]()
            with passes(node) as tokens:
                clients = await asyncio.gather(*(decode(number) for number in range(16)))
            assert len(tokens) < 16 * 11 / 2
            assert max(tokens) > 4
            info = node.handler.info()
            assert max(rows) > 4
            assert info.decode_tokens_per_second > 0
            assert (info.open_sessions, info.queued_steps) == (16, 0)
            for client in clients:
                await client.check()
                await client.leave()
            await node.until_free()

    async def test_a_batch_has_as_many_rows_as_the_owner_lets(self, tiny: Path, packs: bool) -> None:
        async def decode(number: int) -> None:
            client = await Client.at(ring, node, f"client {number}")
            for turn in range(6):
                await client.step(seed=turn)

        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(0, BLOCKS, limits=Limits(max_batch_size=3))
            with passes(node) as tokens:
                await asyncio.gather(*(decode(number) for number in range(8)))
            assert max(tokens) == 3
            assert node.handler.info().max_batch_size == 3


class TestBesideALongPrompt:
    """A stranger's prefill."""

    async def test_the_steps_of_others_go_on_while_it_is_computed(self, tiny: Path, packs: bool) -> None:
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(0, BLOCKS, limits=Limits(prefill_chunk=16))
            ann, stranger = (
                await Client.at(ring, node, "ann", max_length=200),
                await Client.at(ring, node, "stranger", max_length=256),
            )
            await ann.step(5)
            prompt, steps = asyncio.create_task(stranger.step(240, seed=9)), 0
            while not prompt.done():
                await ann.step(seed=steps)
                steps += 1
            assert steps >= 8, "one for each chunk or so"
            await prompt
            await ann.check()
            await stranger.check()

    async def test_nor_does_it_wait_for_them_for_ever(self, tiny: Path, packs: bool) -> None:
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(0, BLOCKS, limits=Limits(prefill_chunk=16, max_batch_size=2))
            talkers = [await Client.at(ring, node, f"client {number}", max_length=200) for number in range(4)]
            stranger = await Client.at(ring, node, "stranger", max_length=100)
            prompt = asyncio.create_task(stranger.step(100, seed=9))

            async def talk(client: Client) -> None:
                while not prompt.done():
                    assert client.length < 150
                    await client.step(seed=client.length)

            await asyncio.gather(prompt, *(talk(client) for client in talkers))
            for client in (*talkers, stranger):
                await client.check()


class TestLimits:
    """How many sessions, and how long they are kept."""

    async def test_a_client_has_so_many_sessions_and_others_are_not_in_its_way(self, tiny: Path) -> None:
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(0, BLOCKS, limits=Limits(max_sessions_per_client=2, max_sessions=3))
            first = [await Client.at(ring, node, "ann") for _ in range(2)]
            third = await knock(ring, node, by=peer(ring, "ann"))
            await third.send(opening(ring, node))
            error = await refusal(third)
            assert (error.code, "2 of your sessions are open" in error.message) == ("busy", True)
            assert error.retry_after is not None
            await (await Client.at(ring, node, "bob")).step()
            fourth = await knock(ring, node, by=peer(ring, "cem"))
            await fourth.send(opening(ring, node))
            assert "3 sessions are open" in (await refusal(fourth)).message
            await first[0].leave()
            while node.handler.open_sessions == 3:
                await asyncio.sleep(0)
            await (await Client.at(ring, node, "ann")).step()

    async def test_idle_sessions_end_and_their_rows_are_free(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handler_module, "SWEEP_SECONDS", 0.02)
        async with a_ring(tiny) as ring, asyncio.timeout(SOON):
            node = await ring.add(0, BLOCKS, limits=Limits(idle_timeout=1.5, prefix_cache_bytes=0))
            idle, busy = await Client.at(ring, node, "ann"), await Client.at(ring, node, "bob", max_length=200)
            both = node.budget.used_bytes
            await idle.step(3)
            while node.handler.open_sessions == 2:
                await busy.step(seed=busy.length)
                await asyncio.sleep(0.02)
            failure = await idle.channel.receive()
            assert isinstance(failure, Failure)
            assert (failure.code, failure.retry) == ("session_expired", True)
            assert await idle.channel.receive() is None
            assert node.budget.sessions == 1
            heir = await Client.at(ring, node, "cem")
            assert node.budget.used_bytes == both, "the row that is free is taken again"
            await heir.step(2)
            await busy.step()
            await heir.check()
            await busy.check()


class TestDraining:
    """A node that lets its sessions end."""

    async def test_it_takes_nobody_and_waits_for_those_who_are_there(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, BLOCKS)) as ring, asyncio.timeout(SOON):
            (node,) = ring.nodes
            ann = await Client.at(ring, node, "ann")
            await ann.step(3)
            draining = asyncio.create_task(node.handler.drain(ring.source.digest, SOON))
            await asyncio.sleep(0)
            late = await knock(ring, node, by=peer(ring, "bob"))
            await late.send(opening(ring, node))
            assert (await refusal(late)).code == "node_leaving"
            assert node.handler.info().state == "leaving"
            await ann.step()
            await ann.check()
            assert not draining.done()
            await ann.leave()
            assert await draining is True

    async def test_who_does_not_end_is_told_and_hung_up_on(self, tiny: Path) -> None:
        async with a_ring(tiny, (0, BLOCKS)) as ring, asyncio.timeout(SOON):
            (node,) = ring.nodes
            ann = await Client.at(ring, node, "ann")
            await ann.step(3)
            assert await node.handler.drain(ring.source.digest, 0.05) is False
            failure = await ann.channel.receive()
            assert isinstance(failure, Failure)
            assert (failure.code, failure.retry) == ("node_leaving", True)
            assert await ann.channel.receive() is None
            await node.until_free()


class TestSeveralModels:
    """One node, one device, two models."""

    async def test_each_has_its_own_sessions_cache_and_info(self, tiny: Path, tmp_path: Path) -> None:
        async with a_ring(tiny, (0, BLOCKS)) as ring, asyncio.timeout(SOON):
            (node,) = ring.nodes
            other = await _second_model(node, make_model(tmp_path / "mistral", "mistral", seed=7))
            digest = other.announcement.model_digest
            mine = await Client.at(ring, node, "ann")
            theirs = await opened(ring, node, by=peer(ring, "bob"), model_digest=digest, end_block=4, max_length=64)
            hidden = ring.random_hidden(6, seed=3)
            for at in range(4):
                await theirs.send(Step(at, 6 * at, hidden))
                await mine.step(6, seed=at)
                answer = ring.tensor((await theirs.expect(Step)).hidden)
            await mine.check()
            told = torch.cat([ring.tensor(hidden)] * 4, dim=1)
            blocks = other.blocks
            alone = await node.executor.run(lambda: blocks.run(told, blocks.new_cache(), 0, 4))
            assert difference(answer, alone[:, -6:]) < TOLERANCE

            first, second = await _info(ring, node), await _info(ring, node, digest)
            assert (await _info(ring, node, ring.source.digest)).model_digest == ring.source.digest
            assert first.model_digests == second.model_digests == (ring.source.digest, digest)
            assert (first.model_digest, second.model_digest) == (ring.source.digest, digest)
            assert (first.end_block, second.end_block) == (BLOCKS, 4)
            assert (first.open_sessions, second.open_sessions) == (1, 1)
            assert (first.cache_used_bytes, second.cache_used_bytes) == (
                node.budget.used_bytes,
                other.budget.used_bytes,
            )
            assert min(first.cache_used_bytes, second.cache_used_bytes) > 0
            assert first.token_layers_served == second.token_layers_served == 24 * BLOCKS + 24 * 4

    async def test_one_goes_and_the_sessions_of_the_other_stay(self, tiny: Path, tmp_path: Path) -> None:
        async with a_ring(tiny, (0, BLOCKS)) as ring, asyncio.timeout(SOON):
            (node,) = ring.nodes
            other = await _second_model(node, make_model(tmp_path / "mistral", "mistral", seed=7))
            digest = other.announcement.model_digest
            mine = await Client.at(ring, node, "ann")
            theirs = await opened(ring, node, by=peer(ring, "bob"), model_digest=digest, end_block=4)
            await mine.step(3)
            assert await node.handler.drain(digest, 0.05) is False
            assert node.handler.remove(digest) is other
            await other.close()
            assert isinstance(await theirs.receive(), Failure)
            await mine.step()
            await mine.check()
            with pytest.raises(BlocksNotServed, match="not the model asked for"):
                node.handler.info(digest)


async def _second_model(node: RingNode, path: Path) -> Serving:
    blocks = await asyncio.to_thread(blocks_of, path, 0, 4)
    about = announcement(
        node.name,
        model_id="the other",
        model_digest=source_of(path).digest,
        block_count=BLOCKS,
        first_block=0,
        end_block=4,
    )
    serving = await Serving.prepare(
        about, blocks, Signer(key_of(node.name), about), node.executor, cache_bytes=1 << 24, context_length=128
    )
    node.handler.add(serving)
    return serving


async def _info(ring: Ring, node: RingNode, digest: str = "") -> NodeInfo:
    channel = await knock(ring, node, INFO_PROTOCOL)
    await channel.send(InfoRequest(digest))
    return await channel.expect(NodeInfo)
