"""A connection to a chain outlives calls that are given up."""

from __future__ import annotations

import asyncio
import threading

from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.node import Node
from tests.far_mesh.marketplace.house import LiveChain


async def test_calls_that_are_cancelled_hold_up_no_others(live_chain: LiveChain) -> None:
    node = Node(live_chain.rpc_url, CHAIN_ID)
    before = threading.active_count()
    for _ in range(20):
        calls = [asyncio.create_task(node.block_number()) for _ in range(5)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    async with asyncio.timeout(20):
        assert await node.block_number() >= 0
    assert threading.active_count() == before
    await node.close()
