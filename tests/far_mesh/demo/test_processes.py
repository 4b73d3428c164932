"""Children that tell of themselves, and end with the demo."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from far_mesh.demo.processes import ProcessFailed, ProcessGroup

CHILD = """
import json, subprocess, sys, time
what = sys.argv[1]
if what == "error":
    print(json.dumps({"event": "error", "code": "model_unavailable", "message": "there is no such model"}), flush=True)
    sys.exit(1)
if what == "dies":
    sys.exit(7)
grandchild = subprocess.Popen(["sleep", "60"])
print("not json", flush=True)
print(json.dumps({"event": "ready", "grandchild": grandchild.pid}), flush=True)
time.sleep(0.2 if what == "ends" else 60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "demo_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "demo_child"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


async def test_the_ready_event_comes_through_and_the_end_takes_grandchildren_too(tmp_path: Path, module: str) -> None:
    async with ProcessGroup(tmp_path / "logs") as group:
        child = await group.start("one", module, ["stays"])
        grandchild = (await child.ready())["grandchild"]
        assert psutil.pid_exists(grandchild)
    assert gone(grandchild)
    assert "not json" in (tmp_path / "logs" / "one.log").read_text()


async def test_a_child_that_reports_an_error_is_quoted(tmp_path: Path, module: str) -> None:
    async with ProcessGroup(tmp_path / "logs") as group:
        child = await group.start("node-1", module, ["error"])
        with pytest.raises(ProcessFailed, match="node-1: there is no such model"):
            await child.ready()


async def test_a_child_that_dies_silently_points_to_its_log(tmp_path: Path, module: str) -> None:
    async with ProcessGroup(tmp_path / "logs") as group:
        child = await group.start("node-1", module, ["dies"])
        with pytest.raises(ProcessFailed, match=r"node-1 ended by itself \(exit code 7\); see .*node-1.log"):
            await child.ready()


async def test_failures_are_told_one_by_one(tmp_path: Path, module: str) -> None:
    async with ProcessGroup(tmp_path / "logs") as group:
        await group.start("short", module, ["ends"])
        await group.start("shorter", module, ["dies"])
        failures = group.failures()
        async with asyncio.timeout(20):
            told = {(await anext(failures)).message.split()[0], (await anext(failures)).message.split()[0]}
        await failures.aclose()  # type: ignore[attr-defined]
    assert told == {"short", "shorter"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_end_even_when_the_demo_is_killed(tmp_path: Path, module: str) -> None:
    script = f"""
import asyncio, pathlib, time
from far_mesh.demo.processes import ProcessGroup
async def main():
    async with ProcessGroup(pathlib.Path({str(tmp_path)!r}) / "logs") as group:
        child = await group.start("one", "demo_child", ["stays"])
        await child.ready()
        print(child._process.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    demo = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=_environment(tmp_path), text=True
    )
    assert demo.stdout is not None
    child = int(demo.stdout.readline())
    demo.send_signal(signal.SIGKILL)
    demo.wait()
    assert gone(child)


def _environment(tmp_path: Path) -> dict[str, str]:
    import os

    root = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
