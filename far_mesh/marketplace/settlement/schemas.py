"""The words of the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from far_mesh.marketplace.chain.client import SignedCall


class Kind(StrEnum):
    """What a row asks of the chain. The first three are about the escrow of one request, the next three about batches;
    the last pays providers where there is no escrow."""

    LOCK = "lock"
    RELEASE = "release"
    CANCEL = "cancel"
    REDEEM = "redeem"
    SETTLE = "settle"
    COMMIT = "commit"
    TRANSFER = "transfer"


class RowStatus(StrEnum):
    """PENDING: to be signed. SENT: signed and written down; the chain may have it. FAILED is for ever; CONFIRMED is
    SENT again when the chain gives up the block."""

    PENDING = "pending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True)
class Row:
    """One act that the chain is asked for. ``wallet_address`` is whose money it moves.

    ``nonce``, ``raw_tx`` and ``tx_hash`` are those of the newest attempt, signed at ``sent_at``, or of the one that was
    mined. ``block_number`` and ``block_hash`` are where it was confirmed; None when the chain was never asked.
    """

    id: int
    kind: Kind
    request_id: str
    wallet_address: str
    payload: dict[str, Any]
    status: RowStatus
    attempts: int
    nonce: int | None
    raw_tx: str | None
    tx_hash: str | None
    sent_at: datetime | None
    block_number: int | None
    block_hash: str | None
    vanished: int
    error_code: str | None
    error: str | None

    @property
    def is_final(self) -> bool:
        """Whether it has ended, as far as anybody can tell now."""
        return self.status in (RowStatus.CONFIRMED, RowStatus.FAILED)

    @property
    def signed(self) -> SignedCall:
        """The newest attempt, or the one that was mined: only of a row that was signed."""
        assert self.raw_tx is not None
        assert self.tx_hash is not None
        assert self.nonce is not None
        return SignedCall(self.raw_tx, self.tx_hash, self.nonce)


@dataclass(frozen=True)
class Attempt:
    """A signed transaction for a row. Of those with one nonce at most one can be mined."""

    nonce: int
    tx_hash: str
    raw_tx: str
    signed_at: datetime


@dataclass(frozen=True)
class Fence:
    """What proves that its owner still holds the lease ``name``: who takes the lease over gets another ``token``."""

    name: str
    token: int
