"""``far-mesh openapi``: the document that the SDKs are made from."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from far_mesh.cli import app

KEPT = Path(__file__).parents[3] / "sdk" / "openapi.json"


def test_the_document_that_the_sdks_are_made_from_is_what_a_marketplace_serves(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["openapi"])
    assert printed.exit_code == 0
    assert printed.stdout == KEPT.read_text(encoding="utf-8"), "make generate writes it anew"
    assert CliRunner().invoke(app, ["openapi", "--output", str(tmp_path / "mine.json")]).exit_code == 0
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == printed.stdout


def test_one_that_is_not_up_to_date_is_told(tmp_path: Path) -> None:
    old = json.loads(KEPT.read_text(encoding="utf-8"))
    del old["paths"]["/health"]
    (tmp_path / "old.json").write_text(json.dumps(old, indent=2) + "\n", encoding="utf-8")
    for name in ("old.json", "none.json"):
        checked = CliRunner().invoke(app, ["openapi", "--check", str(tmp_path / name)])
        assert checked.exit_code == 1
        assert "make generate writes it anew" in checked.stderr
