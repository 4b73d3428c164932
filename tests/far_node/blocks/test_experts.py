"""Quantized experts of every layout do what transformers' own do with the same, rounded, weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gpt_oss.configuration_gpt_oss import GptOssConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.jetmoe.modeling_jetmoe import JetMoeParallelExperts
from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts
from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts

from far_node.blocks.experts import expert_shape, expert_weights, quantize_experts
from far_node.blocks.int8 import Int8Linear, quantize_rows

EXPERTS, SIZE, INNER, TOKENS = 4, 64, 96, 10
_SMALL = {"hidden_size": SIZE, "intermediate_size": INNER, "num_local_experts": EXPERTS}

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: MixtralExperts(MixtralConfig(**_SMALL)),
    "transposed, biased": lambda: GptOssExperts(GptOssConfig(**_SMALL)),
    "without gate": lambda: NemotronHExperts(
        NemotronHConfig(hidden_size=SIZE, moe_intermediate_size=INNER, n_routed_experts=EXPERTS)
    ),
    "sorted": lambda: Llama4TextExperts(Llama4TextConfig(**_SMALL)),
    "split": lambda: JetMoeParallelExperts(EXPERTS, SIZE, INNER),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind: str) -> nn.Module:
    module = MAKERS[kind]()
    config = getattr(module, "config", None)
    if config is not None:
        config._experts_implementation = "eager"
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed) / SIZE**0.5)
    return module.eval()


def rounded(module: nn.Module) -> nn.Module:
    """transformers' own, with weights as 8 bits hold them."""
    copy = deepcopy(module)
    with torch.no_grad():
        for name in expert_weights(module):
            (outputs, _), _ = expert_shape(module, name)
            for matrix in getattr(copy, name):
                rows = matrix if len(matrix) == outputs else matrix.t()
                codes, scale = quantize_rows(rows)
                rows.copy_(codes * scale[:, None])
    return copy


def quantized(module: nn.Module) -> nn.Module:
    copy = deepcopy(module)
    for name in expert_weights(module):
        quantize_experts(copy, name, getattr(copy, name).detach(), Int8Linear)
    return copy


def inputs(kind: str, tokens: int = TOKENS) -> tuple[object, ...]:
    hidden = draw(tokens, SIZE, seed=7)
    if kind == "split":  # rows are sorted by expert; one expert has none
        return draw(tokens, SIZE, seed=7), [tokens - 3, 0, 2, 1]
    order = [torch.randperm(EXPERTS - 1, generator=torch.Generator().manual_seed(token)) for token in range(tokens)]
    chosen = torch.stack(order)[:, :2]  # nobody chooses the last
    if kind == "sorted":
        scores = torch.zeros(tokens, EXPERTS).scatter(1, chosen, 0.5)
        return ((hidden.repeat(EXPERTS, 1) * scores.t().reshape(-1, 1)),)
    return hidden, chosen, draw(tokens, 2, seed=9).softmax(dim=1)


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.inference_mode()
def test_they_do_what_transformers_does_with_the_same_weights(kind: str) -> None:
    module = make(kind)
    expected, got = rounded(module)(*inputs(kind)), quantized(module)(*inputs(kind))
    assert got.shape == expected.shape
    assert float((got - expected).norm() / expected.norm()) < 5e-4
    assert float((got - module(*inputs(kind))).norm()) > 1e-3  # the weights are the rounded ones


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["gated", "transposed, biased", "sorted"])
@pytest.mark.parametrize("name", ["gate_up_proj", "down_proj"])
def test_one_kind_of_matrix_may_be_quantized_and_the_other_not(kind: str, name: str) -> None:
    module = make(kind)
    mixed = deepcopy(module)
    quantize_experts(mixed, name, getattr(mixed, name).detach(), Int8Linear)
    expected, got = module(*inputs(kind)), mixed(*inputs(kind))
    assert 1e-4 < float((got - expected).norm() / expected.norm()) < 0.03


@torch.inference_mode()
def test_a_token_is_the_same_alone_and_in_company() -> None:
    for kind in ("gated", "transposed, biased", "without gate"):
        module = quantized(make(kind))
        hidden, chosen, weights = (value for value in inputs(kind) if isinstance(value, Tensor))
        together = module(hidden, chosen, weights)
        for index in range(TOKENS):
            one = slice(index, index + 1)
            assert torch.equal(module(hidden[one], chosen[one], weights[one]), together[one]), kind


@torch.inference_mode()
def test_no_tokens_give_no_tokens() -> None:
    module = quantized(make("gated"))
    nothing = module(torch.empty(0, SIZE), torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2))
    assert nothing.shape == (0, SIZE)


def test_every_matrix_is_found_with_its_shape(kind: str) -> None:
    module = make(kind)
    shapes = {name: expert_shape(module, name) for name in expert_weights(module)}
    expected = {
        "gated": {"gate_up_proj": (2 * INNER, SIZE), "down_proj": (SIZE, INNER)},
        "transposed, biased": {"gate_up_proj": (2 * INNER, SIZE), "down_proj": (SIZE, INNER)},
        "without gate": {"up_proj": (INNER, SIZE), "down_proj": (SIZE, INNER)},
        "sorted": {"gate_up_proj": (2 * INNER, SIZE), "down_proj": (SIZE, INNER)},
        "split": {"weight": (INNER, SIZE)},
    }[kind]
    assert shapes == {name: (shape, EXPERTS) for name, shape in expected.items()}


def test_quantized_experts_are_not_found_again(kind: str) -> None:
    assert expert_weights(quantized(make(kind))) == ()


def test_modules_that_are_no_experts_are_left_alone() -> None:
    strange = nn.Module()
    strange.weight = nn.Parameter(torch.empty(2, 3, 4))
    strange.gate_up_proj = nn.Parameter(torch.empty(2, 3, 4))
    for module in (nn.Linear(3, 4), nn.Conv1d(2, 3, 4), strange):
        assert expert_weights(module) == ()
