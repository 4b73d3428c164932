"""deploy/monitoring: rules and a board that ask for numbers there are, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import promql_parser
import pytest
import yaml

from discovery.protocol.errors import FarError
from tests.docs.pages import ROOT
from tests.docs.test_metrics import documented

FOLDER = ROOT / "deploy" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text())
BOARD: dict[str, Any] = json.loads((FOLDER / "far-mesh.json").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
FROM_PROMETHEUS = {"up"}
_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
_OF_GRAFANA = {"$__rate_interval": "5m", "$gateway": ".*"}


def names_in(node: Any) -> Iterator[str]:
    """The series that an expression asks for."""
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name)
    for inner in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (found := getattr(node, inner, None)) is not None and not isinstance(found, str | float):
            yield from names_in(found)
    for argument in getattr(node, "args", None) or ():
        yield from names_in(argument)


def asked_for(expression: str) -> set[str]:
    """The same as they are documented: a histogram has three names."""
    for variable, value in _OF_GRAFANA.items():
        expression = expression.replace(variable, value)
    found = set(names_in(promql_parser.parse(expression)))
    assert found, f"nothing is asked for in {expression}"
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found} - FROM_PROMETHEUS


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_asks_for_what_there_is_and_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert asked_for(rule["expr"]) <= documented().keys()
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "action"}
    assert "for" not in rule or _DURATION.fullmatch(rule["for"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert asked_for(target["expr"]) <= documented().keys()
        assert target["datasource"]["uid"] == "${source}"


def test_a_rule_about_what_there_is_not_would_be_found() -> None:
    assert asked_for("sum(rate(nothing_total[5m])) / on (instance) max(up)") == {"nothing_total"}
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(far_mesh_tokens_total[5m])")


def test_rules_about_errors_name_errors_that_there_are() -> None:
    import_module("far_mesh.marketplace.app")  # and all errors with it
    named = {
        code
        for rule in ALERTS.values()
        for codes in re.findall(r'code=~?"([^"]+)"', rule["expr"])
        for code in codes.split("|")
    }
    assert named
    assert named <= FarError._by_code.keys()


def test_names_are_used_once_and_panels_do_not_overlap() -> None:
    assert len(ALERTS) == sum(len(group["rules"]) for group in RULES["groups"])
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_money_the_service_and_nodes_are_watched() -> None:
    watched = set[str]().union(*(asked_for(rule["expr"]) for rule in ALERTS.values()))
    for name in (
        "far_mesh_reconciliation_findings",
        "far_mesh_settlement_oldest_seconds",
        "far_mesh_lease_holders",
        "far_mesh_http_requests_total",
        "far_mesh_time_to_first_token_seconds",
        "far_mesh_refusals_total",
        "far_mesh_uncovered_blocks",
        "far_mesh_active_nodes",
    ):
        assert name in watched


def test_the_operators_page_names_every_alert() -> None:
    page = (ROOT / "docs" / "operators.md").read_text()
    missing = [name for name in ALERTS if f"`{name}`" not in page]
    assert not missing
