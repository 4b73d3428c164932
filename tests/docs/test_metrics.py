"""docs/metrics.md names what is exported, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from far_mesh.marketplace.database import Database
from far_mesh.marketplace.telemetry.exposition import Exposition, Presence
from far_mesh.marketplace.telemetry.metrics import Metrics, watch_gates
from far_node.metrics import exposition
from tests.docs.pages import ROOT, bare, table
from tests.support.node_status import STATUS

PAGE = ROOT / "docs" / "metrics.md"
OURS, THEIRS = "| name | type | labels |", "| name | type | the same as |"


def documented() -> dict[str, str]:
    """Types by name."""
    return {bare(row[0]): row[1] for header in (OURS, THEIRS) for row in table(PAGE, header)}


@pytest.fixture
async def exported(tmp_path: Path) -> dict[str, str]:
    """Types by name, as they are told by a gateway that has just started and whose database is away."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")

    async def nobody() -> Mapping[str, Presence]:
        return {}

    metrics = Metrics(["m"])
    watch_gates(metrics, {})
    text = (await Exposition(metrics, database, "here", nobody).text()).decode()
    await database.close()
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
    }


def test_the_table_is_what_is_exported(exported: dict[str, str]) -> None:
    assert documented() == exported


def test_the_table_of_a_node_is_what_it_exports() -> None:
    told = {bare(row[0]): (row[1], bare(row[2])) for row in table(PAGE, "| number | type | labels |")}
    there = {
        name + {"counter": "_total"}.get(family.type, ""): (family.type, "model" if "_model_" in name else "")
        for family in text_string_to_metric_families(exposition(STATUS))
        for name in (family.name,)
    }
    assert told == there


def test_who_is_the_same_as_another_is(exported: dict[str, str]) -> None:
    for name, kind, other in table(PAGE, THEIRS):
        assert exported[bare(other)] == kind == exported[bare(name)]
        assert bare(name).removeprefix("hanzo_") == bare(other).removeprefix("far_mesh_")
