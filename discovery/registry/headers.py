"""The header of a safetensors file, checked in full before anything of the file is used.

The format (https://github.com/huggingface/safetensors#format): eight bytes, the length of the header as a little-endian
integer; the header, JSON that may end in spaces; then the bytes of the tensors without gaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery.protocol.errors import WeightsDamaged
from discovery.registry.files import parse_json

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 32 << 20  # a third of the format's own limit, and ten times what the largest models have
_METADATA = "__metadata__"

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of one element, by the format's names of types."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor in a file: bytes ``[begin, end)`` of the data that follows the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """What a file holds, in the order of its bytes. ``data_start``: where the data begin in the file."""

    data_start: int
    tensors: tuple[TensorEntry, ...]


class _Malformed(ValueError):
    pass


def read_header(path: Path, name: str | None = None) -> Header:
    """The checked header of a safetensors file. ``name`` is what an error calls it; by default the file's own name.

    Raises:
        WeightsDamaged: it is not a well-formed safetensors file, with the reason.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            length = _header_length(file.read(LENGTH_BYTES), size)
            return _parse(file.read(length), size)
        except _Malformed as error:
            name = name or path.name
            raise WeightsDamaged(f"{name} is not a well-formed safetensors file: {error}", file=name) from None


def pack_header(tensors: Iterable[TensorEntry]) -> bytes:
    """The bytes before the data of a file that holds ``tensors``, padded so that the data begin at a multiple of 8."""
    described: dict[str, Any] = {_METADATA: {"format": "pt"}}
    for tensor in tensors:
        described[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin, tensor.end],
        }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _header_length(first: bytes, size: int) -> int:
    if len(first) < LENGTH_BYTES:
        raise _Malformed(f"it ends after {len(first)} bytes")
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES:
        raise _Malformed(f"its header claims {length} bytes, more than any model needs")
    if LENGTH_BYTES + length > size:
        raise _Malformed(f"its header claims {length} bytes, and the whole file has {size}")
    return length


def _parse(text: bytes, size: int) -> Header:
    try:
        parse_json(text)  # whose depth is bounded; it does not tell of duplicates
        described = json.loads(text, object_pairs_hook=_without_duplicates)
    except _Malformed:
        raise
    except ValueError:
        raise _Malformed("its header is not JSON") from None
    if not isinstance(described, dict):
        raise _Malformed("its header is not a JSON object")
    _check_metadata(described.pop(_METADATA, {}))
    entries = [_entry(name, value) for name, value in described.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    data_start = LENGTH_BYTES + len(text)
    _check_layout(entries, size - data_start)
    return Header(data_start, tuple(entries))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Malformed(f"its header names {twice!r} twice")
    return found


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Malformed("its metadata are not strings")


def _entry(name: str, described: object) -> TensorEntry:
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Malformed(f"tensor {name!r} has the unknown type {dtype!r}")
    if not _are_sizes(shape):
        raise _Malformed(f"tensor {name!r} has the shape {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _Malformed(f"tensor {name!r} has the offsets {offsets!r}")
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        raise _Malformed(
            f"tensor {name!r} has {offsets[1] - offsets[0]} bytes, and its shape and type need {bits / 8:g}"
        )
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_layout(entries: list[TensorEntry], data_bytes: int) -> None:
    position = 0
    for entry in entries:
        if entry.begin != position:
            fault = "overlaps the tensor before it" if entry.begin < position else "leaves a gap before it"
            raise _Malformed(f"tensor {entry.name!r} {fault}")
        position = entry.end
    if position != data_bytes:
        raise _Malformed(f"its tensors take {position} bytes, and {data_bytes} follow the header")
