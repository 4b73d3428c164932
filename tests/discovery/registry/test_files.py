"""The names of files that are taken, and those that lead elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry.files import (
    INDEX,
    is_small_file,
    is_unsafe,
    is_weights,
    loaded_weights,
    nests_too_deep,
    parse_json,
    real_file,
    small_files,
    weight_map_of,
)

LEADING_ELSEWHERE = [
    "../model.safetensors",
    "a/../../model.safetensors",
    "/etc/model.safetensors",
    "sub/model.safetensors",
    "..\\model.safetensors",
    "C:\\model.safetensors",
    "C:model.safetensors",
    "~/model.safetensors",
    ".hidden.safetensors",
    "..safetensors",
    "model.safetensors\n",
    "model\0.safetensors",
    "mod el.safetensors",
    "x" * 200 + ".safetensors",
    "",
]


@pytest.mark.parametrize("name", LEADING_ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    assert not is_weights(name)
    assert not is_small_file(name.replace(".safetensors", ".json"))


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00163.safetensors", "a+b=c@d,e.safetensors"])
def test_the_usual_names_are_taken(name: str) -> None:
    assert is_weights(name)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.PT", "a.pth", "a.ckpt", "a.pkl", "a.pickle", "a.h5", "a.msgpack", "a.npz"]
)
def test_formats_that_can_run_code_are_known(name: str) -> None:
    assert is_unsafe(name)
    assert not is_weights(name)
    assert not is_small_file(name)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("config.json", True),
        ("tokenizer.model", True),
        ("merges.txt", True),
        ("chat_template.jinja", True),
        ("modeling_evil.py", False),
        ("adapter_config.json", False),
        ("model.safetensors.index.json", False),
        ("pytorch_model.bin.index.json", False),
        ("far-model.json", False),
        ("README.md", False),
    ],
)
def test_what_goes_with_the_weights(name: str, taken: bool) -> None:
    assert is_small_file(name) == taken


@pytest.mark.parametrize("name", LEADING_ELSEWHERE[:-1])
def test_an_index_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(WeightsDamaged, match="which is no safetensors file beside it"):
        weight_map_of(json.dumps({"weight_map": {"a": "model.safetensors", "b": name}}).encode())


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "config.json"])
def test_an_index_of_other_files_is_refused(name: str) -> None:
    with pytest.raises(WeightsDamaged, match=name):
        weight_map_of(json.dumps({"weight_map": {"a": name}}).encode())


@pytest.mark.parametrize(
    "index", [b"", b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": 3}', b"[" * 100_000, b"\xff"]
)
def test_an_index_that_is_none_is_refused(index: bytes) -> None:
    with pytest.raises(WeightsDamaged, match="is not an index of safetensors files"):
        weight_map_of(index)


def test_a_single_file_comes_before_an_index(tmp_path: Path) -> None:
    assert loaded_weights(tmp_path) == []
    (tmp_path / INDEX).write_text('{"weight_map": {"a": "b.safetensors", "c": "a.safetensors"}}')
    assert loaded_weights(tmp_path) == ["a.safetensors", "b.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert loaded_weights(tmp_path) == ["model.safetensors"]


class TestLinks:
    """A link may stay within its directory, or lead to the blobs of a hub's cache."""

    def test_a_link_within_the_directory_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("x")
        (tmp_path / "config.json").symlink_to("real")
        assert real_file(tmp_path / "config.json") == tmp_path / "real"

    def test_a_link_into_the_blobs_of_a_hubs_cache_is_followed(self, tmp_path: Path) -> None:
        snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        (blobs / "123").write_text("x")
        (snapshot / "config.json").symlink_to("../../blobs/123")
        assert real_file(snapshot / "config.json") == blobs / "123"

    @pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "sub", "loop.json", "nowhere"])
    def test_any_other_link_is_refused(self, tmp_path: Path, target: str) -> None:
        directory = tmp_path / "model"
        (directory / "sub").mkdir(parents=True)
        (tmp_path / "secret").write_text("mine")
        (directory / "loop.json").symlink_to(target)
        with pytest.raises(InvalidArgument, match=r"loop\.json in .* is a link that leads elsewhere, or no file"):
            real_file(directory / "loop.json")

    def test_a_directory_beside_named_blobs_is_no_cache(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "blobs").mkdir()
        (tmp_path / "blobs" / "123").write_text("mine")
        (tmp_path / "model" / "config.json").symlink_to("../blobs/123")
        with pytest.raises(InvalidArgument):
            real_file(tmp_path / "model" / "config.json")

    def test_directories_are_no_small_files(self, tmp_path: Path) -> None:
        (tmp_path / "folder.json").mkdir()
        (tmp_path / "config.json").touch()
        assert [file.name for file in small_files(tmp_path)] == ["config.json"]


DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 1000 + b"]" * 1000]


@pytest.mark.parametrize("data", DEEP, ids=["lists", "objects", "closed"])
def test_json_is_parsed_to_a_bounded_depth_whatever_pythons_limit_is(data: bytes) -> None:
    """Libraries raise Python's limit of recursion, and then ``json.loads`` of this ends the process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        with pytest.raises(ValueError, match="recursion limit"):
            parse_json(data)
        assert nests_too_deep(data)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("data", [b"", b"not json", b'{"a": [1, 2, {"b": null}]}', b"[" * 100 + b"]" * 100])
def test_what_is_not_deep(data: bytes) -> None:
    assert not nests_too_deep(data)
