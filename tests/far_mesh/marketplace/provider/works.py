"""Work that was done for requests, and the batches that pay it, as the tables have them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import insert, select, update

from discovery.protocol.receipt import sign_receipt
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger import service as ledger
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, Payment, Share, Work
from far_mesh.marketplace.settlement import batch_repository
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.merkle import Tree, detail_leaves
from far_mesh.marketplace.settlement.requests import Measured, activate_request, close_request, open_request
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus
from far_mesh.marketplace.tables import (
    chain_outbox,
    inference_sessions,
    node_contributions,
    payout_leaves,
    settlement_batches,
)
from tests.support.documents import key_of, peer_of, receipt, wallet_of

GATEWAY = Gateway("here", "first life")
USER = wallet_of("user")
PAID, FEE = 400, 100
"""What every request pays to its providers together, and to the platform."""


async def give_money(database: Database, units: int = 100_000, wallet: str = USER) -> None:
    """A user who can ask."""
    async with database.writing() as connection:
        await ledger.deposit_seen(connection, wallet, units, f"{wallet}:1")


def share(node: str, wallet: str, token_layers: int) -> Share:
    """What a node did, with its receipt."""
    positions = token_layers // 8
    said = receipt(node, wallet=wallet, end_block=8, positions=positions, token_layers=token_layers)
    signed = sign_receipt(said, key_of(node)).to_bytes().decode()
    return Share(wallet, peer_of(node), 0, 8, "none", positions, token_layers, signed)


async def work(
    database: Database,
    request_id: str,
    shares: Sequence[Share],
    *,
    payment: Payment = Payment.NETTED,
    tokens: int = 50,
    user: str = USER,
) -> None:
    """A request that has ended, with ``10 × tokens`` units to pay for it."""
    session = NewSession(request_id, request_id, user, "tiny", "standard", 10, 0, 10, 0, 2_000, 1_000, payment=payment)
    done = Work(10, tokens, tuple(shares), sum(one.token_layers for one in shares))
    async with database.writing() as connection:
        await open_request(connection, session, GATEWAY, 1800)
        await activate_request(connection, request_id, 2_000)
        await close_request(connection, request_id, done, Measured("stop", 120, 40))


async def put_in_batch(database: Database, number: int, requests: Mapping[str, Mapping[str, int]]) -> bytes:
    """Put requests, with what each pays to whom, into a batch that the chain is asked for. Its detail root."""
    leaves = [leaf for name, paid in requests.items() for leaf in detail_leaves(name, paid, FEE)]
    payouts: dict[str, int] = {}
    for paid in requests.values():
        for wallet, units in paid.items():
            payouts[wallet] = payouts.get(wallet, 0) + units
    root = Tree.of(leaves).root
    async with database.writing() as connection:
        await connection.execute(
            insert(settlement_batches).values(
                number=number,
                kind="batch",
                detail_root="0x" + root.hex(),
                requests=len(requests),
                total_units=sum(payouts.values()),
                fee_units=FEE * len(requests),
                charges={USER: sum(payouts.values()) + FEE * len(requests)},
                payouts=payouts,
                created_at=now(),
            )
        )
        mine = inference_sessions.c.request_id.in_(list(requests))
        await connection.execute(update(inference_sessions).where(mine).values(batch_number=number))
        await ledger.payout_sent(connection, f"batch-{number}", payouts, FEE * len(requests))
        await outbox.add(connection, Kind.SETTLE, f"batch-{number}", USER, {})
    return root


async def settle(database: Database) -> None:
    """Have everything settled that has ended and is owed, by the settler of whoever has this database."""
    unpaid = node_contributions.c.paid_at.is_(None) & (node_contributions.c.payment_units > 0)
    async with database.writing() as connection:
        number = await batch_repository.order(connection)
    async with asyncio.timeout(20):
        while True:
            async with database.reading() as connection:
                is_paid = (await connection.execute(select(node_contributions.c.id).where(unpaid))).first() is None
                if is_paid and await batch_repository.is_done(connection, number):
                    return
            await asyncio.sleep(0.02)


async def end(database: Database, key: str, status: RowStatus, tx_hash: str | None = None) -> None:
    """The chain has done, or refused, what was asked under ``key``."""
    async with database.writing() as connection:
        one = chain_outbox.c.idempotency_key == key
        values = {"status": status.value, "tx_hash": tx_hash, "block_number": 7 if tx_hash else None}
        await connection.execute(update(chain_outbox).where(one).values(**values))


async def credit_batch(database: Database, number: int, requests: Sequence[str], tx_hash: str) -> None:
    """The chain has paid a batch."""
    await end(database, f"settle:batch-{number}", RowStatus.CONFIRMED, tx_hash)
    async with database.writing() as connection:
        await ledger.payout_confirmed(connection, f"batch-{number}")
        for request_id in requests:
            await sessions.mark_paid(connection, request_id)


async def move_back(database: Database, request_id: str, days: int) -> None:
    """Let a request have been some days ago."""
    async with database.writing() as connection:
        then = now() - timedelta(days=days)
        mine = node_contributions.c.session_id == request_id
        await connection.execute(update(node_contributions).where(mine).values(earned_at=then))


async def add_leaves(database: Database, number: int, cumulative: Mapping[str, int]) -> None:
    """A payout root with these promises, in units."""
    async with database.writing() as connection:
        await connection.execute(
            insert(settlement_batches).values(
                number=number,
                kind="root",
                detail_root="0x" + "00" * 32,
                requests=1,
                total_units=sum(cumulative.values()),
                fee_units=0,
                charges={},
                payouts=dict(cumulative),
                created_at=now(),
            )
        )
        rows = [
            {"number": number, "wallet_address": wallet, "cumulative_units": units}
            for wallet, units in cumulative.items()
        ]
        await connection.execute(insert(payout_leaves), rows)
        await outbox.add(connection, Kind.COMMIT, f"batch-{number}", USER, {})
