"""What a model consists of: every file with its size and SHA-256, and which of them each layer needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH, Digest
from discovery.protocol.errors import InvalidArgument, ProtocolViolation, WeightsDamaged
from discovery.registry.files import CONFIG, HOLDING, MAX_SMALL_FILE_BYTES, is_small_file, is_weights
from discovery.registry.layers import MAX_BLOCKS

MAX_MANIFEST_BYTES = 16 << 20
_DIGEST_DOMAIN = b"far-mesh/model/v1\n"


def _small(name: str) -> str:
    if not is_small_file(name):
        raise ValueError(f"{name[:80]!r} is no file that goes with a model")
    return name


def _weights(name: str) -> str:
    if not is_weights(name):
        raise ValueError(f"{name[:80]!r} is no safetensors file")
    return name


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class FileEntry(_Strict):
    """A file that is known by its name, its size in bytes and the SHA-256 of its content."""

    name: str
    size: Annotated[int, Field(ge=0, lt=2**50)]
    sha256: Digest


class SmallFile(FileEntry):
    """A file that goes with the weights."""

    name: Annotated[str, AfterValidator(_small)]
    size: Annotated[int, Field(ge=0, le=MAX_SMALL_FILE_BYTES)]


class WeightFile(FileEntry):
    """A safetensors file."""

    name: Annotated[str, AfterValidator(_weights)]


class Manifest(_Strict):
    """A model's files.

    ``weights`` are the files the model was published with: with ``config.json`` they make its digest. ``shards`` are
    those that can be had: the same files from a hub, one for each layer from a registry. ``layers[i]`` names the shards
    that block i needs, ``ends`` those of the embeddings, final norm and head; one shard may serve several.
    ``layer_prefix`` is how the names of the layers' weights begin, where that was found out.
    """

    format: Literal["far-mesh/manifest/v1"] = "far-mesh/manifest/v1"
    model_id: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_ID_LENGTH)]
    digest: Digest
    files: Annotated[tuple[SmallFile, ...], Field(max_length=1000)]
    weights: Annotated[tuple[WeightFile, ...], Field(min_length=1, max_length=10_000)]
    shards: Annotated[tuple[WeightFile, ...], Field(min_length=1, max_length=10_000)]
    layers: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1, max_length=MAX_BLOCKS)]
    ends: tuple[str, ...]
    layer_prefix: Annotated[str | None, Field(max_length=200)] = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for entries in (self.files, self.weights, self.shards):
            if len({entry.name for entry in entries}) != len(entries):
                raise ValueError("a file is named twice")
        shards = {entry.name for entry in self.shards}
        named = {name for names in (*self.layers, self.ends) for name in names}
        if not named <= shards:
            raise ValueError(f"{min(named - shards)[:80]!r} is needed and not among the shards")
        config = next((entry for entry in self.files if entry.name == CONFIG), None)
        if config is None:
            raise ValueError(f"there is no {CONFIG}")
        if self.digest != model_digest(config.sha256, {entry.name: entry.sha256 for entry in self.weights}):
            raise ValueError("the digest is not that of its files")
        return self

    @property
    def block_count(self) -> int:
        """How many layers the decoder has."""
        return len(self.layers)

    def shards_of(self, first: int, end: int, *, ends: bool) -> tuple[WeightFile, ...]:
        """The shards that blocks ``[first, end)`` need, and, where ``ends`` is set, those of the ends."""
        wanted = {name for names in self.layers[first:end] for name in names}
        wanted |= set(self.ends) if ends else set()
        return tuple(entry for entry in self.shards if entry.name in wanted)


class Origin(_Strict):
    """Where a model's files come from: ``place`` is a hub id, a registry's address, a file's, or a path here."""

    kind: Literal["hub", "registry", "url", "local"]
    place: Annotated[str, Field(max_length=4096)]
    revision: Annotated[str | None, Field(max_length=256)] = None


class Holding(_Strict):
    """What a directory holds, or some blocks of it: written beside the files when they were pulled."""

    origin: Origin
    manifest: Manifest


def make_manifest(
    model_id: str,
    *,
    files: Iterable[FileEntry],
    weights: Iterable[FileEntry],
    shards: Iterable[FileEntry],
    layers: Iterable[Iterable[str]],
    ends: Iterable[str],
    layer_prefix: str | None = None,
) -> Manifest:
    """A manifest of these files, with its digest.

    Raises:
        InvalidArgument: they do not make a model, with the reason.
    """
    try:
        return _make(model_id, files, weights, shards, layers, ends, layer_prefix)
    except ValidationError as error:
        raise InvalidArgument(f"the files of {model_id[:100]} do not make a model: {_first_fault(error)}") from None


def _make(
    model_id: str,
    files: Iterable[FileEntry],
    weights: Iterable[FileEntry],
    shards: Iterable[FileEntry],
    layers: Iterable[Iterable[str]],
    ends: Iterable[str],
    layer_prefix: str | None,
) -> Manifest:
    small = tuple(SmallFile(**entry.model_dump()) for entry in sorted(files, key=_by_name))
    original = tuple(WeightFile(**entry.model_dump()) for entry in sorted(weights, key=_by_name))
    config = next((entry.sha256 for entry in small if entry.name == CONFIG), "0" * 64)
    return Manifest(
        model_id=model_id,
        digest=model_digest(config, {entry.name: entry.sha256 for entry in original}),
        files=small,
        weights=original,
        shards=tuple(WeightFile(**entry.model_dump()) for entry in sorted(shards, key=_by_name)),
        layers=tuple(tuple(sorted(names)) for names in layers),
        ends=tuple(sorted(ends)),
        layer_prefix=layer_prefix,
    )


def read_manifest(data: bytes) -> Manifest:
    """A stranger's bytes as a manifest.

    Raises:
        ProtocolViolation: too long, not of this shape, with names that lead elsewhere or a digest that does not fit.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ProtocolViolation(f"a manifest of more than {MAX_MANIFEST_BYTES} bytes is none")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise ProtocolViolation(f"not the manifest of a model: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def read_holding(directory: Path) -> Holding | None:
    """The :class:`Holding` of a directory; None if none was written.

    Raises:
        WeightsDamaged: there is one, and it is none.
    """
    try:
        return Holding.model_validate_json((directory / HOLDING).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise WeightsDamaged(f"{directory / HOLDING} is damaged: pull or add the model again", file=HOLDING) from None


def model_digest(config_sha256: str, weights: Mapping[str, str]) -> str:
    """What makes two copies the same model: SHA-256 over the SHA-256 of ``config.json`` and of every weight file.

    Args:
        weights: SHA-256 of each safetensors file the model was published with, by name.
    """
    digest = hashlib.sha256(_DIGEST_DOMAIN)
    for name, sha256 in _digest_lines(config_sha256, weights):
        digest.update(f"{sha256}  {name}\n".encode())
    return digest.hexdigest()


def _digest_lines(config_sha256: str, weights: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield CONFIG, config_sha256
    yield from sorted(weights.items())


def _by_name(entry: FileEntry) -> str:
    return entry.name
