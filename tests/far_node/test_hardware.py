"""What a machine has is read where it stands, and a container's limit is not overlooked."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from discovery.protocol.errors import InvalidArgument
from far_node.hardware import cgroup_limits, find_device, memory_of


def write(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (group / name.replace("memory_", "memory.")).write_text(text)


def limits(mount: Path, membership: str) -> list[tuple[int, int]]:
    file = mount.parent / "membership"
    file.write_text(membership)
    return list(cgroup_limits(mount, file))


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.mkdir()
    return path


def test_the_limit_of_a_container_is_found(mount: Path) -> None:
    write(mount, memory_max="1000\n", memory_current="700\n", memory_stat="anon 400\ninactive_file 200\n")
    assert limits(mount, "0::/\n") == [(1000, 500)]


def test_every_group_above_counts(mount: Path) -> None:
    write(mount / "user", memory_max="3000\n", memory_current="100\n", memory_stat="inactive_file 0\n")
    write(mount / "user" / "me", memory_max="max\n", memory_current="90\n", memory_stat="inactive_file 0\n")
    assert limits(mount, "0::/user/me\n") == [(3000, 2900)]


def test_the_older_kind_of_group_is_read_too(mount: Path) -> None:
    files = {"memory_usage_in_bytes": "700\n", "memory_stat": "inactive_file 1\ntotal_inactive_file 200\n"}
    write(mount / "memory", memory_limit_in_bytes="9223372036854771712\n", **files)
    write(mount / "memory" / "job", memory_limit_in_bytes="1000\n", **files)
    assert limits(mount, "5:cpu,cpuacct:/\n4:memory:/job\n0::/\n") == [(1000, 500)]


def test_a_group_that_the_container_does_not_show_is_passed_over(mount: Path) -> None:
    write(mount, memory_max="1000\n", memory_current="100\n", memory_stat="inactive_file 0\n")
    assert limits(mount, "0::/docker/0123456789ab\n") == [(1000, 900)]


def test_a_system_without_groups_has_no_limit(mount: Path) -> None:
    assert limits(mount, "") == []
    assert list(cgroup_limits(mount, mount / "no such file")) == []


def test_the_memory_of_this_machine_is_told() -> None:
    memory = memory_of("cpu")
    assert 0 < memory.free_bytes < memory.total_bytes <= psutil.virtual_memory().total


def test_the_device_is_the_cpu_where_there_is_no_other() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has another")
    assert find_device("auto") == find_device("cpu") == "cpu"


@pytest.mark.parametrize("wanted", ["mps", "cuda:0", "cuda:64"])
def test_a_device_that_is_not_there_is_refused_by_name(wanted: str) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has another")
    with pytest.raises(InvalidArgument, match=wanted):
        find_device(wanted)
