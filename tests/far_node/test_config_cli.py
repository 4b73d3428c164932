"""``far-node config``: shown, read, checked, and written only if it means something."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

import far_node.cli
import far_node.config_cli
from tests.support.swarm import Ended, run_here

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the settings of a home of its own stand."""
    monkeypatch.delenv("FAR_NODE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(far_node.config_cli, "quiet_libraries", lambda: None)
    return tmp_path / ".far" / "config.toml"


def config(*arguments: str) -> Ended:
    return run_here(far_node.cli.app, "config", *arguments)


def wrote(*arguments: str) -> None:
    ended = config("set", *arguments)
    assert ended.status == 0, ended.err


def test_what_is_set_stands_in_a_file_for_its_owner_alone(file: Path) -> None:
    wrote("wallet", WALLET)
    wrote("cache-mb", "2048")
    wrote("FAR_NODE_CPU_ONLY", "yes")
    wrote("public_addr", "203.0.113.7:31330", "/dns4/far.example/tcp/1")
    assert tomllib.loads(file.read_text()) == {
        "wallet": WALLET,
        "cache_mb": 2048,
        "cpu_only": True,
        "public_addr": ["203.0.113.7:31330", "/dns4/far.example/tcp/1"],
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_comments_and_the_order_of_a_file_stay(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("# mine\nprice = 1  # for now\n\n# of the cache\ncache_mb = 5\n")
    wrote("price", "2")
    assert file.read_text() == "# mine\nprice = 2  # for now\n\n# of the cache\ncache_mb = 5\n"
    assert config("unset", "price").status == 0
    assert "cache_mb = 5" in file.read_text()
    assert "price" not in tomllib.loads(file.read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["wallet", "0x123"], "is not an EVM address"),
        (["wallet", WALLET.replace("f39F", "F39f")], "checksum"),
        (["cach_mb", "5"], "did you mean 'cache_mb'?"),
        (["price", "dear"], "valid integer"),
        (["price", "1", "2"], "price takes one value, 2 are given"),
        (["cpu_only", "true"], "--gpu and --cpu-only exclude each other"),
        (["quantization", "int3"], "not one of none, int8, nf4"),
    ],
)
def test_what_means_nothing_is_not_written(file: Path, arguments: list[str], words: str) -> None:
    file.parent.mkdir()
    file.write_text("gpu = 0\nunknown = 1\n")
    ended = config("set", *arguments)
    assert ended.status == 1
    assert words in ended.err
    assert file.read_text() == "gpu = 0\nunknown = 1\n"


def test_a_file_that_cannot_be_read_is_not_written(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("price = ")
    ended = config("set", "price", "1")
    assert (ended.status, file.read_text()) == (1, "price = ")
    assert "is not TOML" in ended.err


def test_who_says_what_is_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote("price", "7")
    monkeypatch.setenv("FAR_NODE_CACHE_MB", "99")
    monkeypatch.setenv("FAR_NODE_REGISTRY", "https://me:secret@far.example")
    told: dict[str, dict[str, Any]] = {event["name"]: event for event in config("show", "--json").events}
    assert (told["price"]["value"], told["price"]["origin"]) == (7, str(file))
    assert (told["cache_mb"]["value"], told["cache_mb"]["origin"]) == (99, "environment")
    assert (told["max_sessions"]["value"], told["max_sessions"]["origin"]) == (64, "default")
    words = config("show").out
    assert f"price = 7  ({file})" in words
    assert "secret" not in words
    assert "comes before it" in config("set", "cache_mb", "5").out


def test_one_value_is_read_by_scripts(file: Path) -> None:
    wrote("public_addr", "203.0.113.7:1", "203.0.113.7:2")
    assert config("get", "public_addr").out == "203.0.113.7:1\n203.0.113.7:2\n"
    assert config("get", "cpu_only").out == "false\n"
    assert config("get", "wallet").out == "\n"
    assert json.loads(config("get", "wallet", "--json").out)["value"] is None
    assert config("get", "walet").status == 1


def test_a_check_says_everything_and_an_exit_code(file: Path) -> None:
    ended = config("check", "--json")
    assert ended.status == 1
    assert [event["code"] for event in ended.events] == ["invalid_setting"] * 3
    for key, value in (("wallet", WALLET), ("model", "far-demo"), ("discovery", "https://far.example")):
        wrote(key, value)
    ended = config("check")
    assert (ended.status, ended.out) == (0, f"the settings are usable ({file})\n")


def test_where_the_file_is_can_be_asked_before_it_is_there(file: Path, tmp_path: Path) -> None:
    assert config("path").out == f"{file}\n"
    other = tmp_path / ".far" / "nodes" / "second" / "config.toml"
    assert json.loads(config("path", "--name", "second", "--json").out) == {
        "event": "file",
        "path": str(other),
        "exists": False,
    }
    assert config("path", "--name", "a/b").status == 1
