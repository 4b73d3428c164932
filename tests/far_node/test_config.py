"""What a provider types, checked once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import InvalidArgument
from far_node.config import ModelOptions, NodeConfig, choose_device, parse_blocks, parse_location, parse_public_address
from tests.support.documents import wallet_of


@given(st.integers(0, 9998), st.integers(1, 9999))
def test_a_range_is_read_as_it_is_written(first: int, size: int) -> None:
    end = first + size
    if end > 9999:
        return
    assert parse_blocks(f"{first}:{end}") == parse_blocks(f" {first}:{end}\n") == (first, end)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_a_location_is_announced_in_whole_degrees(latitude: float, longitude: float) -> None:
    place = parse_location(f"{latitude:.4f}, {longitude:.4f}")
    assert place == (round(float(f"{latitude:.4f}")), round(float(f"{longitude:.4f}")))


@pytest.mark.parametrize(
    "text", ["", "52", "52;13", "91,0", "0,181", "-90.5,0", "north,east", "nan,0", "1e1,0", "٥,٦", "1,2,3"]
)
def test_what_is_no_place_is_no_location(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--location"):
        parse_location(text)


@given(st.text(max_size=12))
def test_any_text_is_a_range_or_refused_as_one(text: str) -> None:
    try:
        first, end = parse_blocks(text)
    except InvalidArgument:
        return
    assert 0 <= first < end


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused_as_one(text: str) -> None:
    try:
        assert parse_public_address(text).startswith("/")
    except InvalidArgument as refusal:
        if "--public-addr" not in refusal.message:
            raise


def test_a_public_address_is_written_as_a_multiaddr() -> None:
    assert parse_public_address("1.2.3.4:31330") == "/ip4/1.2.3.4/tcp/31330"
    assert parse_public_address("/dns4/far.example/tcp/1") == "/dns4/far.example/tcp/1"


MODEL = ModelOptions("far-demo")
RIGHT: dict[str, Any] = {"model": MODEL, "wallet": wallet_of("me"), "initial_peers": ("/ip4/1.2.3.4/tcp/1",)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_peers": ()},
        {"threads": 0},
        {"device": "tpu"},
        {"device": "cuda:-1"},
        {"reserve_bytes": -1},
        {"gpu_memory_fraction": 0.0},
        {"gpu_memory_fraction": 1.1},
        {"gpu_memory_fraction": float("nan")},
        {"drain_timeout": -1.0},
        {"drain_timeout": float("inf")},
        {"drain_timeout": float("nan")},
        {"price_units": -1},
        {"price_units": 10**13},
        {"region": ""},
        {"region": "Europe"},
        {"region": "eu/west"},
        {"relay": True, "public_maddrs": ("/ip4/1.2.3.4/tcp/1",)},
        {"relay": True, "map_ports": True},
    ],
    ids=str,
)
def test_a_node_that_could_not_serve_is_not_configured(wrong: dict[str, Any]) -> None:
    NodeConfig(**RIGHT)
    with pytest.raises(InvalidArgument):
        NodeConfig(**RIGHT | wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model_id": ""}, "--model-id"),
        ({"model_id": "m" * 257}, "--model-id"),
        ({"quantization": "int3"}, "not one of none, int8, nf4"),
        ({"dtype": "float64"}, "not one of float32"),
        ({"attention": "flash_attention_3"}, "not one of sdpa, eager"),
        ({"blocks": (3, 3)}, "a < b"),
        ({"blocks": (-1, 3)}, "a < b"),
        ({"num_blocks": 0}, "--num-blocks"),
        ({"blocks": (0, 4), "num_blocks": 4}, "--blocks and --num-blocks exclude each other"),
        ({"context_length": 0}, "--context-length"),
        ({"cache_bytes": 0}, "--cache-mb"),
    ],
    ids=str,
)
def test_options_of_a_model_that_mean_nothing_are_refused_by_their_flag(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        ModelOptions("far-demo", **wrong)


@pytest.mark.parametrize(
    ("device", "gpu", "cpu_only", "chosen"),
    [
        (None, None, False, "auto"),
        ("mps", None, False, "mps"),
        (None, 3, False, "cuda:3"),
        (None, None, True, "cpu"),
    ],
)
def test_three_flags_name_one_device(device: str | None, gpu: int | None, cpu_only: bool, chosen: str) -> None:
    assert choose_device(device, gpu, cpu_only) == chosen


@pytest.mark.parametrize(("device", "gpu", "cpu_only"), [("mps", 0, False), (None, 0, True), ("cpu", None, True)])
def test_two_of_them_are_one_too_many(device: str | None, gpu: int | None, cpu_only: bool) -> None:
    with pytest.raises(InvalidArgument, match="exclude each other"):
        choose_device(device, gpu, cpu_only)
