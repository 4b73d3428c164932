"""Everything that is wrong with the settings, at once, and what is allowed and dangerous."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from discovery.dht.peer import check_peer_maddr, parse_maddr
from discovery.protocol.errors import FarError
from discovery.settings import DEFAULT, ENVIRONMENT, Problem, Said, did_you_mean, is_open_to_others
from discovery.web.address import is_loopback
from far_mesh.marketplace.chain.anvil import CHAIN_ID, dev_key
from far_mesh.marketplace.configuration import files
from far_mesh.marketplace.configuration.sources import problems_of
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.money import check_settings, needed
from far_mesh.marketplace.payments.registry import open_provider
from far_mesh.marketplace.settings import EVM, PREFIX, Settings

OTHER_VARIABLES = {
    files.VARIABLE,
    *("FAR_ANVIL", "FAR_CACHE_DIR", "FAR_MODELS_DIR", "FAR_MODELS_MAX_SIZE", "FAR_REGISTRY_TOKEN", "FAR_TOKEN"),
    *("FAR_API_KEY", "FAR_GATEWAY_URL", "FAR_KEYSTORE", "FAR_KEYSTORE_PASSWORD_FILE", "FAR_WALLET_KEY"),
    "FAR_DASHBOARD_URL",
}
"""Variables that other commands read."""

OF_OTHERS = ("FAR_NODE_", "FAR_DISCOVERY_")
"""How variables begin that a provider's node reads, and the discovery service."""

LOCAL_CHAINS = (CHAIN_ID, 1337)
DEV_KEYS = 10
_POOR = re.compile(r"(.)\1*|.*(secret|example|change.?me|password|test|0123456789).*", re.IGNORECASE | re.DOTALL)


@dataclass
class Report:
    """What was found. ``settings`` are those that could be made of what is right; ``reached`` is what answered."""

    said: Said
    settings: Settings
    problems: list[Problem]
    warnings: list[Problem] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)

    def wrong(self, setting: str, message: str) -> None:
        """Note something that keeps the gateway from starting; what is said twice counts once."""
        if setting not in {problem.setting for problem in self.problems}:
            self.problems.append(Problem(setting, self._origin(setting), message))

    def dangerous(self, setting: str, message: str) -> None:
        """Note something that works, and that somebody will be sorry for."""
        self.warnings.append(Problem(setting, self._origin(setting), message))

    def _origin(self, setting: str) -> str:
        return self.said.origin(setting.removeprefix(PREFIX).lower())


async def check(said: Said) -> Report:
    """All problems and dangers. Nothing is asked of any network."""
    settings, problems = _usable(said)
    report = Report(said, settings, problems)
    for name in ("jwt_secret", "models", *needed(settings)):
        if not getattr(settings, name):
            variable = PREFIX + name.upper()
            report.wrong(variable, f"{variable} is not set, and the marketplace does not start without it")
    acts = (
        settings.jwt_key,
        settings.jwt_other_keys,
        settings.metrics_key,
        settings.job_keys,
        lambda: check_settings(settings),
        lambda: check_peers("FAR_INITIAL_PEERS", settings.initial_peers),
        lambda: check_peers("FAR_PUBLIC_PEERS", settings.public_peers),
        lambda: _check_swarm_maddrs(settings),
        settings.entrance,
        settings.check_probers,
        lambda: _check_grpc(settings),
        lambda: _check_places(settings),
        lambda: _check_database(settings),
    )
    for act in acts:
        _collect(report, act)
    if not report.problems:
        await _check_provider(report)
    report.warnings.extend(_unknown_variables())
    for setting, message in _dangers(settings, said):
        report.dangerous(setting, message)
    return report


def _usable(said: Said) -> tuple[Settings, list[Problem]]:
    """Settings of all that is right, and what is wrong with the rest."""
    values, problems = dict(said.values), list(said.problems)
    while True:
        try:
            return Settings(**values), problems
        except ValidationError as error:
            problems += problems_of(error, Settings, said)
            wrong = {str(one["loc"][0]) if one["loc"] else "" for one in error.errors()}
            values = {name: value for name, value in values.items() if name not in wrong} if wrong - {""} else {}


def _collect(report: Report, act: Callable[[], Any]) -> None:
    try:
        act()
    except FarError as error:
        report.wrong(str(error.facts.get("setting", "")), error.message)


def check_peers(variable: str, peers: Iterable[str]) -> None:
    """Whether these are addresses of peers.

    Raises:
        InvalidSetting: one is none.
    """
    for peer in peers:
        try:
            check_peer_maddr(peer)
        except FarError as error:
            raise InvalidSetting(f"{variable}: {error.message}", setting=variable) from None


def _check_swarm_maddrs(settings: Settings) -> None:
    for maddr in settings.swarm_maddrs:
        try:
            parse_maddr(maddr)
        except FarError as error:
            raise InvalidSetting(f"FAR_SWARM_MADDRS: {error.message}", setting="FAR_SWARM_MADDRS") from None


def _check_grpc(settings: Settings) -> None:
    from far_mesh.marketplace.grpc_api.server import credentials

    if settings.grpc_port:
        credentials(settings)


def _check_places(settings: Settings) -> None:
    from discovery.geoip import GeoDatabase

    if settings.geoip_db is not None:
        try:
            GeoDatabase(settings.geoip_db)
        except FarError as error:
            raise InvalidSetting(f"FAR_GEOIP_DB: {error.message}", setting="FAR_GEOIP_DB") from None


def _check_database(settings: Settings) -> None:
    said = InvalidSetting(
        "FAR_DATABASE_URL must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://", setting="FAR_DATABASE_URL"
    )
    try:
        driver = make_url(settings.database).drivername
    except ArgumentError:
        raise said from None
    if driver not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise said


async def _check_provider(report: Report) -> None:
    try:
        provider = open_provider(report.settings)
    except FarError as error:
        report.wrong(str(error.facts.get("setting", "FAR_PAYMENT_PROVIDER")), error.message)
    else:
        await provider.close()


def _unknown_variables() -> Iterator[Problem]:
    """Variables that look like ours and that nobody reads: most of them are misspelt."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    for name in sorted(set(map(str.upper, os.environ)) - known):
        if name.startswith(PREFIX) and not name.startswith(OF_OTHERS):
            guess = did_you_mean(name, Settings.model_fields)
            meant = guess and f"; did you mean {PREFIX}{guess.split(chr(39))[1].upper()}?"
            yield Problem(name, ENVIRONMENT, f"nobody reads {name}{meant}")


def _dangers(settings: Settings, said: Said) -> Iterator[tuple[str, str]]:
    """What is dangerous, by the setting that would have to change."""
    public = not is_loopback(settings.host) or _is_elsewhere(settings)
    on_public_chain = settings.payment_provider == EVM and settings.chain_id not in LOCAL_CHAINS
    if _is_dev_key(settings.settler_private_key) and (public or on_public_chain):
        yield (
            "FAR_SETTLER_PRIVATE_KEY",
            "this is one of anvil's development keys, which everybody knows, and others reach this gateway or its "
            "chain: whoever wants can settle in your name. Use a key that nobody else has",
        )
    if on_public_chain and settings.confirmations == 0:
        yield (
            "FAR_CONFIRMATIONS",
            f"chain {settings.chain_id} is not a local one, and deposits count in the block that they are in, although "
            "a chain may give up its newest blocks. Set what the chain needs",
        )
    if on_public_chain and settings.chain_start_block == 0:
        yield (
            "FAR_CHAIN_START_BLOCK",
            "deposits are looked for from the chain's first block on: set it to the block of the deployment",
        )
    for name in ("jwt_secret", "jwt_other_secrets"):
        given = getattr(settings, name)
        for secret in given if isinstance(given, tuple) else filter(None, (given,)):
            text = secret.get_secret_value()
            if _POOR.fullmatch(text) or len(set(text)) < 8:
                yield (
                    PREFIX + name.upper(),
                    "this is not random: whoever guesses it is everybody's wallet here. Make one with "
                    "`openssl rand -hex 32`",
                )
                break
    if public and settings.uri.startswith("http://"):
        yield (
            "FAR_PUBLIC_URI",
            "others reach this gateway and its URI begins with http://: tokens, keys and prompts would travel in clear "
            "text. Put a proxy with TLS in front, and set the https:// URI that users see",
        )
    if settings.grpc_port and settings.grpc_insecure and not is_loopback(settings.host):
        yield (
            "FAR_GRPC_INSECURE",
            "gRPC is open to others in clear text: let nobody but a proxy with TLS reach the port",
        )
    is_one_of_several = said.origin("gateway_name") != DEFAULT or settings.redis_url is not None
    if settings.database.startswith("sqlite") and is_one_of_several:
        yield (
            "FAR_DATABASE_URL",
            "a gateway with a name or with Redis is one of several, and several cannot share a SQLite file over a "
            "network: use PostgreSQL unless this is the only one",
        )
    behind_a_proxy_here = is_loopback(settings.host) and _is_elsewhere(settings)
    if behind_a_proxy_here and settings.metrics_token is None and not settings.trusted_proxies:
        yield (
            "FAR_METRICS_TOKEN",
            "a proxy on this machine that does not say for whom it asks makes everybody look local, and who is local "
            "may read the metrics: set it, or name the proxy in FAR_TRUSTED_PROXIES",
        )
    if public and settings.outbound_http:
        yield ("FAR_OUTBOUND_HTTP", "messages to webhooks may travel in clear text: that is for tests")
    if settings.generation_seconds + settings.lock_timeout_seconds >= settings.lock_seconds:
        yield (
            "FAR_GENERATION_SECONDS",
            "an answer may take longer than its money is locked, and would then be given away: keep FAR_LOCK_SECONDS "
            "above FAR_GENERATION_SECONDS and FAR_LOCK_TIMEOUT_SECONDS together",
        )
    if said.file is not None and is_open_to_others(said.file):
        secrets = [name for name, origin in said.origins.items() if origin == str(said.file) and is_secret(name)]
        if secrets:
            yield (
                files.VARIABLE,
                f"{said.file} has {', '.join(secrets)} and others on this machine may read it: chmod 600 {said.file}",
            )


def is_secret(name: str) -> bool:
    """Whether the values of a field are never shown."""
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def _is_dev_key(key: SecretStr | None) -> bool:
    plain = "" if key is None else key.get_secret_value().lower().removeprefix("0x")
    return plain in {dev_key(index).removeprefix("0x") for index in range(DEV_KEYS)}


def _is_elsewhere(settings: Settings) -> bool:
    """Whether users see another name than that of this machine: a proxy stands in front."""
    return not is_loopback(settings.domain.rpartition(":")[0].strip("[]") or settings.domain)
