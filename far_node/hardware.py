"""What this machine has: which device computes, and how much of its memory is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from discovery.protocol.errors import InvalidArgument
from far_node.capacity import Memory

_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def find_device(wanted: str) -> str:
    """The torch device for ``auto``, ``cpu``, ``mps`` or ``cuda:N``.

    Raises:
        InvalidArgument: torch sees no such device.
    """
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InvalidArgument("--device mps: torch sees no Apple GPU here; use --cpu-only")
    if wanted.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InvalidArgument(f"no CUDA device is visible to torch ({wanted} was asked for); use --cpu-only")
        count = torch.cuda.device_count()
        if int(wanted.partition(":")[2] or 0) >= count:
            raise InvalidArgument(f"there is no {wanted}: torch sees {count} CUDA devices, cuda:0 to cuda:{count - 1}")
    return wanted


def memory_of(device: str) -> Memory:
    """Free and total memory of a device; a container's limit counts, not its host's memory."""
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return Memory(device, free, total)
    machine = _machine_memory()
    if device == "mps":  # a part of the machine's memory
        most = torch.mps.recommended_max_memory()
        return Memory(device, min(most - torch.mps.driver_allocated_memory(), machine.free_bytes), most)
    return machine


def limit_memory(device: str, fraction: float) -> None:
    """Hold this process to a fraction of a GPU's memory: torch refuses to take more."""
    if fraction < 1.0 and device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(fraction, torch.device(device))
    elif fraction < 1.0 and device == "mps":
        torch.mps.set_per_process_memory_fraction(fraction)


def _machine_memory() -> Memory:
    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    for limit, left in cgroup_limits(_CGROUPS, _OWN_CGROUP):
        free, total = min(free, left), min(total, limit)
    return Memory("cpu", max(0, free), total)


def cgroup_limits(mount: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """``(limit, left)`` in bytes of each control group above this process that has a memory limit.

    Both versions are read (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory). Pages of files that nobody uses
    are given back under pressure, so they count as left.

    Args:
        mount: where the control groups are mounted.
        membership: the ``/proc/<pid>/cgroup`` of the process.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if not controllers:
            yield from _limits(mount, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits(mount / "memory", path, names)


def _limits(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[tuple[int, int]]:
    group = root / path.lstrip("/")
    while True:
        try:
            limit = int((group / names[0]).read_text())  # "max" is no number
            if limit < _UNLIMITED:
                yield limit, limit - int((group / names[1]).read_text()) + _statistic(group / "memory.stat", names[2])
        except (OSError, ValueError):
            pass  # no limit at this level, or a level that the container does not show us
        if group == root:
            return
        group = group.parent


def _statistic(file: Path, name: str) -> int:
    pairs = (line.split() for line in file.read_text().splitlines())
    return next((int(value) for key, value in pairs if key == name), 0)
