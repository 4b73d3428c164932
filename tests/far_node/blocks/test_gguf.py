"""GGUF headers are checked before anything is believed, and parts of a file are files."""

from __future__ import annotations

import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.errors import WeightsDamaged
from far_node.blocks.gguf import Header, read_header, write_part
from far_node.errors import ModelUnsupported
from tests.support.gguf import write_gguf
from tests.support.models import BLOCKS, BUNDLED_VOCABULARY, make_model

U32, F32, TEXT, ARRAY, U64 = 4, 6, 8, 9, 10
MOST_BYTES = 8 << 20  # that a refusal may allocate


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, sizes: Sequence[int], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(sizes) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", count) + struct.pack(f"<{len(sizes)}QIQ", *sizes, kind, offset)


ARCHITECTURE = entry(b"general.architecture", TEXT, text(b"llama"))
ONE_BLOCK = entry(b"llama.block_count", U32, struct.pack("<I", 1))
WEIGHT = tensor(b"blk.0.attn_q.weight", [8])


def made(
    entries: Sequence[bytes] = (ARCHITECTURE, ONE_BLOCK),
    tensors: Sequence[bytes] = (WEIGHT,),
    data: bytes = bytes(32),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    tensor_count, entry_count = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, tensor_count, entry_count) + b"".join([*entries, *tensors])
    return head + bytes(-len(head) % 32) + data


def read(path: Path, content: bytes) -> Header:
    file = path / "model.gguf"
    file.write_bytes(content)
    return read_header(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of six blocks."""
    directory = tmp_path_factory.mktemp("gguf")
    model = make_model(directory / "model", vocab_size=BUNDLED_VOCABULARY, tie_word_embeddings=False)
    return write_gguf(model, directory / "tiny.gguf", "Q8_0")


class TestReading:
    """A file that is as it should be."""

    def test_the_header_tells_what_the_format_s_own_reader_tells(self, file: Path) -> None:
        header, reader = read_header(file), gguf.GGUFReader(file)
        assert header.architecture == "llama"
        assert (header.get("block_count"), header.get("embedding_length")) == (BLOCKS, 64)
        assert header.get("attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
        assert header.find("tokenizer.ggml.model") == "gpt2"
        assert header.find("tokenizer.ggml.tokens") is None
        assert header.data_start == reader.data_offset
        assert [(one.name, one.sizes, one.bytes, one.kind) for one in header.tensors] == [
            (one.name, tuple(int(size) for size in one.shape), int(one.n_bytes), one.tensor_type)
            for one in reader.tensors
        ]

    def test_tensors_know_their_block(self, file: Path) -> None:
        counts = Counter(tensor.block for tensor in read_header(file).tensors)
        assert counts.pop(None) == 3
        assert counts == dict.fromkeys(range(BLOCKS), 9)

    def test_the_smallest_file_is_read(self, tmp_path: Path) -> None:
        assert read(tmp_path, made()).tensors[0].bytes == 32

    def test_values_of_every_type_are_read(self, tmp_path: Path) -> None:
        values: dict[str, tuple[int, bytes, Any]] = {
            "byte": (0, b"\xff", 255),
            "signed": (1, b"\xff", -1),
            "short": (3, struct.pack("<h", -300), -300),
            "float": (F32, struct.pack("<f", 0.5), 0.5),
            "yes": (7, b"\x01", True),
            "long": (U64, struct.pack("<Q", 1 << 60), 1 << 60),
            "double": (12, struct.pack("<d", 0.1), 0.1),
            "text": (TEXT, text("Füchse".encode()), "Füchse"),
            "list": (ARRAY, struct.pack("<IQ3I", U32, 3, 1, 2, 3), [1, 2, 3]),
            "texts": (ARRAY, struct.pack("<IQ", TEXT, 2) + text(b"a") + text(b"b"), None),
            "long list": (ARRAY, struct.pack("<IQ", 0, 5000) + bytes(5000), None),
        }
        entries = [entry(key.encode(), kind, value) for key, (kind, value, _) in values.items()]
        header = read(tmp_path, made([ARCHITECTURE, ONE_BLOCK, *entries]))
        assert {key: header.find(key) for key in values} == {key: value for key, (_, _, value) in values.items()}

    def test_the_alignment_that_a_file_names_is_kept_to(self, tmp_path: Path) -> None:
        wide = entry(b"general.alignment", U32, struct.pack("<I", 64))
        content = made([ARCHITECTURE, ONE_BLOCK, wide], data=b"")
        header = read(tmp_path, content + bytes(-len(content) % 64 + 32))
        assert header.data_start % 64 == 0


class TestParts:
    """Some of the tensors as a file of their own."""

    def test_a_part_has_the_same_values(self, file: Path, tmp_path: Path) -> None:
        header = read_header(file)
        write_part(header, tmp_path / "part.gguf", lambda tensor: tensor.block in (1, 4))
        whole = {one.name: one for one in gguf.GGUFReader(file).tensors}
        part = gguf.GGUFReader(tmp_path / "part.gguf")
        assert len(part.tensors) == 18
        for one in part.tensors:
            assert np.array_equal(one.data, whole[one.name].data)
            assert one.tensor_type == whole[one.name].tensor_type
        assert read_header_quietly(tmp_path / "part.gguf") is None  # its other blocks are missing

    def test_a_part_is_as_large_as_what_is_in_it(self, file: Path, tmp_path: Path) -> None:
        header = read_header(file)
        write_part(header, tmp_path / "part.gguf", lambda tensor: tensor.block == 2)
        wanted = sum(tensor.bytes for tensor in header.tensors if tensor.block == 2)
        assert wanted < (tmp_path / "part.gguf").stat().st_size < wanted + 3000  # the vocabulary alone has 60,000

    def test_a_file_that_was_cut_meanwhile_is_refused(self, file: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy.gguf"
        copy.write_bytes(file.read_bytes())
        header = read_header(copy)
        copy.write_bytes(file.read_bytes()[: header.data_start + 100])
        with pytest.raises(WeightsDamaged, match="changed while it was read"):
            write_part(header, tmp_path / "part.gguf", lambda tensor: True)


def read_header_quietly(path: Path) -> Header | None:
    try:
        return read_header(path)
    except WeightsDamaged:
        return None


def _bad_values() -> Iterator[tuple[str, bytes]]:
    most = (1 << 64) - 1
    yield "empty", b""
    yield "short", b"GGUF\x03"
    yield "other magic", made(magic=b"GGML")
    yield "the other byte order", made(version=3 << 24)
    yield "version 1", made(version=1)
    yield "version 4", made(version=4)
    yield "tensors without end", made(counts=(most, 2))
    yield "many tensors", made(counts=(1 << 17, 2))
    yield "metadata without end", made(counts=(1, most))
    yield "much metadata", made(counts=(1, 1 << 16))
    yield "a key without end", made([text(b"general.architecture", most)])
    yield "a long key", made([text(b"k", 1 << 40)])
    yield "a text without end", made([ARCHITECTURE, entry(b"name", TEXT, text(b"x", most))])
    yield "a text that is longer than the file", made([ARCHITECTURE, entry(b"name", TEXT, text(b"x", 5000))])
    yield "a text that is none", made([entry(b"general.architecture", TEXT, text(b"\xff\xfe"))])
    yield "an array without end", made([entry(b"a", ARRAY, struct.pack("<IQ", U32, most))])
    yield "a long array", made([entry(b"a", ARRAY, struct.pack("<IQ", 0, 1 << 22))])
    yield "an array of texts without end", made([entry(b"a", ARRAY, struct.pack("<IQ", TEXT, most))])
    yield "arrays in arrays", made([entry(b"a", ARRAY, struct.pack("<IQIQ", ARRAY, 1, ARRAY, 1) * 50)])
    yield "a value of no type", made([ARCHITECTURE, entry(b"a", 13, bytes(8))])
    yield "no architecture", made([ONE_BLOCK])
    yield "an architecture that is a number", made([entry(b"general.architecture", U32, bytes(4))])
    yield "no block count", made([ARCHITECTURE])
    yield "no blocks", made([ARCHITECTURE, entry(b"llama.block_count", U32, bytes(4))])
    yield "more blocks than tensors", made([ARCHITECTURE, entry(b"llama.block_count", U32, struct.pack("<I", 2))])
    yield "a billion blocks", made([ARCHITECTURE, entry(b"llama.block_count", U32, struct.pack("<I", 1 << 30))])
    yield "a block count that is a text", made([ARCHITECTURE, entry(b"llama.block_count", TEXT, text(b"1"))])
    yield "a key twice", made([ARCHITECTURE, ARCHITECTURE, ONE_BLOCK])
    for alignment in (0, 4, 12, 1 << 20):
        value = entry(b"general.alignment", U32, struct.pack("<I", alignment))
        yield f"alignment {alignment}", made([ARCHITECTURE, ONE_BLOCK, value])
    name = b"blk.0.attn_q.weight"
    yield "a tensor without sizes", made(tensors=[tensor(name, [])])
    yield "five sizes", made(tensors=[tensor(name, [1] * 5)])
    yield "sizes without end", made(tensors=[tensor(name, [8], dimensions=(1 << 32) - 1)])
    yield "a size of zero", made(tensors=[tensor(name, [8, 0])])
    yield "sizes that overflow", made(tensors=[tensor(name, [1 << 32, 1 << 32])])
    yield "sizes of 2^64 - 1", made(tensors=[tensor(name, [most] * 4)])
    yield "a row that fills no block", made(tensors=[tensor(name, [8], kind=8)])
    yield "behind the end", made(tensors=[tensor(name, [8], offset=32)])
    yield "far behind the end", made(tensors=[tensor(name, [8], offset=1 << 63)])
    yield "half behind the end", made(tensors=[tensor(name, [9])])
    yield "not aligned", made(tensors=[tensor(name, [2], offset=8)])
    yield "the same name twice", made(tensors=[WEIGHT, tensor(name, [8], offset=32)], data=bytes(64))
    yield "shared bytes", made(tensors=[WEIGHT, tensor(b"blk.0.attn_k.weight", [8])])


_BAD = dict(_bad_values())


class TestRefusing:
    """Whatever else a stranger's file may be."""

    @pytest.mark.parametrize("what", _BAD)
    def test_a_malformed_file_is_refused_by_name_and_costs_nothing(self, tmp_path: Path, what: str) -> None:
        read(tmp_path, made())  # what is imported at first is not counted
        tracemalloc.start()
        try:
            with pytest.raises(WeightsDamaged, match=r"model\.gguf") as failure:
                read(tmp_path, _BAD[what])
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()
        assert "\n" not in failure.value.message
        assert len(failure.value.message) < 300

    def test_weights_of_an_unknown_type_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match="weights of type 999"):
            read(tmp_path, made(tensors=[tensor(b"blk.0.attn_q.weight", [8], kind=999)]))

    def test_a_file_is_refused_wherever_it_is_cut(self, tmp_path: Path) -> None:
        whole = made()
        for length in range(len(whole)):
            with pytest.raises(WeightsDamaged):
                read(tmp_path, whole[:length])

    @settings(max_examples=300)
    @given(place=st.integers(0, 1 << 20), value=st.integers(0, 255), width=st.integers(1, 9))
    def test_changed_bytes_are_refused_or_harmless(
        self, tmp_path_factory: pytest.TempPathFactory, place: int, value: int, width: int
    ) -> None:
        content = bytearray(made())
        place %= len(content)
        content[place : place + width] = bytes([value]) * len(content[place : place + width])
        directory = tmp_path_factory.getbasetemp()
        with suppress(WeightsDamaged, ModelUnsupported):
            header = read(directory, bytes(content))
            assert header.data_start + sum(one.bytes for one in header.tensors) <= len(content)

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsDamaged):
            read_header(tmp_path)
