"""The file of settings: which one it is, and what stands in it."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

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


def load(path: Path) -> dict[str, Any]:
    """What stands in a file, by its keys.

    Raises:
        InvalidSetting: it cannot be read, or is not TOML; says where, and shows nothing of it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read: {error.strerror}", setting=VARIABLE) from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"{path} is not TOML: it is not UTF-8", setting=VARIABLE) from None
    except tomllib.TOMLDecodeError as error:
        # What was expected may quote a key or a character; the place is enough to find it.
        place = str(error).rpartition("(")[2].rstrip(")")
        raise InvalidSetting(f"{path} is not TOML: look {place}", setting=VARIABLE) from None


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH))
