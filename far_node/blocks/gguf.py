"""GGUF files: the format of llama.cpp, one file for a whole model (its specification is docs/gguf.md of ggml).

A header of typed metadata and a table of tensors, then their bytes. Nothing in a header is believed before it is
checked against the file's size, and a part of a file can be written as a file of its own.
"""

from __future__ import annotations

import functools
import math
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from discovery.protocol.errors import WeightsDamaged
from far_node.errors import ModelUnsupported

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_FLOAT32 = 0  # of tensors
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 16
_MAX_DIMENSIONS = 4
_MAX_NAME_BYTES = 1 << 16
_MAX_TEXT_BYTES = 1 << 24
_MAX_ITEMS = 1 << 22
_MAX_KEPT_ITEMS = 1 << 12  # of an array; longer ones are vocabularies
_MAX_ENTRIES, _MAX_TENSORS = 1 << 16, 1 << 18
_PIECE = 1 << 24
_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """A piece of metadata: its value, or None for a long array; and where in the file it is."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: its sizes, the fastest first; ggml's number for its type; its bytes from the start of the data."""

    name: str
    sizes: tuple[int, ...]
    kind: int
    offset: int
    bytes: int

    @property
    def block(self) -> int | None:
        """The number of the block that it belongs to."""
        found = _BLOCK.match(self.name)
        return int(found.group(1)) if found else None


@dataclass(frozen=True)
class Header:
    """What a file says of itself, checked."""

    path: Path
    version: int
    alignment: int
    entries: Mapping[str, Entry]
    tensors: tuple[Tensor, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name for it."""
        return str(self.entries["general.architecture"].value)

    def get(self, name: str) -> Any:
        """A setting of this architecture, such as ``block_count``; None if it has none of that name."""
        return self.find(f"{self.architecture}.{name}")

    def find(self, key: str) -> Any:
        """A piece of metadata by its whole key."""
        return self.entries[key].value if key in self.entries else None


def read_header(path: Path) -> Header:
    """Read and check everything but the tensors' values.

    Raises:
        WeightsDamaged: it is no GGUF file, is cut short, or does not agree with itself.
        ModelUnsupported: it has weights of a type that we do not know.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except (struct.error, _EndOfFile):
        raise WeightsDamaged(f"{path.name} is cut short or malformed", file=path.name) from None
    except (ValueError, OSError) as error:  # empty, not text, not readable
        raise WeightsDamaged(f"{path.name} cannot be read as GGUF: {error}", file=path.name) from None


def write_part(header: Header, out: Path, wanted: Callable[[Tensor], bool]) -> None:
    """Write a file with the wanted tensors, and all metadata but the tokenizer's.

    Raises:
        WeightsDamaged: the file was changed since its header was read.
    """
    entries = [entry for key, entry in header.entries.items() if not key.startswith("tokenizer.")]
    tensors = [tensor for tensor in header.tensors if wanted(tensor)]
    with header.path.open("rb") as source, out.open("wb") as target:
        target.write(MAGIC + struct.pack("<IQQ", header.version, len(tensors), len(entries)))
        for entry in entries:
            _copy(source, target, entry.start, entry.end - entry.start)
        offset = 0
        for tensor in tensors:
            name = tensor.name.encode()
            target.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.sizes)))
            target.write(struct.pack(f"<{len(tensor.sizes)}QIQ", *tensor.sizes, tensor.kind, offset))
            offset += _aligned(tensor.bytes, header.alignment)
        for tensor in tensors:
            target.write(bytes(_aligned(target.tell(), header.alignment) - target.tell()))
            _copy(source, target, header.data_start + tensor.offset, tensor.bytes)
        target.write(bytes(_aligned(target.tell(), header.alignment) - target.tell()))


def read_floats(header: Header, tensor: Tensor) -> list[float]:
    """The values of a small tensor of 32-bit floats.

    Raises:
        ModelUnsupported: it is of another type, or not small.
    """
    if tensor.kind != _FLOAT32 or tensor.bytes > _MAX_NAME_BYTES:
        raise ModelUnsupported(f"{tensor.name[:80]!r} in {header.path.name} is not a short list of 32-bit floats")
    with header.path.open("rb") as file:
        file.seek(header.data_start + tensor.offset)
        return list(struct.unpack(f"<{tensor.bytes // 4}f", file.read(tensor.bytes)))


class _EndOfFile(Exception):
    """Something reaches behind the end of the file."""


class _Cursor:
    """Reads one thing after the other, never behind the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.place = data, len(MAGIC)

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def number(self, form: str) -> Any:
        return self.numbers(form)[0]

    def text(self, most: int) -> str:
        length = self.number("Q")
        if length > most:
            raise ValueError(f"a text of {length} bytes")
        start = self.place
        self._skip(length)
        return self._data[start : self.place].decode()

    def value(self) -> Any:
        kind = self.number("I")
        if kind == _TEXT:
            return self.text(_MAX_TEXT_BYTES)
        return self._array() if kind == _ARRAY else self.number(self._form(kind))

    def _array(self) -> list[Any] | None:
        kind, count = self.number("I"), self.number("Q")
        if count > _MAX_ITEMS:
            raise ValueError(f"an array of {count} items")
        if kind == _TEXT:
            for _ in range(count):
                self._skip(self.number("Q"))
            return None
        form = self._form(kind)
        if count <= _MAX_KEPT_ITEMS:
            return list(self.numbers(f"{count}{form}"))
        self._skip(count * struct.calcsize(form))
        return None

    def _form(self, kind: int) -> str:
        if kind not in _NUMBERS:  # an array in an array among them: nobody writes any
            raise ValueError(f"a value of type {kind}")
        return _NUMBERS[kind]

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self.place:
            raise _EndOfFile
        self.place += count


def _parse(path: Path, data: mmap.mmap) -> Header:
    if data[: len(MAGIC)] != MAGIC:
        raise WeightsDamaged(f"{path.name} is not a GGUF file", file=path.name)
    cursor = _Cursor(data)
    version, tensor_count, entry_count = cursor.numbers("IQQ")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}")
    if tensor_count > _MAX_TENSORS or entry_count > _MAX_ENTRIES:
        raise ValueError(f"{tensor_count} tensors and {entry_count} pieces of metadata")
    entries: dict[str, Entry] = {}
    for _ in range(entry_count):
        start = cursor.place
        key = cursor.text(_MAX_NAME_BYTES)
        if key in entries:
            raise ValueError(f"{key[:80]!r} twice")
        entries[key] = Entry(cursor.value(), start, cursor.place)
    tensors = tuple(_tensor(cursor, path) for _ in range(tensor_count))
    alignment = entries["general.alignment"].value if "general.alignment" in entries else _DEFAULT_ALIGNMENT
    if not isinstance(alignment, int) or not 8 <= alignment <= _MAX_ALIGNMENT or alignment % 8:
        raise ValueError(f"an alignment of {alignment}")
    header = Header(path, version, alignment, entries, tensors, _aligned(cursor.place, alignment))
    _check(header, len(data))
    return header


def _tensor(cursor: _Cursor, path: Path) -> Tensor:
    name = cursor.text(_MAX_NAME_BYTES)
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"{name[:80]!r} has {dimensions} dimensions")
    sizes = cursor.numbers(f"{dimensions}Q")
    kind, offset = cursor.numbers("IQ")
    return Tensor(name, sizes, kind, offset, _tensor_bytes(name, sizes, kind, path))


def _tensor_bytes(name: str, sizes: tuple[int, ...], kind: int, path: Path) -> int:
    known = _known_types()
    if kind not in known:
        raise ModelUnsupported(f"{path.name} has weights of type {kind}, which we do not know ({name[:80]!r})")
    block_values, block_bytes = known[kind]
    count = math.prod(sizes)
    if count == 0 or sizes[0] % block_values:
        raise ValueError(f"{name[:80]!r} has sizes {sizes}, in blocks of {block_values}")
    return count // block_values * block_bytes


@functools.cache
def _known_types() -> dict[int, tuple[int, int]]:
    """Values and bytes of a block of each type."""
    from gguf.constants import GGML_QUANT_SIZES

    return {one.value: size for one, size in GGML_QUANT_SIZES.items()}


def _check(header: Header, size: int) -> None:
    if not isinstance(header.find("general.architecture"), str):
        raise ValueError("it does not say of which architecture it is")
    if len({tensor.name for tensor in header.tensors}) < len(header.tensors):
        raise ValueError("two tensors of the same name")
    end = 0
    # tensors that share bytes would make a small file a large model
    for tensor in sorted(header.tensors, key=lambda one: one.offset):
        if tensor.offset < end or tensor.offset % header.alignment:
            raise ValueError(f"{tensor.name[:80]!r} does not begin where it may")
        end = tensor.offset + tensor.bytes
        if header.data_start + end > size:
            raise _EndOfFile
    blocks, count = {tensor.block for tensor in header.tensors}, header.get("block_count")
    if not isinstance(count, int) or not 1 <= count <= len(blocks) or not blocks.issuperset(range(count)):
        raise ValueError(f"it says that it has {count} blocks, and has others")


def _copy(source: IO[bytes], target: IO[bytes], start: int, count: int) -> None:
    source.seek(start)
    while count:
        piece = source.read(min(count, _PIECE))
        if not piece:
            raise WeightsDamaged("the GGUF file was changed while it was read")
        target.write(piece)
        count -= len(piece)


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
