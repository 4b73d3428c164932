"""What is told of a model is what serving it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from discovery.protocol.announcement import Dtype, Quantization
from discovery.protocol.errors import WeightsDamaged
from discovery.registry.headers import TensorEntry
from far_node.blocks.sizes import block_sizes
from far_node.blocks.source import find_model
from far_node.errors import ModelNotFound, ModelUnsupported
from far_node.models.add import add
from far_node.models.facts import Description, Memory, ModelFacts, describe, memory_of
from far_node.models.part import Part
from far_node.models.pull import pull
from far_node.models.store import ModelStore
from tests.support.models import BLOCKS, KINDS, make_model, make_sharded_model
from tests.support.registry import a_registry

_WIDE = {"hidden_size": 256, "intermediate_size": 512}


def facts(about: Description) -> ModelFacts:
    assert about.facts is not None
    return about.facts


def look(path: Path) -> ModelFacts:
    return facts(describe(ModelStore(), str(path)))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_model_is_understood(tmp_path: Path, kind: str) -> None:
    model = make_model(tmp_path / kind, kind)
    found = look(model)
    config = json.loads((model / "config.json").read_text())
    assert found.architecture == config["architectures"][0]
    assert (found.block_count, found.hidden_size, found.stored_dtypes) == (BLOCKS, 64, ("F32",))
    assert [block.number for block in found.blocks] == list(range(BLOCKS))
    stored = sum(block.disk_bytes for block in found.blocks) + found.ends_disk_bytes
    assert 0 <= (model / "model.safetensors").stat().st_size - stored < 40_000, "all but the header"


@pytest.mark.parametrize(
    ("quantization", "dtype", "field", "tolerance"),
    [
        ("none", "float32", "float32", 0.0),
        ("none", "bfloat16", "bfloat16", 0.0),
        ("int8", "bfloat16", "int8", 0.03),
        ("nf4", "bfloat16", "nf4", 0.03),
    ],
)
@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2"])
def test_the_estimate_is_what_the_blocks_take_on_a_gpu(
    tmp_path: Path, kind: str, quantization: Quantization, dtype: Dtype, field: str, tolerance: float
) -> None:
    sizes = {"n_embd": 256} if kind == "gpt2" else _WIDE
    model = make_model(tmp_path / kind, kind, **sizes)
    taken = block_sizes(find_model(str(model)), quantization, dtype, "cuda:0")
    told = [getattr(block.memory, field) for block in look(model).blocks]
    for estimate, size in zip(told, taken, strict=True):
        assert abs(estimate - size) <= tolerance * size, (estimate, size)


@pytest.mark.parametrize(
    ("dtype", "shape", "memory"),
    [
        ("BF16", (64, 128), Memory(32768, 16384, 8192 + 256, 4096 + 512)),
        ("F32", (4, 64, 128), Memory(131072, 65536, 32768 + 1024, 16384 + 2048)),
        ("F16", (128,), Memory(512, 256, 256, 256)),
        ("F32", (64, 1, 4), Memory(1024, 512, 512, 512)),
        ("I32", (8, 8), Memory(256, 256, 256, 256)),
        ("BOOL", (8, 8), Memory(64, 64, 64, 64)),
    ],
)
def test_what_a_weight_takes(dtype: str, shape: tuple[int, ...], memory: Memory) -> None:
    size = memory.float32 if dtype in ("I32", "BOOL") else 1
    assert memory_of(TensorEntry("x", dtype, shape, 0, size)) == memory


def test_a_model_in_part_tells_of_the_blocks_that_are_here(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    with a_registry({"far/tiny": model}) as registry:
        pull(ModelStore(), "far/tiny", Part(1, 3), registry=registry.url)
    about = describe(ModelStore(), "far/tiny")
    assert [block.number for block in facts(about).blocks] == [1, 2]
    assert facts(about).blocks == look(model).blocks[1:3]
    assert (facts(about).block_count, facts(about).ends_disk_bytes) == (BLOCKS, 0)
    assert about.digest == find_model(str(model)).digest
    assert about.record == ModelStore().get("far/tiny")


def test_a_block_of_which_only_a_half_is_here_is_not_told_of(tmp_path: Path) -> None:
    model = make_sharded_model(tmp_path / "sharded")
    add(ModelStore(), "ours", str(model))
    weight_map = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    of_block = {file for name, file in weight_map.items() if "layers.2." in name}
    assert len(of_block) > 1
    (ModelStore().folder_of("ours") / min(of_block)).unlink()
    assert 2 not in [block.number for block in facts(describe(ModelStore(), "ours")).blocks]


def test_the_bundled_model_and_a_directory_are_known(tmp_path: Path) -> None:
    assert facts(describe(ModelStore(), "far-demo")).block_count == 8
    assert describe(ModelStore(), str(make_model(tmp_path / "tiny"))).record is None


def test_of_a_gguf_file_its_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(10))
    record = add(ModelStore(), "ours", str(tmp_path / "x.gguf"))
    assert describe(ModelStore(), "ours") == Description("ours", None, None, record)


@pytest.mark.parametrize("name", ["ours", "far/other", "/no/such", ""])
def test_a_model_that_is_not_here(name: str) -> None:
    with pytest.raises(ModelNotFound):
        describe(ModelStore(), name)


@pytest.mark.parametrize("config", ["{}", "[]", "not json"])
def test_a_config_that_says_nothing(tmp_path: Path, config: str) -> None:
    model = make_model(tmp_path / "tiny")
    (model / "config.json").write_text(config)
    with pytest.raises(ModelUnsupported):
        look(model)


def test_a_config_that_would_overflow_the_stack_of_who_reads_it(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny")
    (model / "config.json").write_text("[" * 100_000)
    with pytest.raises(WeightsDamaged, match=r"the config\.json in .* is nested deeper than any file of a model"):
        look(model)
