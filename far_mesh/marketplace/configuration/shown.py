"""Settings as people may see them: secrets, and credentials in addresses, are three stars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from discovery.settings import Said
from far_mesh.marketplace.configuration.check import is_secret
from far_mesh.marketplace.settings import PREFIX, Settings

STARS = "***"
_SEALED = "*" * 10  # how pydantic writes a secret


@dataclass(frozen=True)
class Shown:
    """A setting. ``origin`` is who said it."""

    name: str
    value: Any
    origin: str


def shown(settings: Settings, said: Said) -> Iterator[Shown]:
    """Every setting, by the name of its variable."""
    for name, value in settings.model_dump(mode="json").items():
        hidden = (STARS if value else value) if is_secret(name) else _without_credentials(name, value)
        yield Shown(PREFIX + name.upper(), hidden, said.origin(name))


def _without_credentials(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_credentials(name, one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_credentials(name, one) for one in value]
    if value == _SEALED:
        return STARS
    return _bare_url(name, value) if isinstance(value, str) and "://" in value else value


def _bare_url(name: str, text: str) -> str:
    """An address without its password, and without what providers of chains take for one: path and query."""
    try:
        parts = urlsplit(text)
        user, _, host = parts.netloc.rpartition("@")
    except ValueError:
        return STARS
    netloc = f"{user.partition(':')[0]}:{STARS}@{host}" if ":" in user else parts.netloc
    if name.endswith("_rpc_url"):
        netloc = f"{STARS}@{host}" if user else netloc
        hides = bool(parts.path.strip("/") or parts.query)
        return urlunsplit((parts.scheme, netloc, f"/{STARS}" if hides else parts.path, "", ""))
    return urlunsplit((parts.scheme, netloc, parts.path, STARS if parts.query else "", ""))
