"""Distances, how places are written, and which addresses say where a node is."""

from __future__ import annotations

import math
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.geo import EARTH_KM, Place, Point, distance_km, parse_point, public_addresses
from discovery.protocol.errors import InvalidArgument

BERLIN, SYDNEY, NEW_YORK = (52.52, 13.405), (-33.87, 151.21), (40.71, -74.01)
points = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def test_distances_are_those_of_the_atlas() -> None:
    assert distance_km(BERLIN, SYDNEY) == pytest.approx(16_090, rel=0.006)
    assert distance_km(BERLIN, NEW_YORK) == pytest.approx(6_385, rel=0.006)
    assert distance_km((0, 179.5), (0, -179.5)) == pytest.approx(111.2, rel=0.001), "across the date line"
    assert distance_km((90, 0), (90, 120)) == pytest.approx(0, abs=1e-6), "a pole has every longitude"
    assert distance_km((0, 0), (0, 180)) == pytest.approx(math.pi * EARTH_KM)


def test_near_points_are_not_rounded_to_nothing() -> None:
    assert distance_km(BERLIN, (BERLIN[0] + 1e-6, BERLIN[1])) == pytest.approx(0.000111, rel=0.01)


@given(points, points, points)
def test_a_distance_is_a_distance(one: Point, other: Point, third: Point) -> None:
    assert distance_km(one, one) == 0
    assert distance_km(one, other) == pytest.approx(distance_km(other, one))
    assert 0 <= distance_km(one, other) <= math.pi * EARTH_KM + 1e-6
    assert distance_km(one, third) <= distance_km(one, other) + distance_km(other, third) + 1e-6


@given(points)
def test_a_place_is_read_as_it_is_written(point: Point) -> None:
    latitude, longitude = parse_point(f"{point[0]:.6f}, {point[1]:+.6f}")
    assert [latitude, longitude] == pytest.approx(list(point), abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "52.5", "52.5,13.4,0", "91,0", "0,181", "nan,0", "inf,0", "1e1,0", "Berlin", "52.5;13.4", "٥,٥", "1" * 999],
)
def test_what_is_no_place_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"near .* is not a latitude and a longitude") as caught:
        parse_point(text, "near")
    assert caught.value.facts["param"] == "near"


@pytest.mark.parametrize("point", [(91.0, 0.0), (0.0, -180.1), (math.nan, 0.0), (0.0, math.inf)])
def test_there_is_no_place_that_is_not_on_earth(point: Point) -> None:
    with pytest.raises(InvalidArgument):
        Place(*point)


def test_a_node_is_where_its_public_addresses_are() -> None:
    maddrs = (
        "/ip4/127.0.0.1/tcp/31330",
        "/ip4/192.168.1.5/tcp/31330/p2p/12D3KooW",
        "/ip4/8.8.8.8/tcp/31330/p2p/12D3KooW",
        "/ip4/8.8.8.8/udp/31330/quic",
        "/ip6/2001:4860:4860::8888/tcp/31330",
        "/ip6/fe80::1/tcp/31330",
    )
    assert public_addresses(maddrs) == (ip_address("8.8.8.8"), ip_address("2001:4860:4860::8888"))


@pytest.mark.parametrize(
    "maddr",
    [
        "/ip4/8.8.8.8/tcp/31337/p2p/12D3KooWRelay/p2p-circuit/p2p/12D3KooWNode",
        "/dns4/node.example/tcp/31330",
        "/ip4/999.8.8.8/tcp/1",
        "/ip4/224.0.0.251/tcp/1",
        "/ip4/100.64.0.1/tcp/1",
        "8.8.8.8",
        "",
    ],
)
def test_neither_a_relay_nor_a_name_nor_a_private_address_says_where_it_is(maddr: str) -> None:
    assert public_addresses([maddr]) == ()
