"""Finds the facts: each function looks at one thing, and raises nothing that is a finding."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from discovery.dht.identity import load_identity
from discovery.dht.probe import meet
from discovery.protocol.announcement import Dtype
from discovery.protocol.errors import FarError, WeightsDamaged
from discovery.registry.files import is_directory
from far_node.blocks.source import BUNDLED_MODEL, ModelSource, bundled_model_path
from far_node.capacity import Wish, plan_blocks, room_on
from far_node.config import ModelOptions
from far_node.doctor.facts import (
    Card,
    DeviceFacts,
    DiskFacts,
    HttpFacts,
    IdentityFacts,
    ListenFacts,
    MemoryFacts,
    ModelFacts,
    SwarmFacts,
)
from far_node.errors import DoesNotFit, ModelNotFound
from far_node.models.folder import Folder
from far_node.models.progress import Progress
from far_node.models.store import ModelStore, is_name

HASH_SECONDS = 5.0
HTTP_SECONDS = 4.0
TOOL_SECONDS = 5.0
_NVIDIA = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")
_AMD = ("rocm-smi", "--showproductname", "--showdriverversion", "--csv")


def identity(path: Path) -> IdentityFacts:
    """The key file; none is made."""
    path = path.expanduser()
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return IdentityFacts(str(path), exists=False)
    except OSError as error:
        return IdentityFacts(str(path), exists=True, error=f"{path} cannot be read: {error.strerror}")
    try:
        return IdentityFacts(str(path), True, mode, load_identity(path).peer_id)
    except FarError as error:
        return IdentityFacts(str(path), True, mode, error=error.message)


# ---- the model, and where it lies


def model(name: str, *, seconds: float = HASH_SECONDS) -> ModelFacts:
    """A model on this disk. Nothing is downloaded or deleted; hashing stops after so many seconds."""
    try:
        place = _place_of(name)
        if place is None:
            return ModelFacts(name, is_elsewhere=True)
        if place.is_file():
            with place.open("rb") as file:
                file.read(1)
            return ModelFacts(name, str(place))
        return _directory(name, place, seconds)
    except FarError as error:
        return ModelFacts(name, error=error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return ModelFacts(name, error=ModelNotFound(f"{error.filename or name} cannot be read: {reason}", model=name))


def _place_of(name: str) -> Path | None:
    """Its directory or file; None for one that would be downloaded.

    Raises:
        ModelNotFound: it is on no disk, and no hub could have it.
    """
    path = Path(name).expanduser()
    if is_directory(name) or (path.suffix == ".gguf" and path.is_file()):
        return path.resolve()
    if name == BUNDLED_MODEL:
        return bundled_model_path()
    store = ModelStore()
    record = store.get(name)
    if record is not None:
        place = store.place_of(record)
        if not place.exists():
            raise ModelNotFound(f"{name} should be in {place}, and is not there", model=name)
        return place
    if name.count("/") != 1 or not is_name(name):
        raise ModelNotFound(f"there is no model at {name!r}: no such directory, and no name that a hub has", model=name)
    folder = store.folder_of(name)
    return folder if folder.exists() else None


def _directory(name: str, place: Path, seconds: float) -> ModelFacts:
    if not (place / "config.json").is_file():
        raise ModelNotFound(f"{place} holds no config.json, so it is not a model directory", model=name)
    folder = Folder.at(place)
    if folder is None:
        _check_headers(place)
        return ModelFacts(name, str(place))
    here = [entry for entry in folder.needed(None) if folder.has(entry)]
    missing = sum(entry.size for entry in folder.missing(None))
    hashed = _hash(folder, seconds, len(here))
    return ModelFacts(name, str(place), hashed=hashed, files=len(here), missing_bytes=missing)


class _TimeIsUp(Exception):
    """Enough was hashed."""


def _hash(folder: Folder, seconds: float, count: int) -> int:
    """How many files have their hashes, as far as there is time.

    Raises:
        WeightsDamaged: one has another.
    """
    until, seen = time.monotonic() + seconds, set[str]()

    def watch(now: Progress) -> None:
        seen.add(now.file)
        if time.monotonic() > until:
            raise _TimeIsUp

    try:
        folder.verify(None, watch, delete=False)
    except _TimeIsUp:
        return max(0, len(seen) - 1)
    return count


def _check_headers(place: Path) -> None:
    """Each safetensors file is as long as its header says.

    Raises:
        WeightsDamaged, ModelNotFound: one is not, or there is none.
    """
    from discovery.registry.files import loaded_weights
    from discovery.registry.headers import read_header

    names = loaded_weights(place)
    if not names:
        raise ModelNotFound(f"there are no safetensors weights in {place}", model=str(place))
    for file in names:
        if not (place / file).is_file():
            raise WeightsDamaged(f"{place} lacks {file}, which its index names", file=str(file))
        read_header(place / file)


def disk(facts: ModelFacts | None, directory: Path | None = None) -> DiskFacts:
    """The file system that models are downloaded to, and what is still to come of ``facts``."""
    place = directory or ModelStore().directory
    there = next(path for path in (place, *place.parents) if path.exists())
    needed = None if facts is None or facts.is_elsewhere else facts.missing_bytes
    try:
        usage = shutil.disk_usage(there)
        with tempfile.TemporaryFile(dir=there) as file:  # it may be read only
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return DiskFacts(str(place), 0, 0, needed, f"{place} cannot be written: {error.strerror}")
        usage = shutil.disk_usage(there)
        return DiskFacts(str(place), 0, usage.total, needed)
    return DiskFacts(str(place), usage.free, usage.total, needed)


# ---- what computes


def cards() -> tuple[Card, ...]:
    """What the drivers of GPUs tell of, without torch."""
    found = []
    for line in _run(_NVIDIA).splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3:
            size = int(parts[2]) << 20 if parts[2].isdigit() else None
            found.append(Card("nvidia", parts[0], parts[1], size))
    rows = [line.split(",") for line in _run(_AMD).splitlines() if line.startswith("card")]
    found += [Card("amd", row[1].strip() or "AMD GPU", row[-1].strip()) for row in rows if len(row) > 1]
    return tuple(found)


def _run(command: Sequence[str]) -> str:
    path = shutil.which(command[0])
    if path is None:
        return ""
    try:
        ended = subprocess.run(  # noqa: S603  a tool of the driver, with words of our own
            [path, *command[1:]], capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def device(wanted: str) -> DeviceFacts:
    """What torch and the drivers say of the device that the owner wants."""
    import torch

    from far_node.hardware import find_device

    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    found, error = None, None
    try:
        found = find_device(wanted)
    except FarError as problem:
        error = problem.message
    return DeviceFacts(wanted, found, error, torch.__version__, built_for, cards())


def memory(options: ModelOptions, place: Path, found: str, reserve_bytes: int, fraction: float) -> MemoryFacts | None:
    """Whether what is asked of the model in a directory fits on a device, told from its config alone.

    Returns:
        None where that cannot be told: what keeps the model from being cut is found when it is loaded.
    """
    from far_node.blocks.sizes import block_sizes
    from far_node.hardware import memory_of
    from far_node.loading import usual_kinds

    if not place.is_dir():  # one file, which has to be imported before it can be looked at
        return None
    free = memory_of(found)
    numbers = (free.free_bytes, free.total_bytes, free.name)
    dtype: Dtype = options.dtype or ("float32" if found == "cpu" else "bfloat16")
    kinds = (options.quantization,) if options.quantization else usual_kinds(found)
    source = ModelSource(options.model, place, "")
    room = room_on(free, reserve_bytes=reserve_bytes, cache_bytes=options.cache_bytes, fraction=fraction)
    try:
        sizes = {kind: block_sizes(source, kind, dtype, found) for kind in kinds}
        plan = plan_blocks(sizes, Wish(kinds, options.blocks, options.num_blocks), [room])
    except DoesNotFit as error:
        return MemoryFacts(None, error.message, *numbers)
    except FarError:
        return None
    first, end = plan.candidates[0]
    count = len(sizes[plan.quantization])
    return MemoryFacts(f"room for {end - first} of {count} blocks ({plan.quantization})", None, *numbers)


# ---- the network


def listening(host_maddrs: Sequence[str], public_maddrs: Sequence[str], relay: bool, is_ours: bool) -> ListenFacts:
    """Where the node listens, and whether somebody does already. The port is the one that others dial."""
    own = [port for maddr in host_maddrs if (port := _tcp_port(maddr)) is not None]
    public = [port for maddr in public_maddrs if (port := _tcp_port(maddr)) is not None]
    in_use = any(port != 0 and _in_use(port) for port in own)
    return ListenFacts(tuple(host_maddrs), next(iter((*public, *own)), None), in_use, is_ours, relay)


def _tcp_port(maddr: str) -> int | None:
    parts = maddr.split("/")
    text = parts[parts.index("tcp") + 1] if "tcp" in parts[:-1] else ""
    return int(text) if text.isdigit() else None


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


async def swarm(initial_peers: Sequence[str], listen: ListenFacts, now: Callable[[], float]) -> SwarmFacts:
    """How the initial peers see us; we listen for them meanwhile, unless somebody does already."""
    if not initial_peers:
        return SwarmFacts((), own_ips())
    maddrs = () if listen.in_use or listen.relay else listen.maddrs
    port = None if listen.port == 0 else listen.port or 0  # 0: one that the system chooses
    try:
        meetings = await meet(initial_peers, maddrs, port, now, wants_slots=listen.relay)
    except FarError as error:
        return SwarmFacts((), own_ips(), error.message)
    return SwarmFacts(tuple(meetings), own_ips())


def own_ips() -> frozenset[str]:
    """Addresses of this machine's interfaces."""
    kinds = (socket.AF_INET, socket.AF_INET6)
    addresses = (one for some in psutil.net_if_addrs().values() for one in some if one.family in kinds)
    return frozenset(one.address.partition("%")[0] for one in addresses)


async def service(url: str, path: str, now: Callable[[], float]) -> HttpFacts:
    """A web service of the owner's choice: does it answer, and what time does it have?"""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return HttpFacts(url, None, "is no address such as https://far.example")
    try:
        async with httpx.AsyncClient(timeout=HTTP_SECONDS) as client:
            asked_at, started = now(), time.perf_counter()
            answer = await client.get(url.rstrip("/") + path)
            seconds = time.perf_counter() - started
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return HttpFacts(url, None, f"does not answer: {str(error) or type(error).__name__}")
    return HttpFacts(url, answer.status_code, None, 1000 * seconds, _ahead(answer, asked_at + seconds / 2))


def _ahead(answer: httpx.Response, at: float) -> float | None:
    """By how much our clock is ahead; a Date is cut off to whole seconds, so half a second is added."""
    if "age" in answer.headers:  # from somebody's cache
        return None
    try:
        date = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None
    return at - date.replace(tzinfo=date.tzinfo or UTC).timestamp() - 0.5
