"""What the demo is told, and how it divides the blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import InvalidArgument
from far_mesh.demo.config import DemoConfig, plan_nodes


@given(st.data())
def test_the_plans_cover_all_blocks_once_and_differ_by_one_at_most(data: st.DataObject) -> None:
    block_count = data.draw(st.integers(1, 200))
    count = data.draw(st.integers(1, block_count))
    plans = plan_nodes(count, block_count)
    covered = [block for plan in plans for block in range(*plan.blocks)]
    sizes = {end - first for first, end in (plan.blocks for plan in plans)}
    assert covered == list(range(block_count))
    assert len(plans) == count
    assert max(sizes) - min(sizes) <= 1


def test_the_bundled_model_is_divided_in_three_and_one_node_runs_int8() -> None:
    plans = plan_nodes(3, 8)
    assert [plan.blocks for plan in plans] == [(0, 3), (3, 6), (6, 8)]
    assert [plan.quantization for plan in plans] == ["none", "int8", "none"]


def test_more_nodes_than_blocks_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="8 blocks, too few for --nodes 9"):
        plan_nodes(9, 8)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"nodes": 0}, "--nodes"), ({"max_tokens": 0}, "--max-tokens"), ({"prompt": " "}, "--prompt")]
)
def test_nonsense_is_refused_by_name(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        DemoConfig(model="far-demo", **wrong)  # type: ignore[arg-type]
