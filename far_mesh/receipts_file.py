"""The receipts of a session as a file, and what anybody can find out from it offline. Pure.

The file holds the nodes' signed documents as they came, and the client's account: what it asked, who ran which blocks
from which step on, over which links, and the hash roots of its own ends. Nothing of the prompt or the answer is in it.

Two questions are answered apart. What do the nodes' signatures prove to somebody who trusts nobody? And what does it
come to if the client's account is true? A neighbour's signed root is of the first kind, the client's own root of the
second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery.protocol.announcement import Codec, Digest, Quantization
from discovery.protocol.errors import FarError, ReceiptInvalid
from discovery.protocol.ids import SessionId
from discovery.protocol.receipt import read_receipt
from discovery.protocol.signed import MAX_DOCUMENT_BYTES
from far_mesh.contributions import Asked, Contribution, OwnView, Stated, Stint, Verified, verify_receipts

FORMAT: Literal["far-mesh/receipts/v1"] = "far-mesh/receipts/v1"
MAX_FILE_BYTES = 64 * 2**20
CLIENT = "client"
"""Stands among peer ids for the one who wrote the file."""

_MAX_BLOCKS = 4096
_MAX_STEPS = 2**21
_MAX_PARTS = 4096
_MAX_RECEIPTS = 2**16
_LAST = 8
"""Of each node so many of the last receipts are written, beside those that count."""

Count = Annotated[int, Field(ge=0, lt=2**53)]
Link = Annotated[int, Field(ge=0, lt=2**31)]
Block = Annotated[int, Field(ge=0, le=_MAX_BLOCKS)]
Hex128 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True)
class Evidence:
    """A session's receipts, and the client's account of it.

    Attributes:
        blocks: ``[first, end)`` that the nodes ran together.
        answered_steps: so many steps the client has got answers to; nodes may have done more.
    """

    asked: Asked
    blocks: tuple[int, int]
    stints: tuple[Stint, ...]
    own: OwnView
    answered_steps: int


@dataclass(frozen=True)
class Row:
    """One node's part.

    Attributes:
        steps: that the receipt covers which counts; 0 where none does.
        token_layers: that it is owed for if the client's account is true.
        witnessed_token_layers: of them, those that another node's signature confirms.
        input_agrees, output_agrees: who says the same of what came in and went out: peer ids, or :data:`CLIENT`.
        objection: why no receipt counts.
    """

    peer_id: str
    wallet: str
    blocks: tuple[int, int]
    quantization: str
    first_step: int
    end_step: int | None
    receipts: int
    steps: int
    positions: int
    replayed_positions: int
    cached_positions: int
    token_layers: int
    witnessed_token_layers: int
    input_agrees: tuple[str, ...]
    output_agrees: tuple[str, ...]
    objection: str | None


@dataclass(frozen=True)
class Report:
    """What a file says, checked. ``expected_token_layers``: what all nodes together should have computed."""

    asked: Asked
    blocks: tuple[int, int]
    positions: int
    rows: tuple[Row, ...]
    expected_token_layers: int

    @property
    def token_layers(self) -> int:
        """Verified, if the client's account is true."""
        return sum(row.token_layers for row in self.rows)

    @property
    def witnessed_token_layers(self) -> int:
        """Of them, those that another node's signature confirms."""
        return sum(row.witnessed_token_layers for row in self.rows)

    @property
    def is_complete(self) -> bool:
        """Whether there is a verified receipt for all the work. One who was replaced need not have given any."""
        return self.token_layers >= self.expected_token_layers


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Document(_Shape):
    body: Annotated[str, Field(max_length=MAX_DOCUMENT_BYTES)]
    signer: Annotated[str, Field(max_length=128)]
    signature: Annotated[str, Field(max_length=128)]


class _Receipt(_Shape):
    input_link: Link
    output_link: Link
    document: _Document


class _Part(_Shape):
    """Who ran which blocks, from step ``first_step`` to before ``end_step``."""

    peer_id: Annotated[str, Field(max_length=128)]
    wallet: Annotated[str, Field(max_length=64)]
    quantization: Quantization
    first_block: Block
    end_block: Block
    first_step: Count
    end_step: Count | None
    receipts: Annotated[tuple[_Receipt, ...], Field(max_length=_MAX_RECEIPTS)]

    @property
    def node(self) -> _Part:
        """Itself: a part names its node."""
        return self

    @property
    def blocks(self) -> tuple[int, int]:
        return self.first_block, self.end_block


class _OwnRoot(_Shape):
    link: Link
    steps: Count
    root: Digest


class _File(_Shape):
    format: Literal["far-mesh/receipts/v1"]
    session_id: Hex128
    nonce: Hex128
    model_digest: Digest
    codec: Codec
    price_units: Count
    first_block: Block
    end_block: Block
    answered_steps: Count
    step_positions: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**32)], ...], Field(max_length=_MAX_STEPS)]
    parts: Annotated[tuple[_Part, ...], Field(min_length=1, max_length=_MAX_PARTS)]
    own_roots: Annotated[tuple[_OwnRoot, ...], Field(max_length=2 * _MAX_RECEIPTS)]


def receipts_file(evidence: Evidence) -> str:
    """The file's text. Interim receipts that later ones replace are left out, own roots likewise."""
    asked, own = evidence.asked, evidence.own
    positions, needed = own.positions, _needed_steps(evidence)
    stints = [
        replace(stint, receipts=[one for one in stint.receipts if one.steps in needed]) for stint in evidence.stints
    ]
    stated = {place for stint in stints for one in stint.receipts for place in _places(one)}
    content = {
        "format": FORMAT,
        "session_id": asked.session_id.hex(),
        "nonce": asked.nonce.hex(),
        "model_digest": asked.model_digest,
        "codec": asked.codec,
        "price_units": asked.price_units,
        "first_block": evidence.blocks[0],
        "end_block": evidence.blocks[1],
        "answered_steps": evidence.answered_steps,
        "step_positions": [after - before for before, after in pairwise(positions)],
        "parts": [_part(stint) for stint in stints],
        "own_roots": [
            {"link": link, "steps": steps, "root": root}
            for (link, steps), root in sorted(own.roots.items())
            if (link, steps) in stated
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def read_receipts_file(data: bytes) -> Evidence:
    """A stranger's file as evidence: shapes and signatures are checked, and that its parts can be those of one session.

    Raises:
        ReceiptInvalid: with the first thing that is wrong.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ReceiptInvalid(f"a file of {len(data)} bytes is too long (limit {MAX_FILE_BYTES})")
    try:
        file = _File.model_validate_json(data)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ReceiptInvalid(f"this is not a file of receipts: {place + ': ' if place else ''}{first['msg']}") from None
    if file.first_block >= file.end_block:
        raise ReceiptInvalid("the block range of the session is empty")
    if file.answered_steps > len(file.step_positions):
        raise ReceiptInvalid(
            f"{file.answered_steps} steps are said to be answered, and {len(file.step_positions)} were sent"
        )
    stints = tuple(Stint(part, tuple(_stated(part)), part.first_step, part.end_step) for part in file.parts)
    positions = (0, *accumulate(file.step_positions))
    evidence = Evidence(
        Asked(
            SessionId(bytes.fromhex(file.session_id)),
            bytes.fromhex(file.nonce),
            file.model_digest,
            file.codec,
            file.price_units,
        ),
        (file.first_block, file.end_block),
        stints,
        OwnView(_own_roots(file.own_roots), positions),
        file.answered_steps,
    )
    _check_signers(stints)
    _check_cover(evidence)
    _check_links(evidence)
    return evidence


def check(evidence: Evidence) -> Report:
    """Who is owed for what, what of it the nodes' own signatures prove, and why others have nothing."""
    asked, stints, own = evidence.asked, evidence.stints, evidence.own
    verified = verify_receipts(asked, stints, own)
    among_nodes = verify_receipts(asked, stints, OwnView({}, own.positions))
    objections = {str(error.facts.get("peer_id")): error for error in verified.rejected}
    rows = tuple(_row(evidence, stint, _of(verified, stint), _of(among_nodes, stint), objections) for stint in stints)
    positions = own.positions[evidence.answered_steps]
    first, end = evidence.blocks
    return Report(asked, evidence.blocks, positions, rows, positions * (end - first))


def _row(
    evidence: Evidence,
    stint: Stint,
    counted: Contribution | None,
    witnessed: Contribution | None,
    objections: Mapping[str, FarError],
) -> Row:
    node = stint.hop.node
    token_layers = counted.token_layers if counted else 0
    receipt = counted.receipt.receipt if counted else None
    stated = next((one for one in stint.receipts if counted and one.signed is counted.receipt), None)
    objection = None if counted else objections.get(node.peer_id)
    return Row(
        peer_id=node.peer_id,
        wallet=node.wallet,
        blocks=stint.hop.blocks,
        quantization=node.quantization,
        first_step=stint.first_step,
        end_step=stint.end_step,
        receipts=len(stint.receipts),
        steps=receipt.steps if receipt else 0,
        positions=counted.positions if counted else 0,
        replayed_positions=receipt.replayed_positions if receipt else 0,
        cached_positions=receipt.cached_positions if receipt else 0,
        token_layers=token_layers,
        witnessed_token_layers=min(token_layers, witnessed.token_layers) if witnessed else 0,
        input_agrees=tuple(_agreeing(evidence, stint, stated, is_input=True)) if stated else (),
        output_agrees=tuple(_agreeing(evidence, stint, stated, is_input=False)) if stated else (),
        objection=objection.message if objection else None,
    )


def _of(verified: Verified, stint: Stint) -> Contribution | None:
    """The contribution that a receipt of this stint proves."""
    own = {id(one.signed) for one in stint.receipts}
    return next((done for done in verified.contributions if id(done.receipt) in own), None)


def _agreeing(evidence: Evidence, stint: Stint, stated: Stated, *, is_input: bool) -> Iterator[str]:
    """Who says of the link on one side what a node says."""
    receipt = stated.signed.receipt
    link, root = _input(stated) if is_input else _output(stated)
    if evidence.own.roots.get((link, receipt.steps)) == root:
        yield CLIENT
    said = _output if is_input else _input
    for other in evidence.stints:
        if other is not stint and any(
            said(one) == (link, root) and one.steps == receipt.steps for one in other.receipts
        ):
            yield other.hop.node.peer_id


def _input(stated: Stated) -> tuple[int, str]:
    return stated.input_link, stated.signed.receipt.input_root


def _output(stated: Stated) -> tuple[int, str]:
    return stated.output_link, stated.signed.receipt.output_root


def _places(stated: Stated) -> tuple[tuple[int, int], tuple[int, int]]:
    return (stated.input_link, stated.steps), (stated.output_link, stated.steps)


def _needed_steps(evidence: Evidence) -> set[int]:
    """Where receipts count or are compared with those that do, and where the last of each node are."""
    asked, stints, own = evidence.asked, evidence.stints, evidence.own
    needed = {one.steps for stint in stints for one in sorted(stint.receipts, key=lambda one: one.steps)[-_LAST:]}
    for view in (own, OwnView({}, own.positions)):
        needed |= {done.receipt.receipt.steps for done in verify_receipts(asked, stints, view).contributions}
    return needed


def _part(stint: Stint) -> dict[str, Any]:
    node = stint.hop.node
    return {
        "peer_id": node.peer_id,
        "wallet": node.wallet,
        "quantization": node.quantization,
        "first_block": stint.hop.first_block,
        "end_block": stint.hop.end_block,
        "first_step": stint.first_step,
        "end_step": stint.end_step,
        "receipts": [
            {
                "input_link": one.input_link,
                "output_link": one.output_link,
                "document": json.loads(one.signed.to_bytes()),
            }
            for one in stint.receipts
        ],
    }


def _stated(part: _Part) -> Iterator[Stated]:
    for one in part.receipts:
        document = one.document.model_dump_json().encode()
        yield Stated(read_receipt(document), one.input_link, one.output_link)


def _own_roots(given: Iterable[_OwnRoot]) -> dict[tuple[int, int], str]:
    roots: dict[tuple[int, int], str] = {}
    for one in given:
        if roots.setdefault((one.link, one.steps), one.root) != one.root:
            raise ReceiptInvalid(f"the client says two things of link {one.link} after {one.steps} steps")
    return roots


def _check_signers(stints: Sequence[Stint]) -> None:
    for stint in stints:
        peer_id = stint.hop.node.peer_id
        for one in stint.receipts:
            if one.signed.peer_id != peer_id:
                raise ReceiptInvalid(f"a receipt of {one.signed.peer_id} stands in the place of {peer_id}'s")


def _check_cover(evidence: Evidence) -> None:
    """At every step each block has one node, and who comes in its place begins where the one before ended."""
    first, end = evidence.blocks
    sent = len(evidence.own.positions) - 1
    begins_at: dict[int, int | None] = dict.fromkeys(range(first, end), 0)
    for stint in evidence.stints:
        peer_id, (begin, stop) = stint.hop.node.peer_id, stint.hop.blocks
        if not first <= begin < stop <= end:
            raise ReceiptInvalid(f"blocks {begin}:{stop} of {peer_id} are not within {first}:{end}", peer_id=peer_id)
        if max(stint.first_step, stint.end_step or 0) > sent:
            raise ReceiptInvalid(f"{peer_id} served beyond the last of {sent} steps", peer_id=peer_id)
        for block in range(begin, stop):
            due = begins_at[block]
            if due is None:
                raise ReceiptInvalid(f"block {block} has two nodes at once, one is {peer_id}", peer_id=peer_id)
            if due != stint.first_step:
                raise ReceiptInvalid(
                    f"block {block} needs a node from step {due} on, and {peer_id} begins with {stint.first_step}",
                    peer_id=peer_id,
                )
            begins_at[block] = stint.end_step
    if missing := [block for block, due in begins_at.items() if due is not None]:
        raise ReceiptInvalid(f"block {missing[0]} has no node from step {begins_at[missing[0]]} on")


def _check_links(evidence: Evidence) -> None:
    """A link has one node at each end, of blocks that adjoin, or the client at the end of all blocks."""
    givers: dict[int, Stint] = {}
    takers: dict[int, Stint] = {}
    for stint in evidence.stints:
        for one in stint.receipts:
            for ends, link in ((givers, one.output_link), (takers, one.input_link)):
                if ends.setdefault(link, stint) is not stint:
                    raise ReceiptInvalid(f"link {link} has two nodes at one end")
    own = {link for link, _ in evidence.own.roots}
    first, end = evidence.blocks
    for link in givers.keys() | takers.keys():
        giver, taker = givers.get(link), takers.get(link)
        if giver is not None and taker is not None and giver.hop.end_block != taker.hop.first_block:
            raise ReceiptInvalid(
                f"link {link} leads from block {giver.hop.end_block - 1} to block {taker.hop.first_block}"
            )
        is_clients = (giver is None and taker is not None and taker.hop.first_block == first) or (
            taker is None and giver is not None and giver.hop.end_block == end
        )
        if link in own and not is_clients:
            raise ReceiptInvalid(f"link {link} is between nodes, and the client cannot know its roots")
