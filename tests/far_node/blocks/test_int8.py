"""8-bit matrices on a CPU: only the rounding of weights counts, whatever a row holds or stands beside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from far_node.blocks import int8
from far_node.blocks.int8 import Int8Linear, code_levels, packed_bytes, quantize_rows, split_rows

SHAPES = [(1, 1), (3, 5), (64, 64), (70, 100), (257, 1000), (192, 130)]
TOLERANCE = 2e-4  # of activations in twice 6 bits, on a CPU without 8-bit instructions


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded_product(rows: Tensor, weight: Tensor) -> Tensor:
    """With the weights that are held, but in double precision."""
    codes, scale = quantize_rows(weight)
    return rows.double() @ (codes.double() * scale.double()[:, None]).t()


def error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(params=["packed", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """oneDNN's product, and what stands in for it elsewhere."""
    if request.param == "plain":
        monkeypatch.setattr(int8, "code_levels", lambda: None)
    elif code_levels() is None:
        pytest.skip("this CPU has no fit 8-bit product")
    return str(request.param)


class TestWeights:
    """Their codes and scales."""

    def test_a_weight_is_off_by_half_a_step_at_most(self) -> None:
        weight = draw(33, 70) * torch.logspace(-6, 6, 33)[:, None]
        codes, scale = quantize_rows(weight)
        assert codes.dtype == torch.int8
        assert ((codes * scale[:, None] - weight).abs() <= 0.501 * scale[:, None]).all()

    def test_the_largest_weight_of_a_row_is_kept(self) -> None:
        codes, scale = quantize_rows(torch.tensor([[0.5, -2.54, 1.0]]))
        assert codes[0, 1] == -127
        assert scale.item() == pytest.approx(0.02)

    def test_rows_of_zeros_stay_zero(self) -> None:
        codes, scale = quantize_rows(torch.zeros(2, 3))
        assert not codes.any()
        assert (scale > 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_transposed_weights_are_read_in_their_own_order(self, way: str, dtype: torch.dtype) -> None:
        weight = draw(64, 96).to(dtype)
        rows = draw(2, 64)
        assert torch.equal(Int8Linear(weight.t())(rows), Int8Linear(weight.t().contiguous())(rows))


class TestProduct:
    """Of activations and weights."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("count", [1, 7, 300])
    def test_only_the_rounding_of_weights_is_left(self, way: str, shape: tuple[int, int], count: int) -> None:
        weight, rows = draw(*shape), draw(count, shape[1], seed=1)
        assert error(Int8Linear(weight)(rows), rounded_product(rows, weight)) < TOLERANCE

    def test_large_values_do_not_drown_the_others(self, way: str) -> None:
        """What LLM.int8 sets aside: a few columns whose values are a hundred times larger than all others."""
        weight, rows = draw(256, 512), draw(4, 512, seed=1)
        others = Int8Linear(weight)(rows)
        rows[:, 100] += 100
        with_large = Int8Linear(weight)(rows) - 100 * rounded_product(torch.eye(512)[100:101], weight)
        assert error(with_large, others) < 1e-2

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_the_type_of_the_activations_is_that_of_the_result(self, way: str, dtype: torch.dtype) -> None:
        weight, rows = draw(64, 64), draw(2, 3, 64, seed=1).to(dtype)
        result = Int8Linear(weight)(rows)
        assert result.dtype == dtype
        assert result.shape == (2, 3, 64)
        assert error(result.double(), rounded_product(rows.view(6, 64), weight).view(2, 3, 64)) < 4e-3

    def test_the_bias_is_added(self, way: str) -> None:
        weight, rows, bias = draw(64, 64), draw(5, 64, seed=1), draw(64, seed=2)
        with_bias = Int8Linear(weight, nn.Parameter(bias))(rows)
        assert torch.allclose(with_bias, Int8Linear(weight)(rows) + bias)

    def test_no_rows_give_no_rows(self, way: str) -> None:
        assert Int8Linear(draw(8, 16))(torch.empty(0, 16)).shape == (0, 8)

    @given(count=st.integers(2, 140), seed=st.integers(0, 1000))
    def test_a_row_is_the_same_alone_and_in_company(self, count: int, seed: int) -> None:
        linear = Int8Linear(draw(96, 130))
        rows = draw(count, 130, seed=seed) * torch.logspace(-3, 3, count)[:, None]
        together = linear(rows)
        for index in {0, seed % count, count - 1}:
            assert torch.equal(together[index : index + 1], linear(rows[index : index + 1]))

    @pytest.mark.parametrize("broken", [float("nan"), float("inf")])
    def test_a_broken_row_breaks_no_other(self, way: str, broken: float) -> None:
        linear, rows = Int8Linear(draw(64, 64)), draw(3, 64, seed=1)
        whole = linear(rows)
        rows[1, 5] = broken
        result = linear(rows)
        assert not result[1].isfinite().any()
        assert torch.equal(result[[0, 2]], whole[[0, 2]])

    def test_rows_of_zeros_give_zeros(self, way: str) -> None:
        assert not Int8Linear(draw(64, 64))(torch.zeros(2, 64)).any()


class TestCodes:
    """Two rows of 8 bits for a row of floats."""

    @pytest.mark.parametrize("levels", [127, 63])
    def test_both_together_hold_the_row(self, levels: int) -> None:
        rows = draw(5, 40) * torch.logspace(-20, 20, 5)[:, None]
        codes, scale = split_rows(rows, levels)
        assert codes.dtype == torch.uint8
        assert codes.min() >= 1
        assert codes.max() <= 2 * levels + 1
        coarse, fine = (part.float() - levels - 1 for part in torch.split(codes, 5))
        assert ((coarse + fine / (2 * levels)) * scale - rows).abs().max() <= (scale / levels).max() / 3


class TestMemory:
    """What the packed layout really takes."""

    @pytest.mark.parametrize("shape", [*SHAPES, (1536, 64), (64, 1536)])
    def test_the_packed_layout_is_as_large_as_told(self, shape: tuple[int, int]) -> None:
        if code_levels() is None:
            pytest.skip("this CPU has no fit 8-bit product")
        linear = Int8Linear(draw(*shape))
        assert linear.weight.numel() == shape[0] * shape[1]
        assert linear.weight.numel() + linear.padding_bytes() == packed_bytes(*shape)

    def test_without_packing_it_is_a_byte_for_each_weight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(int8, "code_levels", lambda: None)
        linear = Int8Linear(draw(70, 100))
        assert (linear.weight.nbytes, linear.padding_bytes()) == (7000, 0)


_ON_ANOTHER_CPU = """
import torch
from far_node.blocks.int8 import Int8Linear, code_levels, quantize_rows
weight, rows = torch.randn(64, 512), torch.randn(8, 512)
weight[:4], rows[:4] = 1.0, 1.0
codes, scale = quantize_rows(weight)
expected = rows.double() @ (codes.double() * scale.double()[:, None]).t()
print(code_levels(), float((Int8Linear(weight)(rows) - expected).abs().max() / expected.abs().max()))
"""


@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE", "DEFAULT"])
def test_on_a_cpu_with_other_instructions_the_product_is_as_good(instructions: str) -> None:
    """Some of them add up pairs of products in 16 bits, which 8-bit codes would overflow."""
    child = subprocess.run(
        [sys.executable, "-c", _ON_ANOTHER_CPU],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
        check=True,
    )
    levels, worst = child.stdout.split()
    assert levels in ("127", "63", "None")
    assert float(worst) < TOLERANCE
