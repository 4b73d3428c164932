"""Whether what a gateway says was paid, the chain has paid: every line proven, or named.

The chain announces a batch with the root of a Merkle tree over its lines and with what each wallet gets. A line is
proven when its leaf, made here from the request's id, the wallet and the units, leads to that root; and the lines of a
batch must add up to what the wallet was credited with, so that none can be left out. A request with an escrow of its
own is released alone: there the amount itself is on chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.receipt import SignedReceipt, read_receipt
from far_node.rewards.amounts import WEI_PER_UNIT, far
from far_node.rewards.answers import BatchLine, BatchPage, Claim, Line
from far_node.rewards.chain import Escrow
from far_node.rewards.gateway import Gateway
from far_node.rewards.merkle import detail_leaf, is_proven, payout_leaf

_UNPAID = {
    "waiting": "waits for a batch",
    "batch": "the chain is asked to pay it",
    "refused": "the chain refused its release; it is still owed",
    "free": "the request cost nothing",
}


class Verdict(StrEnum):
    """PROVEN: the chain has paid it. UNPAID: nobody says that it was paid. UNPROVEN: it is said, and not so."""

    PROVEN = "proven"
    UNPAID = "unpaid"
    UNPROVEN = "unproven"


@dataclass(frozen=True)
class Checked:
    """A line, and what came of checking it."""

    line: Line
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class _Batch:
    """What of a batch is proven: units by request. ``objection`` is what is wrong with it as a whole."""

    proven: dict[str, int]
    objection: str | None = None


class Check:
    """Checks the lines of one wallet, between one gateway and one escrow."""

    def __init__(self, wallet: str, gateway: Gateway, escrow: Escrow) -> None:
        self._wallet = wallet
        self._gateway = gateway
        self._escrow = escrow
        self._batches: dict[int, _Batch] = {}
        self._released: dict[str, str] = {}
        self._claims: list[Claim] | None = None

    def lines(self, lines: Iterable[Line]) -> Iterator[Checked]:
        """Each line with its verdict. The lines of a request must follow each other.

        Raises:
            FarError: gateway or chain cannot be asked.
        """
        for request_id, group in groupby(lines, key=lambda line: line.request_id):
            done = list(group)
            objection = self._objection(request_id, [line for line in done if line.state == "paid"])
            for line in done:
                yield self._judged(line, objection)

    def _judged(self, line: Line, objection: str | None) -> Checked:
        if (wrong := _receipt_objection(line, self._wallet)) is not None:
            return Checked(line, Verdict.UNPROVEN, wrong)
        if line.state != "paid":
            return Checked(line, Verdict.UNPAID, _UNPAID.get(line.state, line.state))
        if objection is not None:
            return Checked(line, Verdict.UNPROVEN, objection)
        return Checked(line, Verdict.PROVEN, f"paid by {line.tx_hash}")

    def _objection(self, request_id: str, paid: Sequence[Line]) -> str | None:
        """What is wrong with the lines of a request that are said to be paid, if there are any."""
        if not paid:
            return None
        if len({(line.batch_number, line.tx_hash) for line in paid}) > 1:
            return "it is said to be paid in two ways"
        units, number = sum(line.units for line in paid), paid[0].batch_number
        if number is None:
            return self._release_objection(request_id, units, paid[0].tx_hash)
        batch = self._batch(number)
        if batch.objection is not None:
            return batch.objection
        if request_id not in batch.proven:
            return f"batch {number} holds no line that proves it"
        if batch.proven[request_id] != units:
            return f"batch {number} pays {far(batch.proven[request_id])} for it, the history says {far(units)}"
        return None

    def _release_objection(self, request_id: str, units: int, tx_hash: str | None) -> str | None:
        paid = None if tx_hash is None else self._escrow.released_in(tx_hash)
        if tx_hash is None or paid is None:
            return "no block of the chain holds its release"
        if self._released.setdefault(tx_hash, request_id) != request_id:
            return f"its release is that of {self._released[tx_hash]}"
        wei = paid.amounts.get(self._wallet, 0)
        return None if wei == units * WEI_PER_UNIT else f"the chain credited {far(wei // WEI_PER_UNIT)} for it"

    # ---- batches

    def _batch(self, number: int) -> _Batch:
        if number not in self._batches:
            page, lines = self._gateway.batch(number)
            if page.number != number or len({line.request_id for line in lines}) != len(lines):
                self._batches[number] = _Batch({}, f"batch {number} is another one at the gateway, or has a line twice")
            else:
                self._batches[number] = (
                    self._by_root(page, lines) if page.kind == "root" else self._at_once(page, lines)
                )
        return self._batches[number]

    def _at_once(self, page: BatchPage, lines: Sequence[BatchLine]) -> _Batch:
        """A batch that credits its providers itself."""
        paid = None if page.tx_hash is None else self._escrow.paid_in_batch(page.tx_hash, page.number)
        if paid is None or paid.root is None:
            return _Batch({}, f"no block of the chain holds batch {page.number}")
        credited, told = paid.amounts.get(self._wallet, 0), sum(line.units for line in lines)
        if credited != told * WEI_PER_UNIT:
            return _Batch(
                {}, f"batch {page.number} credited {far(credited // WEI_PER_UNIT)}, its lines are {far(told)} together"
            )
        return _Batch(self._proven(lines, paid.root))

    def _by_root(self, page: BatchPage, lines: Sequence[BatchLine]) -> _Batch:
        """A batch from which its providers claim. The root on chain is over what each was ever given, so what this
        batch adds is what the root before left out; its detail root is the gateway's word alone."""
        if self._claims is None:
            _, self._claims = self._gateway.claims()
        told = sum(line.units for line in lines)
        mine = next((claim for claim in self._claims if claim.epoch == page.number), None)
        before = max((claim.cumulative_units for claim in self._claims if claim.epoch < page.number), default=0)
        root = self._escrow.root_of(page.number)
        if mine is None or not claim_is_proven(mine, self._wallet, root.root):
            return _Batch({}, f"the payout root {page.number} on chain does not prove what it promises")
        if mine.cumulative_units - before != told:
            return _Batch(
                {}, f"the payout root {page.number} adds {far(mine.cumulative_units - before)}, its lines {far(told)}"
            )
        return _Batch(self._proven(lines, _bytes(page.detail_root)))

    def _proven(self, lines: Sequence[BatchLine], root: bytes) -> dict[str, int]:
        return {
            line.request_id: line.units
            for line in lines
            if is_proven(root, detail_leaf(line.request_id, self._wallet, line.units), map(_bytes, line.proof))
        }


def claim_is_proven(claim: Claim, wallet: str, root: bytes) -> bool:
    """Whether a claim's proof leads to the root that is on chain."""
    return is_proven(root, payout_leaf(wallet, claim.cumulative_units), map(_bytes, claim.proof))


def not_in_history(kept: Iterable[SignedReceipt], lines: Iterable[Line]) -> list[SignedReceipt]:
    """Receipts that a node has kept and no line is about. Lines must come with theirs."""
    told = {(read.peer_id, read.receipt.session_id) for line in lines if (read := _receipt_of(line)) is not None}
    return [one for one in kept if (one.peer_id, one.receipt.session_id) not in told]


def _receipt_objection(line: Line, wallet: str) -> str | None:
    """What is wrong with the receipt for which a gateway pays a line, if it came along."""
    if line.receipt is None:
        return None
    signed = _receipt_of(line)
    if signed is None:
        return "its receipt is none that a node has signed"
    said = signed.receipt
    if (signed.peer_id, said.wallet, said.blocks) != (line.node_id, wallet, line.blocks):
        return "its receipt is about other work"
    if line.token_layers > said.token_layers:
        return f"its receipt is about {said.token_layers} token-layers only"
    return None


def _receipt_of(line: Line) -> SignedReceipt | None:
    try:
        return None if line.receipt is None else read_receipt(line.receipt.encode())
    except ReceiptInvalid:
        return None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
