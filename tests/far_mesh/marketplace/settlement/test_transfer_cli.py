"""``far-mesh settle`` and ``far-mesh reconcile`` where there is no escrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from far_mesh.cli import app
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.settlement.schemas import RowStatus
from far_mesh.marketplace.tables import chain_outbox
from tests.far_mesh.marketplace.house import DEPLOYER, SETTLER, LiveChain, Loop
from tests.far_mesh.marketplace.payments.street import TILL, stranger
from tests.far_mesh.marketplace.settlement.paying import Paying


@pytest.fixture
def paying(
    live_chain: LiveChain, sqlite_url: str, loop_thread: Loop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Paying]:
    """Somebody has earned something, and the paying wallet has enough."""
    for name, value in {
        "DATABASE_URL": sqlite_url,
        "CHAIN_RPC_URL": live_chain.rpc_url,
        "TOKEN_ADDRESS": live_chain.deployment.token,
        "SETTLER_PRIVATE_KEY": SETTLER,
        "DEPOSIT_ADDRESS": TILL,
    }.items():
        monkeypatch.setenv(f"FAR_{name}", value)
    chain, database = live_chain.connect(), Database(sqlite_url)
    loop_thread.do(ChainWallet(chain, DEPLOYER).transfer(address_of(SETTLER), 10**9))
    yield Paying(database)
    loop_thread.do(database.close())
    loop_thread.do(chain.close())


def told(*words: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, [*words, "--json"])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_it_shows_and_pays_and_compares(paying: Paying, loop_thread: Loop) -> None:
    ann = stranger()
    loop_thread.do(paying.served({ann: 5}))
    code, (payout, summary) = told("settle", "--dry-run")
    assert (code, payout["wallet"], payout["units"], payout["due"]) == (0, ann, 5, False)
    assert (summary["providers"], summary["units"]) == (1, 5)
    assert loop_thread.do(paying.transfers()) == 0
    code, events = told("settle", "--now")
    assert (code, events[-1]["transactions"], events[-1]["left"]) == (0, 1, 0)
    assert loop_thread.do(paying.row()).status is RowStatus.CONFIRMED
    code, events = told("reconcile")
    assert (code, events[-1]["transactions"], events[-1]["findings"]) == (0, 1, 0)
    loop_thread.do(say(paying, RowStatus.FAILED))
    code, (finding, _) = told("reconcile")
    assert (code, finding["kind"], finding["about"]) == (1, "transfer_paid_after_all", "transfer-1")


async def say(paying: Paying, status: RowStatus) -> None:
    async with paying.database.writing() as connection:
        await connection.execute(update(chain_outbox).values(status=status.value))


def test_who_cannot_be_paid_is_left(paying: Paying, loop_thread: Loop) -> None:
    loop_thread.do(paying.served({TILL: 5}))
    code, events = told("settle", "--now")
    assert (code, events[-1]["transactions"], events[-1]["left"]) == (0, 0, 1)
    code, (payout, _) = told("settle", "--dry-run")
    assert payout["code"] == "payout_invalid"
