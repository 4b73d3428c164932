"""``far-node register`` against a gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import far_node.cli
from discovery.dht.identity import load_identity
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import House
from tests.far_mesh.marketplace.nodes.owners import owner_of, wallet_key


def register(house: House, identity: Path, *more: str, exit_code: int = 0) -> dict[str, Any]:
    words = ["register", "--gateway", house.url, "--domain", "far.test", "--identity", str(identity), "--json"]
    usual = [] if "--model" in more else ["--model", MODEL]
    ended = CliRunner().invoke(far_node.cli.app, [*words, *usual, *more], env={"FAR_WALLET_KEY": wallet_key("dan")})
    assert ended.exit_code == exit_code, ended.output
    told: dict[str, Any] = json.loads(ended.output)
    return told


def test_a_provider_says_what_a_node_runs_on(open_house: OpenHouse, tmp_path: Path) -> None:
    house, path = open_house(), tmp_path / "identity"
    node_id = load_identity(path).peer_id
    told = register(house, path, "--gpu-model", "RTX 4090", "--vram-gb", "24", "--location", "EU-West")
    assert told == {
        "event": "registered",
        "peer_id": node_id,
        "wallet": owner_of("dan"),
        "model_id": MODEL,
        "announced": False,
    }
    found = httpx.get(f"{house.url}/api/nodes/{node_id}").json()
    assert (found["state"], found["wallet_address"]) == ("registered", owner_of("dan"))
    assert (found["gpu_model"], found["vram_gb"], found["location"]) == ("RTX 4090", 24, "eu-west")

    assert register(house, path, "--vram-gb", "48")["event"] == "registered"
    found = httpx.get(f"{house.url}/api/nodes/{node_id}").json()
    assert (found["gpu_model"], found["vram_gb"]) == (None, 48)

    mistakes = {
        ("--model", "other"): "model_not_found",
        ("--location", "over the rainbow"): "invalid_argument",
        ("--wallet", owner_of("eve")): "wallet_key_unusable",
        ("--domain", "elsewhere.test"): "gateway_unintelligible",
        ("--identity", str(tmp_path / "nothing")): "invalid_identity",
        ("--gateway", "http://127.0.0.1:9"): "gateway_unavailable",
    }
    for mistake, code in mistakes.items():
        assert register(house, path, *mistake, exit_code=1)["code"] == code
    assert not (tmp_path / "nothing").exists()


def test_help_says_that_requests_come_without_it() -> None:
    told = CliRunner().invoke(far_node.cli.app, ["register", "--help"])
    assert told.exit_code == 0
    assert "announcements alone" in told.output


@pytest.mark.parametrize("option", ["--gateway", "--model"])
def test_what_is_needed_is_asked_for(option: str) -> None:
    given = {"--gateway": "http://127.0.0.1:9", "--model": MODEL}
    words = [word for name, value in given.items() if name != option for word in (name, value)]
    assert CliRunner().invoke(far_node.cli.app, ["register", *words]).exit_code == 2
