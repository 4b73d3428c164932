"""docs/discovery.md names the settings, the paths and the numbers that there are, and no others."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import PydanticUndefined

from discovery.service.app import create_app
from discovery.service.settings import PREFIX, Settings
from tests.discovery.service.doubles import a_service
from tests.docs.pages import ROOT, bare, table

PAGE = ROOT / "docs" / "discovery.md"


def test_every_setting_is_in_the_table_with_its_default() -> None:
    said = {bare(row[0]): row[1] for row in table(PAGE, "| setting of discovery")}
    assert list(said) == [PREFIX + name.upper() for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined, name
        told = said[PREFIX + name.upper()]
        if field.default in ("", None, ()):
            assert told.startswith("derived: "), name
        else:
            assert told == str(field.default), name


def test_every_path_is_told() -> None:
    said = PAGE.read_text().replace("`GET /nodes/{id}`", "`GET /nodes/{node_id}`")
    for path, operations in create_app(Settings()).openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in said, path


def documented() -> dict[str, str]:
    """Types by name."""
    return {bare(row[0]): row[1] for row in table(PAGE, "| name of discovery")}


def test_every_number_is_told(tmp_path: Path) -> None:
    said = documented()
    with a_service(tmp_path) as client:
        text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    there = {one.name + ("_total" if one.type == "counter" else ""): one.type for one in families}
    assert said == there
