"""Settings are checked once, where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import GenerationOptions, MeshConfig, Preference
from tests.support.documents import peer_of, wallet_of


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
        ("stop", ("x" * 257,)),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("top_k", -1),
        ("top_k", 2**31),
        ("min_p", -0.1),
        ("min_p", float("nan")),
        ("presence_penalty", 2.1),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("logit_bias", {1: 101.0}),
        ("logit_bias", {1: float("nan")}),
        ("logit_bias", dict.fromkeys(range(1025), 1.0)),
        ("logprobs", -1),
        ("logprobs", 21),
        ("min_tokens", -1),
        ("min_tokens", 2),
        ("stop_token_ids", frozenset(range(65))),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(param: str, value: Any) -> None:
    options: dict[str, Any] = {"max_tokens": 1, param: value}
    with pytest.raises(InvalidArgument) as failure:
        GenerationOptions(**options)
    assert failure.value.facts["param"] == param
    assert failure.value.status == 400


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 10**9}, {"temperature": 2.0}, {"top_p": 1e-9}, {"seed": -(2**63)}, {"stop": ("x" * 256,) * 16}],
)
def test_options_at_the_edge_are_taken(options: dict[str, Any]) -> None:
    GenerationOptions(**{"max_tokens": 1} | options)


@pytest.mark.parametrize(
    "wrong", [{"step_timeout": 0}, {"open_timeout": -1.0}, {"close_timeout": 0.0}, {"open_attempts": 0}]
)
def test_a_client_needs_time_and_an_attempt(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        MeshConfig(**wrong)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("goal", "best"),
        ("max_price", -1),
        ("max_price", 10**13),
        ("max_latency", 0),
        ("max_latency", float("nan")),
        ("max_latency", float("inf")),
        ("region", "Europe"),
        ("region", ""),
        ("near", (91.0, 0.0)),
        ("max_distance_km", 0.0),
        ("max_distance_km", float("nan")),
        ("quantization", frozenset({"int3"})),
        ("trusted_only", frozenset({"me"})),
        ("trusted_only", frozenset({"0x12"})),
        ("min_tps", 0.0),
        ("max_load", 1.5),
        ("max_load", float("nan")),
        ("max_hops", 0),
    ],
)
def test_a_preference_that_means_nothing_is_refused_by_name(param: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as failure:
        Preference(**{param: value})
    assert failure.value.facts["param"] == param


def test_a_preference_at_the_edges_is_taken() -> None:
    trusted = frozenset({peer_of("a"), wallet_of("b")})
    Preference("cheapest", 0, 0.1, "eu", frozenset({"int8", "none"}), trusted, 0.1, 0.0, 1)
    Preference("balanced", 10**12, region="eu-west-2", max_load=1.0)
