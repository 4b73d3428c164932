"""``far-mesh config``: what the settings are, where they come from, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries, run

if TYPE_CHECKING:
    from discovery.settings import Problem, Said

app = typer.Typer(
    help="The gateway's settings: what they are, where they come from, what is wrong.", no_args_is_help=True
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="File of settings; default: FAR_CONFIG, ./far-mesh.toml, ~/.far/far-mesh.toml, the first that exists.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command()
def check(
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Try the database, the chain and the bootstrap peers too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """All that is wrong, at once, and what is dangerous. Exit code 1: the gateway would not start."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.configuration.check import check as check_settings

        said = _said(config)
        report = await check_settings(said)
        if online:
            from far_mesh.marketplace.configuration.online import check_online

            await check_online(report)
        for sentence in report.reached:
            console.event("reached", f"ok: {sentence}", what=sentence)
        _tell(console, "warning", report.warnings)
        _tell(console, "problem", report.problems)
        problems, warnings = len(report.problems), len(report.warnings)
        verdict = f"{problems} problems" if problems else "the settings are usable"
        dangers = f", {warnings} warnings" if warnings else ""
        place = f" ({said.file})" if said.file else ""
        console.event("checked", f"{verdict}{dangers}{place}", problems=problems, warnings=warnings)
        if problems:
            raise SystemExit(EXIT_FAILED)

    run(console, main)


@app.command()
def show(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Every setting, its value, and who said it. Secrets are three stars."""
    from discovery.protocol.errors import FarError
    from far_mesh.marketplace.configuration.shown import shown
    from far_mesh.marketplace.settings import Settings

    console = Console(json)
    try:
        settings = Settings.read(config)
    except FarError as error:
        fail(console, error)
    from json import dumps

    for one in shown(settings, _said(config)):
        sentence = f"{one.name} = {dumps(one.value)}  ({one.origin})"
        console.event("setting", sentence, name=one.name, value=one.value, origin=one.origin)


@app.command()
def example() -> None:
    """A file to begin with: every setting, what it means, and its default."""
    from far_mesh.marketplace.configuration.example import example as text

    typer.echo(text())


def _said(config: Path | None) -> Said:
    from far_mesh.marketplace.configuration.sources import gather
    from far_mesh.marketplace.settings import Settings

    return gather(Settings, {}, config)


def _tell(console: Console, kind: str, found: Iterable[Problem]) -> None:
    for one in found:
        sentence = f"{kind}: {one.setting} (from {one.origin}): {one.message}"
        console.event(kind, sentence, setting=one.setting, origin=one.origin, message=one.message)
