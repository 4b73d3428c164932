"""``far-mesh prices``: prices in the database, which come before those of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, quiet_libraries, run
from far_mesh.marketplace.tiers.names import TierName

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

app = typer.Typer(help="Prices that come before those of FAR_MODELS.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
ModelArgument = Annotated[str, typer.Argument(help="The model's id, as users ask for it.")]


TierOption = Annotated[TierName, typer.Option(help="The tier it is the price of.")]
PromptOption = Annotated[int, typer.Option(min=0, max=2**53 - 1, help="Units of 1e-9 FAR per token of the prompt.")]
CompletionOption = Annotated[int, typer.Option(min=1, max=2**53 - 1, help="Units per token of the answer.")]


@asynccontextmanager
async def _database() -> AsyncIterator[AsyncConnection]:
    from far_mesh.marketplace.database import Database
    from far_mesh.marketplace.migrations import upgrade
    from far_mesh.marketplace.settings import Settings

    settings = Settings.read()
    await upgrade(settings.database)
    database = Database(settings.database)
    try:
        async with database.writing() as connection:
            yield connection
    finally:
        await database.close()


@app.command(name="list")
def list_prices(json: JsonOption = False) -> None:
    """What the database has."""
    console = Console(json)

    async def main(connection: AsyncConnection) -> None:
        from far_mesh.marketplace.pricing import repository

        for (model, tier), price in (await repository.all_prices(connection)).items():
            _tell(console, "price", model, tier, price.prompt, price.completion)

    _run(console, main)


@app.command(name="set")
def set_price(
    model: ModelArgument,
    prompt: PromptOption,
    completion: CompletionOption,
    tier: TierOption = TierName.STANDARD,
    json: JsonOption = False,
) -> None:
    """From now on a token costs this, before demand. Requests under way keep their price."""
    console = Console(json)

    async def main(connection: AsyncConnection) -> None:
        from far_mesh.marketplace.pricing import repository
        from far_mesh.marketplace.pricing.schemas import ListPrice

        await repository.put(connection, model, tier.value, ListPrice(prompt, completion))
        _tell(console, "price", model, tier.value, prompt, completion)

    _run(console, main)


@app.command()
def clear(model: ModelArgument, tier: TierOption = TierName.STANDARD, json: JsonOption = False) -> None:
    """The settings decide again."""
    console = Console(json)

    async def main(connection: AsyncConnection) -> None:
        from far_mesh.marketplace.pricing import repository

        was_there = await repository.drop(connection, model, tier.value)
        sentence = f"the settings decide the {tier.value} price of {model}" + ("" if was_there else ", as they did")
        console.event("cleared", sentence, model=model, tier=tier.value, was_there=was_there)

    _run(console, main)


def _run(console: Console, act: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    quiet_libraries()

    async def main() -> None:
        async with _database() as connection:
            await act(connection)

    run(console, main)


def _tell(console: Console, event: str, model: str, tier: str, prompt: int, completion: int) -> None:
    sentence = f"{model} ({tier}): {prompt} per token of the prompt, {completion} of the answer"
    facts = {"prompt_price_units": prompt, "completion_price_units": completion}
    console.event(event, sentence, model=model, tier=tier, **facts)
