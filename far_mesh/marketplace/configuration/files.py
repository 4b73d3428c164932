"""The file of settings: which one it is."""

from __future__ import annotations

import os
from pathlib import Path

from far_mesh.marketplace.errors import InvalidSetting

VARIABLE = "FAR_CONFIG"
PLACES = ("far-mesh.toml", "~/.far/far-mesh.toml")


def find(named: Path | None = None) -> Path | None:
    """The file that counts: the one that is ``named``, else that of ``FAR_CONFIG`` (empty: none at all), else the first
    of :data:`PLACES` that exists.

    Raises:
        InvalidSetting: the one that was asked for is not there.
    """
    said = os.environ.get(VARIABLE)
    if named is None and said is not None:
        if not said:
            return None
        named = Path(said)
    if named is not None:
        if not named.is_file():
            raise InvalidSetting(f"there is no file of settings at {named}", setting=VARIABLE)
        return named
    places = (Path(os.path.expanduser(place)) for place in PLACES)
    return next((place for place in places if place.is_file()), None)
