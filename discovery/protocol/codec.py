"""How hidden states are written on the wire, position by position: bytes; :mod:`far_node.blocks.wire` knows tensors.

Raw codecs are the values of a float type, little-endian. ``int8`` is a code for each value and, after a position's
codes, a bfloat16 scale for each block of 64 of them (blockwise quantization, arXiv:2110.02861): about half of
bfloat16's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from discovery.protocol.announcement import Codec

RAW_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
INT8_BLOCK = 64
_SCALE_BYTES = 2
CODECS: tuple[Codec, ...] = get_args(Codec)


@dataclass(frozen=True, slots=True)
class WireTensor:
    """Hidden states on the wire: row-major bytes of ``shape`` = (rows, positions, hidden size)."""

    dtype: Codec
    shape: tuple[int, ...]
    data: bytes


def position_bytes(codec: str, size: int) -> int:
    """Bytes of one position of ``size`` values in one row."""
    if codec == "int8":
        return size + -(-size // INT8_BLOCK) * _SCALE_BYTES
    return size * RAW_BYTES[codec]


def slice_positions(hidden: WireTensor, first: int, end: int) -> WireTensor:
    """Positions ``[first, end)`` of all rows."""
    rows, positions, size = hidden.shape
    if (first, end) == (0, positions):
        return hidden
    each = position_bytes(hidden.dtype, size)
    row_bytes = positions * each
    data = b"".join(hidden.data[row * row_bytes + first * each : row * row_bytes + end * each] for row in range(rows))
    return WireTensor(hidden.dtype, (rows, end - first, size), data)


def join_positions(parts: Sequence[tuple[WireTensor, Sequence[int]]]) -> WireTensor:
    """One tensor of all parts' positions, in their order; row ``i`` is row ``rows[i]`` of each part's tensor."""
    first = parts[0][0]
    if len(parts) == 1 and list(parts[0][1]) == list(range(first.shape[0])):
        return first
    pieces: list[memoryview] = []
    row_count = len(parts[0][1])
    for row in range(row_count):
        for hidden, rows in parts:
            length = len(hidden.data) // hidden.shape[0]
            pieces.append(memoryview(hidden.data)[rows[row] * length : (rows[row] + 1) * length])
    positions = sum(hidden.shape[1] for hidden, _ in parts)
    return WireTensor(first.dtype, (row_count, positions, first.shape[2]), b"".join(pieces))
