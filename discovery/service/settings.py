"""All settings of the discovery service as one frozen value: flags before ``FAR_DISCOVERY_…`` before a file of TOML."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.protocol.announcement import (
    LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    MAX_MODEL_ID_LENGTH,
    MAX_SWARM_LENGTH,
    RENEW_SECONDS,
)
from discovery.protocol.errors import InvalidIdentity
from discovery.protocol.ids import PeerId, check_peer_id
from discovery.protocol.membership import PRIVATE
from discovery.settings import ENVIRONMENT, FLAG, Said, load, problems_of, unknown_key
from discovery.web.errors import InvalidSetting

PREFIX = "FAR_DISCOVERY_"
FILE = PREFIX + "CONFIG"
PLACES = ("far-discovery.toml", "~/.far/far-discovery.toml")
MIN_METRICS_TOKEN = 16

ModelName = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_ID_LENGTH)]


class Settings(BaseSettings):
    """Environment variables are the names of the fields in upper case behind ``FAR_DISCOVERY_``, keys of the file are
    the names of the fields. Lists in variables are JSON."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8001
    public_uri: str = ""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    requests_per_minute: Annotated[int, Field(ge=0)] = 600
    writes_per_minute: Annotated[int, Field(ge=0)] = 120
    max_connections: Annotated[int, Field(ge=1)] = 4096
    metrics_token: SecretStr | None = None
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "warning"

    data_dir: Path = Path(".far/discovery")
    database_url: str = ""
    geoip_db: Path | None = None

    initial_peers: tuple[str, ...] = ()
    host_maddrs: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    dht_prefix: Annotated[str, Field(min_length=1, max_length=MAX_SWARM_LENGTH)] = DEFAULT_PREFIX
    follow_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    expiry_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = LIFETIME_SECONDS
    renew_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = RENEW_SECONDS
    max_announcements: Annotated[int, Field(ge=1)] = 100_000
    probe: bool = False
    probe_models: tuple[str, ...] = ()
    probers: Annotated[tuple[PeerId, ...], Field(max_length=64)] = ()
    watched_models: Annotated[tuple[ModelName, ...], Field(max_length=64)] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody_is_a_proxy(
        cls, networks: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("if everybody is trusted, anybody can say to be somebody else")
        return networks

    @field_validator("probers")
    @classmethod
    def _probers_are_peers(cls, probers: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
        try:
            return tuple(dict.fromkeys(map(check_peer_id, probers)))
        except InvalidIdentity as error:
            raise ValueError(error.message) from None

    @field_validator("dht_prefix")
    @classmethod
    def _nobody_is_told_of_a_private_swarm(cls, prefix: str) -> str:
        if prefix.startswith(PRIVATE):
            raise ValueError(
                "a private swarm says who is in it to its members alone, and whoever asks here shows no invitation; "
                "members ask the swarm: far-node peers, far-mesh route --explain"
            )
        return prefix

    @field_validator("metrics_token")
    @classmethod
    def _a_token_cannot_be_guessed(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < MIN_METRICS_TOKEN:
            raise ValueError(f"it must have at least {MIN_METRICS_TOKEN} characters")
        return token

    @classmethod
    def read(cls, config: Path | None = None, /, **flags: Any) -> Settings:
        """The settings of this process. The file is ``config``, else that of ``FAR_DISCOVERY_CONFIG`` (empty: none at
        all), else the first of :data:`PLACES` that exists.

        Raises:
            InvalidSetting: a value means nothing; names the variable, never shows the value.
        """
        said = _gather(cls, flags, config)
        if said.problems:
            raise InvalidSetting(said.problems[0].message, setting=said.problems[0].setting)
        try:
            return cls(**said.values)
        except ValidationError as error:
            first = next(problems_of(error, cls, said, _variable))
            raise InvalidSetting(first.message, setting=first.setting) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What :meth:`read` has put together, and nothing else."""
        return (init_settings,)

    @property
    def database(self) -> str:
        """SQLAlchemy URL with an async driver."""
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'discovery.db').absolute()}"

    @property
    def uri(self) -> str:
        """What nodes sign their registrations and heartbeats for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_uri.rstrip("/") or f"http://{host}:{self.port}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _gather(kind: type[Settings], flags: dict[str, Any], config: Path | None) -> Said:
    said = Said(dict(flags), dict.fromkeys(flags, FLAG), [], _file(config))
    source = EnvSettingsSource(kind)
    for name, about in kind.model_fields.items():
        value, _key, is_complex = source.get_field_value(about, name)
        if value is None or name in said.values:
            continue
        try:
            said.values[name] = source.prepare_field_value(name, about, value, is_complex)
        except ValueError:
            raise InvalidSetting(f"the setting {_variable(name)} is not usable: it must be JSON") from None
        said.origins[name] = ENVIRONMENT
    for key, value in ({} if said.file is None else load(said.file)).items():
        if key not in kind.model_fields:
            said.problems.append(unknown_key(key, kind.model_fields, Path(str(said.file))))
        elif key not in said.origins:
            said.values[key], said.origins[key] = value, str(said.file)
    return said


def _file(named: Path | None) -> Path | None:
    said = os.environ.get(FILE)
    if named is None and said is not None:
        if not said:
            return None
        named = Path(said)
    if named is not None:
        if not named.is_file():
            raise InvalidSetting(f"there is no file of settings at {named}", setting=FILE)
        return named
    return next((place for place in map(Path, map(os.path.expanduser, PLACES)) if place.is_file()), None)
