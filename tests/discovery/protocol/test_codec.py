"""Hidden states on the wire, position by position, against arrays that are cut and joined in the plain way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.codec import (
    CODECS,
    INT8_BLOCK,
    RAW_BYTES,
    WireTensor,
    join_positions,
    position_bytes,
    slice_positions,
)
from tests.support import messages as some

sizes = st.integers(1, 3 * INT8_BLOCK + 1)


def array(hidden: WireTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Bytes by row and position."""
    rows, positions, _ = hidden.shape
    return np.frombuffer(hidden.data, np.uint8).reshape(rows, positions, -1)


def of_rows(rows: int) -> st.SearchStrategy[WireTensor]:
    """Hidden states of so many rows, three values wide, in a session's type."""
    return st.integers(1, 5).flatmap(
        lambda positions: st.binary(min_size=12 * rows * positions, max_size=12 * rows * positions).map(
            lambda data: WireTensor("float32", (rows, positions, 3), data)
        )
    )


@given(st.sampled_from(CODECS), sizes)
def test_a_position_takes_what_its_values_take(codec: str, size: int) -> None:
    scales = -(-size // INT8_BLOCK)
    assert position_bytes(codec, size) == (size + 2 * scales if codec == "int8" else size * RAW_BYTES[codec])


@pytest.mark.parametrize("size", [64, 2048, 4096, 8192])
def test_int8_takes_about_half_of_bfloat16(size: int) -> None:
    assert position_bytes("int8", size) / position_bytes("bfloat16", size) == 0.5 + 1 / INT8_BLOCK


@given(some.tensors(), st.data())
def test_a_slice_is_what_numpy_cuts(hidden: WireTensor, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, hidden.shape[1] - 1))
    end = data.draw(st.integers(first + 1, hidden.shape[1]))
    part = slice_positions(hidden, first, end)
    assert (part.dtype, part.shape) == (hidden.dtype, (hidden.shape[0], end - first, hidden.shape[2]))
    assert np.array_equal(array(part), array(hidden)[:, first:end])


@given(st.integers(1, 4).flatmap(lambda rows: st.lists(of_rows(rows), min_size=1, max_size=5)), st.data())
def test_joined_parts_are_what_numpy_joins(parts: list[WireTensor], data: st.DataObject) -> None:
    rows = parts[0].shape[0]
    chosen = [data.draw(st.lists(st.integers(0, rows - 1), min_size=rows, max_size=rows), label="rows") for _ in parts]
    joined = join_positions(list(zip(parts, chosen, strict=True)))
    expected = np.concatenate([array(part)[picked] for part, picked in zip(parts, chosen, strict=True)], axis=1)
    assert joined.shape == (rows, expected.shape[1], 3)
    assert np.array_equal(array(joined), expected)


@given(some.tensors(), st.data())
def test_what_is_cut_apart_and_joined_is_the_same(hidden: WireTensor, data: st.DataObject) -> None:
    rows, positions, _ = hidden.shape
    cuts = sorted({0, positions, *data.draw(st.sets(st.integers(1, positions)))})
    parts = [slice_positions(hidden, first, end) for first, end in pairwise(cuts)]
    assert join_positions([(part, range(rows)) for part in parts]) == hidden
