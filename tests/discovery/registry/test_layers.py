"""Which layer a weight belongs to is told by its name, whatever the architecture calls its layers."""

from __future__ import annotations

import pytest

from discovery.registry.layers import Layering, block_count_in, block_count_of_text, find_layering

ENDS = ["embed.weight", "norm.weight", "head.weight"]


def names(prefix: str, count: int, *tails: str) -> list[str]:
    return [f"{prefix}{number}.{tail}" for number in range(count) for tail in tails or ("mlp.weight",)]


@pytest.mark.parametrize(
    "prefix",
    [
        "model.layers.",
        "transformer.h.",
        "h.",
        "model.decoder.layers.",
        "gpt_neox.layers.",
        "backbone.blocks.",
        "backbone.layers.",
        "transformer.blocks.",
        "bert.encoder.layer.",
        "model.language_model.layers.",
        "rwkv.blocks.",
        "layers.",
    ],
)
def test_every_name_of_a_decoder_is_understood(prefix: str) -> None:
    layering = find_layering([*ENDS, *names(prefix, 12)], 12)
    assert layering == Layering(prefix)
    assert [layering.layer_of(f"{prefix}{number}.x.weight") for number in (0, 11)] == [0, 11]
    assert [layering.layer_of(name) for name in ENDS] == [None] * 3


def test_experts_are_not_taken_for_layers() -> None:
    experts = [f"model.layers.{layer}.mlp.experts.{expert}.w1" for layer in range(8) for expert in range(8)]
    assert find_layering([*ENDS, *experts], 8) == Layering("model.layers.")


def test_a_layer_for_predicting_more_tokens_is_not_of_the_decoder() -> None:
    layering = find_layering([*ENDS, *names("model.layers.", 5)], 4)
    assert layering is not None
    assert layering.layer_of("model.layers.4.mlp.weight") == 4, "it has a number that no block of the decoder has"


@pytest.mark.parametrize(
    "other",
    [
        "vision_tower.encoder.layers.",
        "visual.blocks.",
        "model.audio_tower.layers.",
        "mtp.layers.",
        "encoder.layers.",
        "a.much.deeper.list.of.layers.",
    ],
)
def test_other_stacks_as_long_are_not_the_decoder(other: str) -> None:
    assert find_layering([*names(other, 6), *names("language_model.model.layers.", 6)], 6) == Layering(
        "language_model.model.layers."
    )


@pytest.mark.parametrize(
    ("known", "count"),
    [
        (ENDS, 4),
        ([], 4),
        (names("model.layers.", 3), 4),
        (["model.layers.zero.w", "model.layers.-1.w", "model.layers.٣.w"], 1),
        (["model.layers.0"], 1),
        (names("model.layers.", 4), 0),
    ],
)
def test_names_that_tell_nothing(known: list[str], count: int) -> None:
    assert find_layering(known, count) is None


@pytest.mark.parametrize("name", ["model.layers", "model.layers.", "model.layers.7", "model.layers.7x.w", "other.7.w"])
def test_a_name_that_only_looks_like_a_layer(name: str) -> None:
    assert Layering("model.layers.").layer_of(name) is None


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"num_hidden_layers": 32}, 32),
        ({"n_layer": 12}, 12),
        ({"n_layers": 12}, 12),
        ({"num_layers": 12}, 12),
        ({"text_config": {"num_hidden_layers": 4}, "num_hidden_layers": 9}, 4),
        ({"num_hidden_layers": 0}, None),
        ({"num_hidden_layers": -3}, None),
        ({"num_hidden_layers": 10**9}, None),
        ({"num_hidden_layers": "12"}, None),
        ({"num_hidden_layers": True}, None),
        ({"text_config": 3}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_how_many_layers_a_config_speaks_of(config: object, count: int | None) -> None:
    assert block_count_in(config) == count


@pytest.mark.parametrize("text", [b"", b"not json", b"\xff", b"[" * 100_000])
def test_a_config_that_is_not_json_speaks_of_none(text: bytes) -> None:
    assert block_count_of_text(text) is None
