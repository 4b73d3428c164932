"""``far-node config``: what the settings of a node are, where they come from, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries
from far_node.options import ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from pathlib import Path

    from discovery.protocol.errors import FarError
    from far_node.settings import Place

app = typer.Typer(
    help="The settings of a node: flags of start, FAR_NODE_… variables, ~/.far/config.toml.", no_args_is_help=True
)

KeyArgument = Annotated[str, typer.Argument(help="A setting, as it stands in the file: cache_mb for --cache-mb.")]


@app.command()
def show(name: NameOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Every setting, its value, and where it comes from."""
    from json import dumps

    from far_node.settings import check, gather, shown_value, variable

    console = Console(json)
    quiet_libraries()
    said = gather({}, _place(console, name), config)
    settings, errors = check(said, needed=False)
    for key, value in settings.model_dump(mode="json").items():
        plain, origin = shown_value(value), said.origin(key)
        sentence = f"{key} = {dumps(plain, ensure_ascii=False)}  ({origin})"
        console.event("setting", sentence, name=key, value=plain, origin=origin, variable=variable(key))
    _tell(console, errors)


@app.command()
def check(name: NameOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """All that is wrong, at once. Exit code 1: the node would not start."""
    from far_node import settings

    console = Console(json)
    quiet_libraries()
    said = settings.gather({}, _place(console, name), config)
    _, errors = settings.check(said)
    _tell(console, errors)
    where = f" ({said.file})" if said.file else ""
    console.event("checked", f"the settings are usable{where}", file=str(said.file) if said.file else None)


@app.command()
def get(key: KeyArgument, name: NameOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """The value of one setting, as it counts now. What is not set is an empty line, lists have a line each."""
    from far_node.settings import check, gather, shown_value

    console = Console(json)
    quiet_libraries()
    key = _known(console, key)
    said = gather({}, _place(console, name), config)
    settings, errors = check(said, needed=False)
    _tell(console, [error for error in errors if error.facts.get("setting") == _variable(key)])
    value = shown_value(settings.model_dump(mode="json")[key])
    console.event("setting", _plain(value), name=key, value=value, origin=said.origin(key))


@app.command("set")
def set_value(
    key: KeyArgument,
    values: Annotated[list[str], typer.Argument(help="Its value; several of what is a list.")],
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a setting into the file, if it means something. A node that runs goes on as it was started."""
    from discovery.protocol.errors import InvalidArgument
    from far_node.settings import LISTS

    console = Console(json)
    quiet_libraries()
    key = _known(console, key)
    if key not in LISTS and len(values) > 1:
        fail(console, InvalidArgument(f"{key} takes one value, {len(values)} are given"))
    _change(console, key, tuple(values) if key in LISTS else values[0], _place(console, name), config)


@app.command()
def unset(key: KeyArgument, name: NameOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Take a setting out of the file, so that its default counts."""
    console = Console(json)
    quiet_libraries()
    _change(console, _known(console, key), None, _place(console, name), config)


@app.command()
def path(name: NameOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Where the file of settings is, or would be."""
    console = Console(json)
    file = _file(console, _place(console, name), config)
    console.event("file", str(file), path=str(file), exists=file.is_file())


def _change(console: Console, key: str, value: Any, place: Place, config: Path | None) -> None:
    from discovery.protocol.errors import FarError
    from discovery.settings import ENVIRONMENT
    from far_node.settings import gather, shown_value
    from far_node.settings_file import change

    file = _file(console, place, config)
    try:
        written, errors = change(file, key, value)
    except FarError as error:
        fail(console, error)
    _tell(console, errors)
    hidden = ""
    if gather({}, place, config).origin(key) == ENVIRONMENT:
        hidden = f"; {_variable(key)} comes before it here"
    done = f"{key} is not set" if value is None else f"{key} = {_plain(shown_value(written))}"
    console.event("written", f"{done} in {file}{hidden}", name=key, value=shown_value(written), file=str(file))


def _place(console: Console, name: str | None) -> Place:
    from discovery.protocol.errors import FarError
    from far_node.settings import Place

    try:
        return Place.of(name)
    except FarError as error:
        fail(console, error)


def _file(console: Console, place: Place, config: Path | None) -> Path:
    from discovery.protocol.errors import FarError
    from far_node.settings import find_file

    try:
        return find_file(place, config) or place.file
    except FarError as error:
        fail(console, error)


def _known(console: Console, key: str) -> str:
    """The setting that is meant; flags and variables mean the same."""
    from discovery.settings import did_you_mean
    from discovery.web.errors import InvalidSetting
    from far_node.settings import FIELDS, PREFIX

    plain = key.removeprefix("--").replace("-", "_").removeprefix(PREFIX).lower()
    if plain not in FIELDS:
        fail(console, InvalidSetting(f"there is no setting {key!r}{did_you_mean(key, FIELDS)}"))
    return plain


def _variable(key: str) -> str:
    from far_node.settings import variable

    return variable(key)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _tell(console: Console, errors: Iterable[FarError]) -> None:
    """Tell of each, and leave if there is one."""
    found = list(errors)
    for error in found:
        console.error(error)
    if found:
        raise typer.Exit(EXIT_FAILED)
