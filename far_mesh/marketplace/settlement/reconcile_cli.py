"""``far-mesh reconcile``: do the books agree with the chain?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import EXIT_FAILED, Console, quiet_libraries, run

if TYPE_CHECKING:
    from far_mesh.marketplace.settlement.reconcile_books import Result


def reconcile(
    full: Annotated[
        bool, typer.Option("--full", help="From the first block on, and everybody, not what is new alone.")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="What is found is known: later runs begin behind it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Compare the books with the chain. Exit code 1 and a list when something disagrees; nothing is changed. Without an
    escrow every transfer and every deposit is asked about.
    """
    import logging

    from far_mesh.marketplace.settings import Settings
    from far_mesh.marketplace.settlement import transfer_cli

    console = Console(json)
    quiet_libraries(logging.CRITICAL)  # what is found is listed, and need not be logged too
    results: list[Result] = []
    disagreements: list[int] = []

    async def main() -> None:
        settings = Settings.read()
        if transfer_cli.pays_by_transfer(settings):
            async with transfer_cli.opened(settings) as place:
                disagreements.append(await transfer_cli.reconcile(console, place))
            return
        results.append(await _compare(console, full=full, accept=accept))

    run(console, main)
    if disagreements:
        raise typer.Exit(EXIT_FAILED if disagreements[0] else 0)
    result = results[0]
    for finding in result.findings:
        sentence = f"{finding['kind']}: {finding['about']}: {finding['message']}\n    {finding['advice']}"
        console.event("finding", sentence, **finding)
    count = len(result.findings)
    verdict = f"{count} things disagree" if count else "the books and the chain agree"
    console.event(
        "reconciled", f"block {result.block}: {verdict}", at=result.at.isoformat(), block=result.block, findings=count
    )
    if count:
        raise typer.Exit(EXIT_FAILED)


async def _compare(console: Console, *, full: bool, accept: bool) -> Result:
    from far_mesh.marketplace.chain.audit import AuditedChain
    from far_mesh.marketplace.ledger.cli import opened_database
    from far_mesh.marketplace.settings import Settings
    from far_mesh.marketplace.settlement.reconciler import reconciler_of

    settings = Settings.read()
    settings.require("chain_rpc_url", "token_address", "escrow_address")
    chain = AuditedChain(settings.chain_rpc_url, settings.chain_id, settings.token_address, settings.escrow_address)
    try:
        await chain.check()
        async with opened_database(settings) as database:
            return await reconciler_of(settings, database, chain).compare(
                full=full,
                accept=accept,
                on_progress=lambda block, newest: console.event(
                    "progress", f"block {block:,} of {newest:,}", block=block, newest=newest
                ),
            )
    finally:
        await chain.close()
