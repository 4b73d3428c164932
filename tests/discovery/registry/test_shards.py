"""A model cut by layers, byte by byte, is the model."""

from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry.headers import TensorEntry, pack_header, read_header
from discovery.registry.shards import ENDS, Cut, Segment, Shard, cut_model
from tests.support.models import BLOCKS, KINDS, make_model, make_sharded_model


def written(shard: Shard, directory: Path) -> Path:
    path = directory / shard.name
    path.write_bytes(b"".join(shard.read(0, shard.size)))
    return path


def tensors_of(cut: Cut, directory: Path) -> dict[str, torch.Tensor]:
    together: dict[str, torch.Tensor] = {}
    for shard in cut.shards:
        own = load_file(written(shard, directory))
        assert not own.keys() & together.keys(), "no weight is in two shards"
        together |= own
    return together


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_shards_of_every_kind_of_model_are_the_model(tmp_path: Path, kind: str) -> None:
    model = make_model(tmp_path / kind, kind)
    cut, whole = cut_model(model), load_file(model / "model.safetensors")
    together = tensors_of(cut, tmp_path)
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)
    assert len(cut.layers) == BLOCKS
    for number, shard in enumerate(cut.layers):
        assert all(f".{number}." in name for name in load_file(tmp_path / shard.name))


def test_a_model_in_many_files_is_cut_alike(tmp_path: Path) -> None:
    one, many = make_model(tmp_path / "one"), make_sharded_model(tmp_path / "many")
    assert len(list(many.glob("*.safetensors"))) > BLOCKS
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = tensors_of(cut_model(one), tmp_path / "a"), tensors_of(cut_model(many), tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_shard_has_one_size_and_one_hash(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    for shard in cut_model(model).shards:
        content = written(shard, tmp_path).read_bytes()
        assert shard.size == len(content)
        assert shard.sha256() == hashlib.sha256(content).hexdigest()
    again = cut_model(model)
    assert again == cut_model(model)


def test_tensors_of_mixed_types_stay_aligned(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"num_hidden_layers": 1}')
    files = {  # each aligned in itself, and not one after the other
        "a.safetensors": {"layers.0.odd": torch.ones(3, dtype=torch.uint8)},
        "b.safetensors": {"layers.0.half": torch.ones(3, dtype=torch.bfloat16), "norm.weight": torch.ones(1)},
        "c.safetensors": {"layers.0.wide": torch.ones(3, dtype=torch.int64)},
    }
    for name, tensors in files.items():
        save_file(tensors, model / name)
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shard = cut_model(model).layers[0]
    header = read_header(written(shard, tmp_path))
    for tensor in header.tensors:
        width = {"U8": 1, "BF16": 2, "I64": 8}[tensor.dtype]
        assert (header.data_start + tensor.begin) % width == 0, tensor
    assert load_file(tmp_path / shard.name)["layers.0.wide"].tolist() == [1, 1, 1]


def test_tied_embeddings_are_in_the_ends_once(tmp_path: Path) -> None:
    cut = cut_model(make_model(tmp_path / "model", tie_word_embeddings=True))
    assert cut.ends.name == ENDS
    assert set(load_file(written(cut.ends, tmp_path))) == {"model.embed_tokens.weight", "model.norm.weight"}


def test_layers_beyond_the_decoder_are_left_out(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    cut = cut_model(model)
    assert len(cut.layers) == 4
    assert not [name for name in tensors_of(cut, tmp_path) if "layers.4." in name or "layers.5." in name]


@given(st.integers(0, 130), st.integers(0, 130))
def test_any_range_is_that_of_the_whole(tmp_path_factory: pytest.TempPathFactory, first: int, second: int) -> None:
    file = tmp_path_factory.mktemp("range") / "x"
    file.write_bytes(bytes(range(100)))
    segments = (Segment(file, 10, 20), Segment(file, 50, 0), Segment(file, 40, 30), Segment(file, 0, 5))
    shard = Shard("x.safetensors", b"the head", segments)
    whole = b"the head" + bytes(range(10, 30)) + bytes(range(40, 70)) + bytes(range(5))
    start, end = sorted((first, second))
    assert b"".join(shard.read(start, end)) == whole[start:end]


def test_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    size = 200_000_000
    file = tmp_path / "big"
    with file.open("wb") as opened:
        opened.truncate(size)
    shard = Shard("big.safetensors", b"", (Segment(file, 0, size),))
    tracemalloc.start()
    try:
        shard.sha256()
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(10))
    with pytest.raises(WeightsDamaged, match="x became shorter"):
        list(Shard("s", b"", (Segment(file, 5, 10),)).read(0, 10))


class TestWhatCannotBeCut:
    """A directory that is no model, said in one sentence."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return make_sharded_model(tmp_path / "model")

    def refused(self, model: Path, words: str, kind: type[Exception] = InvalidArgument) -> None:
        with pytest.raises(kind, match=words):
            cut_model(model)

    def test_no_config(self, model: Path) -> None:
        (model / "config.json").unlink()
        self.refused(model, r"holds no config\.json")

    def test_a_config_without_layers(self, model: Path) -> None:
        (model / "config.json").write_text("{}")
        self.refused(model, "does not say how many layers")

    def test_other_layers_than_the_config_says(self, model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": BLOCKS + 1}))
        self.refused(model, "are not named by the 7 layers")

    def test_only_weights_that_can_run_code(self, model: Path) -> None:
        for file in model.glob("model*"):
            file.unlink()
        (model / "pytorch_model.bin").write_bytes(b"code")
        self.refused(model, r"neither model\.safetensors nor an index")

    def test_a_missing_file(self, model: Path) -> None:
        (model / "model-00003-of-00017.safetensors").unlink()
        self.refused(model, r"model-00003-of-00017\.safetensors is missing")

    def test_a_damaged_file(self, model: Path) -> None:
        (model / "model-00003-of-00017.safetensors").write_bytes(b"\xff" * 100)
        self.refused(model, "is not a well-formed safetensors file", WeightsDamaged)

    def test_a_weight_in_two_files(self, model: Path) -> None:
        shutil.copy(model / "model-00003-of-00017.safetensors", model / "model-00004-of-00017.safetensors")
        self.refused(model, "is in two files", WeightsDamaged)

    def test_an_index_that_leads_elsewhere(self, model: Path) -> None:
        (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
        self.refused(model, "no safetensors file beside it", WeightsDamaged)

    def test_a_link_that_leads_elsewhere(self, model: Path, tmp_path: Path) -> None:
        secret = tmp_path / "secret.safetensors"
        secret.write_bytes(pack_header([TensorEntry("mine", "U8", (1,), 0, 1)]) + b"x")
        file = model / "model-00003-of-00017.safetensors"
        file.unlink()
        file.symlink_to(secret)
        self.refused(model, "is a link that leads elsewhere")
