"""Who waits in front of a model, who is being served, and whose turn is next. Pure: no clock, no event loop.

Between lanes (one for each tier) sessions are shared by weight: stride scheduling, where the lane with the least *pass*
goes next and its pass grows by its sessions over its weight. A lane with a small weight goes less often, and is never
left out (C. A. Waldspurger and W. E. Weihl, Stride Scheduling: Deterministic Proportional-Share Resource Management,
MIT/LCS/TM-528, 1995). Within a lane accounts take turns, and who asks for several sessions at once saves up turns for
them: deficit round robin (M. Shreedhar and G. Varghese, Efficient Fair Queueing using Deficit Round Robin, SIGCOMM
1995). What one account asks for in one lane is served in the order in which it came.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from discovery.protocol.announcement import Announcement

_STRIDE = 2**40
"""What a lane of weight one pays for a session: weights divide it with an error that nobody meets."""


@dataclass(frozen=True)
class Claim:
    """What a request wants of the queue.

    Attributes:
        account: whose it is.
        lane: with whom it waits; ``weight`` is the lane's share against that of the others.
        concurrency: how many requests of the account may be served at once; None: any number.
        width: sessions that it opens at once.
    """

    account: str
    lane: str
    weight: int = 1
    concurrency: int | None = None
    width: int = 1


@dataclass(eq=False)
class Entry:
    """A request in the queue, or being served."""

    claim: Claim
    is_served: bool = False


@dataclass(frozen=True)
class Standing:
    """A place in the queue, from 1: among all, and among those of the same account."""

    position: int
    own: int


class Full(Exception):
    """There is no place for another request; ``for_account``: for another of this account."""

    def __init__(self, *, for_account: bool) -> None:
        super().__init__()
        self.for_account = for_account


@dataclass
class _Turns:
    """One account's requests in one lane, and the sessions it has saved up."""

    waiting: deque[Entry] = field(default_factory=deque)
    saved: int = 0

    def copy(self) -> _Turns:
        return _Turns(deque(self.waiting), self.saved)


class _Lane:
    """Accounts that take turns. First in the ring is who has waited longest for a turn."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.passed = 0
        self.was_idle = True
        self.ring: OrderedDict[str, _Turns] = OrderedDict()

    def copy(self) -> _Lane:
        twin = _Lane(self.weight)
        twin.passed, twin.was_idle = self.passed, self.was_idle
        twin.ring = OrderedDict((account, turns.copy()) for account, turns in self.ring.items())
        return twin

    def add(self, entry: Entry) -> None:
        self.ring.setdefault(entry.claim.account, _Turns()).waiting.append(entry)

    def remove(self, entry: Entry) -> None:
        turns = self.ring[entry.claim.account]
        turns.waiting.remove(entry)
        if not turns.waiting:
            del self.ring[entry.claim.account]

    def may_go(self, may_go: Callable[[Entry], bool]) -> bool:
        """Whether there is one that may."""
        return any(may_go(turns.waiting[0]) for turns in self.ring.values())

    def take(self, may_go: Callable[[Entry], bool]) -> Entry:
        """The next that may go; there is one."""
        while True:
            account, turns = next(iter(self.ring.items()))
            self.ring.move_to_end(account)
            entry = turns.waiting[0]
            if not may_go(entry):
                continue
            turns.saved = min(turns.saved + 1, entry.claim.width)
            if turns.saved == entry.claim.width:
                turns.saved = 0
                self.remove(entry)
                return entry


class _Lanes:
    """All who wait."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._passed = 0
        """That of the lane that went last: who comes back from being idle has saved up nothing."""

    def copy(self) -> _Lanes:
        twin = _Lanes()
        twin._lanes, twin._passed = {name: lane.copy() for name, lane in self._lanes.items()}, self._passed
        return twin

    def add(self, entry: Entry) -> None:
        lane = self._lanes.setdefault(entry.claim.lane, _Lane(entry.claim.weight))
        lane.weight = entry.claim.weight
        lane.add(entry)

    def remove(self, entry: Entry) -> None:
        self._lanes[entry.claim.lane].remove(entry)

    def take(self, may_go: Callable[[Entry], bool]) -> Entry | None:
        able = [lane for lane in self._lanes.values() if lane.may_go(may_go)]
        for lane in self._lanes.values():
            if lane not in able:
                lane.was_idle = True
            elif lane.was_idle:
                lane.passed, lane.was_idle = max(lane.passed, self._passed), False
        if not able:
            return None
        lane = min(able, key=lambda lane: (lane.passed, -lane.weight))
        entry = lane.take(may_go)
        self._passed = lane.passed
        lane.passed += entry.claim.width * _STRIDE // lane.weight
        return entry


class Queue:
    """Sessions of one model and who wants them. Every act says who goes in by it, so no turn can be forgotten.

    Whoever finds a session free goes in, also with several sessions: fewer than its width may then be more than there
    are, and nobody who needs many waits for ever while those who need few pass by.
    """

    def __init__(self, capacity: int, size: int, size_per_account: int) -> None:
        self._capacity, self._size, self._size_per_account = capacity, size, size_per_account
        self._lanes = _Lanes()
        self._waiting: dict[Entry, None] = {}
        self._waiting_of: Counter[str] = Counter()
        self._served_of: Counter[str] = Counter()
        self._in_use = 0
        self._standings: dict[Entry, Standing] | None = None

    @property
    def capacity(self) -> int:
        """Sessions that may be open at once."""
        return self._capacity

    @property
    def in_use(self) -> int:
        """Sessions that are."""
        return self._in_use

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: Entry) -> list[Entry]:
        """A request; who goes in now, which it may be itself.

        Raises:
            Full: it would have to wait, and there is no place left to wait in.
        """
        account = entry.claim.account
        has_to_wait = not (self._has_room and self._may_go(entry)) or self._waiting_of[account] > 0
        if has_to_wait and self._waiting_of[account] >= self._size_per_account:
            raise Full(for_account=True)
        if has_to_wait and len(self._waiting) >= self._size:
            raise Full(for_account=False)
        self._lanes.add(entry)
        self._waiting[entry] = None
        self._waiting_of[account] += 1
        return self._go_on()

    def end(self, entry: Entry) -> list[Entry]:
        """A request that has been served, or does not want to wait any more; who goes in now."""
        if entry.is_served:
            entry.is_served = False
            self._served_of -= Counter({entry.claim.account: 1})
            self._in_use -= entry.claim.width
        elif entry in self._waiting:
            self._lanes.remove(entry)
            self._forget(entry)
        return self._go_on()

    def resize(self, capacity: int) -> list[Entry]:
        """There are more or fewer sessions now; who goes in. Nobody is sent away."""
        self._capacity = capacity
        return self._go_on()

    def standings(self) -> Mapping[Entry, Standing]:
        """Those who wait in the order in which they would go in, if nobody else came and no account were held up by
        the number of its own requests."""
        if self._standings is None:
            lanes, own = self._lanes.copy(), Counter[str]()
            self._standings = {}
            while (entry := lanes.take(lambda _: True)) is not None:
                own[entry.claim.account] += 1
                self._standings[entry] = Standing(len(self._standings) + 1, own[entry.claim.account])
        return self._standings

    @property
    def _has_room(self) -> bool:
        return self._in_use < self._capacity

    def _may_go(self, entry: Entry) -> bool:
        most = entry.claim.concurrency
        return most is None or self._served_of[entry.claim.account] < most

    def _go_on(self) -> list[Entry]:
        self._standings = None
        admitted: list[Entry] = []
        while self._has_room and (entry := self._lanes.take(self._may_go)) is not None:
            self._forget(entry)
            entry.is_served = True
            self._served_of[entry.claim.account] += 1
            self._in_use += entry.claim.width
            admitted.append(entry)
        return admitted

    def _forget(self, entry: Entry) -> None:
        del self._waiting[entry]
        self._waiting_of -= Counter({entry.claim.account: 1})


def sessions_of(nodes: Sequence[Announcement], block_count: int) -> int:
    """How many sessions ``nodes`` say they take at once. Each needs all blocks, so the block of which the fewest can be
    had decides. Who says too much is found out when it refuses; who says too little lessens only its own part."""
    room = [0] * block_count
    for node in nodes:
        for block in range(node.first_block, min(node.end_block, block_count)):
            room[block] += node.sessions
    return min(room, default=0)
