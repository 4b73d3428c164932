"""The words of the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from far_mesh.marketplace.chain.client import EscrowStatus


class Kind(StrEnum):
    """What a row asks of the chain."""

    LOCK = "lock"
    RELEASE = "release"
    CANCEL = "cancel"


class RowStatus(StrEnum):
    """PENDING: to be signed. SENT: signed and written down; the chain may have it. The other two are for ever."""

    PENDING = "pending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"


EFFECT = {
    Kind.LOCK: EscrowStatus.OPEN,
    Kind.RELEASE: EscrowStatus.RELEASED,
    Kind.CANCEL: EscrowStatus.CANCELLED,
}
"""In which state a request's escrow is once a row has done its work."""


@dataclass(frozen=True)
class Row:
    """One act that the chain is asked for. ``wallet_address`` is the user's."""

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
    error_code: str | None
    error: str | None

    @property
    def is_final(self) -> bool:
        """Whether nothing will become of it any more."""
        return self.status in (RowStatus.CONFIRMED, RowStatus.FAILED)
