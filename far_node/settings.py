"""The settings of a node: every flag of ``far-node start``, as flags, the environment, a file or defaults say.

A flag comes before its variable (``--cache-mb``: ``FAR_NODE_CACHE_MB``), that before the file (``cache_mb``), and that
before the default. Who comes first decides what a node is: ``--cpu-only`` does away with a ``gpu`` in the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from discovery import settings
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.ids import check_wallet
from discovery.protocol.membership import INVITATION_MARK, Membership, initial_peers_of, membership_of
from discovery.settings import ENVIRONMENT, FLAG, Problem, Said, did_you_mean, unknown_key
from discovery.web.errors import InvalidSetting
from far_node.capacity import GIB
from far_node.config import (
    DEFAULT_HOST_MADDR,
    ModelOptions,
    NodeConfig,
    choose_device,
    parse_blocks,
    parse_location,
    parse_public_address,
)
from far_node.limits import Limits
from far_node.update.options import check_sources
from far_node.update.releases import Channel

PREFIX = "FAR_NODE_"
NAME_VARIABLE, FILE_VARIABLE = "FAR_NODE_NAME", "FAR_NODE_CONFIG"
HOME = Path("~/.far")
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"
CONFLICTS = (
    ("device", "gpu"),
    ("device", "cpu_only"),
    ("gpu", "cpu_only"),
    ("blocks", "num_blocks"),
    ("relay", "public_addr"),
    ("relay", "map_ports"),
    ("auto_place", "blocks"),
)
"""Settings that exclude each other; of two that different sources say, the one that comes first counts."""

_ADDRESSES = ("initial_peers", "public_addr", "host_maddr")
_NO = ("", "0", "f", "false", "n", "no", "off")
_EXAMPLE = {
    "model": "far-demo",
    "wallet": "0x" + "11" * 20,
    "initial_peers": ("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB",),
}
"""Settings that a node cannot do without, where only others are looked at."""


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]
"""A list, or the one thing that would be in it."""


class NodeSettings(BaseModel):
    """What was said, each by the name of its flag; what it means is decided by :func:`node_config`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    wallet: str | None = None
    initial_peers: Texts = ()
    discovery: str | None = None
    model_id: str | None = None
    registry: str | None = None
    blocks: str | None = None
    num_blocks: int | None = None
    quantization: str | None = None
    dtype: str | None = None
    attention: str | None = None
    context_length: int | None = None
    cache_mb: int = Field(default=1024, ge=1)
    cpu_offload: bool = False
    device: str | None = None
    gpu: int | None = Field(default=None, ge=0)
    cpu_only: bool = False
    reserve_gb: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    gpu_memory_fraction: float = 1.0
    threads: int | None = None
    max_sessions: int = 64
    max_sessions_per_client: int = 64
    max_batch_size: int = 16
    prefill_chunk: int = 512
    queue_size: int = 256
    queue_timeout: float = 30.0
    step_timeout: float = 120.0
    idle_timeout: float = 300.0
    prefix_cache_mb: int = 128
    host_maddr: Texts = (DEFAULT_HOST_MADDR,)
    public_addr: Texts = ()
    map_ports: bool = False
    relay: bool = False
    prefix: str = "far"
    swarm: Path | None = None
    invite: str | None = None
    price: int = 0
    region: str | None = None
    location: str | None = None
    drain_timeout: float = 30.0
    auto_place: float | None = None
    wake_url: str | None = None
    idle_exit: float | None = None
    receipts: Path | None = None
    auto_update: bool = False
    update_channel: Channel = "stable"
    update_index: str | None = None
    update_releases: str | None = None
    update_publisher: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    identity: Path | None = None


FIELDS = NodeSettings.model_fields
LISTS = tuple(name for name, about in FIELDS.items() if isinstance(about.default, tuple))
_SWITCHES = tuple(name for name, about in FIELDS.items() if about.annotation is bool)


@dataclass(frozen=True)
class Place:
    """Where what belongs to one of the nodes of this machine lies."""

    name: str | None = None

    @classmethod
    def of(cls, name: str | None) -> Place:
        """The place of the node that is named; None: as ``FAR_NODE_NAME`` says, else the one without a name.

        Raises:
            InvalidArgument: no name.
        """
        name = name if name is not None else os.environ.get(NAME_VARIABLE) or None
        if name is not None and not re.fullmatch(NAME_PATTERN, name):
            raise InvalidArgument(f"--name {name!r} is not a name: up to 32 letters, digits, - and _")
        return cls(name)

    @property
    def home(self) -> Path:
        """Its directory."""
        return HOME.expanduser() if self.name is None else HOME.expanduser() / "nodes" / self.name

    @property
    def file(self) -> Path:
        """Its settings."""
        return self.home / "config.toml"

    @property
    def identity(self) -> Path:
        """Its key file, unless a setting names another."""
        return self.home / "identity"

    @property
    def words(self) -> str:
        """What commands about it need besides."""
        return "" if self.name is None else f" --name {self.name}"


def places() -> Iterator[Place]:
    """The nodes of this machine that have a file of settings."""
    names = sorted(file.parent.name for file in (HOME.expanduser() / "nodes").glob("*/config.toml"))
    for place in (Place(), *(Place(name) for name in names if re.fullmatch(NAME_PATTERN, name))):
        if place.file.is_file():
            yield place


def variable(name: str) -> str:
    """The variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def find_file(place: Place, named: Path | None = None) -> Path | None:
    """The file of settings that counts: ``named``, else that of ``FAR_NODE_CONFIG`` (empty: none at all), else that of
    the place, if there is one.

    Raises:
        InvalidSetting: the one that was asked for is not there.
    """
    said = os.environ.get(FILE_VARIABLE)
    if named is None and said is not None:
        if not said:
            return None
        named = Path(said)
    if named is not None:
        named = named.expanduser()
        if not named.is_file():
            raise InvalidSetting(f"there is no file of settings at {named}", setting=FILE_VARIABLE)
        return named
    return place.file if place.file.is_file() else None


def gather(flags: Mapping[str, Any], place: Place, config: Path | None = None) -> Said:
    """Everything that was said, none of it checked yet but for what cannot be read."""
    problems = list[Problem]()
    file, content = None, dict[str, Any]()
    try:
        file = find_file(place, config)
        content = {} if file is None else settings.load(file)
    except InvalidSetting as error:
        problems.append(Problem(FILE_VARIABLE, str(file or config or ENVIRONMENT), error.message))
    if file is not None:
        problems += [unknown_key(key, FIELDS, file) for key in content if key not in FIELDS]
    problems += _unknown_variables()
    known = {name: value for name, value in content.items() if name in FIELDS}
    layers = [(FLAG, dict(flags)), (ENVIRONMENT, _from_environment()), (str(file), known)]
    values, origins = dict[str, Any](), dict[str, str]()
    for origin, layer in layers:
        before = {name for name in values if _is_asserted(name, values[name])}
        for name, value in layer.items():
            if name in LISTS and not value:
                continue
            if name not in values and not before & _opposites(name):
                values[name], origins[name] = value, origin
    return Said(values, origins, problems, file)


def check(said: Said, *, needed: bool = True, addresses: bool = True) -> tuple[NodeSettings, list[FarError]]:
    """Settings of all that is right, and everything that is wrong.

    Args:
        needed: whether what is missing is wrong as well.
        addresses: whether to look at multiaddrs too; what reads them takes seconds to load.

    Errors have the facts ``setting`` (the name of its variable) and ``origin``.
    """
    errors: list[FarError] = [_as_error(problem) for problem in said.problems]
    values = dict(said.values)
    try:
        NodeSettings(**values)
    except ValidationError as error:
        errors += map(_as_error, settings.problems_of(error, NodeSettings, said, variable))
        for one in error.errors():
            values.pop(str(one["loc"][0]), None)
    for name in list(values):
        wrong = _wrong({name: values[name]}) or (_wrong_address(name, values[name]) if addresses else None)
        if wrong is not None:
            errors.append(_located(wrong, said, name))
            del values[name]
    together = _wrong(values)
    if together is not None:
        errors.append(together)
    found = NodeSettings(**values)
    if needed:
        errors += _missing(found, {str(error.facts.get("setting")) for error in errors})
    return found, errors


def read(flags: Mapping[str, Any], place: Place, config: Path | None = None) -> NodeSettings:
    """The settings, if all of them are right.

    Raises:
        InvalidSettings: with everything that is wrong.
    """
    found, errors = check(gather(flags, place, config))
    if errors:
        raise InvalidSettings(errors)
    return found


class InvalidSettings(Exception):
    """All that is wrong with the settings, each an error of its own."""

    def __init__(self, errors: list[FarError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


def find_identity(place: Place, identity: Path | None) -> Path:
    """The key file of the node that is meant: ``identity``, else what its settings say, right or wrong in all else.

    Raises:
        InvalidSetting: the file of settings cannot be read.
    """
    if identity is not None:
        return identity
    said = gather({}, place)
    if any(problem.setting == FILE_VARIABLE for problem in said.problems):
        raise InvalidSetting(said.problems[0].message, setting=FILE_VARIABLE)
    named = said.values.get("identity")
    return Path(named) if isinstance(named, str) and named else place.identity


def node_config(said: NodeSettings, place: Place, hints: Iterable[str] = ()) -> NodeConfig:
    """The settings as a node takes them. ``hints``: peers that a discovery service names.

    Raises:
        FarError: a setting means nothing.
    """
    own = {field.name for field in fields(ModelOptions)} & FIELDS.keys()
    model = {name: getattr(said, name) for name in own}
    model["model"] = local_model(said.model or "")
    model["blocks"] = None if said.blocks is None else parse_blocks(said.blocks)
    membership = membership_in(said)
    limits = {field.name: getattr(said, field.name) for field in fields(Limits) if field.name in FIELDS}
    return NodeConfig(
        model=ModelOptions(cache_bytes=said.cache_mb << 20, **model),
        wallet=check_wallet(said.wallet or ""),
        initial_peers=tuple(dict.fromkeys((*known_peers(said), *hints))),
        device=choose_device(said.device, said.gpu, said.cpu_only),
        threads=said.threads,
        identity=said.identity or place.identity,
        host_maddrs=said.host_maddr,
        public_maddrs=tuple(parse_public_address(address) for address in said.public_addr),
        prefix=said.prefix if membership is None else membership.charter.swarm,
        membership=membership,
        wake_url=said.wake_url,
        idle_exit=said.idle_exit,
        map_ports=said.map_ports,
        relay=said.relay,
        reserve_bytes=int(said.reserve_gb * GIB),
        gpu_memory_fraction=said.gpu_memory_fraction,
        drain_timeout=said.drain_timeout,
        auto_place=said.auto_place,
        discovery=said.discovery if membership is None else None,
        receipts=None if said.receipts is None else said.receipts.expanduser(),
        price_units=said.price,
        region=said.region,
        location=None if said.location is None else parse_location(said.location),
        limits=Limits(prefix_cache_bytes=said.prefix_cache_mb << 20, **limits),
    )


def membership_in(said: NodeSettings) -> Membership | None:
    """The private swarm that the node was invited to; None where it is not one, or half of it was said.

    Raises:
        MembershipInvalid: what was said of it cannot be read, or does not belong together.
    """
    return membership_of(said.swarm, said.invite) if said.swarm and said.invite else None


def known_peers(said: NodeSettings) -> tuple[str, ...]:
    """Through whom the node joins: as the settings say, else as the charter of its private swarm does.

    Raises:
        MembershipInvalid: what was said of a private swarm cannot be read.
    """
    return said.initial_peers or initial_peers_of(membership_in(said))


def shown_value(value: Any) -> Any:
    """A value as it may be shown: an address without the password that may stand in it, and no invitation."""
    if isinstance(value, list):
        return [shown_value(one) for one in value]
    if isinstance(value, str) and value.startswith(INVITATION_MARK):
        return f"{INVITATION_MARK}***"
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", value) if isinstance(value, str) else value


def local_model(model: str) -> str:
    """A model as any process of this machine finds it: what is here by its whole path."""
    path = Path(model).expanduser()
    return str(path.absolute()) if model and (path.is_dir() or path.suffix == ".gguf") else model


def _from_environment() -> dict[str, Any]:
    """What variables say; one that is empty says nothing. The parts of a list are divided by commas."""
    said = {name: os.environ.get(variable(name), "").strip() for name in FIELDS}
    return {
        name: tuple(part.strip() for part in text.split(",") if part.strip()) if name in LISTS else text
        for name, text in said.items()
        if text
    }


def _unknown_variables() -> Iterator[Problem]:
    known = {NAME_VARIABLE, FILE_VARIABLE, *map(variable, FIELDS)}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            guess = did_you_mean(name, FIELDS)
            meant = guess and f"; did you mean {variable(guess.split(chr(39))[1])}?"
            yield Problem(name, ENVIRONMENT, f"nobody reads {name}{meant}")


def _opposites(name: str) -> set[str]:
    return {other for pair in CONFLICTS if name in pair for other in pair} - {name}


def _is_asserted(name: str, value: Any) -> bool:
    if name in _SWITCHES:
        return str(value).lower() not in _NO
    return value is not None and value != "" and value != () and value != []


def _wrong(values: Mapping[str, Any]) -> FarError | None:
    """What is wrong with these settings, if everything else is right."""
    try:
        said = NodeSettings(**{**_EXAMPLE, **values})
        check_sources(said)
        node_config(said, Place())
    except FarError as error:
        return error
    return None


def _wrong_address(name: str, value: Any) -> FarError | None:
    from discovery.inquiry import check_address

    try:
        if name == "discovery":
            check_address(value)
        elif name in _ADDRESSES:
            _check_maddrs(name, _several(value))
    except FarError as error:
        return error
    return None


def _check_maddrs(name: str, addresses: Iterable[str]) -> None:
    from discovery.dht.peer import check_peer_maddr, check_public_maddr, parse_maddr

    for address in addresses:
        match name:
            case "initial_peers":
                check_peer_maddr(address)
            case "public_addr":
                check_public_maddr(parse_public_address(address))
            case _:
                parse_maddr(address)


def _missing(found: NodeSettings, wrong: set[str]) -> Iterator[FarError]:
    needed = {
        "model": found.model,
        "wallet": found.wallet,
        "initial_peers": found.initial_peers or found.discovery or found.swarm,
    }
    if variable("discovery") in wrong:
        del needed["initial_peers"]
    if (found.swarm is None) != (found.invite is None):
        missing = "swarm" if found.swarm is None else "invite"
        message = f"{missing} is not set: a private swarm takes both, --swarm with its file and --invite"
        yield InvalidSetting(message, setting=variable(missing))
    if (found.update_releases is None) != (found.update_publisher is None):
        missing = "update_releases" if found.update_releases is None else "update_publisher"
        message = f"{missing} is not set: a list of releases takes both, where it is and the peer id that signed it"
        yield InvalidSetting(message, setting=variable(missing))
    for name, value in needed.items():
        if not value and variable(name) not in wrong:
            also = ", or --discovery" if name == "initial_peers" else ""
            message = f"{name} is not set: {flag(name)}{also}, {variable(name)}, or {name} in the file of settings"
            yield InvalidSetting(f"{message}; far-node init asks for what is needed", setting=variable(name))


def _as_error(problem: Problem) -> FarError:
    return InvalidSetting(problem.message, setting=problem.setting, origin=problem.origin)


def _located(error: FarError, said: Said, name: str) -> FarError:
    """The same error, which says where the setting comes from unless it was on the command line."""
    origin = said.origin(name)
    place = {FLAG: "", ENVIRONMENT: f" ({variable(name)})"}.get(origin, f" ({name} in {origin})")
    return type(error)(error.message + place, **error.facts, setting=variable(name), origin=origin)
