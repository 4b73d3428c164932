"""What of a model is kept, found among all its parts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from far_node.blocks.cut import cache_layers, client_class, find_stack, node_class, read_config, shape_of
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.source import find_model
from far_node.errors import ModelUnsupported
from tests.support.architectures import ARCHITECTURES, Architecture, make_architecture
from tests.support.models import whole_model

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def with_settings(name: str, **settings: object) -> Architecture:
    architecture = BY_NAME[name]
    return dataclasses.replace(architecture, settings={**architecture.settings, **settings})


@pytest.mark.parametrize(
    ("name", "owner", "runner"),
    [
        ("llama", "model", "model"),
        ("gpt2", "transformer", "transformer"),
        ("bart", "model.decoder", "model.decoder"),
        ("bert", "bert.encoder", "bert"),
        ("gemma3", "model.language_model", "model.language_model"),
    ],
)
def test_the_stack_is_called_through_what_makes_its_masks(name: str, owner: str, runner: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(BY_NAME[name].config())
    stack = find_stack(model)
    assert stack.owner is model.get_submodule(owner)
    assert stack.runner is model.get_submodule(runner)


def test_a_part_for_images_with_as_many_layers_is_not_taken_for_the_decoder() -> None:
    eyes = {**BY_NAME["gemma3"].settings["vision_config"], "num_hidden_layers": 6}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(with_settings("gemma3", vision_config=eyes).config())
    assert find_stack(model).owner is model.get_submodule("model.language_model")


def test_layers_are_those_of_the_decoder_where_the_encoder_has_others() -> None:
    assert shape_of(BY_NAME["bart, uneven"].config()).block_count == 6


def test_a_block_with_two_attentions_has_two_layers_of_the_cache() -> None:
    config = BY_NAME["longcat_flash"].config()
    assert shape_of(config).block_count == 6
    assert cache_layers(config, 1, 4) == range(2, 8)
    assert cache_layers(BY_NAME["llama"].config(), 1, 4) == range(1, 4)


@pytest.mark.parametrize("name", ["gemma3", "llama4", "qwen3_5", "got_ocr2"])
def test_of_a_model_for_more_only_the_text_is_held(name: str, tmp_path: Path) -> None:
    source = find_model(str(make_architecture(tmp_path, BY_NAME[name])))
    whole, client = whole_model(source.path), load_client_model(source)
    held = {parameter for parameter, _ in client.named_parameters()}
    assert not [parameter for parameter in held if "vision" in parameter or "project" in parameter]
    layers = find_stack(whole).layers
    blocks = load_blocks(source, 1, 4)
    assert blocks.parameter_count() == sum(p.numel() for layer in layers[1:4] for p in layer.parameters())
    text = sum(p.numel() for path, p in whole.named_parameters() if "vision" not in path and "project" not in path)
    assert client.num_parameters() == text - sum(p.numel() for p in layers.parameters())


def test_buffers_that_the_initialiser_fills_in_are_right_in_a_piece(tmp_path: Path) -> None:
    """Falcon-H1 writes into the buffers of all layers at once, also where some are absent."""
    path = make_architecture(tmp_path, with_settings("falcon_h1", ssm_multipliers=[0.5, 2.0, 3.0, 4.0, 5.0]))
    source = find_model(str(path))
    config = read_config(source)
    piece = node_class(config, 2, 4).from_pretrained(source.path, config=config)
    held, expected = (
        find_stack(model).layers[3].get_buffer("mamba.mup_vector") for model in (piece, whole_model(path))
    )
    assert torch.equal(held, expected)
    assert len(set(expected.flatten().tolist())) == 5


def test_a_hollow_class_is_known_by_its_parents_name() -> None:
    """transformers picks the conversion of fused weights by it."""
    config = BY_NAME["mixtral"].config()
    for hollow in (node_class(config, 0, 1), client_class(config)):
        assert (hollow.__name__, hollow.__module__) == (
            "MixtralForCausalLM",
            "transformers.models.mixtral.modeling_mixtral",
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cpmant", "CpmAntForCausalLM cannot be cut into blocks: it takes nothing but token ids"),
        ("rwkv", "RwkvForCausalLM cannot be cut into blocks: it keeps no attention cache, or one of its own kind"),
        ("hrm_text", "it has no list of 48 decoder layers"),
    ],
)
def test_a_class_that_does_not_bear_the_cut_says_why(name: str, words: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(BY_NAME[name].config())
    with pytest.raises(ModelUnsupported, match=words):
        find_stack(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "gemma4_text", "hidden_size_per_layer_input": 16}, "per-layer embeddings"),
        ({"model_type": "gemma4", "text_config": {"model_type": "gemma4_text"}}, "per-layer embeddings"),
        (
            {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 20},
            "keys and values of others",
        ),
        ({"model_type": "glm_moe_dsa", "indexer_types": ["full"] + ["shared"] * 77}, "positions that another"),
        ({"model_type": "mllama"}, "its decoder cannot be loaded without its other parts"),
        ({"model_type": "llava"}, "no causal language model head"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)
def test_what_a_config_tells_is_told_before_a_weight_is_read(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnsupported, match=words):
        read_config(find_model(str(tmp_path)))
