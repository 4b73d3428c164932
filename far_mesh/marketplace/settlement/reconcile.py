"""Do the books agree with the chain? What the chain says after one block against what was written down, and nothing
else: no network, no database.

Three comparisons, each of which would find most of what the others find:

- act by act: every event of the escrow has its booking or its row in the outbox, with the same amounts, and every
  booking and every confirmed row has its event (:func:`compare_events`);
- sum by sum: what each user, each channel, each provider, the platform and the pool have on chain is what the books say
  (:func:`compare_sums`);
- the escrow has the tokens that it owes.

What is on its way is no disagreement. The books are read after the block was chosen, so they know of every transaction
that can be in it: a row is written down before it is sent. What they know beyond that block, and what the chain has
done that they have not looked at yet, is counted on the side that lacks it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from far_mesh.marketplace.chain.amounts import WEI_PER_UNIT
from far_mesh.marketplace.chain.audit import ChannelMoney, OpenEscrow, Pots
from far_mesh.marketplace.chain.client import EscrowEvent, EscrowStatus
from far_mesh.marketplace.sessions.schemas import Payment
from far_mesh.marketplace.settlement.schemas import Kind, RowStatus

ADVICE = {
    "event_not_booked": (
        "The watcher has passed this block without booking it. Restore the books from before, or book it with an "
        "adjustment that names the transaction."
    ),
    "booked_otherwise": "Correct the difference with an adjustment that names the transaction.",
    "booking_without_event": (
        "If the chain has just given up blocks, the watcher takes this back by itself: look again in a minute. "
        "Otherwise FAR_CHAIN_RPC_URL is another chain than before, or somebody wrote into the books."
    ),
    "amounts_differ": (
        "The chain did something else than it was asked for. Pause the escrow, and compare the transaction with the "
        "row of the outbox."
    ),
    "confirmed_not_on_chain": (
        "If the chain has just given up blocks, the settler sends it again by itself: look again in a minute. "
        "Otherwise somebody wrote into the outbox: set the row to 'sent', and the settler asks the chain."
    ),
    "failed_but_on_chain": "The books owe what the chain has paid: post an adjustment that names the transaction.",
    "unknown_transaction": (
        "Somebody else has the settler's key: pause the escrow, revoke the role of that key, give it to a new one. If "
        "it was you, with another database: one key belongs to one database."
    ),
    "unknown_batch": (
        "Somebody else has the settler's key, or an older copy of this database was in use: pause the escrow until "
        "you know which."
    ),
    "root_revoked": (
        "A pauser has taken a payout root back, and its money lies in the pool. The books say that it is paid: pay "
        "these providers by another root, or post adjustments."
    ),
    "chain_is_behind": (
        "The node at FAR_CHAIN_RPC_URL is not up to date, or its chain was set back. Wait for it, or use another one."
    ),
    "user_deposit": (
        "Look at far-mesh ledger show --request, and at adjustments, refunds and slashes of this user: the chain "
        "knows none of them. The chain decides what there is."
    ),
    "user_channel": "Look at the adjustments of this user, and at the channels' events.",
    "channel": (
        "Look at the events of this channel: a voucher was redeemed, or money put in, that the books do not have."
    ),
    "provider_credit": (
        "Look at payouts, payout roots and adjustments of this provider: the chain decides what was paid."
    ),
    "platform_fees": "Look at adjustments of the platform, and at transactions that nobody here knows.",
    "pool": ("More or less was redeemed than batches have paid out: look at what else was found, and at the channels."),
    "insolvent": "The escrow owes more tokens than it has. Pause it, now.",
}
"""Kinds of findings, and what to do about each."""

# Acts of users on their own money, which the watcher books. Escrows belong here when no row of ours asked for them.
_USERS = frozenset({"Deposited", "DepositWithdrawn", "ChannelOpened", "ChannelToppedUp", "ChannelClosed"})
_ESCROWS = frozenset({"EscrowCreated", "EscrowReleased", "EscrowCancelled"})
_BATCHES = frozenset({"BatchSettled", "PayoutRootCommitted"})
_SETTLERS_ALONE = _BATCHES | {"SpendingAllowanceSpent", "EscrowReleased", "VoucherRedeemed", "PoolRefunded"}
_DOES = {
    Kind.LOCK: "EscrowCreated",
    Kind.RELEASE: "EscrowReleased",
    Kind.CANCEL: "EscrowCancelled",
    Kind.REDEEM: "VoucherRedeemed",
    Kind.SETTLE: "BatchSettled",
    Kind.COMMIT: "PayoutRootCommitted",
}
_ESCROW_IS = {
    Kind.LOCK: frozenset({EscrowStatus.OPEN, EscrowStatus.RELEASED, EscrowStatus.CANCELLED}),
    Kind.RELEASE: frozenset({EscrowStatus.RELEASED}),
    Kind.CANCEL: frozenset({EscrowStatus.CANCELLED}),
}


@dataclass(frozen=True)
class Finding:
    """Something that disagrees. ``about`` is a request, a batch, a wallet, a channel or a transaction."""

    kind: str
    about: str
    message: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.kind]

    def as_facts(self) -> dict[str, str]:
        """For JSON."""
        return {**asdict(self), "advice": self.advice}


# ---- what the books say


@dataclass(frozen=True)
class Booking:
    """An event of a user that was booked. ``wei`` is by how much the user's deposit changed; the units are what its
    posting did to the user's accounts, or None where there is no such posting."""

    name: str
    wallet: str
    wei: int
    tx_hash: str
    block_number: int
    deposit_units: int | None
    channel_units: int | None


@dataclass(frozen=True)
class Sent:
    """A row of the outbox. ``block_number`` is where it was found when it was confirmed: there, or before."""

    id: int
    kind: Kind
    request_id: str
    status: RowStatus
    block_number: int | None
    payload: Mapping[str, Any]

    def is_done(self, block: int) -> bool:
        """Whether both sides have it after ``block``, as far as the books know."""
        return self.status is RowStatus.CONFIRMED and self.block_number is not None and self.block_number <= block


@dataclass(frozen=True)
class Request:
    """A request and its money, in units. ``cost`` is None while it is open."""

    request_id: str
    user: str
    payment: Payment
    held: int
    cost: int | None
    fee: int
    batch_number: int | None

    @property
    def taken(self) -> int:
        """What the books have taken out of the user's deposit for it."""
        if self.payment is Payment.CHANNEL:
            return 0
        return self.held if self.cost is None else self.cost


@dataclass(frozen=True)
class BatchLines:
    """A batch as it was composed, in units. ``root`` is what the escrow keeps of it: the Merkle root of its details, or
    of its leaves if ``is_payout_root``."""

    number: int
    is_payout_root: bool
    root: str
    charges: Mapping[str, int]
    payouts: Mapping[str, int]
    fee: int

    @property
    def from_pool(self) -> int:
        """What the charges do not cover."""
        return sum(self.payouts.values()) + self.fee - sum(self.charges.values())


@dataclass(frozen=True)
class ChannelRow:
    """A channel as it is written down, in units."""

    user: str
    deposited: int
    redeemed: int


@dataclass(frozen=True)
class Books:
    """What was written down about some blocks, wallets and channels, at one moment.

    ``next_block`` is the first that the watcher has not looked at. ``rows`` are those that concern these blocks or are
    under way, ``row_of`` finds them by their transactions, ``escrows`` are requests by the escrows of these blocks.
    ``in_motion`` are requests that the chain may not be through with. Units of ``spent_in_channels`` are those held for
    open requests and what ended ones did cost; ``by_roots`` is what confirmed payout roots have given to providers;
    ``odd`` counts a user's events that are no whole number of units.
    """

    next_block: int
    bookings: Sequence[Booking] = ()
    rows: Mapping[int, Sent] = field(default_factory=dict)
    row_of: Mapping[str, int] = field(default_factory=dict)
    escrows: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, Request] = field(default_factory=dict)
    in_motion: frozenset[str] = frozenset()
    batches: Mapping[int, BatchLines] = field(default_factory=dict)
    deposits: Mapping[str, int] = field(default_factory=dict)
    in_channels: Mapping[str, int] = field(default_factory=dict)
    spent_in_channels: Mapping[str, int] = field(default_factory=dict)
    odd: Mapping[str, int] = field(default_factory=dict)
    channels: Mapping[str, ChannelRow] = field(default_factory=dict)
    paid: Mapping[str, int] = field(default_factory=dict)
    by_roots: Mapping[str, int] = field(default_factory=dict)
    platform_paid: int = 0
    pool: int = 0


# ---- what the chain says


@dataclass(frozen=True)
class OnChain:
    """What the chain says of the blocks from ``first_block`` to ``block``, and after ``block``. ``newest_block`` is the
    last there is.

    ``owners`` are users by their escrows and channels. ``withdrawn`` is all that providers, and ``fees_withdrawn`` all
    that the platform, ever took out until ``block``. ``batches`` are those of the books that the escrow has done.
    """

    first_block: int
    block: int
    newest_block: int
    events: Sequence[EscrowEvent] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    escrows: Mapping[str, OpenEscrow] = field(default_factory=dict)
    batches: frozenset[int] = frozenset()
    channels: Mapping[str, ChannelMoney] = field(default_factory=dict)
    deposits: Mapping[str, int] = field(default_factory=dict)
    credits: Mapping[str, int] = field(default_factory=dict)
    claimed: Mapping[str, int] = field(default_factory=dict)
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    fees_withdrawn: int = 0
    pots: Pots | None = None


# ---- act by act


def compare_events(chain: OnChain, books: Books) -> list[Finding]:
    """Every event against what was written down of it, and the other way round."""
    return [
        *_events_are_booked(chain, books),
        *_bookings_happened(chain, books),
        *_transactions_are_ours(chain, books),
        *_amounts_are_the_same(chain, books),
        *_what_is_confirmed_happened(chain, books),
        *_roots_stand(chain),
    ]


def _events_are_booked(chain: OnChain, books: Books) -> Iterator[Finding]:
    booked = {_trace(one): one for one in books.bookings}
    for event in foreign_events(chain.events, books):
        change = change_of(event, chain.owners)
        booking = booked.get((event.tx_hash, event.name, change.wallet))
        if (booking is None or booking.deposit_units is None) and event.block_number < books.next_block:
            message = (
                f"{event.name} of {change.wallet} in block {event.block_number}, {_far(change.wei)}: the books have"
            )
            yield Finding("event_not_booked", event.tx_hash, f"{message} nothing of it")
    happened = _changes(chain, books)
    for trace, total in happened.items():
        units = [one.deposit_units for one in books.bookings if _trace(one) == trace]
        if not units or None in units:
            continue
        found = sum(unit for unit in units if unit is not None)
        if abs(found * WEI_PER_UNIT - total) >= len(units) * WEI_PER_UNIT:
            tx_hash, name, wallet = trace
            message = f"{name} of {wallet}: the chain says {_far(total)}, the books say {_units(found)}"
            yield Finding("booked_otherwise", tx_hash, message)


def _changes(chain: OnChain, books: Books) -> dict[tuple[str, str, str], int]:
    """By how many wei users' deposits changed, by transaction, kind and user."""
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for event in foreign_events(chain.events, books):
        change = change_of(event, chain.owners)
        found[event.tx_hash, event.name, change.wallet] += change.wei
    return found


def _bookings_happened(chain: OnChain, books: Books) -> Iterator[Finding]:
    happened = _changes(chain, books)
    if books.next_block > chain.newest_block + 1:
        message = f"the books have looked at block {books.next_block - 1}, and the chain ends at {chain.newest_block}"
        yield Finding("chain_is_behind", str(chain.newest_block), message)
    for one in books.bookings:
        if one.name not in _USERS | _ESCROWS or chain.block < one.block_number <= chain.newest_block:
            continue
        if _trace(one) not in happened:
            message = (
                f"{one.name} of {one.wallet}, {_far(one.wei)}, was booked, and block {one.block_number} has no such"
            )
            yield Finding("booking_without_event", one.tx_hash, f"{message} event")


def _transactions_are_ours(chain: OnChain, books: Books) -> Iterator[Finding]:
    told: set[str] = set()
    for event in chain.events:
        if event.name not in _SETTLERS_ALONE or event.tx_hash in books.row_of or event.tx_hash in told:
            continue
        told.add(event.tx_hash)
        where = f"{event.name} in block {event.block_number}, by a transaction that nobody here has signed"
        if event.name in _BATCHES:
            number = event.fields["batchId" if event.name == "BatchSettled" else "epoch"]
            paid = sum(event.fields["amounts"]) if event.name == "BatchSettled" else event.fields["total"]
            yield Finding("unknown_batch", event.tx_hash, f"{where}: batch {number} pays {_far(paid)}")
        else:
            yield Finding("unknown_transaction", event.tx_hash, where)


def _amounts_are_the_same(chain: OnChain, books: Books) -> Iterator[Finding]:
    for row, events in rows_with_events(chain.events, books).items():
        sent = books.rows[row]
        if sent.status is RowStatus.FAILED:
            message = f"its {sent.kind} was given up here, and is in block {events[0].block_number} of the chain"
            yield Finding("failed_but_on_chain", sent.request_id, message)
            continue
        for name, said, asked in _lines(sent, events, books):
            if said != asked:
                message = f"{name}: the chain did {_far(said)}, it was asked for {_far(asked)} ({sent.kind})"
                yield Finding("amounts_differ", sent.request_id, message)


def rows_with_events(events: Iterable[EscrowEvent], books: Books) -> dict[int, list[EscrowEvent]]:
    """The events of each row's own kind."""
    found: dict[int, list[EscrowEvent]] = defaultdict(list)
    for event in events:
        row = books.row_of.get(event.tx_hash)
        if row is not None and row in books.rows and event.name == _DOES[books.rows[row].kind]:
            found[row].append(event)
    return found


def _lines(sent: Sent, events: Sequence[EscrowEvent], books: Books) -> Iterator[tuple[str, int, int]]:
    """What was done and what was asked for, line by line, in wei."""
    said = events[0].fields
    request = books.requests.get(sent.request_id)
    if sent.kind is Kind.LOCK:
        yield "what is locked", said["amount"], sent.payload["units"] * WEI_PER_UNIT
    elif sent.kind is Kind.RELEASE and request is not None:
        asked = {wallet: units * WEI_PER_UNIT for wallet, units in sent.payload["amounts"]}
        yield from _each("paid to", dict(zip(said["providers"], said["amounts"], strict=True)), asked)
        yield "the fee", said["fee"], request.fee * WEI_PER_UNIT
    elif sent.kind in (Kind.SETTLE, Kind.COMMIT):
        batch = books.batches.get(batch_number(sent.request_id))
        if batch is not None:
            yield from _batch_lines(said, batch)


def _batch_lines(said: Mapping[str, Any], batch: BatchLines) -> Iterator[tuple[str, int, int]]:
    users, charged = said["charges"]["users"], said["charges"]["amounts"]
    yield from _each("charged to", dict(zip(users, charged, strict=True)), _in_wei(batch.charges))
    if "providers" in said:
        paid = dict(zip(said["providers"], said["amounts"], strict=True))
        yield from _each("paid to", paid, _in_wei(batch.payouts))
    else:
        yield "the total", said["total"], sum(batch.payouts.values()) * WEI_PER_UNIT
    yield "the fee", said["fee"], batch.fee * WEI_PER_UNIT


def _each(what: str, said: Mapping[str, int], asked: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    for wallet in sorted(said.keys() | asked.keys()):
        yield f"{what} {wallet}", said.get(wallet, 0), asked.get(wallet, 0)


def _what_is_confirmed_happened(chain: OnChain, books: Books) -> Iterator[Finding]:
    seen = rows_with_events(chain.events, books)
    for sent in books.rows.values():
        if sent.status is not RowStatus.CONFIRMED or sent.id in seen:
            continue
        block = chain.newest_block + 1 if sent.block_number is None else sent.block_number
        is_ahead = chain.block < block <= chain.newest_block
        if not is_ahead and not _has_happened(sent, chain):
            where = "" if sent.block_number is None else f" in block {sent.block_number}"
            message = f"its {sent.kind} was confirmed{where}, and the chain has not done it"
            yield Finding("confirmed_not_on_chain", sent.request_id, message)


def _has_happened(sent: Sent, chain: OnChain) -> bool:
    """By whatever transaction: a user may cancel an escrow too, after its deadline."""
    if sent.kind in _ESCROW_IS:
        return sent.request_id in chain.escrows and chain.escrows[sent.request_id].status in _ESCROW_IS[sent.kind]
    if sent.kind in (Kind.SETTLE, Kind.COMMIT):
        return batch_number(sent.request_id) in chain.batches
    return all(
        channel_id in chain.channels and chain.channels[channel_id].redeemed_wei >= units * WEI_PER_UNIT
        for channel_id, units in claims_of(sent).items()
    )


def _roots_stand(chain: OnChain) -> Iterator[Finding]:
    for event in chain.events:
        if event.name == "PayoutRootRevoked":
            epoch, total = event.fields["epoch"], event.fields["total"]
            message = f"the payout root {epoch} over {_far(total)} was revoked in block {event.block_number}"
            yield Finding("root_revoked", f"batch-{epoch}", message)


# ---- sum by sum


def compare_sums(chain: OnChain, books: Books) -> list[Finding]:
    """What everybody has on chain, against what the books say."""
    return [
        *_deposits_agree(chain, books),
        *_channel_money_agrees(chain, books),
        *_channels_agree(chain, books),
        *_credits_agree(chain, books),
        *_platform_agrees(chain, books),
    ]


def _deposits_agree(chain: OnChain, books: Books) -> Iterator[Finding]:
    ahead, behind = _ahead(chain, books, "deposit_units"), _behind(chain, books, "wei")
    on_the_way: dict[str, int] = defaultdict(int)
    for request_id in books.in_motion:
        request = books.requests[request_id]
        on_the_way[request.user] += request.taken * WEI_PER_UNIT - _taken_on_chain(request, chain)
    for wallet, found in chain.deposits.items():
        booked = books.deposits.get(wallet, 0) - ahead[wallet]
        expected = booked * WEI_PER_UNIT + on_the_way[wallet] + behind[wallet]
        if abs(found - expected) >= _tolerance(books.odd.get(wallet, 0) + _is_odd(behind[wallet])):
            message = f"{_far(found)} lie on chain after block {chain.block}, and the books explain {_far(expected)}"
            yield Finding("user_deposit", wallet, f"{message}: {_far(found - expected)} between them")


def _taken_on_chain(request: Request, chain: OnChain) -> int:
    """What the chain has taken out of the user's deposit for a request, in wei."""
    taken = 0
    escrow = chain.escrows.get(request.request_id)
    if escrow is not None and escrow.status is EscrowStatus.OPEN:
        taken += escrow.amount_wei
    elif escrow is not None and escrow.status is EscrowStatus.RELEASED:
        taken += (request.cost or 0) * WEI_PER_UNIT
    if request.payment is Payment.NETTED and request.batch_number in chain.batches:
        taken += (request.cost or 0) * WEI_PER_UNIT
    return taken


def _channel_money_agrees(chain: OnChain, books: Books) -> Iterator[Finding]:
    ahead, behind = _ahead(chain, books, "channel_units"), _behind(chain, books, "channel_wei")
    on_chain: dict[str, int] = defaultdict(int)
    for channel in chain.channels.values():
        on_chain[channel.user] += channel.net_wei
    for wallet, units in books.in_channels.items():
        booked = units + books.spent_in_channels.get(wallet, 0) - ahead[wallet]
        expected = booked * WEI_PER_UNIT + behind[wallet]
        if abs(on_chain[wallet] - expected) >= _tolerance(books.odd.get(wallet, 0) + _is_odd(behind[wallet])):
            message = f"{_far(on_chain[wallet])} were put into channels and did not come back, the books say"
            yield Finding("user_channel", wallet, f"{message} {_far(expected)}")


def _channels_agree(chain: OnChain, books: Books) -> Iterator[Finding]:
    """But those that something happens to at this moment, which the next look sees at rest."""
    moving = {
        channel_id for sent in books.rows.values() if not sent.is_done(chain.block) for channel_id in claims_of(sent)
    }
    moving |= {_id_of(event) for event in chain.events if event.block_number >= books.next_block}
    if books.next_block > chain.block + 1:
        return
    for channel_id, row in books.channels.items():
        channel = chain.channels.get(channel_id)
        if channel is None or channel_id in moving:
            continue
        for name, found, noted in (
            ("put in", channel.amount_wei, row.deposited),
            ("redeemed", channel.redeemed_wei, row.redeemed),
        ):
            if abs(found - noted * WEI_PER_UNIT) >= _tolerance(books.odd.get(row.user, 0)):
                message = f"{name}: the chain says {_far(found)}, the books say {_units(noted)}"
                yield Finding("channel", channel_id, message)


def _credits_agree(chain: OnChain, books: Books) -> Iterator[Finding]:
    lacking = _lacking(chain, books)
    for wallet, credit in chain.credits.items():
        found = credit + chain.withdrawn.get(wallet, 0)
        # What roots have given counts as paid here, and on chain once it is claimed.
        paid = books.paid.get(wallet, 0) - books.by_roots.get(wallet, 0)
        paid += sum(
            sign * payouts_of(sent, books).get(wallet, 0) for sent, sign in lacking if sent.kind is not Kind.COMMIT
        )
        expected = paid * WEI_PER_UNIT + chain.claimed.get(wallet, 0)
        if found != expected:
            message = f"{_far(found)} were credited on chain until block {chain.block}, the books say {_far(expected)}"
            yield Finding("provider_credit", wallet, message)


def _platform_agrees(chain: OnChain, books: Books) -> Iterator[Finding]:
    if chain.pots is None:
        return
    fees = books.platform_paid + sum(sign * _fee_of(sent, books) for sent, sign in _lacking(chain, books))
    found_fees = chain.pots.fees_wei + chain.fees_withdrawn
    if found_fees != fees * WEI_PER_UNIT:
        message = (
            f"{_far(found_fees)} of fees were taken on chain until block {chain.block}, the books say {_units(fees)}"
        )
        yield Finding("platform_fees", "platform", message)
    pool = books.pool + _on_the_way_to_the_pool(chain, books)
    if chain.pots.pool_wei != pool * WEI_PER_UNIT:
        message = (
            f"{_far(chain.pots.pool_wei)} lie in the pool after block {chain.block}, the books explain {_units(pool)}"
        )
        yield Finding("pool", "pool", message)
    if chain.pots.tokens_wei < chain.pots.sum_wei:
        message = f"it owes {_far(chain.pots.sum_wei)} after block {chain.block} and has {_far(chain.pots.tokens_wei)}"
        yield Finding("insolvent", "escrow", message)


def _lacking(chain: OnChain, books: Books) -> list[tuple[Sent, int]]:
    """Payouts that only one side has: 1 where it is the chain, -1 where it is the books."""
    found = []
    for sent in books.rows.values():
        if sent.kind not in (Kind.RELEASE, Kind.SETTLE, Kind.COMMIT) or sent.is_done(chain.block):
            continue
        is_booked, has_happened = sent.status is RowStatus.CONFIRMED, _has_happened(sent, chain)
        if is_booked != has_happened:
            found.append((sent, 1 if has_happened else -1))
    return found


def _on_the_way_to_the_pool(chain: OnChain, books: Books) -> int:
    """What is in the pool, or is not, other than the books' count of what was redeemed less what was netted: they net
    a batch when it is composed, and note what was redeemed when it is confirmed."""
    found = 0
    redeeming: set[str] = set()
    for sent in books.rows.values():
        redeeming.update(claims_of(sent))
        if sent.kind not in (Kind.SETTLE, Kind.COMMIT) or sent.is_done(chain.block):
            continue
        batch = books.batches.get(batch_number(sent.request_id))
        is_netted, has_happened = sent.status is not RowStatus.FAILED, _has_happened(sent, chain)
        if batch is not None and is_netted != has_happened:
            found += batch.from_pool if is_netted else -batch.from_pool
    for channel_id in redeeming & books.channels.keys() & chain.channels.keys():
        found += chain.channels[channel_id].redeemed_wei // WEI_PER_UNIT - books.channels[channel_id].redeemed
    return found


def payouts_of(sent: Sent, books: Books) -> Mapping[str, int]:
    """What a row pays to whom, in units."""
    if sent.kind is Kind.RELEASE:
        return dict(sent.payload["amounts"])
    if sent.kind in (Kind.SETTLE, Kind.COMMIT):
        batch = books.batches.get(batch_number(sent.request_id))
        return {} if batch is None else batch.payouts
    return {}


def _fee_of(sent: Sent, books: Books) -> int:
    if sent.kind is Kind.RELEASE:
        return books.requests[sent.request_id].fee if sent.request_id in books.requests else 0
    batch = books.batches.get(batch_number(sent.request_id))
    return 0 if batch is None else batch.fee


# ---- events of users


@dataclass(frozen=True)
class Change:
    """What an event does to its user's deposit and to what lies in the user's channels, in wei."""

    wallet: str
    wei: int
    channel_wei: int = 0


def change_of(event: EscrowEvent, owners: Mapping[str, str]) -> Change:
    """What an event of a user does. ``owners`` names the user where the event does not."""
    said = event.fields
    wallet = said["user"] if "user" in said else owners.get(_id_of(event), "")
    if event.name == "Deposited":
        return Change(wallet, said["amount"])
    if event.name in ("ChannelOpened", "ChannelToppedUp"):
        return Change(wallet, -said["amount"], said["amount"])
    if event.name == "ChannelClosed":
        return Change(wallet, said["refund"], -said["refund"])
    if event.name in ("EscrowReleased", "EscrowCancelled"):
        return Change(wallet, said["refund"])
    return Change(wallet, -said["amount"])


def _id_of(event: EscrowEvent) -> str:
    return str(event.fields.get("escrowId") or event.fields.get("channelId") or "")


def needs_owner(event: EscrowEvent) -> bool:
    """Whether the event tells of an escrow or a channel and not whose it is."""
    return bool(_id_of(event)) and "user" not in event.fields


def foreign_events(events: Iterable[EscrowEvent], books: Books) -> Iterator[EscrowEvent]:
    """What users did with their own money: no row of ours asked for it."""
    for event in events:
        is_foreign = event.name in _ESCROWS and event.tx_hash not in books.row_of and _id_of(event) not in books.escrows
        if event.name in _USERS or is_foreign:
            yield event


def _ahead(chain: OnChain, books: Books, what: str) -> dict[str, int]:
    """What the books have of later blocks, by user, in units."""
    found: dict[str, int] = defaultdict(int)
    for one in books.bookings:
        if one.block_number > chain.block:
            found[one.wallet] += getattr(one, what) or 0
    return found


def _behind(chain: OnChain, books: Books, what: str) -> dict[str, int]:
    """What the chain has done that the watcher has not looked at, by user, in wei."""
    booked = Counter(_trace(one) for one in books.bookings)
    found: dict[str, int] = defaultdict(int)
    for event in foreign_events(chain.events, books):
        change = change_of(event, chain.owners)
        if event.block_number >= books.next_block and not booked[event.tx_hash, event.name, change.wallet]:
            found[change.wallet] += getattr(change, what)
    return found


def _trace(one: Booking) -> tuple[str, str, str]:
    return one.tx_hash, one.name, one.wallet


# ---- small words


def batch_number(request_id: str) -> int:
    """The number of the batch that a row settles."""
    return int(request_id.removeprefix("batch-"))


def claims_of(sent: Sent) -> dict[str, int]:
    """What a row redeems: by channel, all that is taken out of it then, in units."""
    if sent.kind is not Kind.REDEEM:
        return {}
    return {claim["channel_id"]: claim["claimed_units"] for claim in sent.payload["claims"]}


def _is_odd(wei: int) -> bool:
    return wei % WEI_PER_UNIT != 0


def _tolerance(odd: int) -> int:
    """The books round to whole units, event by event."""
    return max(1, odd * WEI_PER_UNIT)


def _in_wei(units: Mapping[str, int]) -> dict[str, int]:
    return {wallet: amount * WEI_PER_UNIT for wallet, amount in units.items()}


def _far(wei: int) -> str:
    whole, rest = divmod(abs(wei), WEI_PER_UNIT)
    dust = f" and {rest} wei" if rest else ""
    return f"{'-' if wei < 0 else ''}{_units(whole)}{dust}"


def _units(units: int) -> str:
    return f"{units:,} units"
