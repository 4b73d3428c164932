"""Places on Earth: what is known of one, how far two are apart, how people write them. Unknown is None, never 0,0."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from discovery.protocol.errors import InvalidArgument

Address = IPv4Address | IPv6Address
Point = tuple[float, float]
"""Latitude and longitude in degrees."""

EARTH_KM = 6371.0
"""Mean radius; the true figure of the Earth differs from a sphere by less than 0.6 % of a distance."""
_CIRCUIT = "/p2p-circuit"


@dataclass(frozen=True)
class Place:
    """Where an address is believed to be.

    Attributes:
        country: ISO 3166-1 code, such as ``DE``; ``region`` the name of a part of it.
        accuracy_km: radius within which it is believed to be; None where that is not said.
    """

    latitude: float
    longitude: float
    country: str | None = None
    region: str | None = None
    city: str | None = None
    accuracy_km: int | None = None

    def __post_init__(self) -> None:
        check_point(self.point)

    @property
    def point(self) -> Point:
        """``(latitude, longitude)``."""
        return self.latitude, self.longitude


def check_point(point: Point, param: str = "location") -> None:
    """See that a point is on Earth.

    Raises:
        InvalidArgument: it is not; ``param`` names it.
    """
    latitude, longitude = point
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # which no NaN is
        raise InvalidArgument(f"{latitude:g},{longitude:g} is no latitude and longitude", param=param)


def parse_point(text: str, param: str = "location") -> Point:
    """``LAT,LON`` in degrees, such as ``52.5,13.4``.

    Raises:
        InvalidArgument: not of this form, or no place on Earth; ``param`` names it.
    """
    number = r"([+-]?[0-9]{1,3}(?:\.[0-9]{0,15})?)"
    match = re.fullmatch(rf"{number},\s*{number}", text.strip())
    if not match or abs(float(match[1])) > 90 or abs(float(match[2])) > 180:
        raise InvalidArgument(
            f"{param} {text[:64]!r} is not a latitude and a longitude, such as 52.5,13.4", param=param
        )
    return float(match[1]), float(match[2])


def distance_km(one: Point, other: Point) -> float:
    """Kilometres along the great circle, by the haversine formula, which is exact for near and far points alike."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, point)) for point in (one, other))
    across = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * math.asin(math.sqrt(min(1.0, across)))


def public_addresses(maddrs: Iterable[str]) -> tuple[Address, ...]:
    """The public IP addresses among multiaddrs, each once. Those of relays are not: the node is elsewhere."""
    found: dict[Address, None] = {}
    for maddr in maddrs:
        match = re.match(r"/ip[46]/([0-9A-Fa-f.:]{2,45})/", maddr)
        if match is None or _CIRCUIT in maddr:
            continue
        try:
            address = ip_address(match[1])
        except ValueError:
            continue
        if address.is_global and not address.is_multicast:
            found[address] = None
    return tuple(found)
