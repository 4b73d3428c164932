"""Cut a model into safetensors files, one for each layer and one for the ends, without making them.

A shard is a header of our own and byte ranges of the model's files: it can be hashed, and served from any byte on, with
a few kilobytes of memory and no space on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry.files import CONFIG, SAFETENSORS, loaded_weights, real_file
from discovery.registry.hashes import OnBytes
from discovery.registry.headers import BITS, TensorEntry, pack_header, read_header
from discovery.registry.layers import block_count_of_text, find_layering

CUT = "far-mesh/cut/v1"
"""Names how shards are laid out: the same model cut in another way has other hashes."""

ENDS = f"ends{SAFETENSORS}"
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Segment:
    """``length`` bytes of a file from ``offset`` on."""

    file: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Shard:
    """A file that is not there: ``head``, then the bytes of ``segments``."""

    name: str
    head: bytes
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.head) + sum(segment.length for segment in self.segments)

    def read(self, start: int, end: int) -> Generator[bytes]:
        """Bytes ``[start, end)``, in chunks.

        Raises:
            WeightsDamaged: a file of the model became shorter.
        """
        if start < len(self.head):
            yield self.head[start:end]
        position = len(self.head)
        for segment in self.segments:
            first, last = max(start - position, 0), min(end - position, segment.length)
            if first < last:
                yield from _read(segment.file, segment.offset + first, last - first)
            position += segment.length

    def sha256(self, on_bytes: OnBytes | None = None) -> str:
        """Hexadecimal SHA-256 of the whole."""
        digest = hashlib.sha256()
        for chunk in self.read(0, self.size):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        return digest.hexdigest()


@dataclass(frozen=True)
class Cut:
    """A model by layers: ``layers[i]`` is the shard of block i, whose weights' names begin with ``prefix`` and i."""

    prefix: str
    layers: tuple[Shard, ...]
    ends: Shard

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them."""
        return (*self.layers, self.ends)


@dataclass(frozen=True)
class _Place:
    """A tensor and where its bytes are."""

    file: Path
    offset: int
    tensor: TensorEntry


def cut_model(directory: Path) -> Cut:
    """Cut the model in a directory. Only the headers of its files are read.

    Raises:
        InvalidArgument: it is no model whose layers can be told by their names.
        WeightsDamaged: one of its files is malformed, or a weight is in two of them.
    """
    count = _block_count(directory)
    places: dict[str, _Place] = {}
    for place in _places(directory):
        if places.setdefault(place.tensor.name, place) is not place:
            raise WeightsDamaged(f"{place.tensor.name} is in two files of {directory}", file=place.file.name)
    layering = find_layering(places, count)
    if layering is None:
        raise InvalidArgument(f"the weights in {directory} are not named by the {count} layers of its {CONFIG}")
    layers: list[list[_Place]] = [[] for _ in range(count)]
    ends: list[_Place] = []
    for name, place in places.items():
        layer = layering.layer_of(name)
        if layer is None:
            ends.append(place)
        elif layer < count:  # what lies beyond, no block of the decoder loads
            layers[layer].append(place)
    return Cut(
        layering.prefix,
        tuple(_shard(f"layer-{number:05d}{SAFETENSORS}", own) for number, own in enumerate(layers)),
        _shard(ENDS, ends),
    )


def _block_count(directory: Path) -> int:
    try:
        count = block_count_of_text(real_file(directory / CONFIG).read_bytes())
    except (InvalidArgument, OSError):
        raise InvalidArgument(f"{directory} holds no {CONFIG}, so it is not a model directory") from None
    if count is None:
        raise InvalidArgument(f"the {CONFIG} in {directory} does not say how many layers there are")
    return count


def _places(directory: Path) -> Iterator[_Place]:
    names = loaded_weights(directory)
    if not names:
        raise InvalidArgument(
            f"{directory} holds no model in safetensors files: neither model.safetensors nor an index"
        )
    for name in names:
        if not (directory / name).exists():
            raise InvalidArgument(f"{name} is missing in {directory}", file=name)
        file = real_file(directory / name)
        header = read_header(file, name)
        for tensor in header.tensors:
            yield _Place(file, header.data_start + tensor.begin, tensor)


def _shard(name: str, places: Iterable[_Place]) -> Shard:
    # the widest types first, so that every tensor stays aligned to its own type, then in the order of the bytes
    ordered = sorted(places, key=lambda place: (-BITS[place.tensor.dtype], place.file.name, place.offset))
    tensors, segments, position = [], list[Segment](), 0
    for place in ordered:
        size = place.tensor.size
        tensors.append(
            TensorEntry(place.tensor.name, place.tensor.dtype, place.tensor.shape, position, position + size)
        )
        position += size
        before = segments[-1] if segments else None
        if before and before.file == place.file and before.offset + before.length == place.offset:
            segments[-1] = Segment(before.file, before.offset, before.length + size)
        else:
            segments.append(Segment(place.file, place.offset, size))
    return Shard(name, pack_header(tensors), tuple(segments))


def _read(file: Path, offset: int, length: int) -> Iterator[bytes]:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while length:
            chunk = os.pread(descriptor, min(length, _CHUNK), offset)
            if not chunk:
                raise WeightsDamaged(f"{file.name} became shorter while it was read", file=file.name)
            yield chunk
            offset, length = offset + len(chunk), length - len(chunk)
    finally:
        os.close(descriptor)
