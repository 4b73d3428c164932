"""``far-node init``: settings and an identity for a new node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries
from far_node.options import JsonOption, NameOption

if TYPE_CHECKING:
    from discovery.protocol.errors import FarError
    from far_node.init import Machine
    from far_node.settings import Place

_RELAY = "relay"


def init(
    context: typer.Context,
    wallet: Annotated[str | None, typer.Option(help="EVM address that is paid, 0x…")] = None,
    model: Annotated[str | None, typer.Option(help="Model to serve; default: far-demo, which is bundled.")] = None,
    initial_peers: Annotated[
        list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable.")
    ] = [],  # noqa: B006
    discovery: Annotated[str | None, typer.Option(help="Address of a discovery service in their place.")] = None,
    swarm: Annotated[Path | None, typer.Option(help="File of a private swarm that invited this node.")] = None,
    invite: Annotated[str | None, typer.Option(help="The invitation to it, or a file that has it.")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="Index of the CUDA device; default: the first free.")] = None,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help="Do not use a GPU.")] = False,
    public_addr: Annotated[list[str], typer.Option(help="Address others reach us at, IP:PORT.")] = [],  # noqa: B006
    relay: Annotated[bool, typer.Option("--relay", help="No open port: be reached through the initial peers.")] = False,
    price: Annotated[int | None, typer.Option(help="Least for 1,000 token-layers, in 1e-9 FAR; default: 0.")] = None,
    name: NameOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what suits this machine.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write the file anew; the old one is kept as config.toml.old.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make ~/.far/config.toml and the node's identity, so that far-node start needs no flags."""
    from discovery.dht.identity import load_identity
    from discovery.protocol.errors import FarError, InvalidArgument
    from far_node.init import Machine, compose, others
    from far_node.settings import Place
    from far_node.settings_file import write

    console = Console(json)
    quiet_libraries()
    try:
        place = Place.of(name)
        _check_nothing_is_lost(place, force)
        if json and not yes:
            raise InvalidArgument("--json asks no questions: pass --yes, and what only you know as flags")
        machine, nodes = Machine.look(), others(place)
        console.event("machine", _in_words(machine), **_facts(machine))
        given = _found_from_anywhere(_given(context))
        values = {**_suited(machine, nodes, given), **given}
        if not yes:
            values = _asked(values, given, nodes)
        found = {key: value for key, value in values.items() if _says_something(value)}
        _leave_if(console, _wrong_with(found, needed=True))
        new = not place.identity.exists()
        identity = load_identity(place.identity)
        if place.file.exists():
            place.file.replace(place.file.with_name(place.file.name + ".old"))
        write(place.file, compose(_in_order(found)))
    except FarError as error:
        fail(console, error)
    except (typer.Abort, EOFError):
        typer.echo("\nnothing was written; --yes takes what suits this machine", err=True)
        raise typer.Exit(EXIT_FAILED) from None
    made = "a new identity" if new else "the identity that was there"
    sentence = (
        f"wrote {_short(place.file)}\n{_short(place.identity)}: {made}, {identity.peer_id}\n"
        f"start the node with: far-node start{place.words}"
    )
    console.event(
        "initialised", sentence, config=str(place.file), identity=str(place.identity), peer_id=identity.peer_id, new=new
    )


def _check_nothing_is_lost(place: Place, force: bool) -> None:
    from discovery.web.errors import InvalidSetting

    if place.file.exists() and not force:
        raise InvalidSetting(
            f"{place.file} is there already: change it with far-node config set{place.words}, make another node with "
            "--name, or write it anew with --force"
        )


def _given(context: typer.Context) -> dict[str, Any]:
    """Settings that are on the command line."""
    from far_node.settings import FIELDS, LISTS

    return {
        key: tuple(value) if key in LISTS else value
        for key, value in context.params.items()
        if key in FIELDS and _says_something(tuple(value) if key in LISTS else value)
    }


def _says_something(value: Any) -> bool:
    return value is not None and value is not False and value != ()


def _suited(machine: Machine, nodes: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """What suits the machine, where nothing else is said."""
    from far_node.init import free_gpu, free_port

    values: dict[str, Any] = {"model": "far-demo", "host_maddr": (f"/ip4/0.0.0.0/tcp/{free_port(nodes)}",), "price": 0}
    if not given.keys() & {"gpu", "cpu_only"}:
        free = free_gpu(machine, nodes)
        if free is not None:
            values["gpu"] = free.index
        elif machine.gpus:
            values["cpu_only"] = True
    return values


def _asked(values: dict[str, Any], given: Mapping[str, Any], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The same after its owner was asked for all that no flag has said; until each answer means something."""
    if "wallet" not in given:
        values |= _ask("Wallet that is paid (0x…)", lambda text: {"wallet": text})
    if "model" not in given:
        values |= _ask("Model to serve", lambda text: {"model": text}, values["model"])
    if not given.keys() & {"initial_peers", "discovery", "swarm"}:
        values |= _ask(
            "Bootstrap peer (/ip4/…/p2p/12D3KooW…), discovery service (https://…), or the file of a private swarm",
            _way_into_the_swarm,
        )
    if "swarm" in values:
        values |= _asked_of_a_private_swarm(values)
    if not given.keys() & {"gpu", "cpu_only"} and "gpu" in values:
        default = str(values.pop("gpu"))
        values |= _ask("GPU to compute on, or cpu", _device, default)
    if not given.keys() & {"public_addr", "relay"}:
        port = values["host_maddr"][0].rpartition("/")[2]
        question = f"Address at which others reach TCP port {port}: IP:PORT, relay if your router lets nobody in"
        values |= _ask(question, _way_in, "as this machine sees itself")
    if "price" not in given:
        values |= _ask("Least for 1,000 token-layers, in 1e-9 FAR", lambda text: {"price": text}, str(values["price"]))
    return values


def _ask(question: str, read: Any, default: str | None = None) -> dict[str, Any]:
    from discovery.protocol.errors import FarError

    while True:
        try:
            said: dict[str, Any] = read(str(typer.prompt(question, default=default)).strip())
            errors = _wrong_with(said, needed=False)
        except FarError as error:
            errors = [error]
        if not errors:
            return _typed(said)
        typer.echo(errors[0].message, err=True)


def _asked_of_a_private_swarm(values: Mapping[str, Any]) -> dict[str, Any]:
    from far_node.settings import NodeSettings, known_peers

    found: dict[str, Any] = {}
    if "invite" not in values:
        question = "Invitation to it (far-invite-…), or a file that has it"
        both = _ask(question, lambda text: {"swarm": values["swarm"], **_found_from_anywhere({"invite": text})})
        found["invite"] = both["invite"]
    said = NodeSettings(**{**values, **found})
    if said.discovery is None and not known_peers(said):
        found |= _ask("Peer of it (/ip4/…/p2p/12D3KooW…); its file names none", lambda text: {"initial_peers": (text,)})
    return found


def _way_into_the_swarm(text: str) -> dict[str, Any]:
    if text.startswith("http"):
        return {"discovery": text}
    file = Path(text).expanduser()
    if not file.is_file() and file.suffix != ".swarm":
        return {"initial_peers": (text,)}
    _check_charter(file)
    return _found_from_anywhere({"swarm": file})


def _check_charter(file: Path) -> None:
    from discovery.protocol.errors import MembershipInvalid
    from discovery.protocol.membership import read_charter

    try:
        read_charter(file.read_bytes())
    except OSError as error:
        raise MembershipInvalid(f"{file} cannot be read: {error.strerror}") from None


def _found_from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """The same with whole paths: the node may be started in another directory."""
    from discovery.protocol.membership import INVITATION_MARK

    said = {key: str(values[key]) for key in ("swarm", "invite") if key in values}
    files = {key: text for key, text in said.items() if not text.startswith(INVITATION_MARK)}
    return {**values, **{key: str(Path(text).expanduser().absolute()) for key, text in files.items()}}


def _device(text: str) -> dict[str, Any]:
    return {"cpu_only": True} if text.lower() == "cpu" else {"gpu": text}


def _way_in(text: str) -> dict[str, Any]:
    if text in ("", "as this machine sees itself"):
        return {}
    return {"relay": True} if text.lower() == _RELAY else {"public_addr": (text,)}


def _typed(said: Mapping[str, Any]) -> dict[str, Any]:
    from far_node.settings import NodeSettings

    return {key: value for key, value in NodeSettings(**said).model_dump().items() if key in said}


def _wrong_with(values: Mapping[str, Any], *, needed: bool) -> list[FarError]:
    from discovery.settings import FLAG, Said
    from far_node.settings import check

    return check(Said(dict(values), dict.fromkeys(values, FLAG)), needed=needed)[1]


def _leave_if(console: Console, errors: list[FarError]) -> None:
    for error in errors:
        console.error(error)
    if errors:
        raise typer.Exit(EXIT_FAILED)


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    from far_node.settings import FIELDS

    return {key: values[key] for key in FIELDS if key in values}


def _short(path: Path) -> str:
    """As people write it, in their own home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _in_words(machine: Machine) -> str:
    from far_node.capacity import readable_bytes

    gpus = [f"GPU {gpu.index}: {gpu.name}, {readable_bytes(gpu.total_bytes)}" for gpu in machine.gpus]
    memory = f"{machine.cores} cores and {readable_bytes(machine.memory_bytes)} of memory"
    return "this machine has " + "; ".join([*gpus, memory] if gpus else [memory, "no GPU that torch can compute on"])


def _facts(machine: Machine) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(machine)
