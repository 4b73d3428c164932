"""Tensors as bytes and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.announcement import Dtype
from discovery.protocol.messages import Step, decode, encode
from far_node.blocks.wire import TORCH_DTYPES, from_wire, to_wire

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
