"""Shapes of API keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.principal import Scope
from far_mesh.marketplace.settings import Units

LONGEST_LIFE = timedelta(days=3660)


@dataclass(frozen=True)
class NewKey:
    """A key that its wallet asks for. ``units_per_day``: what may be spent with it; ``requests_per_minute``: how many
    requests for inference it may make. None: no limit."""

    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    units_per_day: int | None
    requests_per_minute: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ApiKey(NewKey):
    """A key as it is known after it was shown."""

    id: str
    prefix: str
    wallet: Wallet
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class KeyLimits(BaseModel):
    """How much can be done with a key. Days are those of UTC, a minute is always the last one."""

    model_config = ConfigDict(extra="forbid")

    units_per_day: Annotated[Units, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class KeyRequest(BaseModel):
    """What a new key is to be."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset({Scope.INFERENCE})
    expires_at: AwareDatetime | None = None
    limits: KeyLimits = KeyLimits()


class KeyEntry(BaseModel):
    """A key as it can be shown at any time. ``prefix`` is its beginning; ``last_used_at`` is true to a minute."""

    id: str
    name: str
    prefix: str
    scopes: list[Scope]
    limits: KeyLimits
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyCreated(KeyEntry):
    """A new key. ``key`` is shown this once and kept nowhere."""

    key: str


class KeyList(BaseModel):
    """The keys of a wallet, the newest first."""

    keys: list[KeyEntry]
