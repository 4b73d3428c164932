"""What this node did in a session, step by step, until it is signed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.announcement import Announcement
from discovery.protocol.messages import Open, WireTensor
from discovery.protocol.receipt import (
    RECEIPT_EVERY_POSITIONS,
    Receipt,
    SignedReceipt,
    extend_root,
    first_root,
    sign_receipt,
)


@dataclass(frozen=True)
class Signer:
    """Who signs, and what every receipt of this node says."""

    key: Ed25519PrivateKey
    announcement: Announcement


class WorkLog:
    """Hash chains and counters of one session on this node. A step is recorded once it was computed."""

    def __init__(self, opening: Open, signer: Signer) -> None:
        self._opening, self._signer = opening, signer
        self._input_root = self._output_root = first_root(opening.session_id)
        self._steps = self._positions = self._cached = 0
        self._due_at = RECEIPT_EVERY_POSITIONS

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been computed yet."""
        return self._steps == 0

    @property
    def token_layers(self) -> int:
        """Positions × blocks so far."""
        return self._positions * (self._opening.end_block - self._opening.first_block)

    def record(self, start_position: int, taken: WireTensor, given: WireTensor, cached: int = 0) -> None:
        """One more step: what came in over the wire, what went out, and how many positions were known already."""
        self._input_root = extend_root(self._input_root, start_position, taken.shape, taken.dtype, taken.data)
        self._output_root = extend_root(self._output_root, start_position, given.shape, given.dtype, given.data)
        self._steps += 1
        self._positions += taken.shape[0] * taken.shape[1]
        self._cached += cached

    def interim_receipt(self) -> SignedReceipt | None:
        """A receipt when :data:`RECEIPT_EVERY_POSITIONS` more were done. All nodes of a ring come due at one step."""
        if self._positions < self._due_at:
            return None
        self._due_at = self._positions - self._positions % RECEIPT_EVERY_POSITIONS + RECEIPT_EVERY_POSITIONS
        return self.receipt()

    def receipt(self) -> SignedReceipt:
        """Everything until now, signed."""
        opening, about = self._opening, self._signer.announcement
        receipt = Receipt(
            session_id=opening.session_id.hex(),
            nonce=opening.nonce.hex(),
            peer_id=about.peer_id,
            wallet=about.wallet,
            model_digest=about.model_digest,
            first_block=opening.first_block,
            end_block=opening.end_block,
            quantization=about.quantization,
            codec=opening.codec,
            steps=self._steps,
            positions=self._positions,
            token_layers=self.token_layers,
            cached_positions=self._cached,
            input_root=self._input_root.hex(),
            output_root=self._output_root.hex(),
            price_units=opening.price_units,
            issued_at=int(time.time()),
        )
        return sign_receipt(receipt, self._signer.key)
