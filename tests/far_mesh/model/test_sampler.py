"""From logits to a token: the likeliest, or a fair draw that can be repeated."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import GenerationOptions
from far_mesh.errors import NotADraw
from far_mesh.model.sampler import Noise, Sampler, _probabilities, choose, likelihood, pick

INFINITY = float("inf")
logits_of = st.lists(st.floats(-50, 50, width=32) | st.just(-INFINITY), min_size=1, max_size=20).filter(
    lambda values: any(math.isfinite(value) for value in values)
)


def draws(logits: torch.Tensor, options: GenerationOptions, count: int) -> list[int]:
    """At as many positions of one text."""
    noise = Noise(options.seed)
    return [pick(logits, options, noise, position) for position in range(count)]


def options(**more: Any) -> GenerationOptions:
    return GenerationOptions(max_tokens=1, **{"temperature": 1.0, "seed": 3, **more})


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


@given(logits_of, st.integers(0, 2**40))
def test_a_draw_belongs_to_its_position_whatever_was_drawn_before(values: list[float], position: int) -> None:
    logits, noise = torch.tensor(values), Noise(5)
    expected = pick(logits, options(), Noise(5), position)
    for earlier in (position + 1, 0, position, 3):
        pick(torch.zeros(7), options(), noise, earlier)
    assert pick(logits, options(), noise, position) == expected


def test_positions_are_drawn_independently() -> None:
    """A pair of neighbours is as frequent as chance has it: chi-square over the table of pairs."""
    probabilities = torch.tensor([0.5, 0.3, 0.2]).double()
    drawn = torch.tensor(draws(probabilities.log(), options(), 20_001))
    pairs = torch.bincount(drawn[:-1] * 3 + drawn[1:], minlength=9).double()
    expected = 20_000 * torch.outer(probabilities, probabilities).flatten()
    assert ((pairs - expected) ** 2 / expected).sum() < 26.1, "with 8 degrees of freedom, once in a thousand"


@pytest.mark.parametrize("position", [0, 1, 77])
def test_over_seeds_a_position_is_drawn_as_often_as_it_should_be(position: int) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    expected = 8_000 * torch.softmax(logits.double(), -1)
    drawn = [pick(logits, options(), Noise(seed), position) for seed in range(8_000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=4)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_seeds_that_agree_in_their_last_bits_are_different_seeds() -> None:
    logits = torch.zeros(1000)
    assert draws(logits, options(seed=1), 10) != draws(logits, options(seed=1 + 2**32), 10)


@pytest.mark.parametrize("distance", [0.0, 0.05, 0.2, 0.5])
def test_two_models_that_nearly_agree_draw_nearly_always_the_same(distance: float) -> None:
    """With the same noise they agree with at least (1 - d) / (1 + d), d the total variation distance."""
    ours = torch.tensor([0.5, 0.3, 0.2, 1e-9]).double()
    theirs = ours + torch.tensor([-distance, distance / 2, distance / 2, 0.0])
    theirs = theirs.clamp(min=1e-9)
    one, other = draws(ours.log(), options(), 4_000), draws(theirs.log(), options(), 4_000)
    agreement = sum(a == b for a, b in zip(one, other, strict=True)) / 4_000
    assert agreement >= (1 - distance) / (1 + distance) - 0.03
    assert (agreement == 1.0) == (distance == 0.0)


def test_a_larger_vocabulary_does_not_change_the_noise_of_the_tokens_before_it() -> None:
    """Models pad their vocabularies differently; what they share must be drawn alike."""
    assert torch.equal(Noise(3).at(9, 1000), Noise(3).at(9, 1024)[:1000])


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_choice_is_the_pick_and_its_probability(temperature: float) -> None:
    logits, wish = torch.tensor([2.0, 1.0, 0.0]), options(temperature=temperature, top_p=0.9)
    expected = torch.softmax(logits, -1) if temperature == 0 else None
    for position in range(30):
        choice = choose(logits, wish, Noise(3), position)
        assert choice.token == pick(logits, wish, Noise(3), position)
        if expected is not None:
            assert choice.probability == pytest.approx(float(expected[choice.token]))
        assert 0 < choice.probability <= 1


def test_what_is_left_of_the_logits_is_what_transformers_leaves() -> None:
    """By random options; where two processors changed places, most cases would differ."""
    luck, generator = random.Random(1), torch.Generator().manual_seed(1)
    for _ in range(300):
        size = luck.randint(4, 40)
        logits = 4 * torch.randn(size, generator=generator)
        prompt, said = luck.choices(range(size), k=luck.randint(1, 6)), luck.choices(range(size), k=luck.randint(0, 6))
        bias = {luck.randrange(size): luck.uniform(-5, 5) for _ in range(luck.randint(1, 4))}
        wish = options(
            temperature=luck.uniform(0.2, 2.0),
            top_k=luck.randint(1, size),
            top_p=luck.uniform(0.1, 0.99),
            min_p=luck.uniform(0.0, 0.3),
            repetition_penalty=luck.uniform(0.5, 2.0),
            logit_bias=bias,
        )
        sampler = Sampler(wish, Noise(1), prompt)
        sampler.read(said)
        ours = _probabilities(scores := sampler._scores(logits), int(scores.argmax()), wish)
        ids, expected = torch.tensor([prompt + said]), logits[None]
        for processor in (
            SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()}),
            RepetitionPenaltyLogitsProcessor(wish.repetition_penalty),
            TemperatureLogitsWarper(wish.temperature),
            TopKLogitsWarper(wish.top_k),
            TopPLogitsWarper(wish.top_p),
            MinPLogitsWarper(wish.min_p),
        ):
            expected = processor(ids, expected)
        assert torch.allclose(ours / ours.sum(), torch.softmax(expected, -1)[0], atol=1e-6)


def test_penalties_count_the_tokens_of_the_answer_and_not_of_the_prompt() -> None:
    logits = torch.zeros(5)
    sampler = Sampler(options(presence_penalty=0.5, frequency_penalty=0.25), Noise(1), [0, 0, 1])
    assert sampler._scores(logits).tolist() == [0, 0, 0, 0, 0]
    sampler.read([1, 2, 2, 2])
    assert sampler._scores(logits).tolist() == [0, -0.75, -1.25, 0, 0]
    sampler.back_to(5)
    assert sampler._scores(logits).tolist() == [0, -0.75, -0.75, 0, 0]
    sampler.back_to(0)
    assert sampler._scores(logits).tolist() == [0, 0, 0, 0, 0]


def test_a_repetition_penalty_counts_the_prompt_too() -> None:
    sampler = Sampler(options(repetition_penalty=2.0), Noise(1), [0, 1])
    assert sampler._scores(torch.tensor([1.0, -1.0, 1.0])).tolist() == [0.5, -2.0, 1.0]
    sampler.read([2])
    sampler.back_to(2)
    assert sampler._scores(torch.tensor([1.0, -1.0, 1.0])).tolist() == [0.5, -2.0, 1.0]


def test_top_k_keeps_so_many_and_min_p_what_is_near_the_best() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    assert set(draws(logits, options(top_k=1), 200)) == {0}
    assert set(draws(logits, options(top_k=3), 400)) == {0, 1, 2}
    assert set(draws(logits, options(top_k=9), 400)) == {0, 1, 2, 3}
    assert set(draws(logits, options(min_p=0.4), 400)) == {0, 1}
    assert set(draws(logits, options(min_p=0.0), 400)) == {0, 1, 2, 3}
    assert set(draws(logits, options(top_k=2, top_p=0.6), 400)) == {0}, "top_p sees what top_k has left"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_with_the_least_bias_does_not_occur(temperature: float) -> None:
    sampler = Sampler(options(temperature=temperature, logit_bias={1: -100, 0: 5.0}), Noise(1))
    assert {sampler.pick(torch.tensor([0.0, 1000.0, 1.0])) for _ in range(30)} == {0}


def test_no_end_comes_among_the_first_tokens() -> None:
    sampler = Sampler(GenerationOptions(5, min_tokens=2), Noise(1), [7], frozenset([1, 900]))
    logits = torch.tensor([0.0, 5.0])
    for expected in (0, 0, 1):
        assert sampler.pick(logits) == expected
        sampler.read([expected])


@pytest.mark.parametrize(
    ("param", "wish"),
    [
        ("logit_bias", GenerationOptions(5, logit_bias={0: -100, 1: -100})),
        ("min_tokens", GenerationOptions(5, min_tokens=2)),
    ],
)
def test_options_that_leave_no_token_are_to_blame_and_not_the_nodes(param: str, wish: GenerationOptions) -> None:
    sampler = Sampler(wish, Noise(1), (), frozenset([0, 1]))
    with pytest.raises(InvalidArgument) as failure:
        sampler.pick(torch.zeros(2))
    assert failure.value.facts["param"] == param
    with pytest.raises(NotADraw):
        sampler.pick(torch.tensor([float("nan"), 0.0]))


def test_without_options_a_sampler_is_the_plain_pick() -> None:
    for temperature in (0.0, 0.9):
        wish, generator = options(temperature=temperature, top_p=0.9), torch.Generator().manual_seed(3)
        sampler = Sampler(wish, Noise(3), [5, 5])
        for position in range(2, 40):
            logits = torch.randn(50, generator=generator)
            assert sampler._scores(logits) is logits
            token = sampler.pick(logits)
            assert token == pick(logits, wish, Noise(3), position)
            sampler.read([token])


def test_log_probabilities_are_those_of_the_models_own_logits() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -INFINITY])
    expected = torch.log_softmax(logits, -1)
    told = likelihood(logits, 0, 2)
    assert told.logprob == pytest.approx(float(expected[0]))
    assert [token for token, _ in told.top] == [1, 2]
    assert [value for _, value in told.top] == pytest.approx(expected[1:3].tolist())
    assert likelihood(logits, 1, 0).top == ()
    assert len(likelihood(logits, 1, 20).top) == 4
