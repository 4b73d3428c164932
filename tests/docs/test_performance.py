"""docs/performance.md says what the benchmarks kept."""

from __future__ import annotations

import json

import pytest

from benchmarks import performance_page


def test_the_page_is_what_the_results_make_of_it() -> None:
    advice = "a result is new: python -m benchmarks.performance_page"
    assert performance_page.PAGE.read_text() == performance_page.page(), advice


@pytest.mark.parametrize(
    "name", ["mesh", "speculation", "failover", "node_throughput", "route_planning", "geo_routing", "petals"]
)
def test_every_command_of_the_figures_is_on_the_page(name: str) -> None:
    kept = json.loads((performance_page.RESULTS / f"{name}.json").read_text())
    assert kept["command"] in performance_page.PAGE.read_text()
