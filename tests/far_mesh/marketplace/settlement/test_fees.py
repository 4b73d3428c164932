"""The fee of the escrow is compared with ours, and requests at another one are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.errors import FeeMismatch
from far_mesh.marketplace.settlement.fees import FeeWatch
from tests.far_mesh.marketplace.house import LiveChain


@pytest.fixture
async def chain(live_chain: LiveChain) -> AsyncIterator[Chain]:
    connected = live_chain.connect()
    yield connected
    await connected.close()


async def test_the_escrows_own_fee_is_right(chain: Chain) -> None:
    watch = FeeWatch(chain, await chain.fee_bps())
    await watch.check()
    watch.require(watch.fee_bps)


async def test_requests_at_another_fee_are_refused_until_it_is_right_again(chain: Chain) -> None:
    right = await chain.fee_bps()
    watch = FeeWatch(chain, right - 1)
    watch.require(right - 1)  # nobody has looked yet
    with pytest.raises(FeeMismatch, match=str(right)):
        await watch.check()
    with pytest.raises(FeeMismatch):
        watch.require(right - 1)
    watch.require(right)  # an old quote at the fee that the escrow takes
