"""Killed between any two steps, started again: nothing lost, nothing paid twice, books and chain agree to the unit."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest

from far_mesh.marketplace.account.watcher import DepositWatcher
from far_mesh.marketplace.chain.client import Chain, EscrowStatus, address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Status
from tests.far_mesh.marketplace.doubles import Node
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, LiveChain, ledger_of, new_user
from tests.far_mesh.marketplace.settlement import kill
from tests.far_mesh.marketplace.settlement.kill import STEPS, Job

DEPOSIT = 10**9
PROMPT_TOKENS, STORY_TOKENS, CHECKPOINT_TOKENS = 5, 12, 4
HELD = PROMPT_TOKENS * PROMPT_PRICE + STORY_TOKENS * COMPLETION_PRICE
NEVER_HELD = {"inside the transaction that holds"}
REFUNDED = {
    "held",
    "lock signed and not sent",
    "lock sent and not followed up",
    "lock mined and not confirmed",
    "lock confirmed",
    "activated",
    "route opened",
}
BY_CHECKPOINT = {
    "first checkpoint": CHECKPOINT_TOKENS,
    "all tokens delivered": STORY_TOKENS,
    "receipts in, nothing captured": STORY_TOKENS,
    "inside the transaction that captures": STORY_TOKENS,
}


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> tuple[Node, ...]:
    """Nodes that nobody else has paid: two of the three hops belong to one wallet."""
    name = request.node.name
    return (Node(f"{name} 1", (0, 3)), Node(f"{name} 2", (3, 6), "int8"), Node(f"{name} 1", (6, 8)))


class Case:
    """A user with a deposit, a database, and what chain and books say."""

    def __init__(self, chain: Chain, database: Database, job: Job, fees_before: int) -> None:
        self.chain, self.database, self.job, self._fees_before = chain, database, job, fees_before

    async def check(self, escrow: EscrowStatus, cost_tokens: int | None) -> None:
        """Books and chain agree to the unit, and the user has paid for so many completion tokens."""
        books = await ledger_of(self.database)
        wallet, providers = self.job.wallet, {node.wallet for node in self.job.nodes}
        assert sum(books.values()) == 0
        assert books.get(Account(Book.USER_HOLD, wallet), 0) == 0
        assert books.get(Account(Book.PLATFORM_FEE, PLATFORM), 0) == 0
        assert all(books.get(Account(Book.PROVIDER_EARNED, provider), 0) == 0 for provider in providers)
        available = books[Account(Book.USER_DEPOSIT, wallet)]
        credited = {provider: books.get(Account(Book.PROVIDER_PAID, provider), 0) for provider in providers}
        fees = books.get(Account(Book.PLATFORM_PAID, PLATFORM), 0)
        assert await self.chain.deposit_of(wallet) == await self.chain.spending_allowance(wallet) == available
        for provider, units in credited.items():
            assert await self.chain.credit_of_wei(provider) == units * 10**9
        assert await self.chain.fees_accrued_wei() - self._fees_before == fees * 10**9
        assert available + sum(credited.values()) + fees == DEPOSIT
        assert (await self.chain.escrow_of(wallet, self.job.request_id)).status is escrow
        price = 0 if cost_tokens is None else PROMPT_TOKENS * PROMPT_PRICE + cost_tokens * COMPLETION_PRICE
        assert 0 <= price - (DEPOSIT - available) <= 2  # rounding is in the user's favour
        assert (fees > 0) == (cost_tokens is not None)

    async def session_status(self) -> Status | None:
        """How the request ended."""
        async with self.database.reading() as connection:
            session = await sessions.find(connection, self.job.request_id)
        return None if session is None else session.status


@pytest.fixture
async def case(live_chain: LiveChain, sqlite_url: str, nodes: tuple[Node, ...], request: pytest.FixtureRequest) -> Any:
    chain, database = live_chain.connect(), Database(sqlite_url)
    first_block = await chain.block_number() + 1
    wallet = address_of(await new_user(chain, DEPOSIT))
    watching = DepositWatcher(database, chain, confirmations=0, first_block=first_block, poll_seconds=1)
    await watching.open()
    while await watching.look():
        pass
    settings = live_chain.settings(database_url=sqlite_url, gateway_name="the-one").model_dump()
    settings |= {"settler_private_key": settings["settler_private_key"].get_secret_value()}
    settings |= {"jwt_secret": settings["jwt_secret"].get_secret_value()}
    job = Job(settings, wallet, f"req_{request.node.name}", nodes)
    yield Case(chain, database, job, await chain.fees_accrued_wei())
    await chain.close()
    await database.close()


@pytest.mark.parametrize("step", STEPS)
async def test_killed_and_started_again(case: Case, in_a_process: Any, step: str) -> None:
    assert in_a_process(kill.act, replace(case.job, die=step)) == -signal.SIGKILL
    for _ in range(2):  # and recovering once more changes nothing
        assert in_a_process(kill.recover, case.job) == 0
        if step in NEVER_HELD:
            await case.check(EscrowStatus.NONE, None)
            assert await case.session_status() is None
        elif step in REFUNDED:
            locked = step not in ("held",)
            await case.check(EscrowStatus.CANCELLED if locked else EscrowStatus.NONE, None)
            assert await case.session_status() is Status.FAILED
        else:
            await case.check(EscrowStatus.RELEASED, BY_CHECKPOINT.get(step, STORY_TOKENS))
            assert await case.session_status() is Status.COMPLETED


async def test_killed_in_a_plain_answer_is_a_refund_because_nothing_was_delivered(
    case: Case, in_a_process: Any
) -> None:
    job = replace(case.job, die="all tokens delivered", streamed=False)
    assert in_a_process(kill.act, job) == -signal.SIGKILL
    assert in_a_process(kill.recover, case.job) == 0
    await case.check(EscrowStatus.CANCELLED, None)


async def test_killed_again_while_recovering(case: Case, in_a_process: Any) -> None:
    assert in_a_process(kill.act, replace(case.job, die="first checkpoint")) == -signal.SIGKILL
    for step in (
        "inside the transaction that captures",
        "release signed and not sent",
        "release mined and not confirmed",
    ):
        assert in_a_process(kill.recover_and_die, replace(case.job, die=step)) == -signal.SIGKILL
    assert in_a_process(kill.recover, case.job) == 0
    await case.check(EscrowStatus.RELEASED, CHECKPOINT_TOKENS)


async def test_without_a_kill_the_job_ends_by_itself(case: Case, in_a_process: Any) -> None:
    assert in_a_process(kill.act_to_the_end, case.job) == 0
    await case.check(EscrowStatus.RELEASED, STORY_TOKENS)
    assert HELD == PROMPT_TOKENS * PROMPT_PRICE + STORY_TOKENS * COMPLETION_PRICE


def test_every_step_has_an_expected_end() -> None:
    rest = set(STEPS) - NEVER_HELD - REFUNDED - set(BY_CHECKPOINT)
    assert all(name == "captured" or "release" in name or "confirms" in name for name in rest)
