"""What is said to be paid by transfer, asked of the chain."""

from __future__ import annotations

from far_mesh.marketplace.account import events
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.payments.provider import Block, Deposit
from far_mesh.marketplace.settlement.reconcile_transfers import compare
from tests.far_mesh.marketplace.house import rpc
from tests.far_mesh.marketplace.payments.street import Street, stranger
from tests.far_mesh.marketplace.settlement.paying import USER, Paying


async def test_a_payment_that_is_not_there_any_more_is_found(street: Street, sqlite_url: str) -> None:
    await street.fund()
    database, provider = Database(sqlite_url), street.provider()
    paying = Paying(database)
    await paying.served({stranger(): 5})
    await street.mine(2)
    await paying.until_paid(await paying.payer(provider))
    assert (await compare(database, provider)).findings == ()
    await rpc(street.url, "evm_setAutomine", False)
    await rpc(street.url, "anvil_reorg", 1, [])
    await rpc(street.url, "anvil_dropAllTransactions")
    (finding,) = (await compare(database, provider)).findings
    assert (finding.kind, finding.about) == ("transfer_missing", "transfer-1")
    await database.close()


async def test_deposits_that_the_chain_does_not_know_or_knows_otherwise_are_found(
    street: Street, sqlite_url: str
) -> None:
    database, provider = Database(sqlite_url), street.provider()
    tx_id, nowhere = await street.pay(700), "0x" + "12" * 32
    (true,) = await provider.verify_deposit(tx_id)
    invented = Deposit(f"{provider.chain}:{nowhere}:0", USER, 5, 5, Block(1, None))
    raised = Deposit(true.deposit_id, true.payer, true.atoms, true.units + 1, true.block)
    async with database.writing() as connection:
        await events.book_transfer(connection, USER, nowhere, invented)
        await events.book_transfer(connection, USER, tx_id, raised)
    found = await compare(database, provider)
    assert found.asked == 2
    assert {finding.about: finding.kind for finding in found.findings} == {
        nowhere: "deposit_missing",
        tx_id: "deposit_differs",
    }
    await database.close()


async def test_what_the_chain_does_not_tell_is_counted(street: Street, sqlite_url: str) -> None:
    database, provider = Database(sqlite_url), street.provider()
    (true,) = await provider.verify_deposit(await street.pay(700))
    async with database.writing() as connection:
        await events.book_transfer(connection, USER, "0x" + "12" * 32, true)
    silent = street.provider(chain_rpc_url="http://127.0.0.1:9")
    found = await compare(database, silent)
    assert (found.asked, found.unknown, found.findings) == (1, 1, ())
    await database.close()
