"""What the chain lets us charge is asked rarely, and a failure is not remembered."""

from __future__ import annotations

import asyncio

import pytest

from far_mesh.marketplace.errors import ChainUnavailable
from far_mesh.marketplace.inference import till
from far_mesh.marketplace.inference.till import Chargeable


class CountedChain:
    """What a chain says of deposits and allowances, and how often it was asked for a deposit."""

    def __init__(self, deposit: int, allowance: int) -> None:
        self.deposit, self.allowance, self.asked, self.is_down = deposit, allowance, 0, False

    async def deposit_of(self, wallet: str) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise ChainUnavailable("down")
        return self.deposit

    async def spending_allowance(self, wallet: str) -> int:
        return self.allowance


def chargeable(chain: CountedChain) -> Chargeable:
    return Chargeable(chain)  # type: ignore[arg-type]


@pytest.mark.parametrize(("deposit", "allowance"), [(5, 9), (9, 5), (5, 5), (0, 5), (5, 0)])
async def test_it_is_the_deposit_but_not_more_than_the_allowance(deposit: int, allowance: int) -> None:
    assert await chargeable(CountedChain(deposit, allowance)).of("ann") == min(deposit, allowance)


async def test_many_at_once_ask_once_for_each_wallet(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = CountedChain(5, 5)
    asked = chargeable(chain)
    assert await asyncio.gather(*(asked.of(wallet) for wallet in ["ann", "bob"] * 50)) == [5] * 100
    assert chain.asked == 2
    monkeypatch.setattr(till, "CHARGEABLE_SECONDS", -1.0)
    assert await asked.of("cid") == 5
    chain.deposit = 4
    assert await asked.of("cid") == 4  # what was remembered is too old
    assert chain.asked == 4


async def test_who_gives_up_does_not_end_it_for_the_others() -> None:
    asked = chargeable(CountedChain(5, 5))
    first, second = asyncio.create_task(asked.of("ann")), asyncio.create_task(asked.of("ann"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 5


async def test_a_failure_is_told_and_not_remembered() -> None:
    chain = CountedChain(5, 5)
    asked, chain.is_down = chargeable(chain), True
    with pytest.raises(ChainUnavailable):
        await asked.of("ann")
    chain.is_down = False
    assert await asked.of("ann") == 5


async def test_no_more_wallets_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(till, "MOST_WALLETS", 10)
    monkeypatch.setattr(till, "CHARGEABLE_SECONDS", -1.0)
    asked = chargeable(CountedChain(5, 5))
    for index in range(100):
        await asked.of(str(index))
    assert len(asked._asked) <= 10
