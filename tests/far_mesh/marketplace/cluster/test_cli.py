"""``far-mesh cluster`` against a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from far_mesh.cli import app
from far_mesh.marketplace.cluster.cli import plain
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, Node
from tests.far_mesh.marketplace.house import House, sign_in
from tests.far_mesh.marketplace.nodes.owners import owner_of, wallet_key
from tests.support.documents import peer_of


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('cli') / 'm.db'}"
    settings = live.settings(database_url=url, operators=(owner_of("operator"),))
    mesh = MeshDouble(serving=(Node("ann", (0, 4)), Node("bob", (0, 4), region="eu-west")))
    with House(loop, live, settings, mesh) as opened:
        yield opened


def key_for(house: House, wallet: str, scope: str) -> str:
    import httpx

    with httpx.Client(base_url=house.url, timeout=20) as http:
        http.headers["authorization"] = f"Bearer {sign_in(http, wallet)['token']}"
        return str(http.post("/api/account/keys", json={"name": "k", "scopes": [scope]}).json()["key"])


@pytest.fixture(scope="module")
def key(house: House) -> str:
    return key_for(house, wallet_key("operator"), "operator")


def far_mesh(house: House, key: str | None, *words: str) -> Result:
    environment = {"FAR_API_KEY": key, "FAR_GATEWAY_URL": house.url, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["cluster", *words], env=environment)


def test_the_whole_in_tables(house: House, key: str) -> None:
    told = far_mesh(house, key, "status")
    assert told.exit_code == 0, told.output
    for word in (MODEL, peer_of("ann"), peer_of("bob"), "eu-west", "0:4 ×2, 4:8 ×0", "alive", "Settlement"):
        assert word in told.output
    assert told.output.splitlines()[-1] == f"unready: no node serves blocks 4:8 of {MODEL}"


def test_the_whole_as_one_object(house: House, key: str) -> None:
    told = json.loads(far_mesh(house, key, "status", "--json").output)
    assert (told["event"], told["status"], len(told["nodes"])) == ("cluster", "unready", 2)


def test_advice_with_the_command_of_the_owner(house: House, key: str) -> None:
    told = far_mesh(house, key, "rebalance", "--replicas", "1")
    assert told.exit_code == 0, told.output
    assert f"{MODEL}: thin: 4:8 ×0" in told.output
    assert f"far-node swap {MODEL} {MODEL} --blocks 4:8" in told.output
    advice = json.loads(far_mesh(house, key, "rebalance", "--model", MODEL, "--json").output)
    assert (advice["event"], advice["replicas"]) == ("advice", 2)
    assert "more nodes are needed" in far_mesh(house, key, "rebalance").output


def test_who_may_not_is_told_so_in_the_words_of_the_gateway(house: House) -> None:
    poor = key_for(house, wallet_key("user"), "inference")
    told = far_mesh(house, poor, "status", "--json")
    assert (told.exit_code, json.loads(told.output)["code"]) == (1, "forbidden")
    told = far_mesh(house, "sk-far-nonsense", "status", "--json")
    assert (told.exit_code, json.loads(told.output)["code"]) == (1, "unauthorized")


def test_without_a_key_nobody_is_asked(house: House) -> None:
    told = far_mesh(house, None, "status", "--json")
    assert (told.exit_code, json.loads(told.output)["code"]) == (1, "invalid_argument")
    assert "FAR_API_KEY" in told.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", "ftp://127.0.0.1"])
def test_where_no_gateway_is_that_is_said(house: House, key: str, url: str) -> None:
    told = far_mesh(house, key, "status", "--json", "--gateway", url)
    assert (told.exit_code, json.loads(told.output)["code"]) == (1, "peer_unavailable")


def test_another_server_is_no_gateway(house: House, key: str) -> None:
    told = far_mesh(house, key, "status", "--json", "--gateway", f"{house.url}/openapi.json?")
    assert (told.exit_code, json.loads(told.output)["code"]) in ((1, "protocol_violation"), (1, "not_found"))


def test_what_strangers_write_moves_no_cursor() -> None:
    assert plain("a\x1b[2Jb\r\nc") == "a?[2Jb??c"
