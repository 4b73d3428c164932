"""Who is owed for what: receipts in, verified contributions out. Pure.

A receipt counts when it is about exactly the work the client asked of that node, and when its hash roots fit its
neighbours': confirmed on one side at least (by the client's own roots or a neighbour's receipt), contradicted on none.
Two neighbours that contradict each other are both unpaid: neither can gain by a lie, and a lie costs the liar too.

A session is a chain of links: from the client to the first node, between nodes, from the last one to the client. When a
node is lost, others take its place and the links beside it are new. Roots are compared link by link. Each block is paid
once for each position, however often it was computed: the lost node as far as its own receipts go, who took its place
for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from discovery.protocol.announcement import Codec
from discovery.protocol.errors import FarError, ReceiptInvalid
from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import Receipt, SignedReceipt


class Identified(Protocol):
    """What must be known of a node: who it is, who is paid, and the form of its weights."""

    @property
    def peer_id(self) -> str: ...
    @property
    def wallet(self) -> str: ...
    @property
    def quantization(self) -> str: ...


class Part(Protocol):
    """A node and the blocks ``[first, end)`` it was asked to run, as :class:`~far_mesh.route.RouteHop` is."""

    @property
    def node(self) -> Identified: ...
    @property
    def first_block(self) -> int: ...
    @property
    def end_block(self) -> int: ...
    @property
    def blocks(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Contribution:
    """Work of one node that was receipted and verified. ``positions`` and ``token_layers`` are those it is owed for."""

    peer_id: str
    wallet: str
    blocks: tuple[int, int]
    quantization: str
    positions: int
    token_layers: int
    receipt: SignedReceipt


_SURE = {"client": 1.0, "neighbours": 0.25}
"""How sure it is that a node lies whose receipt contradicts the client's own account, or a neighbour's."""


@dataclass(frozen=True)
class Asked:
    """What the client asked of all nodes of a session."""

    session_id: SessionId
    nonce: bytes
    model_digest: str
    codec: Codec
    price_units: int


@dataclass(frozen=True)
class Stated:
    """A receipt, and the links its node stood between when it gave it."""

    signed: SignedReceipt
    input_link: int
    output_link: int

    @property
    def steps(self) -> int:
        """Steps it covers."""
        return self.signed.receipt.steps


@dataclass(frozen=True)
class Stint:
    """A node's part in a session: from the step it began with to the one before which it was replaced."""

    hop: Part
    receipts: Sequence[Stated]
    first_step: int = 0
    end_step: int | None = None


@dataclass(frozen=True)
class OwnView:
    """What the client knows by itself.

    Attributes:
        roots: of the links it is an end of, by link and number of steps.
        positions: positions computed after so many steps; the first is 0.
    """

    roots: Mapping[tuple[int, int], str]
    positions: Sequence[int]


@dataclass(frozen=True)
class Verified:
    """Contributions in the order of the stints, and why the others have none."""

    contributions: tuple[Contribution, ...]
    rejected: tuple[FarError, ...]

    def blamed(self) -> dict[str, float]:
        """By peer id, how sure it is that a node has signed what is not true, from 0 to 1. Where neighbours contradict
        each other one of them lies, and both are suspected; who gave no receipt, or has nobody left who confirms it,
        has not lied."""
        found: dict[str, float] = {}
        for error in self.rejected:
            sure = _SURE.get(str(error.facts.get("against")), 0.0)
            peer_id = str(error.facts.get("peer_id"))
            if sure:
                found[peer_id] = max(sure, found.get(peer_id, 0.0))
        return found


def verify_receipts(asked: Asked, stints: Sequence[Stint], own: OwnView, at_steps: int | None = None) -> Verified:
    """Check each stint's last receipt that is confirmed, until ``at_steps``. Stints are in the order they began in."""
    roots = _Roots(stints, own)
    paid: dict[int, int] = {}
    contributions: list[Contribution] = []
    rejected: list[FarError] = []
    for stint in stints:
        try:
            signed = _confirmed(stint, asked, own, roots, at_steps)
        except FarError as error:
            rejected.append(error)
            continue
        contribution = _contribution(stint, signed, own, paid)
        if contribution.token_layers:
            contributions.append(contribution)
    return Verified(tuple(contributions), tuple(rejected))


def latest_checkpoint(stints: Sequence[Stint], until: int) -> int:
    """The greatest number of steps, ``until`` at most, at which all who serve now have given a receipt; 0: none."""
    serving = [stint for stint in stints if stint.end_step is None]
    stated = [{one.steps for one in stint.receipts if one.steps <= until} for stint in serving]
    return max(set.intersection(*stated), default=0) if stated else 0


def _confirmed(stint: Stint, asked: Asked, own: OwnView, roots: _Roots, at_steps: int | None) -> SignedReceipt:
    """The last receipt that somebody confirms. A lie in a later one spoils them all."""
    peer_id = stint.hop.node.peer_id
    known = [one for one in stint.receipts if at_steps is None or one.steps <= at_steps]
    if not known:
        raise ReceiptInvalid(f"{peer_id} gave no receipt", peer_id=peer_id)
    for stated in reversed(sorted(known, key=lambda one: one.steps)):  # of the same step, the latest
        _check_facts(stated.signed, asked, stint, own)
        if roots.confirm(stint, stated):
            return stated.signed
    raise ReceiptInvalid(f"nobody confirms the work of {peer_id}", peer_id=peer_id)


def _check_facts(signed: SignedReceipt, asked: Asked, stint: Stint, own: OwnView) -> None:
    receipt, hop, node = signed.receipt, stint.hop, stint.hop.node
    known = stint.first_step <= receipt.steps < len(own.positions)
    fresh = own.positions[receipt.steps] - own.positions[stint.first_step] if known else None
    replayed = receipt.replayed_positions if stint.first_step else 0
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
        "replayed_positions": replayed,
        "positions": None if fresh is None else fresh + replayed,
    }
    for name, value in expected.items():
        if getattr(receipt, name) != value:
            raise ReceiptInvalid(
                f"the receipt of {node.peer_id} says {name} {getattr(receipt, name)!r} where {value!r} is true",
                peer_id=node.peer_id,
                field=name,
                against="client",
            )


class _Roots:
    """What is said of the links, by whom."""

    def __init__(self, stints: Sequence[Stint], own: OwnView) -> None:
        self._own = own
        self._given = self._collect(stints, lambda one: (one.output_link, one.signed.receipt.output_root))
        self._taken = self._collect(stints, lambda one: (one.input_link, one.signed.receipt.input_root))

    def confirm(self, stint: Stint, stated: Stated) -> bool:
        """Whether those on either side say the same.

        Raises:
            ReceiptInvalid: one of them contradicts it.
        """
        receipt = stated.signed.receipt
        before = self._said(self._given, stint, stated.input_link, receipt)
        after = self._said(self._taken, stint, stated.output_link, receipt)
        if before - {receipt.input_root} or after - {receipt.output_root}:
            links = ((stated.input_link, receipt.input_root), (stated.output_link, receipt.output_root))
            is_ours = any(self._own.roots.get((link, receipt.steps), root) != root for link, root in links)
            raise ReceiptInvalid(
                f"the hash roots of {receipt.peer_id} do not fit its neighbours'",
                peer_id=receipt.peer_id,
                against="client" if is_ours else "neighbours",
            )
        return bool(before or after)

    def _said(
        self, said: Mapping[tuple[int, int], list[tuple[Stint, str]]], stint: Stint, link: int, receipt: Receipt
    ) -> set[str]:
        place = link, receipt.steps
        others = {root for other, root in said.get(place, []) if other is not stint}
        own = self._own.roots.get(place)
        return others | ({own} if own is not None else set())

    @staticmethod
    def _collect(
        stints: Sequence[Stint], side: Callable[[Stated], tuple[int, str]]
    ) -> dict[tuple[int, int], list[tuple[Stint, str]]]:
        said: dict[tuple[int, int], list[tuple[Stint, str]]] = {}
        for stint in stints:
            for one in stint.receipts:
                if 0 < stint.first_step == one.steps:
                    continue  # it may have been asked to go while it was still brought to where the lost one was
                link, root = side(one)
                said.setdefault((link, one.steps), []).append((stint, root))
        return said


def _contribution(stint: Stint, signed: SignedReceipt, own: OwnView, paid: dict[int, int]) -> Contribution:
    """What a stint is owed. ``paid``: until which position each block is paid; it is brought up to date."""
    receipt, began = signed.receipt, own.positions[stint.first_step]
    until = own.positions[receipt.steps if stint.end_step is None else min(receipt.steps, stint.end_step)]
    owed: list[int] = []
    for block in range(stint.hop.first_block, stint.hop.end_block):
        missing = began - min(paid.get(block, 0), began)  # what the one before did, and has no receipt of
        fresh = max(0, until - max(began, paid.get(block, 0)))  # one before may have come further than this began
        owed.append(fresh + min(receipt.replayed_positions, missing))
        paid[block] = max(until, paid.get(block, 0))
    return Contribution(
        peer_id=receipt.peer_id,
        wallet=receipt.wallet,
        blocks=stint.hop.blocks,
        quantization=receipt.quantization,
        positions=max(owed),
        token_layers=sum(owed),
        receipt=signed,
    )
