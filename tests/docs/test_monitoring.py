"""deploy/monitoring: rules and a board that ask for numbers there are, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from discovery.protocol.errors import FarError
from tests.discovery.probe.test_history import seen, unreached
from tests.discovery.service.doubles import Board, a_service
from tests.discovery.service.test_endpoints import wait_for
from tests.discovery.service.test_probes import send, signed
from tests.docs import test_discovery, test_metrics
from tests.docs.pages import ROOT
from tests.support.documents import DIGEST, peer_of, signed_announcement

FOLDER = ROOT / "deploy" / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text())
BOARD: dict[str, Any] = json.loads((FOLDER / "far-mesh.json").read_text())
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
FROM_PROMETHEUS = {"up"}
_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
_OF_GRAFANA = {"$__rate_interval": "5m", "$gateway": ".*"}


def documented() -> set[str]:
    """What gateways and discovery services tell."""
    return {*test_metrics.documented(), *test_discovery.documented()}


def series_in(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """The series that an expression asks for."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for inner in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (found := getattr(node, inner, None)) is not None and not isinstance(found, str | float):
            yield from series_in(found)
    for argument in getattr(node, "args", None) or ():
        yield from series_in(argument)


def asked_for(expression: str) -> set[str]:
    """The same as they are documented: a histogram has three names."""
    for variable, value in _OF_GRAFANA.items():
        expression = expression.replace(variable, value)
    found = {str(series.name) for series in series_in(promql_parser.parse(expression))}
    assert found, f"nothing is asked for in {expression}"
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found} - FROM_PROMETHEUS


@pytest.mark.parametrize("name", ALERTS)
def test_a_rule_asks_for_what_there_is_and_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert asked_for(rule["expr"]) <= documented()
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "action"}
    assert "for" not in rule or _DURATION.fullmatch(rule["for"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert asked_for(target["expr"]) <= documented()
        assert target["datasource"]["uid"] == "${source}"


def test_a_rule_about_what_there_is_not_would_be_found() -> None:
    assert asked_for("sum(rate(nothing_total[5m])) / on (instance) max(up)") == {"nothing_total"}
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(rate(far_mesh_tokens_total[5m])")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict[str, str]]]:
    """Names and labels of what a discovery service tells whose prober has seen all there is to be seen."""
    board = Board([signed_announcement("node", end_block=4)])
    folder, prober = tmp_path_factory.mktemp("discovery"), peer_of("prober")
    with a_service(folder, board, probers=(prober,), watched_models=(DIGEST, "tiny", "nobody's")) as client:
        wait_for(client, 1)
        now = int(time.time())
        report = signed(seen(now), seen(now, verdict="wrong"), unreached(now))
        assert send(client, report).json()["counted"] == 3
        text = client.get("/metrics").text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    shares = {one.labels["model"]: one.value for one in samples if one.name == "far_discovery_coverage_ratio"}
    assert shares == {DIGEST: 0.5, "tiny": 0.5, "nobody's": 0.0}
    return [(one.name, one.labels) for one in samples]


def test_what_rules_ask_of_a_discovery_service_is_what_one_tells(told: list[tuple[str, dict[str, str]]]) -> None:
    rules = {name: rule for name, rule in ALERTS.items() if "far_discovery_" in rule["expr"]}
    assert len(rules) >= 6
    for name, rule in rules.items():
        for series in series_in(promql_parser.parse(rule["expr"])):
            if series.name in FROM_PROMETHEUS:
                continue
            labels = [labels for told_of, labels in told if told_of == series.name]
            assert any(all(_fits(one, found) for one in series.matchers.matchers) for found in labels), name


def _fits(matcher: Any, labels: dict[str, str]) -> bool:
    assert str(matcher.op) in ("MatchOp.Equal", "MatchOp.Re")
    return re.fullmatch(matcher.value, labels.get(matcher.name, "")) is not None


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


def test_money_the_service_nodes_and_discovery_are_watched() -> None:
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
        "far_discovery_followed_seconds",
        "far_discovery_coverage_ratio",
        "far_discovery_probes",
    ):
        assert name in watched


def test_the_operators_page_names_every_alert() -> None:
    page = (ROOT / "docs" / "operators.md").read_text()
    missing = [name for name in ALERTS if f"`{name}`" not in page]
    assert not missing
