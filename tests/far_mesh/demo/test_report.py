"""The table and the JSON object, from made-up facts."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from far_mesh.demo.report import far, report, sum_line, sums_up, table
from far_mesh.demo.user import Told
from far_mesh.marketplace.chain.client import Release

ANNA, BEN = "0x" + "aA" * 20, "0x" + "bB" * 20
GWEI = 10**9


def facts() -> tuple[dict[str, Any], Release]:
    request = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "fee_units": 25,
        "refund_units": 75,
        "held_units": 200,
        "nodes_used": [
            {"node_id": "anna", "layers": [0, 1, 2], "token_layers": 87, "paid_units": 60},
            {"node_id": "ben", "layers": [3, 4], "token_layers": 58, "paid_units": 40},
        ],
    }
    nodes = [
        {"peer_id": "anna", "wallet": ANNA, "quantization": "none"},
        {"peer_id": "ben", "wallet": BEN, "quantization": "int8"},
        {"peer_id": "idle", "wallet": "0x0", "quantization": "none"},
    ]
    release = Release({ANNA: 60 * GWEI, BEN: 40 * GWEI}, 25 * GWEI, 75 * GWEI)
    told = Told("a story", {"request_id": "r"}, 0.25, 2.0)
    return report(told, request, nodes, release, {"rpc_url": "http://x", "batch_tx": "0x1"}), release


def test_the_object_has_what_scripts_are_promised() -> None:
    result, _ = facts()
    assert result["nodes"][1] == {
        "peer_id": "ben",
        "wallet": BEN,
        "blocks": [3, 5],
        "quantization": "int8",
        "token_layers": 58,
        "paid_units": 40,
        "paid_wei": 40 * GWEI,
    }
    assert len(result["nodes"]) == 2, "a node that did nothing is not listed"
    assert (result["time_to_first_token_s"], result["tokens_per_s"]) == (0.25, 10.0)


def test_money_that_adds_up_is_said_to_add_up() -> None:
    result, release = facts()
    assert sums_up(result, release)
    assert "100 + 25 + 75 = 200 held  ✓" in sum_line(result, release)


@pytest.mark.parametrize("field", ["fee_units", "refund_units", "held_units"])
def test_one_unit_astray_is_seen(field: str) -> None:
    result, release = facts()
    result[field] += 1
    assert not sums_up(result, release)
    assert "DOES NOT ADD UP" in sum_line(result, release)


@pytest.mark.parametrize(
    "release",
    [
        Release({ANNA: 59 * GWEI, BEN: 41 * GWEI}, 25 * GWEI, 75 * GWEI),
        Release({ANNA: 60 * GWEI, BEN: 40 * GWEI}, 26 * GWEI, 74 * GWEI),
    ],
)
def test_a_chain_that_paid_otherwise_is_seen(release: Release) -> None:
    told_wei = {node["wallet"]: release.paid_wei[node["wallet"]] for node in facts()[0]["nodes"]}
    result, _ = facts()
    for node in result["nodes"]:
        node["paid_wei"] = told_wei[node["wallet"]]
    assert not sums_up(result, release)


def test_the_table_shows_shares_and_far() -> None:
    screen = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    screen.print(table(*facts()))
    shown = screen.export_text()
    assert "60.0 %" in shown
    assert "3–4 int8" in shown
    assert "0.000000060" in shown


def test_the_table_says_where_the_dashboard_is_if_there_is_one() -> None:
    assert table(*facts()).caption is None
    assert "http://127.0.0.1:8000/" in str(table(*facts(), "http://127.0.0.1:8000/").caption)


def test_far_are_written_with_every_digit() -> None:
    assert far(1) == "0.000000001"
    assert far(12 * GWEI + 5) == "12.000000005"


def test_the_table_has_its_head_in_one_line_on_a_terminal_of_eighty_columns() -> None:
    result, release = facts()
    result["nodes"][0] |= {"peer_id": "12D3KooWehZM9td6", "quantization": "int8"}
    screen = Console(width=80, record=True)
    screen.print(table(result, release))
    assert "┃ FAR on chain ┃" in screen.export_text()
