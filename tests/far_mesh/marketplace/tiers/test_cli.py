"""``far-mesh tiers`` from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from far_mesh.cli import app
from tests.support.documents import peer_of, wallet_of

ANN, BOB = wallet_of("ann"), wallet_of("bob")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAR_DATA_DIR", str(tmp_path))


def far_mesh(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, ["tiers", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tiers", *arguments])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_accounts_are_put_into_tiers_and_listed() -> None:
    assert far_mesh("list") == []
    far_mesh("set", ANN, "premium", "--until", "2100-01-31")
    far_mesh("set", BOB, "enterprise")
    found = {one["wallet"]: (one["tier"], one["until"]) for one in far_mesh("list")}
    assert found == {ANN: ("premium", "2100-01-31T00:00:00+00:00"), BOB: ("enterprise", None)}
    assert f"{ANN}: premium until 2100-01-31" in said("list")
    far_mesh("set", BOB, "standard")
    assert [one["wallet"] for one in far_mesh("list")] == [ANN]
    assert f"{BOB} is in the tier standard" in said("show", BOB)
    (shown,) = far_mesh("show", ANN)
    assert (shown["tier"], shown["pool"]) == ("premium", [])


def test_the_table_is_shown_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_TIERS", '{"premium": {"max_n": 3}}')
    assert [(one["name"], one["max_n"]) for one in far_mesh("show")] == [
        ("standard", 4),
        ("premium", 3),
        ("enterprise", 16),
    ]
    assert "max_n 3" in said("show")


def test_nodes_are_added_to_a_pool_and_taken_out_of_it() -> None:
    (found,) = far_mesh("pool", ANN, "--add", peer_of("x"), "--add", BOB)
    assert found["members"] == sorted([peer_of("x"), BOB])
    (found,) = far_mesh("pool", ANN, "--remove", BOB)
    assert found["members"] == far_mesh("show", ANN)[0]["pool"] == [peer_of("x")]
    assert "are refused" in said("pool", ANN, "--remove", peer_of("x"))


REFUSED = [
    (("set", "0x12", "premium"), "EVM address"),
    (("set", ANN, "premium", "--until", "tomorrow"), "no date such as 2027-01-31"),
    (("set", ANN, "premium", "--until", "2020-01-01"), "until must be in the future"),
    (("set", ANN, "standard", "--until", "2100-01-01"), "standard has no end"),
    (("pool", ANN, "--add", "me"), "neither a peer id nor a wallet"),
    (("pool", ANN, "--remove", BOB), "is not in the pool"),
]


def test_what_means_nothing_is_refused_in_a_sentence() -> None:
    for arguments, sentence in REFUSED:
        result = CliRunner().invoke(app, ["tiers", *arguments])
        assert result.exit_code == 1
        assert sentence in " ".join(result.output.split()), result.output
    assert far_mesh("list") == []
