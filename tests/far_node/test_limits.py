"""How much a node takes on: bounds that mean something, or a refusal that names the setting."""

from __future__ import annotations

from dataclasses import fields

import pytest

from discovery.protocol.errors import InvalidArgument
from far_node.limits import Limits


@pytest.mark.parametrize(
    "name", ["max_batch_size", "prefill_chunk", "queue_size", "max_sessions", "max_sessions_per_client"]
)
def test_counts_are_one_at_least(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1
    for wrong in (0, -1):
        with pytest.raises(InvalidArgument, match=f"--{name.replace('_', '-')} must be at least 1"):
            Limits(**{name: wrong})


@pytest.mark.parametrize("name", ["queue_timeout", "step_timeout", "idle_timeout"])
def test_times_are_longer_than_nothing(name: str) -> None:
    assert getattr(Limits(**{name: 0.001}), name) == 0.001  # type: ignore[arg-type]
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgument, match=f"--{name.replace('_', '-')} must be more than 0 seconds"):
            Limits(**{name: wrong})  # type: ignore[arg-type]


def test_no_prefix_cache_is_a_choice_and_less_than_none_is_not() -> None:
    assert Limits(prefix_cache_bytes=0).prefix_cache_bytes == 0
    with pytest.raises(InvalidArgument, match="smaller than nothing"):
        Limits(prefix_cache_bytes=-1)


def test_every_limit_has_a_default() -> None:
    assert all(getattr(Limits(), each.name) > 0 for each in fields(Limits))
