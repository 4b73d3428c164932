"""Only the bytes of one range are read, and what cannot be cut is refused by name."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from discovery.protocol.announcement import Dtype
from discovery.protocol.errors import FarError, InvalidArgument
from far_node.blocks.cut import read_config, shape_of
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.source import find_model
from far_node.errors import ModelUnsupported
from tests.support.models import BLOCKS, make_model, whole_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.mark.parametrize(("first", "end"), [(0, 0), (3, 3), (4, 3), (-1, 3), (0, BLOCKS + 1), (BLOCKS, BLOCKS + 1)])
def test_a_range_that_the_model_does_not_have_is_refused(model: Path, first: int, end: int) -> None:
    with pytest.raises(InvalidArgument, match=f"blocks {first}:{end} are not within this model's 0:6"):
        load_blocks(find_model(str(model)), first, end)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_blocks_are_held_in_the_type_that_is_asked_for(model: Path, dtype: Dtype, expected: torch.dtype) -> None:
    blocks = load_blocks(find_model(str(model)), 1, 3, dtype=dtype)
    assert blocks.dtype == expected
    assert blocks.run(torch.zeros(1, 2, 64, dtype=expected), blocks.new_cache(), 1, 3).dtype == expected


def test_weights_of_other_blocks_may_be_absent(model: Path) -> None:
    """A node that has only the bytes of its blocks needs no others."""
    _drop(model, lambda name: "layers." in name and "layers.2." not in name and "layers.3." not in name)
    blocks = load_blocks(find_model(str(model)), 2, 4)
    blocks.run(torch.zeros(1, 1, 64), blocks.new_cache(), 2, 4)


def test_weights_of_ones_own_blocks_may_not(model: Path) -> None:
    _drop(model, lambda name: "layers.3.mlp.up_proj" in name)
    load_blocks(find_model(str(model)), 0, 3)
    with pytest.raises(ModelUnsupported, match=r"layers\.3\.mlp\.up_proj"):
        load_blocks(find_model(str(model)), 2, 4)


@pytest.mark.parametrize("missing", ["embed_tokens", "model.norm", "lm_head"])
def test_a_client_needs_the_weights_of_both_ends(tmp_path: Path, missing: str) -> None:
    model = make_model(tmp_path / "model", tie_word_embeddings=False)
    load_client_model(find_model(str(model)))
    _drop(model, lambda name: missing in name)
    with pytest.raises(ModelUnsupported, match=missing):
        load_client_model(find_model(str(model)))


def test_weights_of_another_shape_are_refused_in_one_line(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights = {name: value[:-1].clone() if "layers.3.mlp.up_proj" in name else value for name, value in weights.items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FarError) as failure:
        load_blocks(find_model(str(model)), 2, 4)
    assert failure.value.code == "model_unsupported"
    assert "\n" not in failure.value.message


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_are_refused_by_name(model: Path, damage: str) -> None:
    weights = model / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"\xff" * 1000, "empty": b""}[damage])
    with pytest.raises(FarError) as failure:
        load_blocks(find_model(str(model)), 0, 2)
    assert failure.value.code == "weights_damaged"
    assert "\n" not in failure.value.message


def _drop(model: Path, gone: object) -> None:
    assert callable(gone)
    weights = load_file(model / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not gone(name)}
    assert len(kept) < len(weights)
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})


def test_a_client_holds_no_blocks(model: Path) -> None:
    client = load_client_model(find_model(str(model)))
    whole = whole_model(model)
    ends = sum(p.numel() for name, p in whole.named_parameters() if ".layers." not in name)
    assert client.num_parameters() == ends


class TestConfig:
    """What can be cut, and what is said of the rest."""

    def test_the_shape_is_read_under_every_name_for_it(self, tmp_path: Path) -> None:
        for kind, context in (("llama", 256), ("gpt2", 256), ("opt", 256), ("bloom", None)):
            shape = shape_of(read_config(find_model(str(make_model(tmp_path / kind, kind)))))
            assert (shape.block_count, shape.hidden_size) == (BLOCKS, 64), kind
            assert shape.context_length in (context, 2048), kind

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"model_type": "gemma3n_text"}, "per-layer embeddings"),
            ({"model_type": "minimax"}, "cache class of its own"),
            ({"model_type": "zamba2"}, "its shared layers"),
            ({"model_type": "deepseek_v4"}, "several streams side by side"),
            ({"model_type": "t5"}, "no causal language model head"),
            ({"model_type": "vit"}, "no causal language model head"),
            ({"model_type": "unheard-of"}, "cannot be used"),
            ({"model_type": 7}, "cannot be used"),
            ({"model_type": "llama", "num_hidden_layers": "six"}, "cannot be used"),
            ([], "cannot be used"),
        ],
        ids=str,
    )
    def test_a_config_that_will_not_do_is_refused_with_the_reason(
        self, model: Path, config: object, words: str
    ) -> None:
        (model / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelUnsupported, match=words) as failure:
            read_config(find_model(str(model)))
        assert "\n" not in failure.value.message


def test_models_may_be_loaded_side_by_side(tmp_path: Path) -> None:
    """transformers alone mixes up what two threads load at once."""
    paths = [make_model(tmp_path / kind, kind) for kind in ("gpt2", "llama", "gemma2", "opt")]
    with ThreadPoolExecutor(len(paths)) as pool:
        for _ in range(3):
            nodes = pool.map(lambda path: load_blocks(find_model(str(path)), 1, 4), paths)
            clients = pool.map(lambda path: load_client_model(find_model(str(path))), paths)
            assert [blocks.end for blocks in nodes] == [4] * len(paths)
            assert len(list(clients)) == len(paths)
