"""What a provider was and was not paid, put together from the tables, the books and the chain.

Nothing here changes anything. A proof is computed from what the tables say of a batch, so it holds only when that is
what was announced on chain; whoever is paid can check it without us.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from far_mesh.marketplace.chain.amounts import wei_to_units
from far_mesh.marketplace.chain.client import Chain, PayoutRoot
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainUnavailable, NotFound
from far_mesh.marketplace.inference.meshes import MeshLike
from far_mesh.marketplace.ledger import repository as books
from far_mesh.marketplace.ledger.schemas import Book
from far_mesh.marketplace.nodes import repository as registry
from far_mesh.marketplace.nodes.schemas import NodeRow
from far_mesh.marketplace.provider import repository
from far_mesh.marketplace.provider.repository import Act, Batch, Contribution, Earned, Leaf, Place
from far_mesh.marketplace.provider.schemas import ClaimState, LineState
from far_mesh.marketplace.settlement.merkle import Tree, detail_leaves, payout_leaf, payout_tree
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus

TREES_KEPT = 8
RECENT_ROOTS = 100
MOST_NODES = 200

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Page(Generic[ItemT]):
    """Some of a long list. ``next_cursor`` is where the rest begins."""

    items: list[ItemT]
    next_cursor: str | None


@dataclass(frozen=True)
class OnChain:
    """What the escrow says of a provider, in units: what can be withdrawn, and what is left to claim by roots."""

    credit: int
    unclaimed: int


@dataclass(frozen=True)
class Rewards:
    """A provider's money in units. ``on_chain`` is None while the chain does not answer. ``by_node`` has what each
    node earned on a day."""

    waiting: int
    in_flight: int
    paid: int
    on_chain: OnChain | None
    per_node: list[Earned]
    per_day: dict[str, Earned]
    by_node: dict[str, dict[str, int]]

    @property
    def earned(self) -> int:
        """Everything that was ever earned."""
        return self.waiting + self.in_flight + self.paid

    @property
    def withdrawn(self) -> int | None:
        """What was taken out: the rest of what was paid."""
        there = self.on_chain
        return None if there is None else max(0, self.paid - there.credit - there.unclaimed)


@dataclass(frozen=True)
class Line:
    """A contribution, and what has become of its money."""

    done: Contribution
    state: LineState
    act: Act | None


@dataclass(frozen=True)
class ProvenLine:
    """What a wallet gets for one request of a batch, and the way from that to the batch's root."""

    request_id: str
    units: int
    proof: list[bytes]


@dataclass(frozen=True)
class BatchPart:
    """A batch, how far the chain is with it, and a page of one wallet's lines."""

    batch: Batch
    act: Act | None
    payout_units: int
    lines: Page[ProvenLine]


@dataclass(frozen=True)
class ClaimOfRoot:
    """What a payout root promises a wallet. ``claimable_at`` is None until it is on chain."""

    epoch: int
    state: ClaimState
    root: bytes
    claimable_at: datetime | None
    cumulative_units: int
    open_units: int
    proof: list[bytes]


@dataclass(frozen=True)
class Stats:
    """At a glance."""

    tokens_served: int
    earned_units: int
    pending_units: int
    active_requests: int
    active_nodes: int
    average_latency_ms: int | None


@dataclass(frozen=True)
class _Details:
    """A batch taken apart: its tree, and the lines of each wallet in the order of the requests."""

    tree: Tree
    lines: Mapping[str, Sequence[tuple[str, int]]]


class _Kept(Generic[KeyT, ValueT]):
    """The last few values that were made. What goes in never changes."""

    def __init__(self, limit: int) -> None:
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()
        self._limit = limit

    async def get(self, key: KeyT, make: Callable[[], Awaitable[ValueT]]) -> ValueT:
        """The value of ``key``, made if it is not here."""
        if key not in self._values:
            self._values[key] = await make()
        self._values.move_to_end(key)
        while len(self._values) > self._limit:
            self._values.popitem(last=False)
        return self._values[key]


class ProviderService:
    """Answers one wallet at a time, about that wallet. ``chain`` is None where there is no escrow: there what was paid
    lies in the provider's own wallet."""

    def __init__(self, database: Database, chain: Chain | None, meshes: Mapping[str, MeshLike]) -> None:
        self._database = database
        self._chain = chain
        self._meshes = meshes
        self._details: _Kept[tuple[int, str], _Details] = _Kept(TREES_KEPT)
        self._roots: _Kept[int, Tree] = _Kept(TREES_KEPT)

    async def rewards(self, wallet: str, days: int) -> Rewards:
        """All of a provider's money, and what the last days brought."""
        since = first_day(days)
        async with self._database.snapshot() as connection:
            found = await books.balances_of(connection, wallet)
            leaves = await repository.leaves_of_wallet(connection, wallet, None, RECENT_ROOTS)
            acts = await repository.acts(connection, [key for leaf in leaves for key in _keys(leaf)])
            done = await repository.earned_since(connection, wallet, since)
        committed = [leaf for leaf in leaves if _is_done(_act(acts, _keys(leaf)))]
        return Rewards(
            waiting=found.get(Book.PROVIDER_EARNED, 0),
            in_flight=found.get(Book.IN_FLIGHT, 0),
            paid=found.get(Book.PROVIDER_PAID, 0),
            on_chain=await self._on_chain(wallet, committed),
            per_node=sorted(_added(done, lambda one: one.node_id).values(), key=lambda one: (-one.units, one.node_id)),
            per_day=_added(done, lambda one: one.date),
            by_node=_by_node(done),
        )

    async def _on_chain(self, wallet: str, committed: Sequence[Leaf]) -> OnChain | None:
        if self._chain is None:
            return OnChain(0, 0)
        try:
            credit = wei_to_units(await self._chain.credit_of_wei(wallet))
            claimed = await self._chain.claimed_of(wallet)
            for leaf in committed:  # the newest promises the most, unless it was revoked
                if leaf.cumulative_units <= claimed:
                    break
                if (await self._chain.payout_root_of(leaf.number)).claimable_at:
                    return OnChain(credit, leaf.cumulative_units - claimed)
            return OnChain(credit, 0)
        except ChainUnavailable:
            return None

    async def nodes(self, wallet: str) -> list[NodeRow]:
        """The provider's nodes, as far as they have served or are registered."""
        async with self._database.reading() as connection:
            return await registry.known_of_wallet(connection, wallet, MOST_NODES)

    async def history(self, wallet: str, cursor: str | None, limit: int) -> Page[Line]:
        """What the provider's nodes did, newest first.

        Raises:
            InvalidArgument: the cursor is none.
        """
        before = None if cursor is None else Place.read(cursor)
        async with self._database.reading() as connection:
            done = await repository.contributions(connection, wallet, before, limit + 1)
            acts = await repository.acts(connection, {key for one in done for key in one.outbox_keys})
        lines = [_line(one, _act(acts, one.outbox_keys)) for one in done[:limit]]
        return Page(lines, str(lines[-1].done.place) if len(done) > limit else None)

    async def batch(self, wallet: str, number: int, cursor: str | None, limit: int) -> BatchPart:
        """A batch in which the provider is, with its lines in the order of the requests.

        Raises:
            NotFound: there is none of this number with something for this wallet.
            InvalidArgument: the cursor is none.
        """
        async with self._database.reading() as connection:
            batch = await repository.batch(connection, number)
            acts = await repository.acts(connection, repository.keys_of_batch(number))
        act = _act(acts, repository.keys_of_batch(number))
        if batch is None or wallet not in batch.payouts or (act is not None and act.status is RowStatus.FAILED):
            raise NotFound(f"there is no batch {number} with something for {wallet}")
        details = await self._details.get((number, batch.detail_root), lambda: self._take_apart(batch))
        lines, first = details.lines.get(wallet, ()), _number(cursor)
        proven = [
            ProvenLine(request_id, units, details.tree.proof(*detail_leaves(request_id, {wallet: units}, 0)))
            for request_id, units in lines[first : first + limit]
        ]
        rest = str(first + limit) if len(lines) > first + limit else None
        return BatchPart(batch, act, batch.payouts[wallet], Page(proven, rest))

    async def _take_apart(self, batch: Batch) -> _Details:
        async with self._database.snapshot() as connection:
            if batch.kind == Kind.TRANSFER.value:
                payouts = await repository.payouts_of_transfer(connection, batch.number)
                fees = dict.fromkeys(payouts, 0)
            else:
                fees = await repository.fees_of_batch(connection, batch.number)
                payouts = await repository.payouts_of_batch(connection, batch.number)
        return await asyncio.to_thread(_details_of, fees, payouts)  # thousands of hashes

    async def claims(self, wallet: str, cursor: str | None, limit: int) -> tuple[int, Page[ClaimOfRoot]]:
        """What was claimed of all payout roots together, in units; and the roots in which the provider is.

        Raises:
            ChainUnavailable: only the chain knows what can be claimed.
            InvalidArgument: the cursor is none.
        """
        before = None if cursor is None else _number(cursor)
        if self._chain is None:
            return 0, Page([], None)
        claimed = await self._chain.claimed_of(wallet)
        async with self._database.reading() as connection:
            leaves = await repository.leaves_of_wallet(connection, wallet, before, limit + 1)
            acts = await repository.acts(connection, [key for leaf in leaves[:limit] for key in _keys(leaf)])
        claims = [
            await self._claim(self._chain, wallet, leaf, _act(acts, _keys(leaf)), claimed) for leaf in leaves[:limit]
        ]
        return claimed, Page(claims, str(claims[-1].epoch) if len(leaves) > limit else None)

    async def _claim(self, chain: Chain, wallet: str, leaf: Leaf, act: Act | None, claimed: int) -> ClaimOfRoot:
        tree = await self._roots.get(leaf.number, lambda: self._plant(leaf.number))
        said = await chain.payout_root_of(leaf.number)
        state = _state_of_claim(leaf, act, said, claimed)
        return ClaimOfRoot(
            epoch=leaf.number,
            state=state,
            root=tree.root,
            claimable_at=datetime.fromtimestamp(said.claimable_at, UTC) if said.claimable_at else None,
            cumulative_units=leaf.cumulative_units,
            open_units=0 if state is ClaimState.REVOKED else max(0, leaf.cumulative_units - claimed),
            proof=tree.proof(payout_leaf(wallet, leaf.cumulative_units)),
        )

    async def _plant(self, number: int) -> Tree:
        async with self._database.reading() as connection:
            leaves = await repository.leaves_of_root(connection, number)
        return await asyncio.to_thread(payout_tree, leaves)

    async def stats(self, wallet: str) -> Stats:
        """What a dashboard shows at a glance."""
        nodes = [announced for mesh in self._meshes.values() for announced in await mesh.nodes()]
        async with self._database.snapshot() as connection:
            found = await books.balances_of(connection, wallet)
            pending = found.get(Book.PROVIDER_EARNED, 0) + found.get(Book.IN_FLIGHT, 0)
            return Stats(
                tokens_served=await repository.tokens_served(connection, wallet),
                earned_units=pending + found.get(Book.PROVIDER_PAID, 0),
                pending_units=pending,
                active_requests=await repository.active_requests(connection, wallet),
                active_nodes=len({one.announcement.peer_id for one in nodes if one.announcement.wallet == wallet}),
                average_latency_ms=await repository.average_latency_ms(connection, wallet),
            )

    async def per_day(self, wallet: str, days: int) -> dict[str, Earned]:
        """What each of the last days brought on which there was something, by its date."""
        async with self._database.reading() as connection:
            done = await repository.earned_since(connection, wallet, first_day(days))
        return _added(done, lambda one: one.date)


def first_day(days: int) -> datetime:
    """The beginning of the first of the last ``days`` days in UTC, of which today is one."""
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days - 1)


def _added(done: Iterable[Earned], name: Callable[[Earned], str]) -> dict[str, Earned]:
    sums: dict[str, Earned] = {}
    for one in done:
        sums[name(one)] = sums[name(one)] + one if name(one) in sums else one
    return sums


def _by_node(done: Iterable[Earned]) -> dict[str, dict[str, int]]:
    days: dict[str, dict[str, int]] = {}
    for one in sorted(done, key=lambda one: (one.date, one.node_id)):
        days.setdefault(one.date, {})[one.node_id] = one.units
    return days


def _keys(leaf: Leaf) -> tuple[str, ...]:
    return repository.keys_of_batch(leaf.number)


def _act(acts: Mapping[str, Act], keys: Sequence[str]) -> Act | None:
    return next((acts[key] for key in keys if key in acts), None)


def _is_done(act: Act | None) -> bool:
    return act is not None and act.status is RowStatus.CONFIRMED


def _line(done: Contribution, act: Act | None) -> Line:
    if not done.units:
        state = LineState.FREE
    elif done.paid_at is not None:
        state = LineState.PAID
    elif act is None:
        state = LineState.WAITING
    else:
        state = LineState.REFUSED if act.status is RowStatus.FAILED else LineState.BATCH
    return Line(done, state, act)


def _state_of_claim(leaf: Leaf, act: Act | None, said: PayoutRoot, claimed: int) -> ClaimState:
    if leaf.cumulative_units <= claimed:
        return ClaimState.CLAIMED
    if not said.claimable_at:
        return ClaimState.REVOKED if _is_done(act) else ClaimState.PENDING
    return ClaimState.CLAIMABLE if said.claimable_at <= now().timestamp() else ClaimState.DELAYED


def _details_of(fees: Mapping[str, int], payouts: Mapping[str, Mapping[str, int]]) -> _Details:
    leaves: list[bytes] = []
    lines: dict[str, list[tuple[str, int]]] = {}
    for request_id, fee in fees.items():
        paid = payouts.get(request_id, {})
        leaves += detail_leaves(request_id, paid, fee)
        for wallet, units in paid.items():
            lines.setdefault(wallet, []).append((request_id, units))
    return _Details(Tree.of(leaves), lines)


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise repository.bad_cursor()
    return int(cursor)
