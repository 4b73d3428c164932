"""What this machine is, measured: memory, processors, disk and the way to the network. Each takes about a second."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

MEASURE_SECONDS = 0.4
_COPY_BYTES = 128 << 20
_DISK_BYTES = 64 << 20
_SPARE_DISK_BYTES = 1 << 30
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "avx_vnni", "f16c", "fma")
_ARM_FEATURES = ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2")


@dataclass(frozen=True)
class Processor:
    """The CPU. ``features`` are those that matter to matrices."""

    name: str
    cores: int
    threads: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class DiskSpeed:
    """Bytes per second of one file of 64 MiB, in a place of the models; None: not measured."""

    place: str
    free_bytes: int
    write_bytes_per_second: float | None
    read_bytes_per_second: float | None


@dataclass(frozen=True)
class LinkSpeed:
    """The way to a gateway. ``download_bytes_per_second`` is of one document, so the line has at least that."""

    url: str
    round_trip_ms: float | None
    download_bytes_per_second: float | None
    reason: str | None = None


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The CPU as the kernel tells of it."""
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    lines = (line.partition(":") for line in text.splitlines())
    facts: dict[str, str] = {}
    for name, _, value in lines:
        facts.setdefault(name.strip(), value.strip())
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    features = tuple(name for name in (*_FEATURES, *_ARM_FEATURES) if name in flags)
    name = facts.get("model name") or platform.processor() or platform.machine()
    threads = psutil.cpu_count() or 1
    return Processor(name, psutil.cpu_count(logical=False) or threads, threads, features)


def memory_speed(device: str, seconds: float = MEASURE_SECONDS) -> float | None:
    """Bytes per second that a copy within a device's memory reads and writes together; None where there is no room."""
    import torch

    try:
        source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
    except RuntimeError:  # torch's word for memory that is not there
        return None

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        elif device == "mps":
            torch.mps.synchronize()

    def copy() -> None:
        target.copy_(source)

    copy()
    wait()
    return 2 * _COPY_BYTES / _each(copy, wait, seconds)


def _each(act: Callable[[], None], wait: Callable[[], None], seconds: float) -> float:
    """Seconds that an act takes, by as many as there is time for."""
    started, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds or not count:
        act()
        wait()
        count += 1
    return taken / count


def disk_speed(place: Path) -> DiskSpeed:
    """How fast a file is written to the disk, and read from it and not from memory."""
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < _SPARE_DISK_BYTES:
        return DiskSpeed(str(place), free, None, None)
    data = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            started = time.perf_counter()
            for _ in range(_DISK_BYTES >> 20):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter() - started
            if not hasattr(os, "posix_fadvise"):
                return DiskSpeed(str(place), free, _DISK_BYTES / written, None)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            while file.read(1 << 20):
                pass
            return DiskSpeed(str(place), free, _DISK_BYTES / written, _DISK_BYTES / (time.perf_counter() - started))
    except OSError:
        return DiskSpeed(str(place), free, None, None)


def link_speed(url: str, timeout: float = 10.0) -> LinkSpeed:
    """Round trip and download from a gateway, on a connection that is open already."""
    url = url.rstrip("/")
    try:
        with httpx.Client(base_url=url, timeout=timeout) as http:
            http.get("/health")
            trips = []
            for _ in range(3):
                started = time.perf_counter()
                http.get("/health")
                trips.append(time.perf_counter() - started)
            started, size = time.perf_counter(), 0
            with http.stream("GET", "/openapi.json") as answer:
                for piece in answer.iter_raw():
                    size += len(piece)
            taken = time.perf_counter() - started
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return LinkSpeed(url, None, None, str(error) or type(error).__name__)
    speed = size / taken if answer.status_code == 200 and size else None
    return LinkSpeed(url, 1000 * min(trips), speed)
