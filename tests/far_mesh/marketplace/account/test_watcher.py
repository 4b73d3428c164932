"""What the chain says is what the books say, once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainMismatch
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.ledger.schemas import Balance
from tests.far_mesh.marketplace.house import LiveChain, new_user, rpc


@pytest.fixture
async def chain(live_chain: LiveChain) -> AsyncIterator[Chain]:
    connected = live_chain.connect()
    yield connected
    await connected.close()


def watcher(database: Database, chain: Chain, confirmations: int = 0) -> DepositWatcher:
    return DepositWatcher(database, chain, confirmations=confirmations, first_block=0, poll_seconds=0.01)


async def balance(database: Database, key: str) -> Balance:
    async with database.reading() as connection:
        return await ledger.balance_of(connection, address_of(key))


async def look(watching: DepositWatcher) -> None:
    while await watching.look():
        pass


async def test_deposits_and_withdrawals_become_a_balance(database: Database, chain: Chain) -> None:
    watching = watcher(database, chain)
    await watching.open()
    key = await new_user(chain, 1_000)
    await ChainWallet(chain, key).withdraw_deposit(300)
    await look(watching)
    assert await balance(database, key) == Balance(available=700, held=0, deposited=700)


async def test_an_event_that_is_seen_twice_is_booked_once(database: Database, chain: Chain) -> None:
    one, other = watcher(database, chain), watcher(database, chain)
    await one.open()
    await other.open()
    key = await new_user(chain, 1_000)
    for _ in range(3):
        await look(one)
        await look(other)
    assert await balance(database, key) == Balance(available=1_000, held=0, deposited=1_000)


async def test_dust_below_a_unit_is_never_made_into_money(database: Database, chain: Chain) -> None:
    watching = watcher(database, chain)
    await watching.open()
    key = await new_user(chain, 10)
    await ChainWallet(chain, key).withdraw_deposit(4)
    call = await chain.prepare(chain.escrow, "withdrawDeposit", (1,), address_of(key))
    await chain.send(call, key)
    await look(watching)
    assert await chain.deposit_of(address_of(key)) == 5
    assert await balance(database, key) == Balance(available=5, held=0, deposited=5)


async def test_a_deposit_counts_after_its_confirmations(database: Database, chain: Chain) -> None:
    watching = watcher(database, chain, confirmations=3)
    await watching.open()
    key = await new_user(chain, 1_000)  # the allowance after it is one block already
    await look(watching)
    assert (await balance(database, key)).available == 0
    await rpc(chain.rpc_url, "anvil_mine", "0x2")
    await look(watching)
    assert (await balance(database, key)).available == 1_000


async def test_a_database_of_another_chain_is_refused(database: Database, chain: Chain) -> None:
    await watcher(database, chain).open()
    await watcher(database, chain).open()
    elsewhere = Chain(chain.rpc_url, chain.chain_id, chain.token_address, chain.token_address)
    with pytest.raises(ChainMismatch, match="another"):
        await watcher(database, elsewhere).open()
    await elsewhere.close()
