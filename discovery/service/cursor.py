"""Where the next page of a list begins: behind the last one of this page, by what the list is ordered by.

So nothing is shown twice and nothing is missed, whoever comes or goes between two pages.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import NamedTuple

from discovery.protocol.errors import InvalidArgument

MAX_CURSOR_CHARACTERS = 512


class Cursor(NamedTuple):
    """The place of an element: by ``distance``, then by ``name``."""

    distance: float
    name: str

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """What :meth:`__str__` has written.

        Raises:
            InvalidArgument: somebody else has.
        """
        try:
            distance, name = json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
            if not isinstance(name, str) or isinstance(distance, bool) or not math.isfinite(distance):
                raise ValueError
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise InvalidArgument("this cursor was not given by us: begin without one", param="cursor") from None
        return cls(float(distance), name)

    def __str__(self) -> str:
        """As it is told: URL-safe, and not to be understood."""
        return base64.urlsafe_b64encode(json.dumps([self.distance, self.name]).encode()).decode().rstrip("=")
