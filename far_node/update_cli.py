"""``far-node update``: a newer version now, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries, run
from far_node.options import ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from far_node.settings import Place
    from far_node.update.options import UpdateOptions

app = typer.Typer(help="Install a newer version.", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def update(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only look whether there is one.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the version before, and stay there.")] = False,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Install a newer version beside the one that runs, and let the next start take it."""
    if context.invoked_subcommand is not None:
        return
    console = Console(json)
    quiet_libraries()
    run(console, lambda: _undo(console) if undo else _update(console, check, name, config))


@app.command()
def sign(
    wheels: Annotated[list[Path], typer.Argument(help="Wheels of all releases that may be installed.")],
    key: Annotated[Path, typer.Option(help="Key file of the publisher, as a node's identity; it must be there.")],
    out: Annotated[Path, typer.Option(help="Where to write the list.")] = Path("releases.json"),
    json: JsonOption = False,
) -> None:
    """For publishers: sign a list of releases, which nodes with --update-publisher go by."""
    from discovery.dht.identity import load_identity
    from discovery.protocol.errors import FarError, InvalidArgument
    from far_node.update.releases import listed, sign_releases

    console = Console(json)
    quiet_libraries()
    try:
        if not key.expanduser().is_file():
            raise InvalidArgument(f"there is no key at {key}")
        identity, releases = load_identity(key), listed(wheels)
        out.write_bytes(sign_releases(releases, identity.key))
    except FarError as error:
        fail(console, error)
    except OSError as error:
        fail(console, InvalidArgument(f"{out} cannot be written: {error.strerror or error}"))
    versions = [release.version for release in releases]
    sentence = f"{out}: {', '.join(versions)}, signed by {identity.peer_id}"
    console.event("signed", sentence, versions=versions, publisher=identity.peer_id, path=str(out))


async def _update(console: Console, check: bool, name: str | None, config: Path | None) -> None:
    from far_node.settings import Place
    from far_node.update.environments import Environments
    from far_node.update.install import look, prepare

    place = Place.of(name)
    options = _options(console, place, config)
    environments = Environments()
    current = environments.running().version
    failed = environments.failed(place.name or "")
    release = await look(options, current, failed)
    if release is None:
        words = "".join(f"\nnot {version}: {reason}" for version, reason in failed.items() if version > current)
        facts = {"version": str(current), "failed": {str(version): reason for version, reason in failed.items()}}
        console.event("newest", f"{current} is the newest version for this machine{words}", **facts)
        return
    version = str(release.version)
    if check:
        console.event("update_found", f"version {version} is there; this is {current}", version=version)
        return
    console.event("update_found", f"version {version} is there; installing it beside this one …", version=version)
    installed = await prepare(environments, release, options)
    with environments.locked():
        environments.switch(installed)
        environments.prune()
    sentence = (
        f"version {version} is what starts next. A node with --auto-update goes over by itself, between sessions;\n"
        f"others run on: far-node stop{place.words}, then far-node start{place.words}\n"
        "something is wrong with it: far-node update --undo"
    )
    console.event("switched", sentence, version=version, former=str(current))


async def _undo(console: Console) -> None:
    from far_node.update.environments import BY_HAND, Environments
    from far_node.update.errors import UpdateFailed

    environments = Environments()
    current = environments.current() or environments.running()
    older = [one for one in environments.complete() if one.version < current.version]
    if not older:
        raise UpdateFailed(f"there is nothing to go back to from {current.version}")
    environments.end_trial(BY_HAND, current.version, "its owner went back")
    with environments.locked():
        environments.switch(older[-1])
    version = str(older[-1].version)
    sentence = f"version {version} is what starts next, and {current.version} is not installed again"
    console.event("switched", sentence, version=version, former=str(current.version))


def _options(console: Console, place: Place, config: Path | None) -> UpdateOptions:
    """Where updates come from, as the settings say; what else is wrong with those does not matter here."""
    from far_node.settings import check, gather, variable
    from far_node.update.options import update_options

    found, errors = check(gather({}, place, config), needed=False, addresses=False)
    ours = [error for error in errors if str(error.facts.get("setting")).startswith(variable("update_"))]
    for error in ours:
        console.error(error)
    if ours:
        raise typer.Exit(EXIT_FAILED)
    return update_options(found)
