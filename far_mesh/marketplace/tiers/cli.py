"""``far-mesh tiers``: the table, and who is in which tier. A gateway sees a change after ``FAR_AUTH_CACHE_SECONDS``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, quiet_libraries, run
from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.tiers.names import TierName

if TYPE_CHECKING:
    from far_mesh.marketplace.database import Database
    from far_mesh.marketplace.settings import Settings
    from far_mesh.marketplace.tiers.repository import Membership

app = typer.Typer(help="Who is served how: tiers, and the accounts that are in them.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
WalletArgument = Annotated[str, typer.Argument(help="The account's wallet.")]
UntilOption = Annotated[
    str | None,
    typer.Option(help="A date or a time, such as 2027-01-31 or 2027-01-31T12:00:00+01:00; UTC if it says none."),
]
MemberOption = Annotated[list[str], typer.Option(help="A peer id, or a wallet for its registered nodes; repeatable.")]

Act = Callable[["Settings", "Database"], Awaitable[None]]


@app.command(name="list")
def list_accounts(json: JsonOption = False) -> None:
    """The accounts that are in another tier than standard."""
    console = Console(json)

    async def main(settings: Settings, database: Database) -> None:
        from far_mesh.marketplace.tiers.service import TierService

        for one in await TierService(database, settings.tiers, 0.0).all_of_them():
            _tell(console, one)

    _run(console, main)


@app.command()
def show(
    wallet: Annotated[str | None, typer.Argument(help="An account's wallet; without it the table of tiers.")] = None,
    json: JsonOption = False,
) -> None:
    """How each tier is served; or in which tier an account is, and its private pool."""
    console = Console(json)

    async def main(settings: Settings, database: Database) -> None:
        from discovery.protocol.ids import check_wallet
        from far_mesh.marketplace.tiers.pools import members_of
        from far_mesh.marketplace.tiers.service import TierService

        if wallet is None:
            for tier in settings.tiers.all():
                facts = tier.model_dump(mode="json")
                told = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "name")
                console.event("tier", f"{tier.name}: {told}", **facts)
            return
        owner, service = check_wallet(wallet), TierService(database, settings.tiers, 0.0)
        found = await service.membership(owner)
        own = TierName.STANDARD if found is None else found.tier
        async with database.reading() as connection:
            members = sorted(await members_of(connection, owner))
        until = found.until.isoformat() if found is not None and found.until is not None else None
        sentence = f"{owner} is in the tier {own}" + ("" if until is None else f" until {until}")
        if members:
            sentence += f"; its private pool: {', '.join(members)}"
        console.event("account", sentence, wallet=owner, tier=own.value, until=until, pool=members)

    _run(console, main)


@app.command(name="set")
def set_tier(
    wallet: WalletArgument,
    tier: Annotated[TierName, typer.Argument(help="The tier that it is in from now on.")],
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Put an account into a tier. Requests under way stay in the one they began in."""
    console = Console(json)

    async def main(settings: Settings, database: Database) -> None:
        from discovery.protocol.ids import check_wallet
        from far_mesh.marketplace.tiers.service import TierService

        service = TierService(database, settings.tiers, 0.0)
        _tell(console, await service.put(check_wallet(wallet), tier, None if until is None else _time(until)))

    _run(console, main)


@app.command()
def pool(
    wallet: WalletArgument,
    add: MemberOption = [],  # noqa: B006
    remove: MemberOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """The nodes of an account's private pool, after what is added and removed."""
    console = Console(json)

    async def main(_: Settings, database: Database) -> None:
        from discovery.protocol.ids import check_wallet
        from far_mesh.marketplace.tiers.pools import members_of, put_members

        owner = check_wallet(wallet)
        async with database.writing() as connection:
            before = await members_of(connection, owner)
            if unknown := set(remove) - before:
                raise InvalidArgument(f"{min(unknown)} is not in the pool of {owner}", param="remove")
            members = await put_members(connection, owner, (before | set(add)) - set(remove))
        told = ", ".join(members) or "no node: requests of the account in a private tier are refused"
        console.event("pool", f"{owner}: {told}", wallet=owner, members=members)

    _run(console, main)


def _run(console: Console, act: Act) -> None:
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.database import Database
        from far_mesh.marketplace.migrations import upgrade
        from far_mesh.marketplace.settings import Settings

        settings = Settings.read()
        await upgrade(settings.database)
        database = Database(settings.database)
        try:
            await act(settings, database)
        finally:
            await database.close()

    run(console, main)


def _tell(console: Console, one: Membership) -> None:
    until = None if one.until is None else one.until.isoformat()
    sentence = f"{one.wallet}: {one.tier}" + ("" if until is None else f" until {until}")
    console.event("membership", sentence, wallet=one.wallet, tier=one.tier.value, until=until)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"{text!r} is no date such as 2027-01-31", param="until") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
