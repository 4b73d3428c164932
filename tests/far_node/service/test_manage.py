"""Service managers by their commands: programs of the same names that note what they are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from discovery.console import EXIT_FAILED
from far_node import service_cli
from far_node.service import manage
from far_node.service.errors import ServiceUnavailable
from far_node.service.units import Service
from tests.support.documents import peer_of, wallet_of

PEER = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_of('bootstrap')}"


class Here:
    """A home with settings of a node, and a machine with programs in ``bin``."""

    def __init__(self, home: Path) -> None:
        self.home, self.bin = home, home / "bin"
        self.bin.mkdir()
        self.write()
        self.program("far-node")

    def write(self, **more: str) -> None:
        folder = self.home / ".far"
        folder.mkdir(exist_ok=True)
        said = {"model": "far-demo", "wallet": wallet_of("node"), "initial_peers": PEER} | more
        (folder / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items()))

    def program(self, name: str, script: str = "") -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.home}/told\n{script}\n')
        path.chmod(0o700)

    def systemd(self, *, fails_at: str = "never", namespaces: bool = True) -> None:
        self.program("systemctl", f'case "$*" in *{fails_at}*) echo "no, I cannot" >&2; exit 1;; esac\n')
        self.program("systemd-analyze")
        self.program("loginctl", "echo no")
        self.program("unshare", "" if namespaces else "exit 1")

    @property
    def told(self) -> list[str]:
        file = self.home / "told"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def unit(self) -> Path:
        return self.home / ".config/systemd/user/far-node.service"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{made.bin}")
    for name in ("XDG_CONFIG_HOME", "FAR_NODE_CONFIG", "FAR_NODE_WALLET", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(manage, "find_program", lambda: made.bin / "far-node")
    monkeypatch.setattr(sys, "platform", "linux")
    return made


def far_node_service(*words: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(service_cli.app, [*words, "--json"])
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    return result.exit_code, [json.loads(line) for line in lines]


def test_installed_it_is_checked_enabled_and_started(here: Here) -> None:
    here.systemd()
    code, (event,) = far_node_service("install")
    assert (code, event["event"], event["path"]) == (0, "service_installed", str(here.unit))
    assert event["sandboxed"] is True
    assert event["lingers"] is False
    assert f"ExecStart={here.bin}/far-node start\n" in here.unit.read_text()
    assert here.told[-5:-1] == [
        f"systemd-analyze --user verify --man=no {here.unit}",
        "systemctl --user daemon-reload",
        "systemctl --user enable far-node.service",
        "systemctl --user restart far-node.service",
    ]


def test_a_node_with_a_name_is_a_service_of_its_own(here: Here) -> None:
    here.systemd()
    (here.home / ".far/nodes/second").mkdir(parents=True)
    (here.home / ".far/config.toml").rename(here.home / ".far/nodes/second/config.toml")
    code, _ = far_node_service("install", "--name", "second", "--no-start")
    assert code == 0
    unit = here.unit.with_name("far-node-second.service").read_text()
    assert f"ExecStart={here.bin}/far-node start --name second\n" in unit
    assert f"ReadWritePaths=-{here.home}/.far/nodes/second\n" in unit
    assert "systemctl --user restart far-node-second.service" not in here.told


def test_a_machine_without_namespaces_for_users_is_told_so(here: Here) -> None:
    here.systemd(namespaces=False)
    code, (event,) = far_node_service("install")
    assert (code, event["sandboxed"]) == (0, False)
    assert "ProtectSystem" not in here.unit.read_text()


def test_where_no_manager_runs_it_says_what_to_do(here: Here) -> None:
    code, (error,) = far_node_service("install")
    assert (code, error["code"]) == (EXIT_FAILED, "service_unavailable")
    assert "far-node start" in error["message"] or "--system" in error["message"]
    assert not here.unit.exists()


@pytest.mark.parametrize("fails_at", ["daemon-reload", "enable", "restart"])
def test_what_a_manager_refuses_leaves_the_former_unit(here: Here, fails_at: str) -> None:
    here.systemd(fails_at=fails_at)
    here.unit.parent.mkdir(parents=True)
    here.unit.write_text("[Unit]\n")
    code, (error,) = far_node_service("install")
    assert (code, error["code"]) == (EXIT_FAILED, "service_unavailable")
    assert "no, I cannot" in error["message"]
    assert here.unit.read_text() == "[Unit]\n"


def test_a_node_that_would_not_start_is_not_installed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.systemd()
    here.write(wallet="0x12", cach_mb="3")
    code, errors = far_node_service("install")
    assert code == EXIT_FAILED
    assert len(errors) == 2
    here.write()
    monkeypatch.setenv("FAR_NODE_PRICE", "7")  # a service does not see it
    code, (error,) = far_node_service("install")
    assert code == EXIT_FAILED
    assert "FAR_NODE_PRICE is in this shell and not in the service's" in error["message"]
    assert not here.unit.exists()


def test_uninstalled_it_is_stopped_and_gone(here: Here) -> None:
    here.systemd()
    far_node_service("install")
    code, (event,) = far_node_service("uninstall")
    assert (code, event["event"]) == (0, "service_uninstalled")
    assert "systemctl --user disable --now far-node.service" in here.told
    assert not here.unit.exists()
    code, (error,) = far_node_service("uninstall")
    assert (code, error["code"]) == (EXIT_FAILED, "service_unavailable")


def test_the_status_is_what_the_manager_and_the_node_say(here: Here) -> None:
    here.systemd()
    far_node_service("install")
    here.program(
        "systemctl", "echo UnitFileState=enabled; echo ActiveState=failed; echo SubState=failed; echo NRestarts=5"
    )
    code, (event,) = far_node_service("status")
    assert code == 0
    assert (event["installed"], event["enabled"], event["active"], event["restarts"]) == (True, True, "failed", 5)
    assert event["node"] is None


def test_the_unit_for_root_is_printed_and_nothing_is_done(here: Here) -> None:
    result = CliRunner().invoke(service_cli.app, ["install", "--system"])
    assert result.exit_code == 0
    assert result.stdout.startswith("[Unit]\n")
    assert "WantedBy=multi-user.target\n" in result.stdout
    assert "sudo systemctl daemon-reload" in result.stderr
    assert here.told == []


def test_macos_has_a_launch_agent(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    here.program("plutil")
    here.program("launchctl", 'case "$1" in print) exit 113;; esac')
    code, (event,) = far_node_service("install")
    path = here.home / "Library/LaunchAgents/org.far-mesh.far-node.plist"
    assert (code, event["path"]) == (0, str(path))
    assert here.told[0] == f"plutil -lint {path}"
    assert here.told[-1].startswith("launchctl bootstrap gui/")
    here.program("launchctl", "echo state = running")
    code, (event,) = far_node_service("status")
    assert (code, event["active"], event["detail"]) == (0, "active", "running")
    assert far_node_service("uninstall")[0] == 0
    assert here.told[-1].startswith("launchctl bootout gui/")
    assert not path.exists()


def test_a_service_writes_where_its_settings_say(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.systemd()
    here.write(identity=str(here.home / "keys/node"), receipts=str(here.home / "receipts"))
    monkeypatch.setenv("FAR_MODELS_DIR", str(here.home / "models"))
    assert far_node_service("install")[0] == 0
    unit = here.unit.read_text()
    for name in (".far", "keys", "receipts", "models", ".cache"):
        assert f"ReadWritePaths=-{here.home}/{name}\n" in unit
    assert f"Environment=FAR_MODELS_DIR={here.home}/models\n" in unit


def test_a_program_is_found_beside_its_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServiceUnavailable, match=r"install far-mesh first"):
        manage.find_program()
    (tmp_path / "far-node").touch()
    assert manage.find_program() == tmp_path / "far-node"


def test_units_have_the_names_that_the_installer_looks_for() -> None:
    service = Service("second", Path("far-node"), [], "ada", Path("/home/ada"), 30.0, [])
    assert manage.Systemd(service).path.match("systemd/user/far-node*.service")
    assert manage.Launchd(service).path.match("Library/LaunchAgents/*far-node*.plist")
