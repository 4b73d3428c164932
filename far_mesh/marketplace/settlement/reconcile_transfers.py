"""What is said to be paid, in and out, by transfer, compared with what the chain says of each transaction.

Where there is no escrow the chain holds no sums of ours: only transactions can be asked about, one after the other.
What a node has forgotten, nobody can say; that is counted and is no finding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from far_mesh.marketplace.account import events, repository
from far_mesh.marketplace.account.repository import BookedEvent
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ChainUnavailable
from far_mesh.marketplace.payments.errors import DepositPending, DepositRefused, DepositUnknown
from far_mesh.marketplace.payments.provider import Block, PaymentProvider, SignedPayouts
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.schemas import Row, RowStatus
from far_mesh.marketplace.settlement.transfers import Fate, fate


@dataclass(frozen=True)
class Finding:
    """Something that disagrees, about a transfer or a transaction, and what to do about it."""

    kind: str
    about: str
    message: str
    advice: str

    def facts(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """``asked`` transactions, of which the chain could not tell of ``unknown``."""

    asked: int
    unknown: int
    findings: tuple[Finding, ...]


async def compare(database: Database, provider: PaymentProvider) -> Compared:
    """Ask the chain about every transfer and every deposit by transfer. Nothing is changed.

    Raises:
        DatabaseUnavailable: the books cannot be read.
    """
    async with database.snapshot() as connection:
        paid = await transfers.ended(connection)
        deposits = [
            row for row in await repository.latest_since(connection, events.TRANSFERRED, 0) if row.vanished_at is None
        ]
    found: list[Finding] = []
    unknown = 0
    for row in paid:
        try:
            found += await _about_transfer(database, provider, row)
        except ChainUnavailable:
            unknown += 1
    for deposit in deposits:
        try:
            found += await _about_deposit(provider, deposit)
        except ChainUnavailable:
            unknown += 1
    return Compared(len(paid) + len(deposits), unknown, tuple(found))


async def _about_transfer(database: Database, provider: PaymentProvider, row: Row) -> list[Finding]:
    async with database.reading() as connection:
        attempts = await outbox.attempts(connection, row)
    seen = None if row.block_number is None else Block(row.block_number, row.block_hash)
    told = [await provider.status(SignedPayouts(one.tx_hash, one.raw_tx, one.nonce), seen) for one in attempts]
    has_paid = fate(told) in (Fate.PAID, Fate.WAIT)
    if row.status is RowStatus.CONFIRMED and not has_paid:
        message = f"the books say that {row.tx_hash} has paid it, and the chain does not"
        advice = "past FAR_REORG_BLOCKS nothing is done by itself: pay its providers by hand, or book it back"
        return [Finding("transfer_missing", row.request_id, message, advice)]
    if row.status is RowStatus.FAILED and has_paid:
        message = f"the chain has paid it by {row.tx_hash}, and the books say that it never will"
        advice = "what it paid for may be paid twice: set FAR_CONFIRMATIONS higher, and take it off what is owed next"
        return [Finding("transfer_paid_after_all", row.request_id, message, advice)]
    return []


async def _about_deposit(provider: PaymentProvider, row: BookedEvent) -> list[Finding]:
    tx_id, units = events.tx_id_of(row), events.units_of(row)
    advice = "its user may have spent it: book it back with far-mesh ledger, or find out what became of the block"
    try:
        verified = await provider.verify_deposit(tx_id)
    except DepositPending:
        return []
    except (DepositUnknown, DepositRefused) as error:
        message = f"{units} units were credited to {row.wallet_address}: {error.message}"
        return [Finding("deposit_missing", tx_id, message, advice)]
    there = next((one for one in verified if one.deposit_id == row.tx_hash), None)
    if there is None or there.units != units:
        said = 0 if there is None else there.units
        message = f"{units} units were credited to {row.wallet_address}, the chain says {said}"
        return [Finding("deposit_differs", tx_id, message, advice)]
    return []
