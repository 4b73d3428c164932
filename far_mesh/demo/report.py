"""What the demo shows at the end: a table for people, one JSON object for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from far_mesh.demo.user import Told
from far_mesh.marketplace.chain.amounts import wei_to_units
from far_mesh.marketplace.chain.client import Release

UNITS_PER_FAR = 10**9


def report(
    told: Told,
    request: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    release: Release,
    chain: Mapping[str, str],
) -> dict[str, Any]:
    """The object of ``--json``. ``nodes`` are the ready events; ``paid_wei`` is what the release on chain says."""
    used = {node["node_id"]: node for node in request["nodes_used"]}
    rows = []
    for node in nodes:
        work = used.get(node["peer_id"])
        if work is None:
            continue
        rows.append(
            {
                "peer_id": node["peer_id"],
                "wallet": node["wallet"],
                "blocks": [min(work["layers"]), max(work["layers"]) + 1],
                "quantization": node["quantization"],
                "token_layers": work["token_layers"],
                "paid_units": work["paid_units"],
                "paid_wei": release.paid_wei.get(node["wallet"], 0),
            }
        )
    return {
        "text": told.text,
        "prompt_tokens": request["prompt_tokens"],
        "completion_tokens": request["completion_tokens"],
        "time_to_first_token_s": round(told.time_to_first_token_s, 4),
        "tokens_per_s": round(request["completion_tokens"] / told.seconds, 2),
        "nodes": rows,
        "fee_units": request["fee_units"],
        "refund_units": request["refund_units"],
        "held_units": request["held_units"],
        "chain": dict(chain),
    }


def sums_up(result: Mapping[str, Any], release: Release) -> bool:
    """Whether paid + fee + refund = held to the unit, and the chain says the same."""
    paid = sum(node["paid_units"] for node in result["nodes"])
    books = paid + result["fee_units"] + result["refund_units"] == result["held_units"]
    on_chain = (
        all(wei_to_units(node["paid_wei"]) == node["paid_units"] for node in result["nodes"])
        and wei_to_units(release.fee_wei) == result["fee_units"]
        and wei_to_units(release.refund_wei) == result["refund_units"]
    )
    return books and on_chain


def table(result: Mapping[str, Any], release: Release, dashboard: str | None = None) -> Table:
    """Who did what, and what it brought them; where ``dashboard`` shows the same."""
    title = "Who told the story, and what the chain paid for it"
    caption = None if dashboard is None else f"[link={dashboard}]live at {dashboard}[/link]"
    shown = Table(title=title, caption=caption, show_footer=True, title_justify="left", caption_justify="left")
    total = sum(node["token_layers"] for node in result["nodes"])
    paid = sum(node["paid_units"] for node in result["nodes"])
    shown.add_column("node", "paid")
    shown.add_column("wallet", "")
    shown.add_column("blocks", "")
    shown.add_column("token-layers", str(total), justify="right")
    shown.add_column("share", "100.0 %", justify="right")
    shown.add_column("FAR on chain", far(paid), justify="right")
    for node in result["nodes"]:
        first, end = node["blocks"]
        kind = "" if node["quantization"] == "none" else f" {node['quantization']}"
        shown.add_row(
            f"…{node['peer_id'][-8:]}",
            f"{node['wallet'][:6]}…{node['wallet'][-4:]}",
            f"{first}–{end - 1}{kind}",
            str(node["token_layers"]),
            f"{100 * node['token_layers'] / total:.1f} %",
            far(wei_to_units(node["paid_wei"])),
        )
    shown.add_section()
    for name, units in (("fee", result["fee_units"]), ("refund", result["refund_units"])):
        shown.add_row(name, "", "", "", "", far(units))
    shown.add_row("held", "", "", "", "", far(result["held_units"]))
    return shown


def sum_line(result: Mapping[str, Any], release: Release) -> str:
    """The sum check in words."""
    paid = sum(node["paid_units"] for node in result["nodes"])
    verdict = "✓ to the unit, and the chain agrees" if sums_up(result, release) else "✗ DOES NOT ADD UP"
    parts = f"{paid} + {result['fee_units']} + {result['refund_units']}"
    return f"paid + fee + refund = {parts} = {result['held_units']} held  {verdict}"


def far(units: int) -> str:
    """Units of 1e-9 FAR in FAR, every digit."""
    return f"{units // UNITS_PER_FAR}.{units % UNITS_PER_FAR:09d}"
