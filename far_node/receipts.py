"""What this node did in a session, step by step, until it is signed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.protocol.announcement import Announcement
from discovery.protocol.codec import WireTensor
from discovery.protocol.messages import Open, Step
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
    """Hash chains and counters of one session on this node.

    What is computed is counted by :meth:`record`, what is handed on by :meth:`hand_on`. Each side's chain begins anew
    with a new neighbour, who has seen nothing of the old one.
    """

    def __init__(self, opening: Open, signer: Signer) -> None:
        self._opening, self._signer = opening, signer
        self._input_root = self._output_root = first_root(opening.session_id)
        resumed = opening.resumption
        self._first_step = resumed.at_step if resumed else 0
        self._session_positions = resumed.positions if resumed else 0
        self._steps = self._first_step
        self._positions = self._replayed = self._cached = 0
        self._due_at = _next_due(self._session_positions)
        self._has_new_predecessor = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been computed yet."""
        return self._positions == 0

    @property
    def steps(self) -> int:
        """Index after the last step that was computed here or, before one was, by the node that was lost."""
        return self._steps

    @property
    def peer_id(self) -> str:
        """Whose work it is."""
        return self._signer.announcement.peer_id

    @property
    def token_layers(self) -> int:
        """Positions × blocks so far."""
        return self._positions * (self._opening.end_block - self._opening.first_block)

    def record(self, step: Step, cached: int = 0) -> None:
        """A step was computed; ``cached`` of its positions were known already."""
        if self._has_new_predecessor:
            self._has_new_predecessor, self._input_root = False, first_root(self._opening.session_id)
        taken = step.hidden
        self._input_root = _extended(self._input_root, step.start_position, taken)
        positions = taken.shape[0] * taken.shape[1]
        self._positions += positions
        self._cached += cached
        if step.is_replay or step.index < self._first_step:
            self._replayed += positions
        else:
            self._session_positions += positions
            self._steps = step.index + 1

    def hand_on(self, start_position: int, given: WireTensor) -> None:
        """A result goes to the successor, or to the client."""
        self._output_root = _extended(self._output_root, start_position, given)

    def new_predecessor(self) -> None:
        """The next step comes from somebody else. Until it is there, receipts are of the old one's."""
        self._has_new_predecessor = True

    def new_successor(self) -> None:
        """Results go to somebody else from now on."""
        self._output_root = first_root(self._opening.session_id)

    def interim_receipt(self) -> SignedReceipt | None:
        """A receipt when :data:`RECEIPT_EVERY_POSITIONS` more were done. All nodes of a ring come due at one step."""
        if self._session_positions < self._due_at:
            return None
        self._due_at = _next_due(self._session_positions)
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
            replayed_positions=self._replayed,
            input_root=self._input_root.hex(),
            output_root=self._output_root.hex(),
            price_units=opening.price_units,
            issued_at=int(time.time()),
        )
        return sign_receipt(receipt, self._signer.key)


def _extended(root: bytes, start_position: int, tensor: WireTensor) -> bytes:
    return extend_root(root, start_position, tensor.shape, tensor.dtype, tensor.data)


def _next_due(positions: int) -> int:
    return positions - positions % RECEIPT_EVERY_POSITIONS + RECEIPT_EVERY_POSITIONS
