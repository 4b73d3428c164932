"""From logits to a token: the likeliest, or a fair draw that can be repeated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from far_mesh.config import GenerationOptions
from far_mesh.errors import NotADraw
from far_mesh.model.sampler import new_generator, pick

INFINITY = float("inf")
logits_of = st.lists(st.floats(-50, 50, width=32) | st.just(-INFINITY), min_size=1, max_size=20).filter(
    lambda values: any(math.isfinite(value) for value in values)
)


def draws(logits: torch.Tensor, options: GenerationOptions, count: int) -> list[int]:
    generator = new_generator(options)
    return [pick(logits, options, generator) for _ in range(count)]


def options(**more: float) -> GenerationOptions:
    return GenerationOptions(max_tokens=1, **{"temperature": 1.0, "seed": 3, **more})  # type: ignore[arg-type]


@given(logits_of)
def test_greedy_is_the_likeliest(values: list[float]) -> None:
    token = draws(torch.tensor(values), options(temperature=0.0), 1)[0]
    assert values[token] == max(values)


@given(logits_of, st.integers(-(2**63), 2**63 - 1))
def test_a_seed_repeats_its_draws(values: list[float], seed: int) -> None:
    logits = torch.tensor(values)
    assert draws(logits, options(seed=seed), 5) == draws(logits, options(seed=seed), 5)


def test_without_a_seed_no_two_texts_are_the_same() -> None:
    logits = torch.zeros(1000)
    unseeded = GenerationOptions(max_tokens=1, temperature=1.0)
    assert draws(logits, unseeded, 20) != draws(logits, unseeded, 20)


@settings(max_examples=200)
@given(logits_of, st.floats(0.01, 1.0), st.floats(0.05, 2.0))
def test_what_is_drawn_is_in_the_nucleus(values: list[float], top_p: float, temperature: float) -> None:
    """The smallest set of the likeliest whose probability reaches top_p."""
    logits = torch.tensor(values)
    probabilities = torch.softmax(logits / temperature, -1)
    for token in draws(logits, options(top_p=top_p, temperature=temperature), 10):
        likelier = float(probabilities[probabilities > probabilities[token]].double().sum())
        assert likelier < top_p + 1e-5
        assert math.isfinite(values[token])


def test_the_nucleus_holds_the_token_that_crosses_its_border_and_no_more() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    for top_p, kept in (
        (0.4, {0}),
        (0.5, {0}),
        (0.6, {0, 1}),
        (0.8, {0, 1, 2}),
        (0.95, {0, 1, 2, 3}),
        (1.0, {0, 1, 2, 3}),
    ):
        assert set(draws(logits, options(top_p=top_p), 400)) == kept, top_p


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_often_as_they_should_be(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -INFINITY])
    expected = torch.softmax(logits.double() / temperature, -1)
    count = 20_000
    drawn = torch.bincount(torch.tensor(draws(logits, options(temperature=temperature), count)), minlength=5)
    assert drawn[4] == 0
    squares = ((drawn - count * expected) ** 2 / (count * expected))[:4].sum()
    assert squares < 16.3, "chi-square with 3 degrees of freedom passes 16.3 once in a thousand; the seed is fixed"


def test_a_nucleus_is_drawn_from_in_proportion() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    drawn = torch.bincount(torch.tensor(draws(logits, options(top_p=0.7), 12_000)), minlength=4).double()
    assert abs(drawn[0] / drawn[1] - 2.0) < 0.1
    assert drawn[2:].sum() == 0


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-45, 5e-324])
def test_a_temperature_close_to_zero_is_close_to_greedy(temperature: float) -> None:
    logits = torch.tensor([1.0, 30.0, 29.0, -5.0])
    assert set(draws(logits, options(temperature=temperature), 20)) == {1}
    assert set(draws(logits, options(temperature=temperature, top_p=0.5), 20)) == {1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "values",
    [[float("nan"), 1.0], [1.0, float("nan")], [-INFINITY, -INFINITY], [INFINITY, 0.0], [INFINITY, INFINITY]],
    ids=str,
)
def test_what_is_not_a_number_is_not_drawn_from(values: list[float], temperature: float) -> None:
    with pytest.raises(NotADraw) as failure:
        draws(torch.tensor(values), options(temperature=temperature), 1)
    assert failure.value.code == "invalid_logits"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_logits_of_any_type_are_drawn_from(dtype: torch.dtype) -> None:
    logits = torch.tensor([0.0, 10.0, -10.0], dtype=dtype)
    assert draws(logits, options(temperature=0.0), 1) == [1]
    assert set(draws(logits, options(), 20)) == {1}
