"""A ring on paper: what honest nodes would receipt, and what liars do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import Receipt, SignedReceipt, extend_root, first_root, sign_receipt
from far_mesh.contributions import Asked, OwnView, Stated, Stint, Verified, verify_receipts
from far_mesh.route import RouteHop
from tests.support.documents import DIGEST, announcement, key_of

SESSION = SessionId(b"\xab" * 16)
ASKED = Asked(SESSION, b"\xcd" * 16, DIGEST, "float32", 7)


@dataclass
class PaperRing:
    """Hops with ``borders[i] : borders[i + 1]``, and steps of so many positions each."""

    borders: Sequence[int]
    steps: Sequence[int]
    asked: Asked = ASKED
    receipts: list[dict[int, SignedReceipt]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hops = tuple(
            RouteHop(announcement(f"hop{index}", block_count=64, first_block=first, end_block=end), first, end)
            for index, (first, end) in enumerate(zip(self.borders[:-1], self.borders[1:], strict=True))
        )
        self.wires = [self._chain(border) for border in range(len(self.borders))]
        last = len(self.hops)
        self.roots = {
            (link, count): self.wires[link][count].hex()
            for link in (0, last)
            for count in range(1, len(self.steps) + 1)
        }
        self.receipts = [{len(self.steps): self.signed(index)} for index in range(len(self.hops))]

    def _chain(self, border: int) -> list[bytes]:
        """The root of all that crossed a border, after each step."""
        roots, start = [first_root(self.asked.session_id)], 0
        for positions in self.steps:
            data = hashlib.sha256(f"{border} {start}".encode()).digest()
            roots.append(extend_root(roots[-1], start, (1, positions, 8), "float32", data))
            start += positions
        return roots

    def receipt(self, index: int, steps: int | None = None, **changes: Any) -> Receipt:
        """What hop ``index`` says after ``steps``; ``changes`` make it lie, consistently."""
        count, hop = len(self.steps) if steps is None else steps, self.hops[index]
        known = min(count, len(self.steps))
        fields: dict[str, Any] = {
            "session_id": self.asked.session_id.hex(),
            "nonce": self.asked.nonce.hex(),
            "peer_id": hop.node.peer_id,
            "wallet": hop.node.wallet,
            "model_digest": self.asked.model_digest,
            "first_block": hop.first_block,
            "end_block": hop.end_block,
            "quantization": hop.node.quantization,
            "codec": self.asked.codec,
            "steps": count,
            "positions": sum(self.steps[:count]),
            "input_root": self.wires[index][known].hex(),
            "output_root": self.wires[index + 1][known].hex(),
            "price_units": self.asked.price_units,
            "issued_at": 1_700_000_000,
        } | changes
        fields["token_layers"] = fields["positions"] * (fields["end_block"] - fields["first_block"])
        return Receipt.model_validate(fields)

    def signed(self, index: int, steps: int | None = None, **changes: Any) -> SignedReceipt:
        """:meth:`receipt`, signed by its hop."""
        return sign_receipt(self.receipt(index, steps, **changes), key_of(f"hop{index}"))

    def lie(self, index: int, **changes: Any) -> None:
        """Put a lying last receipt in the place of the honest one."""
        signed = self.signed(index, **changes)
        self.receipts[index] = {signed.receipt.steps: signed}

    def verify(self, at_steps: int | None = None) -> Verified:
        """What the client makes of it."""
        return verify_receipts(self.asked, self.stints, self.own_view, at_steps)

    @property
    def stints(self) -> list[Stint]:
        """Everybody from the first step to the last, with the receipts by number of steps."""
        return [
            Stint(hop, [Stated(signed, index, index + 1) for _, signed in sorted(held.items())])
            for index, (hop, held) in enumerate(zip(self.hops, self.receipts, strict=True))
        ]

    @property
    def own_view(self) -> OwnView:
        """What the client knows."""
        return OwnView(self.roots, [sum(self.steps[:count]) for count in range(len(self.steps) + 1)])

    def paid(self) -> set[int]:
        """Which hops have a contribution."""
        index_of = {hop.node.peer_id: index for index, hop in enumerate(self.hops)}
        return {index_of[contribution.peer_id] for contribution in self.verify().contributions}
