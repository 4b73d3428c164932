"""A chain that every test finds as it was deployed, whatever the one before has done to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from far_mesh.marketplace.chain.anvil import CHAIN_ID
from tests.far_mesh.marketplace.house import LiveChain, Loop, rpc, start_chain
from tests.far_mesh.marketplace.payments.street import Street


@pytest.fixture(scope="session")
def quiet_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """One that nobody else is on."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("quiet")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.fixture
async def street(quiet_chain: LiveChain) -> AsyncIterator[Street]:
    """The chain with its contracts, to be reorganised at will."""
    before = await rpc(quiet_chain.rpc_url, "evm_snapshot")
    opened = Street(quiet_chain.rpc_url, quiet_chain.deployment)
    yield opened
    await opened.close()
    await rpc(quiet_chain.rpc_url, "evm_setAutomine", True)
    await rpc(quiet_chain.rpc_url, "anvil_setChainId", CHAIN_ID)
    assert await rpc(quiet_chain.rpc_url, "evm_revert", before)
