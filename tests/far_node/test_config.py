"""What a provider types, checked once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.errors import InvalidArgument
from far_node.config import NodeConfig, parse_blocks, parse_public_address
from tests.support.documents import wallet_of


@given(st.integers(0, 9998), st.integers(1, 9999))
def test_a_range_is_read_as_it_is_written(first: int, size: int) -> None:
    end = first + size
    if end > 9999:
        return
    assert parse_blocks(f"{first}:{end}") == parse_blocks(f" {first}:{end}\n") == (first, end)


@given(st.text(max_size=12))
def test_any_text_is_a_range_or_refused_as_one(text: str) -> None:
    try:
        first, end = parse_blocks(text)
    except InvalidArgument:
        return
    assert 0 <= first < end


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused_as_one(text: str) -> None:
    try:
        assert parse_public_address(text).startswith("/")
    except InvalidArgument as refusal:
        if "--public-addr" not in refusal.message:
            raise


def test_a_public_address_is_written_as_a_multiaddr() -> None:
    assert parse_public_address("1.2.3.4:31330") == "/ip4/1.2.3.4/tcp/31330"
    assert parse_public_address("/dns4/far.example/tcp/1") == "/dns4/far.example/tcp/1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_peers": ()},
        {"threads": 0},
        {"cache_bytes": 0},
        {"max_sessions": 0},
        {"model_id": ""},
        {"model_id": "m" * 257},
    ],
    ids=str,
)
def test_a_node_that_could_not_serve_is_not_configured(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"model": "far-demo", "wallet": wallet_of("me"), "initial_peers": ("/ip4/1.2.3.4/tcp/1",)}
    NodeConfig(**right)
    with pytest.raises(InvalidArgument):
        NodeConfig(**right | wrong)
