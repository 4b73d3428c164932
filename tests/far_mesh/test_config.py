"""Settings are checked once, where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import GenerationOptions, MeshConfig


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
