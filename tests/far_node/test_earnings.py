"""What a machine could serve and earn, told from measured facts and real prices, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from far_node.capacity import Memory, Room
from far_node.earnings import Market, Serving, could_serve, estimate

GIB = 1 << 30
SIZES = {"none": (4 * GIB,) * 4, "int8": (2 * GIB,) * 4, "nf4": (GIB,) * 4}
MARKET = Market("m", token_units=1000, fee_bps=2000, utilisation=0.25, active_nodes=3)
SERVING = Serving("m", "int8", blocks=2, block_count=4, weight_bytes=4 * GIB, tokens_per_second=10.0)


def room(spare: int) -> Room:
    return Room(Memory("cpu", spare, spare), spare, spare)


def test_coarser_weights_fit_more_blocks_and_the_speed_is_that_of_reading_them_once() -> None:
    found = could_serve("m", SIZES, room(5 * GIB), 8.0 * GIB)  # type: ignore[arg-type]  # a literal in a dict
    assert [(one.quantization, one.blocks) for one in found] == [("none", 1), ("int8", 2), ("nf4", 4)]
    assert [one.tokens_per_second for one in found] == [2.0, 2.0, 2.0]
    nothing = could_serve("m", SIZES, room(0), 8.0 * GIB)  # type: ignore[arg-type]
    assert [(one.blocks, one.weight_bytes, one.tokens_per_second) for one in nothing] == [(0, 0, None)] * 3


def test_an_hour_of_tokens_at_the_price_less_the_fee_for_the_part_that_is_served() -> None:
    found = estimate(SERVING, MARKET)
    assert found.busy_units == 10 * 3600 * 1000 * 2 // 4 * 8 // 10
    assert found.now_units == found.busy_units // 4
    assert any("20 % are the fee" in line for line in found.assumptions)
    assert any("25 % of what 3 nodes" in line for line in found.assumptions)
    crowded = estimate(SERVING, replace(MARKET, utilisation=7.5))
    assert crowded.now_units == crowded.busy_units, "nobody serves more than all the time"
    assert estimate(SERVING, replace(MARKET, utilisation=0.0)).now_units == 0


@pytest.mark.parametrize(
    ("serving", "market", "reason"),
    [
        (SERVING, None, "no gateway"),
        (replace(SERVING, blocks=0), MARKET, "no block"),
        (replace(SERVING, tokens_per_second=None), MARKET, "not measured"),
    ],
)
def test_what_is_not_known_is_not_invented(serving: Serving, market: Market | None, reason: str) -> None:
    found = estimate(serving, market)
    assert (found.busy_units, found.now_units) == (None, None)
    assert reason in str(found.reason)
