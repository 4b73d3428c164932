"""What service managers are told."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from far_node.service.units import Service, launchd_plist, systemd_unit

SERVICE = Service(
    name=None,
    program=Path("/home/ada/.far/venv/bin/far-node"),
    arguments=[],
    user="ada",
    home=Path("/home/ada"),
    drain_seconds=90.5,
    writable=[Path("/home/ada/.far"), Path("/home/ada/.cache")],
)
STRANGE = replace(
    SERVICE,
    name="second",
    program=Path("/home/ada/ä b 100%$HOME/far-node"),
    arguments=["--name", "second", "--config", '/home/ada/my "$HOME" settings\\.toml'],
    writable=[Path("/home/ada/my models 100%")],
    variables={"HF_HOME": '/home/ada/a "b" 100%$x'},
)


def section(unit: str, name: str) -> list[tuple[str, str]]:
    lines = unit.split(f"[{name}]\n")[1].split("\n\n")[0].splitlines()
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "open"])
@pytest.mark.parametrize("system", [True, False], ids=["system", "user"])
@pytest.mark.parametrize("service", [SERVICE, STRANGE], ids=["plain", "strange"])
def test_systemd_takes_the_unit(service: Service, system: bool, sandboxed: bool, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    program = tmp_path / service.program.name if service is SERVICE else tmp_path / "ä b 100%$HOME" / "far-node"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)  # it looks whether there is such a program
    file = tmp_path / service.unit
    here = replace(service, program=program, home=tmp_path, user="root")
    file.write_text(systemd_unit(here, system=system, sandboxed=sandboxed))
    words = ["systemd-analyze", *([] if system else ["--user"]), "verify", "--man=no", str(file)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, env={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert [line for line in said.stderr.splitlines() if service.unit in line] == []
    assert said.returncode == 0, said.stderr


def test_the_node_has_time_to_leave_and_is_restarted_but_not_for_ever() -> None:
    unit = systemd_unit(SERVICE, system=False, sandboxed=True)
    settings = dict(section(unit, "Service"))
    assert settings["ExecStart"] == "/home/ada/.far/venv/bin/far-node start"
    assert int(settings["TimeoutStopSec"]) >= 90.5 + 30
    assert settings["KillMode"] == "mixed"
    assert settings["Restart"] == "on-failure"
    assert dict(section(unit, "Unit"))["StartLimitBurst"] == "5"


def test_it_is_closed_off_but_for_devices_memory_and_what_it_writes() -> None:
    unit = systemd_unit(SERVICE, system=False, sandboxed=True)
    settings = section(unit, "Service")
    assert {"NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateUsers"} <= dict(settings).keys()
    assert ("ReadWritePaths", "-/home/ada/.far") in settings
    assert not {"PrivateDevices", "DeviceAllow", "MemoryDenyWriteExecute", "PrivateNetwork"} & dict(settings).keys()
    without = dict(section(systemd_unit(SERVICE, system=False, sandboxed=False), "Service"))
    assert "NoNewPrivileges" in without
    assert not {"ProtectSystem", "PrivateUsers", "PrivateTmp", "ReadWritePaths"} & without.keys()
    of_root = dict(section(systemd_unit(SERVICE, system=True, sandboxed=True), "Service"))
    assert of_root["User"] == "ada"
    assert of_root["CapabilityBoundingSet"] == ""
    assert "PrivateUsers" not in of_root  # root's manager needs none, and a GPU's groups count


def test_nothing_in_a_path_or_a_variable_means_anything_to_systemd() -> None:
    unit = systemd_unit(STRANGE, system=False, sandboxed=True)
    settings = section(unit, "Service")
    assert dict(settings)["ExecStart"].startswith('"/home/ada/ä b 100%%$HOME/far-node" start --name second')
    assert dict(settings)["ExecStart"].endswith('"/home/ada/my \\"$$HOME\\" settings\\\\.toml"')
    assert ("Environment", '"HF_HOME=/home/ada/a \\"b\\" 100%%$x"') in settings
    assert ("ReadWritePaths", '"-/home/ada/my models 100%%"') in settings


def test_launchd_is_told_the_same() -> None:
    told = plistlib.loads(launchd_plist(STRANGE))
    assert told["Label"] == "org.far-mesh.far-node.second"
    assert told["ProgramArguments"] == [str(STRANGE.program), "start", *STRANGE.arguments]
    assert told["KeepAlive"] == {"SuccessfulExit": False}
    assert told["ExitTimeOut"] == STRANGE.stop_seconds
    assert told["EnvironmentVariables"] == STRANGE.variables
