"""Where somebody wants a thing to be: near a point, or in a region. One way to write it, for every door."""

from __future__ import annotations

import re
from typing import NewType

from discovery.geo import Point, parse_point
from discovery.protocol.announcement import REGION_PATTERN
from discovery.protocol.errors import InvalidArgument

Region = NewType("Region", str)
"""As announcements have it, such as ``eu-west``. A region holds those that are named after it: ``eu`` holds
``eu-west``."""


def parse_location(text: str, param: str = "location") -> Point | Region:
    """``LAT,LON`` in degrees, such as ``52.5,13.4``, or a region, such as ``eu-west`` or ``EU-West``.

    Raises:
        InvalidArgument: neither; ``param`` names it.
    """
    text = text.strip()
    if "," in text:
        return parse_point(text, param)
    if re.fullmatch(REGION_PATTERN, text.lower()) is None:
        raise InvalidArgument(
            f"{param} {text[:64]!r} is neither a latitude and a longitude, such as 52.5,13.4, nor a region, such as "
            "eu-west",
            param=param,
        )
    return Region(text.lower())


def is_in(region: str | None, wanted: str) -> bool:
    """Whether ``region`` is ``wanted`` or a part of it. Who does not say where it is is nowhere."""
    return region is not None and (region == wanted or region.startswith(f"{wanted}-"))
