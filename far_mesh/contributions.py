"""Who is owed for what: receipts in, verified contributions out. Pure.

A receipt counts when it is about exactly the work the client asked of that node, and when its hash roots fit its
neighbours': confirmed on one side at least (by the client's own roots or a neighbour's receipt), contradicted on none.
Two neighbours that contradict each other are both unpaid: neither can gain by a lie, and a lie costs the liar too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from discovery.protocol.announcement import Dtype
from discovery.protocol.errors import FarError, ReceiptInvalid
from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import Receipt, SignedReceipt
from far_mesh.route import RouteHop


@dataclass(frozen=True)
class Contribution:
    """Work of one node that was receipted and verified."""

    peer_id: str
    wallet: str
    blocks: tuple[int, int]
    quantization: str
    positions: int
    token_layers: int
    receipt: SignedReceipt


@dataclass(frozen=True)
class Roots:
    """The client's own view after a step: roots of all it sent and received, and positions computed until then."""

    sent: str
    received: str
    positions: int


@dataclass(frozen=True)
class Asked:
    """What the client asked of all nodes of a session."""

    session_id: SessionId
    nonce: bytes
    model_digest: str
    codec: Dtype
    price_units: int


@dataclass(frozen=True)
class Verified:
    """Contributions in route order, and why the other hops have none."""

    contributions: tuple[Contribution, ...]
    rejected: tuple[FarError, ...]


def verify_receipts(
    asked: Asked,
    hops: Sequence[RouteHop],
    receipts: Sequence[Mapping[int, SignedReceipt]],
    roots: Mapping[int, Roots],
    at_steps: int | None = None,
) -> Verified:
    """Check each hop's last receipt, or the one at ``at_steps``.

    Args:
        receipts: for each hop, its receipts by the number of steps they cover.
        roots: the client's roots by the number of steps.
    """
    contributions: list[Contribution] = []
    rejected: list[FarError] = []
    for index, hop in enumerate(hops):
        try:
            signed = _choose(hop, receipts[index], at_steps)
            _check_facts(signed, asked, hop, roots)
            _check_borders(index, signed.receipt, receipts, roots[signed.receipt.steps])
        except FarError as error:
            rejected.append(error)
            continue
        contributions.append(_contribution(hop, signed))
    return Verified(tuple(contributions), tuple(rejected))


def _choose(hop: RouteHop, receipts: Mapping[int, SignedReceipt], at_steps: int | None) -> SignedReceipt:
    steps = at_steps if at_steps is not None else max(receipts, default=None)
    signed = receipts.get(steps) if steps is not None else None
    if signed is None:
        raise ReceiptInvalid(f"{hop.node.peer_id} gave no receipt", peer_id=hop.node.peer_id)
    return signed


def _check_facts(signed: SignedReceipt, asked: Asked, hop: RouteHop, roots: Mapping[int, Roots]) -> None:
    receipt, node = signed.receipt, hop.node
    own = roots.get(receipt.steps)
    expected = {
        "peer_id": node.peer_id,
        "wallet": node.wallet,
        "session_id": asked.session_id.hex(),
        "nonce": asked.nonce.hex(),
        "model_digest": asked.model_digest,
        "first_block": hop.first_block,
        "end_block": hop.end_block,
        "quantization": node.quantization,
        "codec": asked.codec,
        "price_units": asked.price_units,
        "positions": own.positions if own else None,
    }
    for name, value in expected.items():
        if getattr(receipt, name) != value:
            raise ReceiptInvalid(
                f"the receipt of {node.peer_id} says {name} {getattr(receipt, name)!r} where {value!r} is true",
                peer_id=node.peer_id,
                field=name,
            )


def _check_borders(index: int, receipt: Receipt, receipts: Sequence[Mapping[int, SignedReceipt]], own: Roots) -> None:
    before = _neighbour(receipts, index - 1, receipt.steps)
    after = _neighbour(receipts, index + 1, receipt.steps)
    given = own.sent if index == 0 else before.output_root if before else None
    taken = own.received if index == len(receipts) - 1 else after.input_root if after else None
    if (given is not None and given != receipt.input_root) or (taken is not None and taken != receipt.output_root):
        raise ReceiptInvalid(f"the hash roots of {receipt.peer_id} do not fit its neighbours'", peer_id=receipt.peer_id)
    if given is None and taken is None:
        raise ReceiptInvalid(f"nobody confirms the work of {receipt.peer_id}", peer_id=receipt.peer_id)


def _neighbour(receipts: Sequence[Mapping[int, SignedReceipt]], index: int, steps: int) -> Receipt | None:
    if not 0 <= index < len(receipts):
        return None
    signed = receipts[index].get(steps)
    return signed.receipt if signed else None


def _contribution(hop: RouteHop, signed: SignedReceipt) -> Contribution:
    receipt = signed.receipt
    return Contribution(
        peer_id=receipt.peer_id,
        wallet=receipt.wallet,
        blocks=hop.blocks,
        quantization=receipt.quantization,
        positions=receipt.positions,
        token_layers=receipt.token_layers,
        receipt=signed,
    )
