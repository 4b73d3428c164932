"""What was seen on chain, and how far was looked."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.chain.client import DepositEvent
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import insert_if_absent
from far_mesh.marketplace.tables import chain_cursors, chain_events

DEPOSITS = "deposits"


@dataclass(frozen=True)
class ChainIdentity:
    """What makes one chain with one escrow different from all others."""

    chain_id: int
    genesis_hash: str
    escrow_address: str


async def open_cursor(connection: AsyncConnection, identity: ChainIdentity, first_block: int) -> ChainIdentity:
    """Begin to look at ``first_block`` if this is the first time. The chain that this database belongs to."""
    await connection.execute(
        insert_if_absent(connection, chain_cursors).values(
            name=DEPOSITS,
            chain_id=identity.chain_id,
            genesis_hash=identity.genesis_hash,
            escrow_address=identity.escrow_address,
            next_block=first_block,
        )
    )
    row = (await connection.execute(select(chain_cursors).where(chain_cursors.c.name == DEPOSITS))).one()
    return ChainIdentity(row.chain_id, row.genesis_hash, row.escrow_address)


async def next_block(connection: AsyncConnection) -> int:
    """The first block that was not looked at."""
    query = select(chain_cursors.c.next_block).where(chain_cursors.c.name == DEPOSITS)
    found: int = (await connection.execute(query)).scalar_one()
    return found


async def advance(connection: AsyncConnection, looked_at: int, to: int) -> bool:
    """Move the cursor, unless somebody else has moved it since."""
    unmoved = (chain_cursors.c.name == DEPOSITS) & (chain_cursors.c.next_block == looked_at)
    return (await connection.execute(update(chain_cursors).where(unmoved).values(next_block=to))).rowcount == 1


async def add_event(connection: AsyncConnection, event: DepositEvent) -> None:
    """Keep the event as the chain told it."""
    await connection.execute(
        insert_if_absent(connection, chain_events).values(
            tx_hash=event.tx_hash,
            log_index=event.log_index,
            block_number=event.block_number,
            kind=event.kind,
            wallet_address=event.wallet,
            amount_wei=str(event.wei),
            seen_at=now(),
        )
    )
