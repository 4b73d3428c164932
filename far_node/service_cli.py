"""``far-node service``: let the machine start the node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries
from far_node.options import ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from discovery.protocol.errors import FarError
    from far_node.service.units import Service

app = typer.Typer(help="Let the machine start the node, and start it again when it breaks.", no_args_is_help=True)


@app.command()
def install(
    system: Annotated[
        bool, typer.Option("--system", help="Print a unit for the whole machine, which root installs.")
    ] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it now.")] = True,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Have the node started at boot: a unit of systemd, or a launch agent on macOS. Again: with the settings of now."""
    from discovery.protocol.errors import FarError
    from far_node.service.manage import manager_for
    from far_node.service.units import systemd_unit

    console = Console(json)
    service = _service(console, name, config, needed=True)
    if system:
        unit = systemd_unit(service, system=True, sandboxed=True)
        path = f"/etc/systemd/system/{service.unit}"
        console.event("unit", unit.rstrip("\n"), path=path, unit=unit)
        typer.echo(
            f"# far-node service install --system{_words(name)} | sudo tee {path}\n"
            f"# sudo systemctl daemon-reload && sudo systemctl enable --now {service.unit}",
            err=True,
        )
        return
    try:
        manager = manager_for(service)
        told = manager.install(start=start)
    except FarError as error:
        fail(console, error)
    console.event("service_installed", _installed(service, manager.path, start, told), path=str(manager.path), **told)


@app.command()
def uninstall(name: NameOption = None, json: JsonOption = False) -> None:
    """Stop the node, letting its sessions end, and have it started no more. Settings and identity stay."""
    from discovery.protocol.errors import FarError
    from far_node.service.manage import manager_for

    console = Console(json)
    try:
        manager = manager_for(_service(console, name, None, needed=False))
        manager.uninstall()
    except FarError as error:
        fail(console, error)
    console.event("service_uninstalled", f"removed {manager.path}", path=str(manager.path))


@app.command()
def status(name: NameOption = None, json: JsonOption = False) -> None:
    """What the service manager says of the node, and the node itself."""
    from discovery.protocol.errors import FarError
    from far_node.service.manage import manager_for

    console = Console(json)
    try:
        service = _service(console, name, None, needed=False)
        manager = manager_for(service)
        told = manager.status()
    except FarError as error:
        fail(console, error)
    node = _node(name)
    sentence = (
        f"{manager.path}: {'installed' if told['installed'] else 'not installed'}, "
        f"{'enabled' if told['enabled'] else 'not enabled'}, {told['active']} ({told['detail']})\n"
        f"the node: {node or 'does not run'}"
    )
    if told["installed"] and told["lingers"] is False:
        sentence += f"\n{_linger(service)}"
    console.event("service", sentence, path=str(manager.path), node=node, **told)


def _service(console: Console, name: str | None, config: Path | None, *, needed: bool) -> Service:
    """The node that is meant, as a service. ``needed``: only if it would start."""
    from discovery.protocol.errors import FarError
    from discovery.settings import ENVIRONMENT
    from far_node.service.manage import service_of
    from far_node.settings import Place, check, find_file, gather

    quiet_libraries()
    try:
        place = Place.of(name)
        gathered = gather({}, place, config)
        said, errors = check(gathered, needed=needed, addresses=needed)
        errors += [_only_here(key) for key, origin in gathered.origins.items() if origin == ENVIRONMENT]
        if needed and errors:
            for error in errors:
                console.error(error)
            raise typer.Exit(EXIT_FAILED)
        file = find_file(place, config) if needed else None
        return service_of(said, place, None if file == place.file else file)
    except FarError as error:
        fail(console, error)


def _only_here(key: str) -> FarError:
    from discovery.web.errors import InvalidSetting
    from far_node.settings import variable

    message = f"{variable(key)} is in this shell and not in the service's: far-node config set {key} …, and unset it"
    return InvalidSetting(message, setting=variable(key))


def _node(name: str | None) -> str | None:
    """The state of the node as it says itself; None: it does not run."""
    from discovery.protocol.errors import FarError
    from far_node.control import ask, control_path
    from far_node.options import ANSWER_SECONDS
    from far_node.settings import Place, find_identity

    try:
        told = ask(control_path(find_identity(Place.of(name), None)), "status", timeout=ANSWER_SECONDS)
    except FarError:
        return None
    return str(told.get("state"))


def _installed(service: Service, path: Path, start: bool, told: dict[str, Any]) -> str:
    lines = [f"wrote {path}", "the node is started now and at boot" if start else "the node is started at boot"]
    if told["lingers"] is False:
        lines.append(_linger(service))
    if path.suffix == ".service":
        lines.append(f"what it says: journalctl --user --unit {service.unit}; what it does: far-node logs")
        if not told["sandboxed"]:
            lines.append(
                "this machine lets nobody but root make namespaces, so the node sees all that you see; "
                "a unit of far-node service install --system can do better"
            )
    return "\n".join(lines)


def _linger(service: Service) -> str:
    return f"it ends when you log out, and starts when you log in, until: loginctl enable-linger {service.user}"


def _words(name: str | None) -> str:
    return "" if name is None else f" --name {name}"
