"""Rewards as people read them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console as RichConsole
from rich.table import Table

from discovery.console import Console
from discovery.protocol.receipt import SignedReceipt
from far_node.rewards.amounts import far
from far_node.rewards.answers import DayRewards, Line, NodeScore, Rewards, TransferTo
from far_node.rewards.check import Checked, Verdict

BARS = "▁▂▃▄▅▆▇█"
NUMBERS = ("requests", "token-layers", "earned", "batch", "score")
PARTS = ("dependability", "honesty", "presence", "standing")


def show_balance(found: Rewards) -> None:
    """Where the money is, node by node, and a bar for each day."""
    table = _table("", "")
    unknown = "the chain does not answer"
    for name, units in (
        ("earned", found.earned_units),
        ("  waits for a batch", found.waiting_units),
        ("  on its way", found.in_flight_units),
        ("  paid", found.paid_units),
        ("    to be withdrawn", found.credit_units),
        ("    to be claimed", found.unclaimed_units),
        ("    withdrawn", found.withdrawn_units),
    ):
        table.add_row(name, unknown if units is None else far(units))
    _print(table)
    if found.transfer is not None:
        print(transfer_in_words(found.transfer))
    if found.per_node:
        nodes = _table("node", "requests", "token-layers", "earned")
        for node in found.per_node:
            nodes.add_row(node.node_id, f"{node.requests:,}", f"{node.token_layers:,}", far(node.earned_units))
        _print(nodes)
    if found.scores:
        scores = _table("node", "score", *PARTS)
        for one in found.scores:
            scores.add_row(one.node_id, *shares(one.score))
        _print(scores)
    for one in found.scores:
        for sentence in one.advice:
            print(f"{one.node_id[-6:]}: {sentence}")
    days = found.per_day
    if days:
        best = max(day.earned_units for day in days)
        print(f"{days[0].date}  {bars(days)}  {days[-1].date}   best day {far(best)}")


def shares(score: NodeScore | None) -> tuple[str, ...]:
    """A score, and the parts of which it is the product."""
    if score is None:
        return ("unknown",)
    return tuple(f"{getattr(score, name):.3f}" for name in ("value", *PARTS))


def transfer_in_words(found: TransferTo) -> str:
    """Where a marketplace pays by transfer, what will change, and what stands in the way."""
    lines = [
        f"paid by transfer to {found.address}" if found.address else "paid by transfer, and no address is known yet"
    ]
    if found.next_address and found.next_from:
        lines.append(f"from {found.next_from:%Y-%m-%d %H:%M} UTC on to {found.next_address}")
    if found.held_reason:
        lines.append(f"what is due waits: {found.held_reason}")
    return "\n".join(lines)


def bars(days: Sequence[DayRewards]) -> str:
    """One bar for each day, the best day the highest; a day without anything has none."""
    best = max((day.earned_units for day in days), default=0)
    return "".join(BARS[(day.earned_units * len(BARS) - 1) // best] if day.earned_units else " " for day in days)


def tell_history(console: Console, lines: Sequence[Line], checked: Sequence[Checked] | None, limit: int) -> bool:
    """The lines, with what came of checking them. Whether all that is said to be paid is proven."""
    by_line = {id(one.line): one for one in checked or ()}
    for line in lines[:limit]:
        found = by_line.get(id(line))
        verdict = {} if found is None else {"verdict": str(found.verdict), "why": found.why}
        console.event("line", None, **line.model_dump(mode="json", exclude={"receipt"}), **verdict)
    if not console.as_json:
        _print(_history(lines[:limit], by_line))
    if checked is None:
        return True
    counts = {verdict: [one for one in checked if one.verdict is verdict] for verdict in Verdict}
    units = {verdict: sum(one.line.units for one in found) for verdict, found in counts.items()}
    sentence = "\n".join(f"{verdict:<9} {len(counts[verdict]):>6}  {far(units[verdict])}" for verdict in Verdict)
    facts = {str(verdict): {"lines": len(counts[verdict]), "units": units[verdict]} for verdict in Verdict}
    console.event("checked", sentence, **facts)
    return not counts[Verdict.UNPROVEN]


def _history(lines: Iterable[Line], checked: dict[int, Checked]) -> Table:
    headings = ("when", "request", "node", "blocks", "token-layers", "earned", "state", "batch")
    table = _table(*headings, *(("checked",) if checked else ()))
    for line in lines:
        found = checked.get(id(line))
        verdict = () if found is None else (f"{found.verdict}: {found.why}",)
        table.add_row(
            f"{line.earned_at:%Y-%m-%d %H:%M}",
            line.request_id,
            line.node_id[-6:],
            "{}:{}".format(*line.blocks),
            f"{line.token_layers:,}",
            far(line.units),
            line.state,
            "" if line.batch_number is None else str(line.batch_number),
            *verdict,
        )
    return table


def tell_missing(console: Console, kept: int, missing: Sequence[SignedReceipt]) -> None:
    """Receipts of the node that no line of the history is about."""
    for one in missing:
        said = one.receipt
        why = (
            "no marketplace offered anything for it"
            if not said.price_units
            else "its request was refunded, or another marketplace's, or the receipt was not proven"
        )
        blocks = "{}:{}".format(*said.blocks)
        console.event(
            "not_in_history",
            f"session {said.session_id}, blocks {blocks}, {said.token_layers:,} token-layers: {why}",
            session_id=said.session_id,
            node_id=one.peer_id,
            blocks=said.blocks,
            token_layers=said.token_layers,
            issued_at=said.issued_at,
            why=why,
        )
    sentence = f"{kept} receipts kept here, {kept - len(missing)} of them in the history"
    console.event("receipts", sentence, kept=kept, not_in_history=len(missing))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(headings), header_style="bold")
    for heading in headings:
        is_number = heading in (*NUMBERS, *PARTS) or not any(headings)
        table.add_column(heading, justify="right" if is_number and table.columns else "left", no_wrap=True)
    return table


def _print(table: Table) -> None:
    RichConsole(width=None if sys.stdout.isatty() else 1000).print(table)
