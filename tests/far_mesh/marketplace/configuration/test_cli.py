"""``far-mesh config``: everything at once, who said it, and no secret."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from far_mesh.cli import app
from far_mesh.marketplace.chain.anvil import dev_key
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.house import LiveChain
from tests.support.documents import peer_of

PEER = "/ip4/127.0.0.1/tcp/{}/p2p/12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB"
SECRET = "7f3c9a1e5b8d2046" * 4
GOOD: dict[str, Any] = {
    "payment_provider": "none",
    "jwt_secret": SECRET,
    "initial_peers": [PEER.format(31337)],
    "models": [{"model": "org/tiny", "completion_price_units": 5}],
}
PUBLIC = {
    "payment_provider": "evm",
    "chain_rpc_url": "https://bsc.example/v3/provider-key",
    "chain_id": 56,
    "token_address": "0x" + "11" * 20,
    "escrow_address": "0x" + "22" * 20,
    "settler_private_key": "0x" + "5a" * 32,
    "confirmations": 15,
    "chain_start_block": 1000,
    "host": "0.0.0.0",
    "public_domain": "far.example",
    "public_uri": "https://far.example",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("FAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "far-mesh.toml"


def put(path: Path, **settings: Any) -> None:
    """A file with what is right, and these."""
    said = GOOD | settings
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items() if key != "models"]
    tables = [f"{key} = {json.dumps(value)}" for model in said["models"] for key, value in model.items()]
    path.write_text("\n".join([*lines, "[[models]]", *tables]))
    path.chmod(0o600)


def ask(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    done = CliRunner().invoke(app, ["config", *arguments, "--json"])
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def found(kind: str, *arguments: str) -> dict[str, str]:
    """What is said of settings, by their names."""
    return {line["setting"]: line["message"] for line in ask("check", *arguments)[1] if line["event"] == kind}


def test_what_is_right_is_said_to_be(here: Path) -> None:
    put(here)
    status, said = ask("check")
    assert (status, said) == (0, [{"event": "checked", "problems": 0, "warnings": 0}])


def test_everything_wrong_is_said_at_once_with_who_said_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here, port=99999, jwt_secret="brief", initial_peers=[PEER.format(1).partition("/p2p")[0]], colour="red")
    monkeypatch.setenv("FAR_QUOTE_SECONDS", "0")
    monkeypatch.setenv("FAR_OPERATORS", "me")
    monkeypatch.setenv("FAR_JWT_OTHER_SECRETS", '["short-and-secret"]')
    monkeypatch.setenv("FAR_DATABASE_URL", "mysql://u:hunter2@host/far")
    status, said = ask("check")
    problems = {line["setting"]: line for line in said if line["event"] == "problem"}
    assert status == 1
    assert {name: line["origin"] for name, line in problems.items()} == {
        "FAR_PORT": "far-mesh.toml",
        "FAR_JWT_SECRET": "far-mesh.toml",
        "FAR_INITIAL_PEERS": "far-mesh.toml",
        "colour": "far-mesh.toml",
        "FAR_QUOTE_SECONDS": "environment",
        "FAR_OPERATORS": "environment",
        "FAR_JWT_OTHER_SECRETS": "environment",
        "FAR_DATABASE_URL": "environment",
    }
    told = json.dumps(said)
    assert not [secret for secret in ("brief", "short-and-secret", "hunter2") if secret in told]


def test_all_that_is_absent_is_said_at_once(here: Path) -> None:
    here.write_text("")
    assert found("problem").keys() == {
        *("FAR_JWT_SECRET", "FAR_INITIAL_PEERS", "FAR_MODELS", "FAR_CHAIN_RPC_URL", "FAR_TOKEN_ADDRESS"),
        *("FAR_ESCROW_ADDRESS", "FAR_SETTLER_PRIVATE_KEY"),
    }


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("FAR_SETTLER_PRIVATE_KEY", {"payment_provider": "evm", "settler_private_key": "hunter2"}),
        ("FAR_TOKEN_ADDRESS", {"payment_provider": "evm", "token_address": "0x12"}),
        ("FAR_PAYMENT_PROVIDER", {"payment_provider": "beads"}),
        ("FAR_GRPC_TLS_CERT", {"host": "0.0.0.0", "grpc_port": 50051}),
        ("FAR_GEOIP_DB", {"geoip_db": "/nowhere/city.mmdb"}),
        ("FAR_METRICS_TOKEN", {"metrics_token": "brief"}),
        ("FAR_JOBS_KEYS", {"jobs_keys": ["brief"]}),
        ("FAR_DISCOVERY", {"discovery": "discovery.far.example"}),
        ("FAR_PROBERS", {"discovery": "https://discovery.far.example", "probers": ["nobody"]}),
        ("FAR_PROBERS", {"probers": [peer_of("prober")]}),
        ("FAR_SWARM_MADDRS", {"swarm_maddrs": ["0.0.0.0:31340"]}),
        ("FAR_SWARM", {"swarm": "/nowhere/acme.swarm", "invite": "far-invite-x"}),
        ("FAR_INVITE", {"invite": "far-invite-x"}),
        ("FAR_CONFIG", {}),
    ],
)
def test_what_would_fail_at_the_start_is_found_before(here: Path, name: str, changes: dict[str, Any]) -> None:
    put(here, **(PUBLIC | {"host": "127.0.0.1"} if changes.get("payment_provider") == "evm" else {}) | changes)
    if not changes:
        here.write_text("port =")
    problems = found("problem")
    assert name in problems
    assert "hunter2" not in json.dumps(problems)


def test_a_public_gateway_can_be_without_danger(here: Path) -> None:
    put(here, **PUBLIC)
    assert ask("check") == (0, [{"event": "checked", "problems": 0, "warnings": 0}])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("FAR_SETTLER_PRIVATE_KEY", {"settler_private_key": dev_key(1)}),
        ("FAR_CONFIRMATIONS", {"confirmations": 0}),
        ("FAR_CHAIN_START_BLOCK", {"chain_start_block": 0}),
        ("FAR_JWT_SECRET", {"jwt_secret": "x" * 32}),
        ("FAR_JWT_SECRET", {"jwt_secret": "change-me-to-something-that-is-long"}),
        ("FAR_JWT_OTHER_SECRETS", {"jwt_other_secrets": ["ab" * 20]}),
        ("FAR_PUBLIC_URI", {"public_uri": "http://far.example"}),
        ("FAR_PUBLIC_URI", {"host": "127.0.0.1", "public_uri": "", "trusted_proxies": ["127.0.0.1"]}),
        ("FAR_METRICS_TOKEN", {"host": "127.0.0.1"}),
        ("FAR_OUTBOUND_HTTP", {"outbound_http": True}),
        ("FAR_DATABASE_URL", {"redis_url": "redis://127.0.0.1"}),
        ("FAR_GRPC_INSECURE", {"grpc_port": 50051, "grpc_insecure": True}),
        ("FAR_DATABASE_URL", {"gateway_name": "north"}),
        ("FAR_GENERATION_SECONDS", {"generation_seconds": 1800}),
    ],
)
def test_what_is_allowed_and_dangerous_is_a_warning(here: Path, name: str, changes: dict[str, Any]) -> None:
    put(here, **PUBLIC | changes)
    assert ask("check")[0] == 0
    assert list(found("warning")) == [name]


def test_a_file_with_secrets_is_not_for_everybody(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here)
    here.chmod(0o640)
    assert "chmod 600" in found("warning")["FAR_CONFIG"]
    monkeypatch.setenv("FAR_JWT_SECRET", SECRET)  # then none of the secrets is the file's
    assert found("warning") == {}


def test_a_variable_that_nobody_reads_is_a_warning(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here)
    monkeypatch.setenv("FAR_JWT_SECRT", "x")
    monkeypatch.setenv("FAR_CACHE_DIR", "x")
    assert found("warning") == {"FAR_JWT_SECRT": "nobody reads FAR_JWT_SECRT; did you mean FAR_JWT_SECRET?"}


# ---- show and example


def test_show_says_where_each_value_comes_from_and_no_secret(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here, **PUBLIC)
    monkeypatch.setenv("FAR_PORT", "9000")
    monkeypatch.setenv("FAR_DATABASE_URL", "postgresql+asyncpg://far:hunter2@127.0.0.1/far")
    status, said = ask("show")
    shown = {line["name"]: (line["value"], line["origin"]) for line in said}
    assert status == 0
    assert shown.keys() == {"FAR_" + name.upper() for name in Settings.model_fields}
    assert shown["FAR_PORT"] == (9000, "environment")
    assert shown["FAR_HOST"] == ("0.0.0.0", "far-mesh.toml")
    assert shown["FAR_QUOTE_SECONDS"] == (60, "default")
    assert shown["FAR_JWT_SECRET"] == ("***", "far-mesh.toml")
    assert shown["FAR_SOLANA_PRIVATE_KEY"] == (None, "default")
    assert shown["FAR_DATABASE_URL"][0] == "postgresql+asyncpg://far:***@127.0.0.1/far"
    assert shown["FAR_CHAIN_RPC_URL"][0] == "https://bsc.example/***"
    told = json.dumps(said) + CliRunner().invoke(app, ["config", "show"]).stdout
    assert not [secret for secret in (SECRET, "hunter2", "provider-key", "5a5a5a") if secret in told]


def test_the_example_is_accepted_and_has_every_setting(here: Path) -> None:
    text = CliRunner().invoke(app, ["config", "example"]).stdout
    here.write_text(text)
    here.chmod(0o600)
    assert ask("check") == (0, [{"event": "checked", "problems": 0, "warnings": 0}])
    everything = re.sub(r"^# (?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)
    assert tomllib.loads(everything).keys() == Settings.model_fields.keys()


def test_every_example_has_a_secret_of_its_own() -> None:
    one, other = (tomllib.loads(CliRunner().invoke(app, ["config", "example"]).stdout) for _ in range(2))
    assert one["jwt_secret"] != other["jwt_secret"]


# ---- online


def test_what_answers_is_told_from_what_does_not(here: Path, live_chain: LiveChain, sqlite_url: str) -> None:
    with socket.socket() as open_door, socket.socket() as closed_door:
        open_door.bind(("127.0.0.1", 0))
        open_door.listen()
        closed_door.bind(("127.0.0.1", 0))
        peers = [PEER.format(door.getsockname()[1]) for door in (open_door, closed_door)]
        chain = {
            "payment_provider": "evm",
            "chain_rpc_url": live_chain.rpc_url,
            "token_address": live_chain.deployment.token,
            "escrow_address": live_chain.deployment.escrow,
            "settler_private_key": dev_key(1),
            "database_url": sqlite_url,
        }
        put(here, **chain, initial_peers=peers)
        status, said = ask("check", "--online")
        assert status == 0
        assert [line["event"] for line in said] == ["reached", "reached", "reached", "warning", "checked"]
        put(here, **chain | {"chain_id": 97}, initial_peers=peers[1:])
        assert found("problem", "--online").keys() == {"FAR_CHAIN_RPC_URL", "FAR_INITIAL_PEERS"}


def test_a_discovery_service_may_take_the_place_of_peers(here: Path) -> None:
    put(here, initial_peers=[], discovery="http://127.0.0.1:9")
    assert found("problem") == {}
    assert "does not answer" in found("problem", "--online")["FAR_DISCOVERY"]
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        put(here, initial_peers=[PEER.format(door.getsockname()[1])], discovery="http://127.0.0.1:9")
        assert "FAR_DISCOVERY" not in found("problem", "--online")
        assert "does not answer" in found("warning", "--online")["FAR_DISCOVERY"]


def test_a_database_that_does_not_answer_is_named_without_its_password(here: Path) -> None:
    put(here, database_url="postgresql+asyncpg://far:hunter2@127.0.0.1:9/far")
    problems = found("problem", "--online")
    assert "far:***@127.0.0.1:9" in problems["FAR_DATABASE_URL"]


def test_redis_is_tried_and_its_password_not_shown(here: Path) -> None:
    put(here, redis_url="redis://:hunter2@127.0.0.1:9")
    problems = found("problem", "--online")
    assert problems["FAR_REDIS_URL"].startswith("Redis does not answer")
    assert "hunter2" not in json.dumps(problems)


def test_a_database_that_is_yet_to_be_made_is_not_made(here: Path, tmp_path: Path) -> None:
    put(here, data_dir=str(tmp_path / "deep" / "data"))
    assert "FAR_DATA_DIR" not in found("problem", "--online")
    assert not (tmp_path / "deep").exists()
    shutil.rmtree(tmp_path / "deep", ignore_errors=True)
