"""All settings of the marketplace as one frozen value, read once at the door: flags, ``FAR_…`` variables, a file."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.geo import Point, parse_point
from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, InvalidWallet
from discovery.protocol.ids import PeerId, check_peer_id, check_wallet
from discovery.protocol.membership import initial_peers_of, membership_of
from far_mesh.entrance import Entrance
from far_mesh.marketplace.configuration.sources import gather, problems_of
from far_mesh.marketplace.errors import InvalidSetting, MissingSetting
from far_mesh.marketplace.ledger.split import BPS, MAX_FEE_BPS
from far_mesh.marketplace.tiers.schemas import TierTable

PREFIX = "FAR_"
EVM = "evm"
MIN_JWT_SECRET_BYTES = 32
MIN_METRICS_TOKEN = 16
KEY_BYTES = 32
MAX_PROBERS = 64

Units = Annotated[int, Field(ge=0, lt=2**53)]
"""An amount in units of 1e-9 FAR, small enough to be exact in every JSON reader."""


OtherTier = Annotated[str, Field(pattern=r"^(premium|enterprise)$")]


class TierPrice(BaseModel):
    """What a token costs in another tier, in units of 1e-9 FAR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_price_units: Units = 0
    completion_price_units: Annotated[Units, Field(ge=1)]


class ModelOffer(BaseModel):
    """A model on sale. ``model`` is a local directory or a hub id; prices are units of 1e-9 FAR per token, those of
    ``tiers`` take the place of the standard ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1)]
    id: str = ""
    name: str = ""
    prompt_price_units: Units = 0
    completion_price_units: Annotated[Units, Field(ge=1)]
    tiers: dict[OtherTier, TierPrice] = {}
    min_nodes: Annotated[int, Field(ge=1)] = 1

    @property
    def model_id(self) -> str:
        """The name under which it is sold: ``id``, or the last part of ``model`` when that is a local directory."""
        return self.id or (Path(self.model).name if Path(self.model).is_dir() else self.model)

    @property
    def display_name(self) -> str:
        """What a person reads in a list."""
        return self.name or self.model_id.rsplit("/", 1)[-1]


def _point(text: Any) -> Any:
    try:
        return parse_point(text) if isinstance(text, str) else text
    except InvalidArgument:
        raise ValueError("not a latitude and a longitude, such as 52.5,13.4") from None


def _long_enough(secret: SecretStr, variable: str) -> str:
    text = secret.get_secret_value()
    if len(text.encode()) < MIN_JWT_SECRET_BYTES:
        raise InvalidSetting(f"{variable} must be at least 32 bytes of randomness", setting=variable)
    return text


def _key_of(secret: SecretStr, variable: str) -> bytes:
    try:
        key = bytes.fromhex(secret.get_secret_value())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidSetting(f"{variable} is a list of keys of 32 bytes each, in hexadecimal", setting=variable)
    return key


class Settings(BaseSettings):
    """Environment variables are the field names in upper case behind ``FAR_``, keys of the file are the field names.
    Secrets have no default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    data_dir: Path = Path(".far/marketplace")
    database_url: str = ""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    gateway_name: str = ""
    public_domain: str = ""
    public_uri: str = ""
    shutdown_seconds: Annotated[float, Field(ge=0, le=86_400)] = 20.0
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    max_connections: Annotated[int, Field(ge=1)] = 16_384
    header_seconds: Annotated[float, Field(gt=0)] = 15.0
    body_seconds: Annotated[float, Field(gt=0)] = 30.0
    keep_alive_seconds: Annotated[int, Field(ge=1)] = 75
    reader_seconds: Annotated[float, Field(gt=0)] = 30.0

    redis_url: SecretStr | None = None
    public_requests_per_minute: Annotated[int, Field(ge=0)] = 300
    sign_ins_per_minute: Annotated[int, Field(ge=0)] = 60
    failures_per_minute: Annotated[int, Field(ge=0)] = 20
    account_requests_per_minute: Annotated[int, Field(ge=0)] = 600

    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 0
    grpc_tls_cert: Path | None = None
    grpc_tls_key: Path | None = None
    grpc_insecure: bool = False

    chain_rpc_url: str = ""
    chain_id: Annotated[int, Field(ge=1)] = 31337
    token_address: str = ""
    escrow_address: str = ""
    settler_private_key: SecretStr | None = None
    confirmations: Annotated[int, Field(ge=0)] = 0
    reorg_blocks: Annotated[int, Field(ge=0)] = 64
    bump_seconds: Annotated[float, Field(gt=0)] = 30.0
    max_fee_gwei: Annotated[float, Field(ge=0)] = 0.0
    chain_start_block: Annotated[int, Field(ge=0)] = 0
    deposit_poll_seconds: Annotated[float, Field(gt=0)] = 0.5
    lock_seconds: Annotated[int, Field(ge=300, le=86_400)] = 1800
    lock_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0

    reconcile_seconds: Annotated[float, Field(ge=0)] = 300.0
    settle_seconds: Annotated[float, Field(gt=0)] = 3600.0
    settle_threshold_units: Annotated[Units, Field(ge=1)] = 10**10
    payout_address_delay_seconds: Annotated[float, Field(ge=0)] = 86_400.0
    unsettled_limit_units: Units = 10**9
    voucher_step_units: Annotated[Units, Field(ge=1)] = 10_000_000
    voucher_seconds: Annotated[float, Field(gt=0)] = 30.0

    payment_provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "evm"
    deposit_address: str = ""
    solana_rpc_url: str = ""
    solana_mint: str = ""
    solana_private_key: SecretStr | None = None

    metrics_token: SecretStr | None = None
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"

    jwt_secret: SecretStr | None = None
    jwt_other_secrets: tuple[SecretStr, ...] = ()
    jwt_seconds: Annotated[int, Field(ge=60)] = 3600
    nonce_seconds: Annotated[int, Field(ge=10)] = 300
    auth_cache_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    operators: tuple[str, ...] = ()

    dashboard: bool = True
    geoip_db: Path | None = None
    location: Annotated[Point | None, NoDecode, BeforeValidator(_point)] = None
    initial_peers: tuple[str, ...] = ()
    public_peers: tuple[str, ...] = ()
    swarm_maddrs: tuple[str, ...] = ()
    discovery: str = ""
    probers: Annotated[tuple[PeerId, ...], Field(max_length=MAX_PROBERS)] = ()
    dht_prefix: Annotated[str, Field(min_length=1, max_length=64)] = DEFAULT_PREFIX
    swarm: Path | None = None
    invite: SecretStr | None = None
    models: tuple[ModelOffer, ...] = ()
    tiers: TierTable = TierTable()
    fee_bps: Annotated[int, Field(ge=0, le=MAX_FEE_BPS)] = 2000
    cached_discount_bps: Annotated[int, Field(ge=0, le=BPS)] = 5000
    requests_per_node: Annotated[int, Field(ge=0)] = 16
    quote_seconds: Annotated[int, Field(ge=1)] = 60
    default_max_tokens: Annotated[int, Field(ge=1)] = 256
    generation_seconds: Annotated[int, Field(ge=1)] = 1500
    queue_size: Annotated[int, Field(ge=0)] = 1000
    queue_size_per_account: Annotated[int, Field(ge=0)] = 64
    queue_seconds: Annotated[float, Field(gt=0)] = 30.0
    model_sessions: Annotated[int, Field(ge=0)] = 0

    jobs_keys: tuple[SecretStr, ...] = ()
    jobs_at_once: Annotated[int, Field(ge=0, le=1000)] = 4
    jobs_per_wallet: Annotated[int, Field(ge=1)] = 100
    jobs_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    jobs_seconds: Annotated[float, Field(gt=0)] = 3600.0
    jobs_result_seconds: Annotated[float, Field(gt=0)] = 86_400.0
    webhook_attempts: Annotated[int, Field(ge=1, le=20)] = 8
    outbound_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 8443)
    outbound_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    outbound_http: bool = False

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ModelOffer, ...]) -> tuple[ModelOffer, ...]:
        names = [model.model_id for model in models]
        if len(set(names)) != len(names):
            raise ValueError("two models have the same id")
        return models

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody_is_a_proxy(
        cls, networks: tuple[IPv4Network | IPv6Network, ...]
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("if everybody is trusted, anybody can say to be somebody else")
        return networks

    @field_validator("redis_url")
    @classmethod
    def _redis_is_reached_by_a_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("it must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("probers")
    @classmethod
    def _probers_are_peers(cls, probers: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
        try:
            return tuple(dict.fromkeys(map(check_peer_id, probers)))
        except InvalidIdentity as error:
            raise ValueError(error.message) from None

    @field_validator("operators")
    @classmethod
    def _operators_are_wallets(cls, operators: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(check_wallet(wallet) for wallet in operators)
        except InvalidWallet:
            raise ValueError("one of the wallets is not an EVM address with the right checksum") from None

    @classmethod
    def read(cls, config: Path | None = None, /, **overrides: Any) -> Settings:
        """The settings of this process: ``overrides`` before environment before the file before defaults. The file is
        ``config``, or what :func:`.configuration.files.find` finds.

        Raises:
            InvalidSetting: a value means nothing; names the variable, never shows the value.
        """
        said = gather(cls, overrides, config)
        problems = said.problems
        if not problems:
            try:
                return cls(**said.values)
            except ValidationError as error:
                problems = list(problems_of(error, cls, said))
        raise InvalidSetting(problems[0].message, setting=problems[0].setting)

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
    def has_escrow(self) -> bool:
        """Whether users' money lies in an escrow on chain; else it comes by transfer, or there is none."""
        return self.payment_provider == EVM and bool(self.escrow_address)

    @property
    def database(self) -> str:
        """SQLAlchemy URL with an async driver."""
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'marketplace.db').absolute()}"

    @property
    def domain(self) -> str:
        """Host and port that a sign-in message must name."""
        return self.public_domain or f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """The URI that a sign-in message must name; also the audience of bearer tokens."""
        return self.public_uri or f"http://{self.domain}"

    @property
    def gateway(self) -> str:
        """The name of this process among gateways that share a database. The same after a restart."""
        return self.gateway_name or f"{socket.gethostname()}:{self.port}"

    def require(self, *names: str) -> None:
        """Refuse to go on without these settings: what is absent fails closed.

        Raises:
            MissingSetting: names the first variable that is absent.
        """
        for name in names:
            if not getattr(self, name):
                variable = PREFIX + name.upper()
                raise MissingSetting(
                    f"{variable} is not set, and the marketplace does not start without it", setting=variable
                )

    def solana_key(self) -> str:
        """The key pair that pays on Solana, as its file has it.

        Raises:
            MissingSetting: there is none.
        """
        self.require("solana_private_key")
        assert self.solana_private_key is not None
        return self.solana_private_key.get_secret_value()

    def entrance(self) -> Entrance:
        """Where the swarm is joined. Nothing is asked of any network.

        Raises:
            MissingSetting: nobody is named to join through.
            InvalidSetting: the discovery service has no address, or what was said of a private swarm cannot be read.
        """
        try:
            membership = membership_of(self.swarm, self.invite.get_secret_value() if self.invite else None)
        except FarError as error:
            name = "FAR_SWARM" if self.swarm is not None else "FAR_INVITE"
            raise InvalidSetting(f"{name}: {error.message}", setting=name) from None
        known = self.initial_peers or initial_peers_of(membership)
        if not known and not self.discovery:
            self.require("initial_peers")
        try:
            return Entrance.of(known, self.discovery or None, self.dht_prefix, membership)
        except InvalidArgument:
            raise InvalidSetting(
                "FAR_DISCOVERY is not the address of a service, such as https://discovery.far.example",
                setting="FAR_DISCOVERY",
            ) from None

    def check_probers(self) -> None:
        """Probers are heard through a discovery service, which no private swarm has.

        Raises:
            InvalidSetting: some are named, and there is none to ask.
        """
        if self.probers and (not self.discovery or self.swarm is not None or self.invite is not None):
            raise InvalidSetting(
                "FAR_PROBERS needs FAR_DISCOVERY, the service that they report to, and a swarm that is open to all",
                setting="FAR_PROBERS",
            )

    def jwt_key(self) -> str:
        """The secret that signs bearer tokens.

        Raises:
            MissingSetting: there is none.
            InvalidSetting: it is shorter than 32 bytes, which HS256 needs.
        """
        self.require("jwt_secret")
        assert self.jwt_secret is not None
        return _long_enough(self.jwt_secret, "FAR_JWT_SECRET")

    def metrics_key(self) -> str | None:
        """The token with which metrics are read, if there is one.

        Raises:
            InvalidSetting: it could be guessed.
        """
        if self.metrics_token is None:
            return None
        text = self.metrics_token.get_secret_value()
        if len(text) < MIN_METRICS_TOKEN:
            raise InvalidSetting(
                f"FAR_METRICS_TOKEN must have at least {MIN_METRICS_TOKEN} characters", setting="FAR_METRICS_TOKEN"
            )
        return text

    def jwt_other_keys(self) -> tuple[str, ...]:
        """Further secrets whose bearer tokens count, while one takes the place of another.

        Raises:
            InvalidSetting: one is shorter than 32 bytes.
        """
        return tuple(_long_enough(secret, "FAR_JWT_OTHER_SECRETS") for secret in self.jwt_other_secrets)

    def job_keys(self) -> tuple[bytes, ...]:
        """The keys that encrypt jobs, the one that writes first; none: jobs are closed.

        Raises:
            InvalidSetting: one is not 32 bytes in hexadecimal, or is there twice.
        """
        keys = tuple(_key_of(secret, "FAR_JOBS_KEYS") for secret in self.jobs_keys)
        if len(set(keys)) != len(keys):
            raise InvalidSetting("FAR_JOBS_KEYS has the same key twice", setting="FAR_JOBS_KEYS")
        return keys

    def settler_key(self) -> str:
        """The private key of the settler, in hexadecimal.

        Raises:
            MissingSetting: there is none.
        """
        self.require("settler_private_key")
        assert self.settler_private_key is not None
        return self.settler_private_key.get_secret_value()
