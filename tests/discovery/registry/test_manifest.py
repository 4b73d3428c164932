"""A manifest is believed only when it is consistent and its names lead nowhere else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from discovery.protocol.errors import ProtocolViolation, WeightsDamaged
from discovery.registry.files import HOLDING
from discovery.registry.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    make_manifest,
    model_digest,
    read_holding,
    read_manifest,
)
from tests.discovery.registry.test_files import LEADING_ELSEWHERE


def entry(name: str, size: int = 10) -> FileEntry:
    return FileEntry(name=name, size=size, sha256=hashlib.sha256(name.encode()).hexdigest())


def a_manifest() -> Manifest:
    shards = [entry("layer-0.safetensors"), entry("layer-1.safetensors"), entry("ends.safetensors")]
    return make_manifest(
        "far/tiny",
        files=[entry("tokenizer.json"), entry("config.json")],
        weights=[entry("model.safetensors")],
        shards=shards,
        layers=[["layer-0.safetensors"], ["layer-1.safetensors"]],
        ends=["ends.safetensors"],
    )


def changed(**changes: Any) -> bytes:
    return json.dumps(a_manifest().model_dump(mode="json") | changes).encode()


def test_it_survives_the_wire() -> None:
    assert read_manifest(a_manifest().model_dump_json().encode()) == a_manifest()


def test_fields_of_later_versions_are_left_aside() -> None:
    assert read_manifest(changed(more="from the future")) == a_manifest()


def test_the_digest_is_that_of_config_and_weights_by_name() -> None:
    lines = "far-mesh/model/v1\nCC  config.json\nAA  a.safetensors\nBB  b.safetensors\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert model_digest("CC", {"b.safetensors": "BB", "a.safetensors": "AA"}) == expected


def test_which_shards_a_part_needs() -> None:
    def of(first: int, end: int, *, ends: bool = False) -> set[str]:
        return {shard.name.removesuffix(".safetensors") for shard in a_manifest().shards_of(first, end, ends=ends)}

    assert (of(0, 1), of(0, 2), of(1, 1)) == ({"layer-0"}, {"layer-0", "layer-1"}, set())
    assert of(1, 2, ends=True) == {"layer-1", "ends"}


@pytest.mark.parametrize("field", ["files", "weights", "shards"])
@pytest.mark.parametrize("name", [*LEADING_ELSEWHERE, "model.bin", "code.py", "far-model.json"])
def test_a_name_that_leads_elsewhere_is_refused(field: str, name: str) -> None:
    with pytest.raises(ProtocolViolation, match=f"not the manifest of a model: {field}"):
        read_manifest(changed(**{field: [entry(name).model_dump()]}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": "0" * 64}, "the digest is not that of its files"),
        ({"digest": "x"}, "digest"),
        ({"files": [entry("tokenizer.json").model_dump()]}, "there is no config.json"),
        ({"files": [entry("config.json").model_dump()] * 2}, "a file is named twice"),
        ({"layers": []}, "layers"),
        ({"layers": [["absent.safetensors"]]}, "'absent.safetensors' is needed and not among the shards"),
        ({"ends": ["../x.safetensors"]}, "is needed and not among the shards"),
        ({"layers": [[]] * 5000}, "layers"),
        ({"weights": []}, "weights"),
        ({"shards": [entry("ends.safetensors").model_dump() | {"size": -1}]}, "shards.0.size"),
        ({"shards": [entry("ends.safetensors").model_dump() | {"size": "10"}]}, "shards.0.size"),
        ({"shards": [entry("ends.safetensors").model_dump() | {"size": 2**60}]}, "shards.0.size"),
        ({"files": [entry("config.json", 2**27).model_dump()]}, "files.0.size"),
        ({"format": "far-mesh/manifest/v2"}, "format"),
        ({"model_id": ""}, "model_id"),
        ({"model_id": "m" * 257}, "model_id"),
    ],
)
def test_what_is_not_consistent_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        read_manifest(changed(**changes))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"not json", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="not the manifest of a model"):
        read_manifest(data)


def test_what_is_too_long_is_refused_unread() -> None:
    with pytest.raises(ProtocolViolation, match="more than"):
        read_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


def test_a_directory_without_a_holding_has_none(tmp_path: Path) -> None:
    assert read_holding(tmp_path) is None


def test_a_damaged_holding_is_refused(tmp_path: Path) -> None:
    (tmp_path / HOLDING).write_text("{")
    with pytest.raises(WeightsDamaged, match=r"far-model\.json is damaged: pull or add the model again"):
        read_holding(tmp_path)
