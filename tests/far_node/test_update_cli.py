"""Updates by hand, and the start of a node that updates itself."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from typer.testing import CliRunner

from discovery.console import EXIT_FAILED, Console
from discovery.dht.identity import load_identity
from far_node import update_cli
from far_node.cli import app
from far_node.settings import NodeSettings, Place
from far_node.update import start
from far_node.update.environments import Environments
from far_node.update.supervisor import ADOPT_VARIABLE
from tests.support.documents import peer_of, wallet_of
from tests.support.standin import environment, wheel


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environments:
    """Where the installer puts them, with a first version, which this process is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Environments()
    made.switch(environment(made, "0.1.0"))
    monkeypatch.setattr(sys, "prefix", str(made.root / "0.1.0"))
    return made


def said(*words: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(update_cli.app, [*words, "--json"])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def current(environments: Environments) -> str:
    now = environments.current()
    assert now is not None
    return str(now.version)


def test_by_hand_it_is_looked_for_installed_and_taken_back(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "index", "0.2.0")
    monkeypatch.setenv("FAR_NODE_UPDATE_INDEX", str(tmp_path / "index"))
    code, (found,) = said("--check")
    assert (code, found) == (0, {"event": "update_found", "version": "0.2.0"})
    assert current(environments) == "0.1.0"
    environment(environments, "0.2.0")  # how pip does it is tried elsewhere
    code, (_, switched) = said()
    assert (code, switched) == (0, {"event": "switched", "version": "0.2.0", "former": "0.1.0"})
    assert current(environments) == "0.2.0"
    code, (switched,) = said("--undo")
    assert (code, switched["version"], current(environments)) == (0, "0.1.0", "0.1.0")
    code, (newest,) = said("--check")
    assert (code, newest["event"], newest["failed"]) == (0, "newest", {"0.2.0": "its owner went back"})
    code, (error,) = said("--undo")
    assert (code, error["code"]) == (EXIT_FAILED, "update_failed")


def test_a_publisher_signs_the_wheels_of_his_releases(tmp_path: Path) -> None:
    file = wheel(tmp_path, "0.2.0")
    key = load_identity(tmp_path / "key")
    code, (event,) = said("sign", "--key", str(key.path), "--out", str(tmp_path / "releases.json"), str(file))
    assert (code, event["versions"], event["publisher"]) == (0, ["0.2.0"], key.peer_id)
    code, (error,) = said("sign", "--key", str(tmp_path / "no key"), str(file))
    assert (code, error["code"]) == (EXIT_FAILED, "invalid_argument")
    assert not (tmp_path / "no key").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("INDEX", "http://index.example/simple", "https://"),
        ("INDEX", "ftp://index.example", "https://"),
        ("INDEX", "/no/such/directory", "neither an https:// address nor"),
        ("RELEASES", "/no/such/file", "neither an https:// address nor"),
        ("PUBLISHER", "somebody", "peer id"),
        ("CHANNEL", "nightly", "stable"),
    ],
)
def test_a_source_that_means_nothing_is_refused(
    environments: Environments, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"FAR_NODE_UPDATE_{name}", value)
    code, errors = said("--check")
    assert code == EXIT_FAILED
    assert words in errors[0]["message"]


def test_a_list_of_nobody_is_no_list(environments: Environments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_NODE_UPDATE_PUBLISHER", peer_of("publisher"))
    code, (error,) = said("--check")
    assert code == EXIT_FAILED
    assert "need each other" in error["message"]


STARTED = ("start", "--model", "far-demo", "--wallet", wallet_of("node"), "--auto-update", "--json")


def test_a_node_that_was_not_installed_by_the_installer_cannot_update_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["far-node", *STARTED])
    peer = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_of('bootstrap')}"
    result = CliRunner().invoke(app, [*STARTED, "--initial-peers", peer])
    assert result.exit_code == EXIT_FAILED
    assert json.loads(result.stdout)["code"] == "not_updatable"


async def test_the_node_is_a_child_of_what_was_started(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", str(tmp_path))
    program = environments.root / "0.1.0" / "bin" / "far-node"
    program.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/log\nexit 7\n')
    with pytest.raises(SystemExit) as left:
        await start.supervise(Console(True), NodeSettings(auto_update=True), Place(), ["--auto-update", "--cpu-only"])
    assert left.value.code == 7
    assert (tmp_path / "log").read_text() == "start --auto-update --cpu-only --no-auto-update\n"


async def test_a_node_that_runs_already_is_kept(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    monkeypatch.setenv(ADOPT_VARIABLE, str(pid))
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        await start.supervise(Console(True), NodeSettings(auto_update=True), Place(), [])
    assert left.value.code == 128 + signal.SIGTERM
    assert ADOPT_VARIABLE not in os.environ
    assert environments.failed("") == {}
    assert Version(current(environments)) == Version("0.1.0")
