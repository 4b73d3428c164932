"""The machine, measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import far_node.cli
from far_node import machine
from far_node.machine import disk_speed, link_speed, memory_speed, processor
from tests.support.swarm import run_here


def test_memory_and_disk_are_measured_and_nothing_is_left_behind(tmp_path: Path) -> None:
    speed = memory_speed("cpu", seconds=0.05)
    assert speed is not None
    assert 1e7 < speed < 1e14
    disk = disk_speed(tmp_path / "models")
    assert disk.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SPARE_DISK_BYTES", 1 << 62)
    disk = disk_speed(tmp_path)
    assert (disk.write_bytes_per_second, disk.read_bytes_per_second) == (None, None)


def test_the_processor_as_the_kernel_tells_of_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: AMD EPYC 9654\nflags\t\t: fpu avx2 avx512f\n\nmodel name\t: another\n")
    found = processor(cpuinfo)
    assert (found.name, found.features) == ("AMD EPYC 9654", ("avx2", "avx512f"))
    assert processor(tmp_path / "nothing").threads >= 1


def test_a_gateway_that_does_not_answer_has_no_speed() -> None:
    link = link_speed("http://127.0.0.1:9", timeout=1.0)
    assert link.round_trip_ms is None
    assert link.reason


def test_the_command_says_what_fits_and_that_prices_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("FAR_GATEWAY_URL", raising=False)
    monkeypatch.setattr("far_node.rewards_cli.quiet_libraries", lambda: None)
    words = ["info", "hardware", "--device", "cpu", "--reserve-gb", "0", "--cache-mb", "1"]
    ended = run_here(far_node.cli.app, *words, "--json")
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert told["memory_bytes_per_second"] > 0
    demo = {one["quantization"]: one for one in told["could_serve"] if one["model_id"] == "far-demo"}
    assert set(demo) == {"none", "int8", "nf4"}
    assert all(one["blocks"] == one["block_count"] == 8 for one in demo.values())
    assert demo["none"]["weight_bytes"] > demo["int8"]["weight_bytes"] > demo["nf4"]["weight_bytes"] > 0
    assert demo["int8"]["earnings"]["busy_units"] is None
    assert told["prices_unknown"] == "no --gateway was named"
    people = run_here(far_node.cli.app, *words)
    assert "What it earns is not known" in people.out
