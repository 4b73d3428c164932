"""What this node did in a session, step by step, until it is signed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class _Done:
    """What a receipt tells of. It is replaced as a whole: whenever one is asked for, its parts fit each other."""

    steps: int
    session_positions: int
    input_root: bytes
    output_root: bytes
    positions: int = 0
    replayed: int = 0
    cached: int = 0


class WorkLog:
    """Hash chains and counters of one session on this node.

    A step counts with what is handed on of it, at once: a receipt with one and without the other would contradict the
    neighbours'. Each side's chain begins anew with a new neighbour, who has seen nothing of the old one.
    """

    def __init__(self, opening: Open, signer: Signer) -> None:
        self._opening, self._signer = opening, signer
        root, resumed = first_root(opening.session_id), opening.resumption
        self._first_step = resumed.at_step if resumed else 0
        self._done = _Done(self._first_step, resumed.positions if resumed else 0, root, root)
        self._due_at = _next_due(self._done.session_positions)
        self._has_new_predecessor = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been computed yet."""
        return self._done.positions == 0

    @property
    def steps(self) -> int:
        """Index after the last step that was computed here or, before one was, by the node that was lost."""
        return self._done.steps

    @property
    def peer_id(self) -> str:
        """Whose work it is."""
        return self._signer.announcement.peer_id

    @property
    def token_layers(self) -> int:
        """Positions × blocks so far."""
        return self._done.positions * (self._opening.end_block - self._opening.first_block)

    def record(self, step: Step, cached: int = 0, given: WireTensor | None = None) -> None:
        """A step was computed; ``cached`` of its positions were known already. ``given`` goes to the successor, or to
        the client; None: nobody is given anything of it.
        """
        done, taken = self._done, step.hidden
        before = first_root(self._opening.session_id) if self._has_new_predecessor else done.input_root
        positions = taken.shape[0] * taken.shape[1]
        is_again = step.is_replay or step.index < self._first_step
        done = replace(
            done,
            input_root=_extended(before, step.start_position, taken),
            output_root=done.output_root if given is None else _extended(done.output_root, step.start_position, given),
            positions=done.positions + positions,
            cached=done.cached + cached,
        )
        if is_again:
            done = replace(done, replayed=done.replayed + positions)
        else:
            done = replace(done, session_positions=done.session_positions + positions, steps=step.index + 1)
        self._done, self._has_new_predecessor = done, False

    def give_again(self, start_position: int, given: WireTensor) -> None:
        """What was recorded before goes to a new successor."""
        self._done = replace(self._done, output_root=_extended(self._done.output_root, start_position, given))

    def new_predecessor(self) -> None:
        """The next step comes from somebody else. Until it is there, receipts are of the old one's."""
        self._has_new_predecessor = True

    def new_successor(self) -> None:
        """Results go to somebody else from now on."""
        self._done = replace(self._done, output_root=first_root(self._opening.session_id))

    def interim_receipt(self) -> SignedReceipt | None:
        """A receipt when :data:`RECEIPT_EVERY_POSITIONS` more were done. All nodes of a ring come due at one step."""
        if self._done.session_positions < self._due_at:
            return None
        self._due_at = _next_due(self._done.session_positions)
        return self.receipt()

    def receipt(self) -> SignedReceipt:
        """Everything until now, signed."""
        opening, about, done = self._opening, self._signer.announcement, self._done
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
            steps=done.steps,
            positions=done.positions,
            token_layers=done.positions * (opening.end_block - opening.first_block),
            cached_positions=done.cached,
            replayed_positions=done.replayed,
            input_root=done.input_root.hex(),
            output_root=done.output_root.hex(),
            price_units=opening.price_units,
            issued_at=int(time.time()),
        )
        return sign_receipt(receipt, self._signer.key)


def _extended(root: bytes, start_position: int, tensor: WireTensor) -> bytes:
    return extend_root(root, start_position, tensor.shape, tensor.dtype, tensor.data)


def _next_due(positions: int) -> int:
    return positions - positions % RECEIPT_EVERY_POSITIONS + RECEIPT_EVERY_POSITIONS
