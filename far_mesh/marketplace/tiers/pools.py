"""On which nodes the requests of a tier run."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.ids import check_peer_id, check_wallet
from far_mesh.config import Pool
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.tables import account_pools, node_registry
from far_mesh.marketplace.tiers.reliability import Reliability
from far_mesh.marketplace.tiers.schemas import NodePool, Tier

MOST_MEMBERS = 1_000


class Pools:
    """The pools of all accounts. What was read of one counts for ``recall_seconds``."""

    def __init__(self, database: Database, reliability: Reliability, recall_seconds: float) -> None:
        self._database = database
        self._reliability = reliability
        self._recall: Recall[str, frozenset[str]] = Recall(recall_seconds)

    async def of(self, wallet: str, tier: Tier) -> Pool | None:
        """The nodes that a request of ``wallet`` in ``tier`` may run on now; None: all."""
        if tier.node_pool is NodePool.PRIVATE:
            nodes = await self._recall.get(wallet, lambda: self._nodes(wallet))
            return Pool("the private pool of your account", nodes)
        if tier.node_pool is NodePool.RELIABLE and tier.min_reliability is not None:
            members = await self._reliability.at_least(tier.min_reliability)
            return Pool(f"the nodes that were seen to be reliable ({tier.min_reliability:g} or more)", members)
        return None

    async def members(self, wallet: str) -> list[str]:
        """The private pool of ``wallet``: peer ids, and wallets of which all nodes are meant that have proven it."""
        async with self._database.reading() as connection:
            return sorted(await members_of(connection, wallet))

    async def put(self, wallet: str, members: Iterable[str]) -> list[str]:
        """From now on the private pool of ``wallet`` is this.

        Raises:
            InvalidArgument: one of them is neither a peer id nor a wallet, or there are too many.
        """
        async with self._database.writing() as connection:
            kept = await put_members(connection, wallet, members)
        self._recall.forget()
        return kept

    async def _nodes(self, wallet: str) -> frozenset[str]:
        async with self._database.reading() as connection:
            return await nodes_of(connection, wallet)


async def members_of(connection: AsyncConnection, wallet: str) -> frozenset[str]:
    """Who is in the private pool of ``wallet``."""
    query = select(account_pools.c.member).where(account_pools.c.wallet_address == wallet)
    return frozenset((await connection.execute(query)).scalars())


async def nodes_of(connection: AsyncConnection, wallet: str) -> frozenset[str]:
    """The peer ids in the private pool of ``wallet``: those it names, and the nodes of wallets it names. What a node
    announces is its own word alone; only of one that its wallet has registered is it known whose it is."""
    members = await members_of(connection, wallet)
    node = node_registry.c
    proven = select(node.node_id).where(node.proven_at.is_not(None))
    owned = proven.where(
        node.wallet_address.in_(select(account_pools.c.member).where(account_pools.c.wallet_address == wallet))
    )
    named = frozenset(member for member in members if not member.startswith("0x"))
    return named | frozenset((await connection.execute(owned)).scalars())


async def put_members(connection: AsyncConnection, wallet: str, members: Iterable[str]) -> list[str]:
    """From now on the private pool of ``wallet`` is this, sorted.

    Raises:
        InvalidArgument: one of them is neither a peer id nor a wallet, or there are too many.
    """
    wanted = {_member(text) for text in members}
    if len(wanted) > MOST_MEMBERS:
        raise InvalidArgument(f"a pool has at most {MOST_MEMBERS} members", param="members")
    before = await members_of(connection, wallet)
    of_wallet = account_pools.c.wallet_address == wallet
    for member in sorted(before - wanted):
        await connection.execute(delete(account_pools).where(of_wallet & (account_pools.c.member == member)))
    at = now()
    rows = [{"wallet_address": wallet, "member": member, "added_at": at} for member in sorted(wanted - before)]
    if rows:
        await connection.execute(insert(account_pools), rows)
    return sorted(wanted)


def _member(text: str) -> str:
    try:
        return check_wallet(text) if text.startswith("0x") else check_peer_id(text)
    except FarError:
        raise InvalidArgument(f"{text!r} is neither a peer id nor a wallet", param="members") from None
