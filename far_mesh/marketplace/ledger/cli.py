"""``far-mesh ledger``: look into the books, recompute them, take them along."""

from __future__ import annotations

import csv
import json as jsonlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from discovery.console import EXIT_FAILED, Console, quiet_libraries, run

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

    from far_mesh.marketplace.database import Database
    from far_mesh.marketplace.ledger.verify import Report
    from far_mesh.marketplace.settings import Settings

app = typer.Typer(help="The marketplace's books: show, verify, export, grant.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    """The database that the settings name. Nothing is made or migrated.

    Raises:
        DatabaseUnavailable: it is not there, or its tables are not those of this version.
    """
    from sqlalchemy import inspect
    from sqlalchemy.engine import make_url

    from far_mesh.marketplace.database import Database
    from far_mesh.marketplace.errors import DatabaseUnavailable
    from far_mesh.marketplace.tables import reconciliations

    _check_there_is_one(make_url(settings.database))
    database = Database(settings.database)
    try:
        async with database.reading() as connection:
            if not await connection.run_sync(lambda raw: inspect(raw).has_table(reconciliations.name)):
                raise DatabaseUnavailable(
                    "the tables are not those of this version: start far-mesh serve once, it brings them up to date"
                )
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _books() -> AsyncIterator[AsyncConnection]:
    """A snapshot of it. Raises as :func:`opened_database`."""
    from far_mesh.marketplace.settings import Settings

    async with opened_database(Settings.read()) as database, database.snapshot() as connection:
        yield connection


def _check_there_is_one(url: URL) -> None:
    from far_mesh.marketplace.errors import DatabaseUnavailable

    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise DatabaseUnavailable(f"there is no database at {url.database}: set FAR_DATABASE_URL or FAR_DATA_DIR")


@app.command()
def show(
    owner: Annotated[str | None, typer.Argument(help="A wallet, or platform; without it the totals.")] = None,
    request: Annotated[str | None, typer.Option(help="Every line about this request instead.")] = None,
    json: JsonOption = False,
) -> None:
    """Balances of one owner, the totals of all accounts, or the lines of one request."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.ledger import repository

        async with _books() as connection:
            if request is not None:
                async for line in repository.all_lines(connection, request):
                    console.event("line", _sentence(line), **_facts(line))
                return
            found = await (
                repository.totals(connection) if owner is None else repository.balances_of(connection, owner)
            )
        for book, units in sorted(found.items()):
            console.event("balance", f"{book:<16} {units:>24,}", account=str(book), owner=owner, units=units)
        if not found:
            console.event("empty", "there is nothing in the books" + (f" of {owner}" if owner else ""), owner=owner)

    run(console, main)


@app.command()
def verify(json: JsonOption = False) -> None:
    """Recompute every sum, checkpoint and table. Exit code 1 and a list when something disagrees."""
    console = Console(json)
    quiet_libraries()
    reports: list[Report] = []

    async def main() -> None:
        from far_mesh.marketplace.ledger.verify import verify as recompute

        async with _books() as connection:
            reports.append(await recompute(connection))

    run(console, main)
    report = reports[0]
    for finding in report.findings:
        console.event("finding", f"{finding.kind}: {finding.about}: {finding.message}", **finding.as_facts())
    counted = {"postings": report.postings, "lines": report.lines, "accounts": report.accounts}
    summary = ", ".join(f"{count} {name}" for name, count in counted.items())
    verdict = f"{len(report.findings)} things disagree" if report.findings else "all of it agrees"
    console.event(
        "verified",
        f"{summary}, {report.checkpoints} checkpoints: {verdict}",
        **counted,
        checkpoints=report.checkpoints,
        findings=len(report.findings),
    )
    if report.findings:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="Write here instead of to the screen.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of CSV.")] = False,
) -> None:
    """Every line of the books in the order it was written, as CSV or JSON lines."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.ledger import repository

        async with _books() as connection:
            with _opened(out) as file:
                if json:
                    async for line in repository.all_lines(connection):
                        file.write(jsonlib.dumps(_facts(line)) + "\n")
                    return
                table = csv.DictWriter(file, [field.name for field in fields(repository.Line)])
                table.writeheader()
                async for line in repository.all_lines(connection):
                    table.writerow(_facts(line))

    run(console, main)


@app.command()
def grant(
    wallet: Annotated[str, typer.Argument(help="Whose balance.")],
    units: Annotated[int, typer.Argument(min=1, max=2**53, help="How much, in units of 1e-9 FAR.")],
    name: Annotated[str, typer.Option(help="Of this grant, for ever: the same name is the same grant.")],
    reason: Annotated[str, typer.Option(help="For whoever reads the books.")],
    json: JsonOption = False,
) -> None:
    """Give a balance where there are no payments (FAR_PAYMENT_PROVIDER=none)."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from discovery.protocol.errors import InvalidArgument
        from discovery.protocol.ids import check_wallet
        from far_mesh.marketplace.ledger import service
        from far_mesh.marketplace.ledger.schemas import Account, Book
        from far_mesh.marketplace.settings import Settings

        settings = Settings.read()
        if settings.payment_provider != "none":
            raise InvalidArgument(
                f"with FAR_PAYMENT_PROVIDER={settings.payment_provider} balances come from deposits alone"
            )
        if not reason.strip():
            raise InvalidArgument("a grant needs a reason", param="reason")
        owner = check_wallet(wallet)
        lines = {Account(Book.CHAIN, owner): -units, Account(Book.USER_DEPOSIT, owner): units}
        async with opened_database(settings) as database, database.writing() as connection:
            is_new = await service.adjustment(connection, name, lines, reason)
        text = f"{units} units for {owner}" if is_new else f"{name} was granted before"
        console.event("granted", text, wallet=owner, units=units, name=name, is_new=is_new)

    run(console, main)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """The file, or the screen.

    Raises:
        InvalidArgument: nothing can be written there.
    """
    from discovery.protocol.errors import InvalidArgument

    if out is None:
        yield sys.stdout
        return
    try:
        file = out.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"cannot write {out}: {error.strerror}", param="out") from None
    with file:
        yield file


def _facts(line: Any) -> dict[str, Any]:
    return {**asdict(line), "created_at": line.created_at.isoformat()}


def _sentence(line: Any) -> str:
    return f"{line.created_at:%Y-%m-%d %H:%M:%S} {line.kind:<16} {line.account:<16} {line.owner} {line.amount_units:+,}"
