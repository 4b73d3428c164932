"""Nodes are lost in the middle of a text: who takes their place, what is computed again, and who is owed for it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest
import torch

from discovery.protocol.errors import FarError, PeerUnavailable
from discovery.protocol.messages import WireTensor
from far_mesh.config import MeshConfig
from far_mesh.errors import NoRoute
from far_mesh.route import RouteHop, plan_route
from far_mesh.session import FindOthers, Mended, MeshSession, SessionRequest
from tests.support.ring import FAST, Ring, RingNode, a_ring, blocks_of

SPANS = ((0, 1), (1, 4), (4, 6))
QUICK = dataclasses.replace(FAST, suspect_after=0.3, ping_timeout=0.3, mend_timeout=2.0, shun_seconds=0.5, close_timeout=1.0)


@pytest.fixture
async def town(talker: Path) -> AsyncIterator[Ring]:
    """Two nodes for every range; the first three are the route."""
    async with a_ring(talker, *SPANS, *SPANS) as ring:
        yield ring


def finder(ring: Ring) -> FindOthers:
    """Who is on the board, as the client finds them."""

    async def find(
        gone: Sequence[RouteHop], before: str | None, after: str | None, excluded: Collection[str]
    ) -> tuple[RouteHop, ...]:
        nodes = [signed.announcement for signed in ring.board.signed.values()]
        span = gone[0].first_block, gone[-1].end_block
        return plan_route(nodes, ring.shape.block_count, excluded, span=span, before=before, after=after)

    return find


async def opened(ring: Ring, config: MeshConfig = QUICK, *, rows: int = 1, told: list[Mended] | None = None) -> MeshSession:
    """A session on the first three nodes."""
    request = SessionRequest(ring.source.digest, 400, "float32", rows)
    session = MeshSession(ring.route[:3], request, config, finder(ring), told.append if told is not None else None)
    await session.open(ring.client)
    return session


class Talk:
    """A session beside one machine that computes the same."""

    def __init__(self, ring: Ring, session: MeshSession) -> None:
        self.ring, self.session = ring, session
        self._blocks = blocks_of(ring.path, 0, 6)
        self._cache = self._blocks.new_cache()
        self.position = 0
        self._seed = 0

    def words(self, count: int, rows: int = 1) -> WireTensor:
        self._seed += 1
        return self.ring.random_hidden(count, rows=rows, seed=self._seed)

    async def say(self, count: int, start: int | None = None) -> None:
        """A step, whose answer is right."""
        start = self.position if start is None else start
        hidden = self.words(count)
        self._cache.rewind(start)
        expected = self._blocks.run(self.ring.tensor(hidden), self._cache, 0, 6)
        self.position = start + count
        got = self.ring.tensor(await self.session.step(hidden, start))
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


async def kill(ring: Ring, node: RingNode) -> None:
    ring.network.cut(node.transport.peer_id)


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
async def test_a_lost_node_costs_a_pause_and_nothing_else(town: Ring, lost: tuple[int, ...]) -> None:
    session = await opened(town)
    talk = Talk(town, session)
    for count in (9, 1, 1):
        await talk.say(count)
    for index in lost:
        await kill(town, town.nodes[index])
    for count in (1, 3, 1):
        await talk.say(count)
    assert [hop.node.peer_id for hop in session.route] == [
        town.nodes[index + 3 if index in lost else index].peer_id for index in range(3)
    ]
    verified = await session.finish()
    assert session.expected_token_layers == 16 * 6
    paid = {done.peer_id: done.token_layers for done in verified.contributions}
    for index, (first, end) in enumerate(SPANS):
        assert paid[town.nodes[index + 3 if index in lost else index].peer_id] == 16 * (end - first)
    assert sum(paid.values()) == session.expected_token_layers
