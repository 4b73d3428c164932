"""Random lives of the books, each beside a model that adds and subtracts in a dictionary.

Every act may come at any time, twice, with other content under the same key, or in a transaction that fails after it.
Each one must end as the model says; at the end the balances are those of the model, nobody is below zero who must not
be, and doing every act again changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from far_mesh.marketplace.errors import Conflict, InsufficientBalance, InsufficientFunds
from far_mesh.marketplace.ledger import repository, service
from far_mesh.marketplace.ledger.schemas import PLATFORM, Account, Book, Told
from far_mesh.marketplace.ledger.split import Prices, Settlement, Tokens, settle
from far_mesh.marketplace.tables import entries

FEE, CREDITS = Account(Book.PLATFORM_FEE, PLATFORM), Account(Book.CREDITS, PLATFORM)
ACTS_OF_A_HISTORY = 10

_TOLD = (
    (Told.WITHDRAWAL, service.withdrawal_seen, Book.USER_DEPOSIT, Book.CHAIN),
    (Told.CHANNEL_FUNDED, service.channel_funded, Book.USER_DEPOSIT, Book.USER_CHANNEL),
    (Told.CHANNEL_FUNDED, service.channel_funded, Book.USER_DEPOSIT, Book.USER_CHANNEL),
    (Told.CHANNEL_CLOSED, service.channel_closed, Book.USER_CHANNEL, Book.USER_DEPOSIT),
    (Told.ESCROW_LOCKED, service.escrow_locked, Book.USER_DEPOSIT, Book.CHAIN),
    (Told.ESCROW_RETURNED, service.escrow_returned, Book.CHAIN, Book.USER_DEPOSIT),
)

Do = Callable[[AsyncConnection], Awaitable[bool]]
Lines = dict[Account, int]


class Undone(Exception):
    """A transaction that failed after its act."""


@dataclass(frozen=True)
class Act:
    """Something that is done to the books: its key, its content, and what it does to balances."""

    kind: str
    key: str
    do: Do
    lines: Mapping[Account, int]
    spends: tuple[Account, ...] = ()
    after: str | None = None
    """The key of what must have been done before."""


@dataclass
class Tally:
    """What happened in many histories."""

    histories: int = 0
    acts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class History:
    """One life, with names of its own, so that many can share a database."""

    def __init__(self, connection: AsyncConnection, name: str, dice: random.Random, tally: Tally) -> None:
        self._connection, self._name, self._dice, self._tally = connection, name, dice, tally
        self._users = [f"{name}-user{index}" for index in range(2)]
        self._providers = [f"{name}-node{index}" for index in range(3)]
        self._balances: Lines = defaultdict(int)
        self._overdrawn: set[Account] = set()
        self._done: dict[str, Act] = {}
        self._held: dict[str, tuple[Account, int]] = {}
        self._captured: dict[str, Settlement[str]] = {}
        self._payouts: dict[str, dict[Account, int]] = {}

    async def live(self) -> None:
        """All of it."""
        choices = [
            self._deposit, self._deposit, self._hold, self._hold, self._hold, self._capture, self._capture,
            self._release, self._refund, self._credit, self._credit, self._spend, self._send, self._send,
            self._confirm, self._confirm, self._return, self._give_up, self._slash, self._told, self._told,
            self._vanish, self._adjust,
        ]  # fmt: skip
        await self._try(self._deposit())
        for _ in range(ACTS_OF_A_HISTORY - 1):
            if self._done and self._dice.random() < 0.2:
                await self._try(self._dice.choice(list(self._done.values())))
            elif act := self._dice.choice(choices)():
                await self._try(act)
        await self._check_the_end()

    # ---- one act

    async def _try(self, act: Act) -> None:
        self._tally.acts += 1
        if self._dice.random() < 0.1:
            await self._fail_after(act)
        outcome = await self._outcome(act)
        expected = self._expected(act)
        assert outcome == expected, f"{self._name}: {act.key} was {outcome} and not {expected}"
        self._tally.outcomes[outcome] += 1
        if outcome == "done":
            self._done[act.key] = act
            for account, units in act.lines.items():
                self._balances[account] += units

    async def _fail_after(self, act: Act) -> None:
        """The transaction breaks when the act was written: nothing of it may stay."""
        self._tally.outcomes["undone"] += 1
        try:
            async with self._connection.begin_nested():
                await act.do(self._connection)
                raise Undone
        except (Undone, Conflict, InsufficientBalance):
            pass

    async def _outcome(self, act: Act) -> str:
        try:  # an act that raises has written nothing, so what follows may go on in the same transaction
            return "done" if await act.do(self._connection) else "again"
        except (InsufficientFunds, InsufficientBalance):
            return "too little"
        except Conflict:
            return "conflict"

    def _expected(self, act: Act) -> str:
        before = self._done.get(act.key)
        if before is not None:
            same = before.kind == act.kind and _nonzero(before.lines) == _nonzero(act.lines)
            return "again" if same else "conflict"
        if act.after is not None and act.after not in self._done:
            return "conflict"
        taken = {account: act.lines.get(account, 0) for account in act.spends}
        if any(units and self._balances[account] + units < 0 for account, units in taken.items()):
            return "too little"
        return "done"

    # ---- the acts

    def _act(self, key: str, do: Do, lines: Mapping[Account, int], *spends: Account, kind: str = "") -> Act:
        """``kind`` tells apart what may move the same money under the same key."""
        return Act(kind, f"{self._name}/{key}", do, dict(lines), spends)

    def _new(self, what: str) -> str:
        """A name that was or was not used before."""
        return f"{self._name}-{what}{self._dice.randrange(8)}"

    def _units(self) -> int:
        return self._dice.randint(1, 1_000)

    def _deposit(self) -> Act:
        user, event, units = self._dice.choice(self._users), self._new("tx"), self._units()
        lines = {Account(Book.CHAIN, user): -units, Account(Book.USER_DEPOSIT, user): units}
        return self._act(f"deposit {event}", lambda c: service.deposit_seen(c, user, units, event), lines)

    def _told(self) -> Act:
        """Whatever else the chain tells of a user's money: it has happened, whatever is left."""
        user, units = self._dice.choice(self._users), self._units() // 4
        told, book, source, target = self._dice.choice(_TOLD)
        event = self._new(told)
        lines = {Account(source, user): -units, Account(target, user): units}
        self._overdrawn.add(Account(source, user))
        return self._act(f"{told} {event}", lambda c: book(c, user, units, event), lines)

    def _vanish(self) -> Act | None:
        """The chain takes back what it told, once."""
        told = [act for key, act in self._done.items() if key.removeprefix(f"{self._name}/").split(" ")[0] in set(Told)]
        if not told:
            return None
        act = self._dice.choice(told)
        word, event = act.key.removeprefix(f"{self._name}/").split(" ")
        lines = {account: -units for account, units in act.lines.items()}
        self._overdrawn |= {account for account, units in lines.items() if units < 0}
        return self._act(f"vanish {word} {event}", lambda c: service.event_vanished(c, Told(word), event), lines)

    def _hold(self) -> Act:
        user, request, units = self._dice.choice(self._users), self._new("req"), self._units() // 2 + 1
        book = self._dice.choice([Book.USER_DEPOSIT, Book.USER_DEPOSIT, Book.USER_CHANNEL])
        source = Account(book, user)
        lines = {source: -units, Account(Book.USER_HOLD, user): units}
        act = self._act(f"hold {request}", lambda c: service.hold(c, user, request, units, book), lines, source)
        if self._expected(act) == "done":
            self._held[request] = (source, units)
        return act

    def _open(self) -> str | None:
        """A request that is held, and maybe ended already."""
        held = [request for request in self._held if f"{self._name}/hold {request}" in self._done]
        return self._dice.choice(held) if held else None

    def _capture(self) -> Act | None:
        if (request := self._open()) is None:
            return None
        (source, held), user = self._held[request], self._held[request][0].owner
        work = [(provider, self._dice.randrange(50)) for provider in self._providers]
        tokens = Tokens(self._dice.randrange(20), self._dice.randrange(20), self._dice.randrange(20))
        prices = Prices(self._dice.randrange(30), self._dice.randrange(60), self._dice.randrange(10), 2_000)
        divided = settle(held, tokens, prices, work, sum(layers for _, layers in work) + self._dice.randrange(30))
        lines: Lines = defaultdict(int, {Account(Book.USER_HOLD, user): -held})
        for provider, units in divided.amounts:
            lines[Account(Book.PROVIDER_EARNED, provider)] += units
        lines[FEE] += divided.fee
        lines[source] += divided.refund
        if f"{self._name}/close {request}" not in self._done:
            self._captured[request] = divided
        return self._act(
            f"close {request}", lambda c: service.capture(c, user, request, divided), lines, kind="capture"
        )

    def _release(self) -> Act | None:
        if (request := self._open()) is None or request in self._captured:
            return None
        (source, held), user = self._held[request], self._held[request][0].owner
        lines = {Account(Book.USER_HOLD, user): -held, source: held}
        return self._act(
            f"close {request}", lambda c: service.release_hold(c, user, request, "nothing came"), lines, kind="release"
        )

    def _refund(self) -> Act | None:
        captured = [one for one in self._captured if f"{self._name}/close {one}" in self._done]
        if not captured:
            return None
        request = self._dice.choice(captured)
        user, divided = self._held[request][0].owner, self._captured[request]
        amounts = {
            Account(Book.PROVIDER_EARNED, provider): self._dice.randint(0, units) for provider, units in divided.amounts
        }
        lines = {account: -units for account, units in amounts.items()}
        lines[Account(Book.USER_DEPOSIT, user)] = sum(amounts.values())
        return self._act(
            f"refund {request}", lambda c: service.refund(c, user, request, amounts, "a bad answer"), lines, *amounts
        )

    def _credit(self) -> Act | None:
        """A promise was missed: a part of the fee comes back, or is noted for later."""
        if (request := self._charged()) is None:
            return None
        source, fee = self._held[request][0], self._left_of(request, "spend")
        if not fee:
            return None
        units, later = self._dice.randint(1, fee), self._dice.random() < 0.5
        given = {FEE: -units, source: units}
        noted = {CREDITS: -units, Account(Book.USER_CREDIT, source.owner): units}
        return self._act(
            f"credit {request}",
            lambda c: service.service_credit(c, source.owner, request, units, later=later),
            noted if later else given,
        )

    def _spend(self) -> Act | None:
        """What was noted lowers the fee on another request, once, as far as both go."""
        if (request := self._charged()) is None or f"{self._name}/spend {request}" in self._done:
            return None
        source = self._held[request][0]
        credit = Account(Book.USER_CREDIT, source.owner)
        if not (units := min(self._balances[credit], self._left_of(request, "credit"))):
            return None

        async def spend(connection: AsyncConnection) -> bool:
            if (await repository.posted(connection, f"credit_spent:{request}")) is not None:
                return False
            return await service.credit_spent(connection, source.owner, request, units) == units

        return self._act(f"spend {request}", spend, {FEE: -units, source: units, credit: -units, CREDITS: units})

    def _left_of(self, request: str, beside: str) -> int:
        """The fee on it after what another act gave back of it."""
        before = self._done.get(f"{self._name}/{beside} {request}")
        return self._captured[request].fee + (0 if before is None else before.lines.get(FEE, 0))

    def _charged(self) -> str | None:
        """A captured request of which the platform has got something."""
        captured = [
            request
            for request, divided in self._captured.items()
            if divided.fee and f"{self._name}/close {request}" in self._done
        ]
        return self._dice.choice(captured) if captured else None

    def _send(self) -> Act:
        payout = self._new("pay")
        amounts = {
            provider: self._dice.randint(0, max(1, self._balances[Account(Book.PROVIDER_EARNED, provider)]))
            for provider in self._dice.sample(self._providers, 2)
        }
        lines: Lines = {}
        for provider, units in amounts.items():
            lines[Account(Book.PROVIDER_EARNED, provider)] = -units
            lines[Account(Book.IN_FLIGHT, provider)] = units
        earned = [account for account in lines if account.kind is Book.PROVIDER_EARNED]
        act = self._act(f"send {payout}", lambda c: service.payout_sent(c, payout, amounts, 0), lines, *earned)
        if self._expected(act) == "done":
            self._payouts[payout] = {one: units for one, units in lines.items() if one.kind is Book.IN_FLIGHT}
        return act

    def _sent(self) -> str | None:
        sent = [
            one
            for one, lines in self._payouts.items()
            if f"{self._name}/send {one}" in self._done and any(lines.values())
        ]
        return self._dice.choice(sent) if sent else None

    def _times(self, payout: str) -> int:
        """How often a payout has vanished, or once more than that."""
        times = sum(f"{self._name}/gone {payout} {index}" in self._done for index in range(1, ACTS_OF_A_HISTORY))
        return times + (self._dice.random() < 0.1)

    def _end(self, payout: str, times: int, do: Do, lines: Mapping[Account, int], kind: str) -> Act:
        after = f"{self._name}/gone {payout} {times}" if times else None
        return replace(self._act(f"end {payout} {times}", do, lines, kind=kind), after=after)

    def _confirm(self) -> Act | None:
        if (payout := self._sent()) is None:
            return None
        rounding, times = self._dice.choice([0, 0, 1]), self._times(payout)
        lines: Lines = defaultdict(int)
        for account, units in self._payouts[payout].items():
            lines[account] -= units
            lines[Account(Book.PROVIDER_PAID, account.owner)] += units
        lines[Account(Book.ROUNDING, PLATFORM)] -= rounding
        lines[Account(Book.PLATFORM_PAID, PLATFORM)] += rounding
        return self._end(
            payout, times, lambda c: service.payout_confirmed(c, payout, rounding, vanished=times), lines, "confirmed"
        )

    def _return(self) -> Act | None:
        if (payout := self._sent()) is None:
            return None
        times = self._times(payout)
        lines: Lines = {}
        for account, units in self._payouts[payout].items():
            lines[account] = -units
            lines[Account(Book.PROVIDER_EARNED, account.owner)] = units
        return self._end(
            payout, times, lambda c: service.payout_returned(c, payout, "refused", vanished=times), lines, "returned"
        )

    def _give_up(self) -> Act | None:
        """The chain gives up the block in which it had paid."""
        if (payout := self._sent()) is None:
            return None
        times = self._times(payout) + 1
        before = self._done.get(f"{self._name}/end {payout} {times - 1}")
        lines = {account: -units for account, units in before.lines.items()} if before else {}
        after = before.key if before and before.kind == "confirmed" else "what was never done"
        act = self._act(f"gone {payout} {times}", lambda c: service.payout_vanished(c, payout, times), lines)
        return replace(act, after=after)

    def _slash(self) -> Act:
        provider, user, evidence = self._dice.choice(self._providers), self._dice.choice(self._users), self._new("deed")
        units = self._units() // 8 + 1
        back = self._dice.randint(0, units)
        earned = Account(Book.PROVIDER_EARNED, provider)
        lines = {earned: -units, FEE: units - back, Account(Book.USER_DEPOSIT, user): back}
        return self._act(
            f"slash {evidence}", lambda c: service.slash(c, provider, units, evidence, {user: back}), lines, earned
        )

    def _adjust(self) -> Act:
        first, second = self._dice.sample(self._users, 2)
        name, units = self._new("fix"), self._units() // 8
        source = Account(Book.USER_DEPOSIT, first)
        lines = {source: -units, Account(Book.USER_DEPOSIT, second): units}
        spends = (source,) if units else ()
        return self._act(f"adjust {name}", lambda c: service.adjustment(c, name, lines, "by hand"), lines, *spends)

    # ---- what must be so

    async def _compare(self) -> None:
        mine = [account for account in self._balances if account.owner != PLATFORM]
        found = await repository.balances(self._connection, mine)
        for account in mine:
            assert found.get(account, 0) == self._balances[account], f"{self._name}: {account}"

    async def _check_the_end(self) -> None:
        for account, units in self._balances.items():
            may = account.kind in (Book.CHAIN, Book.ROUNDING, Book.CREDITS) or account in self._overdrawn
            assert units >= 0 or may, f"{self._name}: {account} has {units}"
        await self._compare()
        before = await self._count()
        for act in self._done.values():
            assert await self._outcome(act) == "again", f"{self._name}: {act.key} was done again"
        assert await self._count() == before

    async def _count(self) -> int:
        """Lines there are, of all histories."""
        return int((await self._connection.execute(select(func.max(entries.c.id)))).scalar_one())


def _nonzero(lines: Mapping[Account, int]) -> Lines:
    return {account: units for account, units in lines.items() if units}


async def live_through(connection: AsyncConnection, first: int, count: int, seed: int, tally: Tally) -> None:
    """So many histories in one transaction."""
    for number in range(first, first + count):
        dice = random.Random(f"{seed}/{number}")
        await History(connection, f"h{number}", dice, tally).live()
        tally.histories += 1
