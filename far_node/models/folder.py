"""A directory that was pulled: some blocks of a model, and the manifest of the whole.

A shard under its own name is whole and was checked when it got that name. The index beside them lists exactly those
that are here, so transformers reads nothing else.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.errors import WeightsDamaged
from discovery.registry.files import HOLDING, INDEX, SINGLE_WEIGHTS, weight_map_of
from discovery.registry.hashes import HashCache
from discovery.registry.headers import read_header
from discovery.registry.manifest import FileEntry, Holding, Manifest, read_holding
from far_node.models.part import Part
from far_node.models.progress import Counter, OnProgress


@dataclass(frozen=True)
class Folder:
    """The directory and what it is meant to hold."""

    path: Path
    holding: Holding

    @classmethod
    def at(cls, path: Path) -> Folder | None:
        """The folder in a directory; None if nothing was pulled there.

        Raises:
            WeightsDamaged: its manifest is damaged.
        """
        holding = read_holding(path)
        return None if holding is None else cls(path, holding)

    @classmethod
    def make(cls, path: Path, holding: Holding) -> Folder:
        """Say in a directory what it will hold."""
        write_atomically(path / HOLDING, holding.model_dump_json(indent=1))
        return cls(path, holding)

    @property
    def manifest(self) -> Manifest:
        """Of the whole model."""
        return self.holding.manifest

    def needed(self, part: Part | None) -> tuple[FileEntry, ...]:
        """The files that a part of the model consists of.

        Raises:
            InvalidArgument: the model has no such part.
        """
        manifest = self.manifest
        if part is None:
            return (*manifest.files, *manifest.shards)
        part.check(manifest.block_count)
        return (*manifest.files, *manifest.shards_of(part.first, part.end, ends=part.ends))

    def missing(self, part: Part | None) -> tuple[FileEntry, ...]:
        """Those of them that are not here."""
        return tuple(entry for entry in self.needed(part) if not self.has(entry))

    def has(self, entry: FileEntry) -> bool:
        """Whether a file is here."""
        file = self.path / entry.name
        return file.is_file() and file.stat().st_size == entry.size

    def verify(self, part: Part | None, on_progress: OnProgress, *, delete: bool = True) -> None:
        """Check the SHA-256 of the files of a part against the manifest. Files that did not change are not read again.

        Args:
            delete: whether a file that is not what it should be is deleted, so that a pull brings it back.

        Raises:
            WeightsDamaged: there is such a file.
        """
        entries = [entry for entry in self.needed(part) if self.has(entry)]
        counter = Counter("verifying", self.manifest.model_id, sum(entry.size for entry in entries), on_progress)
        with HashCache() as cache:
            for entry in entries:
                counter.file = entry.name
                file = self.path / entry.name
                if cache.sha256(file, counter) != entry.sha256:
                    if delete:
                        file.unlink()
                    what = "it was deleted, so pull the model again" if delete else "copy or pull it again"
                    raise WeightsDamaged(f"{file} is not what its manifest says; {what}", file=entry.name)

    def write_index(self) -> None:
        """List the shards that are here, unless the list is right already.

        Raises:
            WeightsDamaged: a weight is in two of them.
        """
        here = [entry.name for entry in self.manifest.shards if self.has(entry)]
        if here == [SINGLE_WEIGHTS] or set(here) == self._indexed():
            return
        weight_map: dict[str, str] = {}
        for name in here:
            for tensor in read_header(self.path / name).tensors:
                if weight_map.setdefault(tensor.name, name) != name:
                    raise WeightsDamaged(f"{tensor.name} is in {name} and in {weight_map[tensor.name]}", file=name)
        size = sum((self.path / name).stat().st_size for name in here)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_atomically(self.path / INDEX, json.dumps(index))

    def blocks(self) -> list[tuple[int, int]]:
        """The ranges of blocks that are here in full, end exclusive."""
        here = {entry.name for entry in self.manifest.shards if self.has(entry)}
        ranges: list[tuple[int, int]] = []
        for number, names in enumerate(self.manifest.layers):
            if here.issuperset(names):
                first = ranges.pop()[0] if ranges and ranges[-1][1] == number else number
                ranges.append((first, number + 1))
        return ranges

    def has_ends(self) -> bool:
        """Whether embeddings, final norm and head are here."""
        return not self.missing(Part(ends=True))

    def _indexed(self) -> set[str]:
        try:
            return set(weight_map_of((self.path / INDEX).read_bytes()).values())
        except (FileNotFoundError, WeightsDamaged):
            return set()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that others read: they see it before or after, never in between."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.write_text(text)
    fresh.replace(path)
