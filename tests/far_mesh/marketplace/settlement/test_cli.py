"""``far-mesh settle``: what would be settled, and settling it, with a gateway that settles and without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from far_mesh.cli import app
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.lead import LEASE
from far_mesh.marketplace.settlement.schemas import Kind
from tests.far_mesh.marketplace.house import SETTLER, LiveChain, Loop, rpc, start_chain
from tests.far_mesh.marketplace.settlement.netting import ESCROW_OWNER, NEVER, Netting
from tests.support.documents import wallet_of

NODES = [str(wallet_of(f"node {index}")) for index in range(2)]


@pytest.fixture(scope="module")
def own_chain(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveChain]:
    """One on which nobody else settles batches."""
    anvil, live = loop_thread.do(start_chain(tmp_path_factory.mktemp("chain")))
    yield live
    loop_thread.do(anvil.stop())


@pytest.fixture
async def town(own_chain: LiveChain, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Netting]:
    async for one in _town(own_chain, sqlite_url, monkeypatch):
        yield one


@pytest.fixture
async def town_of_each(
    own_chain: LiveChain, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Netting]:
    async for one in _town(own_chain, database_url, monkeypatch):
        yield one


async def _town(own_chain: LiveChain, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Netting]:
    """Settings in the environment, as an operator has them."""
    values = own_chain.settings(database_url=database_url)
    for name in ("database_url", "chain_rpc_url", "token_address", "escrow_address"):
        monkeypatch.setenv(f"FAR_{name.upper()}", getattr(values, name))
    monkeypatch.setenv("FAR_SETTLER_PRIVATE_KEY", SETTLER)
    chain, database = own_chain.connect(), Database(database_url)
    yield Netting(database, chain)
    await chain.close()
    await database.close()


async def far_mesh(*words: str) -> Result:
    """In a thread, because the command has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["settle", *words])


def events(result: Result, event: str) -> list[dict[str, Any]]:
    return [fact for fact in map(json.loads, result.stdout.splitlines()) if fact["event"] == event]


async def three_requests(town: Netting) -> list[str]:
    """One over a channel, one charged to a deposit, and one whose user has taken the deposit out."""
    ann, bob, cid = [await town.user() for _ in range(3)]
    channel_id, key = await town.opens_channel(ann, 5_000)
    await town.promises(channel_id, key, 500)
    names = [
        await town.served(ann.address, {NODES[0]: 400}, channel_id=channel_id),
        await town.served(bob.address, {NODES[0]: 300, NODES[1]: 100}),
        await town.served(cid.address, {NODES[1]: 400}),
    ]
    await town.withdraws(cid, 10_000 - 499)
    return names


async def test_a_dry_run_shows_everything_and_changes_nothing(town: Netting) -> None:
    names = await three_requests(town)
    before = (await everything(town), await town.chain.block_number())
    result = await far_mesh("--dry-run", "--json")
    assert result.exit_code == 0, result.output
    ((redemption,), (batch,), (left,), (summary,)) = (
        events(result, event) for event in ("redemption", "batch", "left_out", "summary")
    )
    assert redemption["units"] == 500
    assert redemption["gas"] > 50_000
    assert batch["requests"] == names[:2]
    assert batch["providers"] == {wallet: units for wallet, units in zip(NODES, (700, 100), strict=True)}
    assert (sum(batch["users"].values()), sum(batch["channels"].values())) == (500, 500)
    assert (left["request_id"], left["why"], left["units"]) == (names[2], "uncovered", 500)
    assert (summary["requests"], summary["total_units"], summary["fee_units"]) == (2, 800, 200)
    assert summary["due"] is False
    shown = await far_mesh("--dry-run")
    assert shown.exit_code == 0
    for word in ("Batch of 2 requests", "0.000000700", "Cannot be settled now", "uncovered", "it is not time yet"):
        assert word in " ".join(shown.stdout.split())
    assert (await everything(town), await town.chain.block_number()) == before


async def everything(town: Netting) -> list[Any]:
    """All that the database says."""
    from far_mesh.marketplace.tables import metadata

    async with town.database.snapshot() as connection:
        return [(await connection.execute(table.select())).all() for table in metadata.sorted_tables]


async def test_a_dry_run_says_what_a_batch_would_cost_and_why_it_would_be_refused(town: Netting) -> None:
    user = await town.user()
    await town.served(user.address, {NODES[0]: 400})
    (batch,) = events(await far_mesh("--dry-run", "--json"), "batch")
    assert 80_000 < batch["gas"] < 250_000
    await escrow(town, "pause")
    try:
        (batch,) = events(await far_mesh("--dry-run", "--json"), "batch")
        assert (batch["gas"], batch["refused"]) == (None, "EnforcedPause")
        assert "the escrow refuses it now: EnforcedPause" in (await far_mesh("--dry-run")).stdout.replace("\n", " ")
    finally:
        await escrow(town, "unpause")


async def escrow(town: Netting, act: str) -> None:
    call = await town.chain.prepare(town.chain.escrow, act, (), address_of(ESCROW_OWNER))
    await town.chain.send(call, ESCROW_OWNER)


async def test_where_no_gateway_settles_the_command_does(town_of_each: Netting) -> None:
    town = town_of_each
    names = await three_requests(town)
    result = await far_mesh("--now", "--json")
    assert result.exit_code == 0, result.output
    told = [(one["name"], one["status"]) for one in events(result, "transaction")]
    assert ("redeem-1", "confirmed") in told
    assert told[-1] == (f"batch-{await town.batch_of(names[0])}", "confirmed")
    (settled,) = events(result, "settled")
    assert (settled["transactions"], settled["left"]) == (2, 1)
    assert [await town.is_paid(name) for name in names] == [True, True, False]
    async with town.database.reading() as connection:
        assert await outbox.holder(connection, LEASE) is None
    again = await far_mesh("--now")
    assert again.exit_code == 0
    assert "0 transactions; 1 requests cannot be settled now" in again.stdout


async def test_a_gateway_that_settles_does_it_when_it_is_asked(town: Netting) -> None:
    user = await town.user()
    name = await town.served(user.address, {NODES[0]: 400})
    settler = town.settler(NEVER)
    await settler.settle()
    running = asyncio.create_task(settler.run())
    try:
        result = await far_mesh("--now")
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert result.exit_code == 0, result.output
    assert "the gateway here settles" in result.stdout
    assert "(settle): confirmed in block" in result.stdout
    assert await town.is_paid(name)


async def test_what_is_not_done_in_time_is_told_and_goes_on_later(town: Netting) -> None:
    user = await town.user()
    name = await town.served(user.address, {NODES[0]: 400})
    await rpc(town.chain.rpc_url, "evm_setAutomine", False)
    try:
        result = await far_mesh("--now", "--timeout", "1", "--json")
    finally:
        await rpc(town.chain.rpc_url, "evm_setAutomine", True)
    assert result.exit_code == 1
    assert events(result, "unfinished")
    await rpc(town.chain.rpc_url, "anvil_mine", "0x1")
    await town.settles(town.settler(NEVER))
    assert await town.is_paid(name)
    assert len(await town.rows(Kind.SETTLE)) == 1


@pytest.mark.parametrize("words", [[], ["--now", "--dry-run"]])
async def test_it_has_to_be_told_which_of_the_two(words: list[str]) -> None:
    result = await far_mesh(*words)
    assert result.exit_code == 2


async def test_without_the_key_or_the_database_it_says_so(town: Netting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_SETTLER_PRIVATE_KEY", "")
    result = await far_mesh("--dry-run", "--json")
    assert (result.exit_code, events(result, "error")[0]["code"]) == (1, "missing_setting")
    monkeypatch.setenv("FAR_SETTLER_PRIVATE_KEY", SETTLER)
    monkeypatch.setenv("FAR_DATABASE_URL", "sqlite+aiosqlite:////nowhere/at/all.db")
    result = await far_mesh("--now", "--json")
    assert (result.exit_code, events(result, "error")[0]["code"]) == (1, "database_unavailable")
