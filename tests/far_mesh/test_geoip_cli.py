"""The command says where databases come from, what a file is, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from far_mesh.cli import app
from far_mesh.geoip_cli import HOW_TO_GET_ONE
from tests.support import mmdb


@pytest.fixture
def file(tmp_path: Path) -> Path:
    record = mmdb.city(52.5, 13.4, name="Berlin", country="DE", accuracy_radius=20)
    return mmdb.write(tmp_path / "city.mmdb", {"8.8.8.0/24": record, "9.9.9.9/32": mmdb.city(-0.5, 0.25)})


def geoip(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["geoip", *map(str, arguments)])


def test_it_says_how_to_get_one_and_under_which_terms() -> None:
    said = geoip()
    assert said.exit_code == 0
    assert said.output.strip() == HOW_TO_GET_ONE
    assert all(word in said.output for word in ("Attribution 4.0", "licence", "FAR_GEOIP_DB"))


def test_a_file_is_checked(file: Path, tmp_path: Path) -> None:
    found = json.loads(geoip("check", file, "--json").output)
    assert (found["kind"], found["ip_version"], found["built_at"]) == ("Test-City", 6, "2026-05-28T20:26:40+00:00")
    assert "built 2026-05-28" in geoip("check", file).output
    (tmp_path / "x").write_bytes(b"x")
    refused = geoip("check", tmp_path / "x")
    assert refused.exit_code == 1
    assert "is no database of addresses" in refused.output


def test_an_address_is_looked_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert geoip("lookup", "8.8.8.8", "--db", file).output.strip() == ("8.8.8.8: 52.5,13.4, within 20 km · Berlin, DE")
    monkeypatch.setenv("FAR_GEOIP_DB", str(file))
    assert geoip("lookup", "9.9.9.9").output.strip() == "9.9.9.9: -0.5,0.25"
    assert geoip("lookup", "7.7.7.7").output.strip() == "7.7.7.7: unknown"
    assert json.loads(geoip("lookup", "7.7.7.7", "--json").output)["place"] is None
    assert json.loads(geoip("lookup", "8.8.8.8", "--json").output)["place"]["city"] == "Berlin"


def test_what_is_missing_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAR_GEOIP_DB", raising=False)
    assert "name a city database with --db" in geoip("lookup", "8.8.8.8").output
    assert "is no IP address" in geoip("lookup", "localhost", "--db", file).output
