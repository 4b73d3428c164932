"""The header of a safetensors file: what the format allows is read, and all else refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from discovery.protocol.errors import WeightsDamaged
from discovery.registry.headers import MAX_HEADER_BYTES, TensorEntry, pack_header, read_header


def file_of(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with this header, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(begin: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(3, 5, dtype=torch.bfloat16),
        "b": torch.zeros(7),
        "c": torch.zeros((), dtype=torch.int64),
        "d": torch.zeros(0, 4),
        "e": torch.zeros(5, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert {entry.name: entry.shape for entry in header.tensors} == {
        name: tuple(value.shape) for name, value in tensors.items()
    }
    assert {entry.name: entry.size for entry in header.tensors} == {
        name: value.nbytes for name, value in tensors.items()
    }
    size = (tmp_path / "x.safetensors").stat().st_size
    assert header.data_start + header.tensors[-1].end == size


def test_what_we_write_is_read_by_the_library(tmp_path: Path) -> None:
    entries = [TensorEntry("wide", "F32", (2, 3), 0, 24), TensorEntry("narrow", "BF16", (3,), 24, 30)]
    head = pack_header(entries)
    assert len(head) % 8 == 0, "so that the widest type is aligned"
    path = tmp_path / "x.safetensors"
    path.write_bytes(head + bytes(range(30)))
    assert read_header(path).tensors == tuple(entries)
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert opened.get_tensor("narrow").view(torch.uint8).tolist() == list(range(24, 30))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it ends after 0 bytes"),
        (b"\x05\0\0", "it ends after 3 bytes"),
        ((100).to_bytes(8, "little") + b"{}", "claims 100 bytes, and the whole file has 10"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), "more than any model needs"),
        (b"\xff" * 8, "more than any model needs"),
        (b"\0" * 8, "is not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "is not a JSON object"),
        ((4).to_bytes(8, "little") + b"null", "is not a JSON object"),
        ((3).to_bytes(8, "little") + b"\xff\xfe{", "is not JSON"),
        ((6).to_bytes(8, "little") + b'{"a":}', "is not JSON"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(WeightsDamaged, match=words) as failure:
        read_header(tmp_path / "x.safetensors")
    assert failure.value.message.startswith("x.safetensors is not a well-formed safetensors file: ")
    assert failure.value.facts["file"] == "x.safetensors"


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": tensor(0, 8)}, 4, "its tensors take 8 bytes, and 4 follow"),
        ({"a": tensor(0, 8)}, 12, "its tensors take 8 bytes, and 12 follow"),
        ({"a": tensor(4, 8)}, 8, "'a' leaves a gap"),
        ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "'b' overlaps"),
        ({"a": tensor(0, 8), "b": tensor(0, 8)}, 8, "'b' overlaps"),
        ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "'b' leaves a gap"),
        ({"a": tensor(0, 8, [3])}, 8, "8 bytes, and its shape and type need 12"),
        ({"a": tensor(0, 8, [2], "F64")}, 8, "need 16"),
        ({"a": tensor(0, 8, [2], "F128")}, 8, "unknown type 'F128'"),
        ({"a": tensor(0, 8, [2], ["F32"])}, 8, "unknown type"),
        ({"a": tensor(0, 8, [-2])}, 8, "has the shape"),
        ({"a": tensor(0, 8, [2.0])}, 8, "has the shape"),
        ({"a": tensor(0, 8, [True, 2])}, 8, "has the shape"),
        ({"a": tensor(0, 8, "2")}, 8, "has the shape"),
        ({"a": tensor(0, 8, [2**32, 2**32])}, 8, "need"),
        ({"a": tensor(0, 8, [2**63])}, 8, "has the shape"),
        ({"a": tensor(8, 0, [2])}, 8, "has the offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, 8, "has the offsets"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, 8, "has the offsets"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "is not described by"),
        ({"a": tensor(0, 8) | {"more": 1}}, 8, "is not described by"),
        ({"a": 7}, 8, "is not described by"),
        ({"__metadata__": {"format": 1}}, 0, "metadata are not strings"),
        ({"__metadata__": []}, 0, "metadata are not strings"),
        (b'{"a":1,"a":2}', 0, "names 'a' twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0]}}', 0, "names 'dtype' twice"),
    ],
)
def test_a_header_that_is_wrong_is_refused_with_the_reason(
    tmp_path: Path, header: object, data: int, words: str
) -> None:
    path = file_of(tmp_path / "x.safetensors", header, bytes(data))
    with pytest.raises(WeightsDamaged, match=words):
        read_header(path)


@given(st.data())
def test_whatever_is_taken_the_library_takes_as_well(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One byte of a well-formed file is changed, or its end cut off: what we do not refuse, safetensors reads alike."""
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    head = pack_header([TensorEntry("a", "F32", (2,), 0, 8), TensorEntry("b", "BF16", (1, 3), 8, 14)])
    content = bytearray(head + bytes(14))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(content)
    try:
        ours = {entry.name: entry.shape for entry in read_header(path).tensors}
    except WeightsDamaged:
        return
    try:
        with safe_open(path, framework="pt") as opened:
            theirs = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        pytest.fail(f"safetensors refuses what we take: {error}")
    assert ours == theirs
