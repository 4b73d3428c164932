"""Tensors as bytes and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.announcement import Codec, Dtype
from discovery.protocol.codec import INT8_BLOCK, slice_positions
from discovery.protocol.messages import Step, decode, encode
from far_node.blocks.wire import TORCH_DTYPES, all_finite, can_carry, from_wire, to_wire

CPU = torch.device("cpu")


@given(st.sampled_from(["float32", "bfloat16", "float16"]), st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 2**31))
def test_a_tensor_in_its_own_type_comes_back_bit_for_bit(codec: Dtype, shape: tuple[int, int, int], seed: int) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(TORCH_DTYPES[codec])
    message = decode(encode(Step(0, 0, to_wire(hidden, codec))))
    assert isinstance(message, Step)
    assert torch.equal(from_wire(message.hidden, CPU, hidden.dtype), hidden)


def test_a_view_is_sent_as_what_it_shows() -> None:
    whole = torch.arange(24.0).view(1, 4, 6)
    for view in (whole[:, -1:], whole[:, ::2], whole.transpose(1, 2)):
        assert torch.equal(from_wire(to_wire(view, "float32"), CPU, torch.float32), view)


def test_bytes_are_little_endian_row_major() -> None:
    assert to_wire(torch.tensor([[[1.0, -2.0]]]), "float32").data == bytes.fromhex("0000803f000000c0")


@pytest.mark.parametrize(("codec", "step"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_a_coarser_type_rounds_to_its_nearest(codec: Dtype, step: float) -> None:
    hidden = torch.rand(1, 10, 64, generator=torch.Generator().manual_seed(0)) + 1
    back = from_wire(to_wire(hidden, codec), CPU, torch.float32)
    assert float((back / hidden - 1).abs().max()) <= step


def test_what_comes_back_can_be_written_to() -> None:
    """The bytes of a message are not the memory of the model."""
    wire = to_wire(torch.zeros(1, 1, 4), "float32")
    tensor = from_wire(wire, CPU, torch.float32)
    tensor += 1
    assert wire.data == bytes(16)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_one_number_that_is_not_finite_is_found_among_many(kind: torch.dtype, value: float) -> None:
    values = torch.full((1, 3, 700), torch.finfo(kind).max, dtype=kind)
    assert all_finite(values), "also where their sum is not"
    assert all_finite(torch.cat([values, -values]))
    for place in (0, 3 * 700 - 1, 1000):
        broken = values.clone()
        broken.view(-1)[place] = value
        assert not all_finite(broken)
        assert not all_finite(torch.cat([broken, -broken])), "nor do infinities cancel each other"


class TestInt8:
    """A code for each value, a scale for each block of them."""

    @given(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 200)), st.integers(0, 2**31))
    def test_no_value_is_further_off_than_half_a_level_of_its_block(
        self, shape: tuple[int, int, int], seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        magnitudes = 10.0 ** torch.randint(-20, 20, (shape[0], shape[1], 1), generator=generator)
        hidden = torch.randn(shape, generator=generator) * magnitudes
        hidden[..., ::INT8_BLOCK] *= 50  # what hidden states have: a few values far from the others
        message = decode(encode(Step(0, 0, to_wire(hidden, "int8"))))
        assert isinstance(message, Step)
        back = from_wire(message.hidden, CPU, torch.float32)
        assert back.shape == hidden.shape
        for first in range(0, shape[2], INT8_BLOCK):
            block, got = hidden[..., first : first + INT8_BLOCK], back[..., first : first + INT8_BLOCK]
            largest = block.abs().amax(dim=-1, keepdim=True)
            assert ((got - block).abs() <= largest / 127 * 0.51).all()

    def test_zero_stays_zero_and_what_is_tiny_does_not_grow(self) -> None:
        assert from_wire(to_wire(torch.zeros(1, 2, 70), "int8"), CPU, torch.float32).abs().max() == 0
        tiny = torch.full((1, 1, 70), 1e-42)
        assert from_wire(to_wire(tiny, "int8"), CPU, torch.float32).abs().max() <= 1e-38

    def test_the_largest_values_stay_finite(self) -> None:
        most = torch.full((1, 1, 64), torch.finfo(torch.float32).max)
        back = from_wire(to_wire(most, "int8"), CPU, torch.float32)
        assert back.isfinite().all()
        assert (back / most - 1).abs().max() < 0.01

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("place", [0, 63, 64, 129])
    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
    def test_a_number_that_is_not_finite_is_not_hidden(self, value: float, place: int, kind: torch.dtype) -> None:
        hidden = torch.ones(2, 3, 130, dtype=kind)
        hidden[1, 2, place] = value
        assert not can_carry(hidden, "int8")
        back = from_wire(to_wire(hidden, "int8"), CPU, kind)
        block = slice(place // INT8_BLOCK * INT8_BLOCK, (place // INT8_BLOCK + 1) * INT8_BLOCK)
        assert not back[1, 2, place].isfinite()
        back[1, 2, block] = 1
        assert back.isfinite().all(), "only its own block is spoiled"

    def test_what_one_position_holds_does_not_touch_another(self) -> None:
        hidden = torch.randn(2, 5, 100, generator=torch.Generator().manual_seed(0))
        wire = to_wire(hidden, "int8")
        whole = from_wire(wire, CPU, torch.float32)
        for first in range(5):
            part = slice_positions(wire, first, first + 1)
            assert torch.equal(from_wire(part, CPU, torch.float32), whole[:, first : first + 1])
            assert to_wire(hidden[:, first : first + 1], "int8") == part

    @pytest.mark.parametrize(("codec", "bytes_of_a_position"), [("bfloat16", 8192), ("int8", 4096 + 128)])
    def test_it_is_half_of_bfloat16_and_two_bytes_in_64(self, codec: Codec, bytes_of_a_position: int) -> None:
        assert len(to_wire(torch.randn(2, 3, 4096), codec).data) == 6 * bytes_of_a_position
