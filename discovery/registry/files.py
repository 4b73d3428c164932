"""The files of a model directory: which names are taken, which are refused, and what may be read through a link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from discovery.protocol.errors import InvalidArgument, WeightsDamaged

CONFIG = "config.json"
SINGLE_WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SAFETENSORS = ".safetensors"
HOLDING = "far-model.json"
"""In a directory that was pulled: where from, and the manifest of the whole model."""

MAX_SMALL_FILE_BYTES = 64 << 20
MAX_NAME_LENGTH = 200

UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npz", ".joblib"})
"""Weights in these formats can run code when they are loaded."""

_SMALL_SUFFIXES = (".json", ".jinja", ".model", ".txt")
_NOT_SMALL = {"adapter_config.json", HOLDING}  # the one makes a loader follow it elsewhere, the other is ours
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]*")


def is_plain_name(name: str) -> bool:
    """Whether ``name`` can only mean a file in the directory it is put in, and none of ours."""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def is_weights(name: str) -> bool:
    """Whether this is the plain name of a safetensors file."""
    return is_plain_name(name) and name.endswith(SAFETENSORS)


def is_small_file(name: str) -> bool:
    """Whether this is a file that goes with the weights: configuration, tokenizer, chat template. No code is one."""
    return (
        is_plain_name(name)
        and name.endswith(_SMALL_SUFFIXES)
        and not name.endswith(".index.json")
        and name not in _NOT_SMALL
    )


def is_unsafe(name: str) -> bool:
    """Whether weights under this name could run code when they are loaded."""
    return Path(name).suffix.lower() in UNSAFE_SUFFIXES


def parse_json(data: bytes) -> Any:
    """Parse a stranger's JSON, nested at most some 200 levels deep.

    ``json.loads`` is bounded by Python's recursion limit alone, which some libraries raise to where a few kilobytes of
    brackets overflow the stack and end the process.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    return from_json(data)


def nests_too_deep(data: bytes) -> bool:
    """Whether JSON is nested so deep that reading it could end a process: see :func:`parse_json`."""
    try:
        from_json(data)
    except ValueError as error:
        return "recursion limit" in str(error)
    return False


def weight_map_of(index: bytes, name: str = INDEX) -> dict[str, str]:
    """The names of the weights and of the files they are in, from the bytes of an index file.

    Raises:
        WeightsDamaged: it is not an index, or names a file that is not simply beside it.
    """
    try:
        found = parse_json(index)["weight_map"]
        files = {str(weight): str(file) for weight, file in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WeightsDamaged(f"{name} is not an index of safetensors files", file=name) from None
    for file in sorted(set(files.values())):
        if not is_weights(file):
            raise WeightsDamaged(f"{name} names {file[:80]!r}, which is no safetensors file beside it", file=name)
    return files


def loaded_weights(directory: Path) -> list[str]:
    """The names of the safetensors files that a loader would take from a directory, in order; none if it has no such.

    Raises:
        WeightsDamaged: there is an index, and it cannot be used.
    """
    if (directory / SINGLE_WEIGHTS).is_file():
        return [SINGLE_WEIGHTS]
    if (directory / INDEX).is_file():
        return sorted(set(weight_map_of((directory / INDEX).read_bytes()).values()))
    return []


def weight_files(directory: Path) -> list[Path]:
    """All safetensors files of a directory, by name: what its digest is made of."""
    return sorted(directory.glob(f"*{SAFETENSORS}"))


def small_files(directory: Path) -> list[Path]:
    """The files of a directory that go with its weights, by name."""
    return sorted(file for file in directory.iterdir() if is_small_file(file.name) and file.is_file())


def is_directory(text: str) -> bool:
    """Whether what somebody wrote is the path of a directory. Nothing and what is too long for a path are none."""
    try:
        return bool(text) and Path(text).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def real_file(file: Path) -> Path:
    """The regular file behind ``file``, which may be a link within its directory, or within a hub's cache
    (``snapshots/<commit>/name`` → ``blobs/<hash>``), and nowhere else.

    Raises:
        InvalidArgument: it is something else.
    """
    directory = file.parent.resolve()
    allowed = [directory]
    if directory.parent.name == "snapshots":
        allowed.append(directory.parent.parent / "blobs")
    try:
        target = file.resolve(strict=True)
        valid = target.is_file() and any(target.is_relative_to(place) for place in allowed)
    except (OSError, RuntimeError):  # it leads nowhere, or round in a circle
        valid = False
    if not valid:
        raise InvalidArgument(f"{file.name} in {directory} is a link that leads elsewhere, or no file", file=file.name)
    return target
