"""How limits are told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from discovery.web.address import subscriber
from discovery.web.windows import Standing
from far_mesh.marketplace.grpc_api.service import peer_address
from far_mesh.marketplace.limits.schemas import duration, headers_of, tightest


@pytest.mark.parametrize(
    ("microseconds", "said"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (250_000, "250ms"),
        (999_000, "999ms"),
        (999_001, "1s"),
        (12_345_000, "12.345s"),
        (59_999_001, "1m0s"),
        (60_000_000, "1m0s"),
        (90_500_000, "1m30.5s"),
    ],
)
def test_a_duration_is_never_shorter_than_it_is(microseconds: int, said: str) -> None:
    assert duration(microseconds) == said


def test_a_limit_that_is_none_has_no_headers() -> None:
    assert headers_of("tokens", None) == {}


def test_what_was_taken_beyond_a_limit_that_was_lowered_is_not_less_than_nothing() -> None:
    assert headers_of("tokens", Standing(10, 14, 1_000_000)) == {
        "x-ratelimit-limit-tokens": "10",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1s",
    }


def test_of_two_limits_the_one_of_which_less_is_left_is_told() -> None:
    account, key = Standing(100, 98, 5), Standing(10, 7, 5)
    assert tightest([account, key]) == account
    assert tightest([key]) == key
    assert tightest([]) is None


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
    ],
)
def test_a_subscriber_is_an_address_or_a_network(address: str, counted: str) -> None:
    assert subscriber(ip_address(address)) == counted


def test_who_has_no_address_is_counted_with_all_others_who_have_none() -> None:
    assert subscriber(None) == "unknown"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("ipv6:[::1]:4711", "::1"),
        ("unix:/run/far.sock", None),
        ("", None),
    ],
)
def test_a_peer_of_grpc_has_an_address(peer: str, address: str | None) -> None:
    assert peer_address(peer) == address
