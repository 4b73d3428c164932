"""Blocks that are not what they seem are found out before their node is ready."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from discovery.protocol.announcement import Dtype
from far_node.blocks import cut
from far_node.blocks.cut import node_class, read_config
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.source import find_model
from far_node.blocks.trial import find_obstacle
from far_node.errors import ModelUnsupported
from tests.support.architectures import ARCHITECTURES, Architecture, make_architecture

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def loaded(
    directory: Path, architecture: Architecture, first: int, end: int, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, Blocks]:
    """Blocks as the loader makes them, but untried."""
    path = make_architecture(directory, architecture)
    config = read_config(find_model(str(path)))
    model = node_class(config, first, end).from_pretrained(path, config=config, dtype=dtype)
    return model, Blocks(model, first, end)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "granitemoehybrid", "nemotron_h", "lfm2_moe", "gptj"])
@pytest.mark.parametrize("span", [(0, 1), (1, 4), (4, 6)])
def test_nothing_is_said_against_blocks_that_are_right(
    tmp_path: Path, name: str, dtype: torch.dtype, span: tuple[int, int]
) -> None:
    assert find_obstacle(*loaded(tmp_path, BY_NAME[name], *span, dtype)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_that_is_not_used_is_noticed(tmp_path: Path, dtype: torch.dtype) -> None:
    model, blocks = loaded(tmp_path, BY_NAME["mamba"], 1, 4, dtype)
    blocks._stack = dataclasses.replace(blocks._stack, cache_argument="past_key_values")
    assert "step by step" in str(find_obstacle(model, blocks))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_that_begin_anew_at_each_step_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    model, blocks = loaded(tmp_path, BY_NAME["llama"], 1, 4, dtype)
    right = blocks._arguments
    monkeypatch.setattr(blocks, "_arguments", lambda positions, padding: right(positions - positions[:, :1], padding))
    assert "step by step" in str(find_obstacle(model, blocks))


@pytest.mark.parametrize(
    ("name", "span", "words"),
    [
        ("recurrent_gemma", (0, 1), "step by step"),
        ("zamba", (1, 4), "more than the hidden states"),
        ("zaya", (1, 4), "hand on more than the hidden states"),
        ("bert, encoder", (1, 4), "what follows a token"),
    ],
)
def test_what_the_table_of_names_would_miss_is_refused_at_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, span: tuple[int, int], words: str
) -> None:
    monkeypatch.setattr(cut, "_REFUSED", {})
    path = make_architecture(tmp_path / "model", BY_NAME[name])
    with pytest.raises(ModelUnsupported, match=words) as refusal:
        load_blocks(find_model(str(path)), *span)
    assert refusal.value.message.startswith("model (")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_that_keeps_some_parameters_in_float32_computes_in_the_type_that_is_asked_for(
    tmp_path: Path, dtype: Dtype
) -> None:
    path = make_architecture(tmp_path, BY_NAME["flint"])
    blocks = load_blocks(find_model(str(path)), 1, 4, dtype=dtype)
    assert str(blocks.dtype) == f"torch.{dtype}"


def test_what_the_compute_type_cannot_hold_is_no_reason_to_refuse(tmp_path: Path) -> None:
    model, blocks = loaded(tmp_path, BY_NAME["llama"], 1, 3, torch.float16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e4)
    assert find_obstacle(model, blocks) is None
