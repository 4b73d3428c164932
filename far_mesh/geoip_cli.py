"""``far-mesh geoip``: where a city database comes from, whether a file is one, and what it says of an address."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, fail

if TYPE_CHECKING:
    from discovery.geoip import GeoDatabase

app = typer.Typer(help="City databases, by which addresses are found on the map.", invoke_without_command=True)

OLD_DAYS = 45
"""They are published anew every month or more often."""

HOW_TO_GET_ONE = """\
Where nodes are is guessed from their addresses with a city database in MaxMind's format, which is not part of Far Mesh.
Two that cost nothing:

  DB-IP City Lite       https://db-ip.com/db/download/ip-to-city-lite
      Needs no account; a new one every month. Creative Commons Attribution 4.0: who shows what comes of it says so,
      with a link to DB-IP.com. Get the MMDB file and unpack it with gunzip.

  GeoLite2 City         https://dev.maxmind.com/geoip/geolite2-free-geolocation-data
      Needs an account and MaxMind's GeoLite2 licence, which wants old files deleted within 30 days of a new one and
      GeoLite2 named where it is used. Their geoipupdate fetches it, and fetches it again.

MaxMind's GeoIP2 City, which costs money and is more accurate, works as well. Then

  far-mesh geoip check city.mmdb
  export FAR_GEOIP_DB=city.mmdb

A file that is replaced is read again within a minute. Without a database nothing is lost but a first guess: a node is
where it says itself, or that is unknown, and round trips that were measured count before any of it."""

FileOption = Annotated[
    Path | None, typer.Option("--db", envvar="FAR_GEOIP_DB", help="The database.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def geoip(context: typer.Context) -> None:
    """Say how to get a city database."""
    if context.invoked_subcommand is None:
        typer.echo(HOW_TO_GET_ONE)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="The file.")],
    json: JsonOption = False,
) -> None:
    """Whether a file is a city database, of what kind, and how old."""
    from datetime import UTC, datetime

    console = Console(json)
    facts = _opened(console, path).facts
    days = (datetime.now(UTC) - facts.built_at).days
    old = f"; get a newer one, addresses move (it is older than {OLD_DAYS} days)" if days > OLD_DAYS else ""
    console.event(
        "checked",
        f"{path}: {facts.kind}, built {facts.built_at:%Y-%m-%d}, {days} days ago{old}",
        kind=facts.kind,
        built_at=facts.built_at.isoformat(),
        days=days,
        ip_version=facts.ip_version,
    )


@app.command()
def lookup(
    address: Annotated[str, typer.Argument(help="An IPv4 or IPv6 address.")],
    database: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Where an address is believed to be."""
    from discovery.protocol.errors import FarError, InvalidArgument

    console = Console(json)
    if database is None:
        fail(console, InvalidArgument("name a city database with --db or FAR_GEOIP_DB; see far-mesh geoip", param="db"))
    opened = _opened(console, database)
    try:
        place = opened.locate(address)
    except FarError as error:
        fail(console, error)
    if place is None:
        console.event("located", f"{address}: unknown", address=address, place=None)
        return
    names = [name for name in (place.city, place.region, place.country) if name is not None]
    radius = "" if place.accuracy_km is None else f", within {place.accuracy_km} km"
    words = f"{address}: {place.latitude:g},{place.longitude:g}{radius}{' · ' if names else ''}{', '.join(names)}"
    console.event("located", words, address=address, place=asdict(place))


def _opened(console: Console, path: Path) -> GeoDatabase:
    from discovery.geoip import GeoDatabase
    from discovery.protocol.errors import FarError

    try:
        return GeoDatabase(path)
    except FarError as error:
        fail(console, error)
