"""How much attention cache is promised to whom, and where: admit, free, refuse. Counts only; the tensors follow."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.protocol.ids import SessionId
from far_node.blocks.slots import Slab
from far_node.errors import Busy, OutOfCache

RETRY_SECONDS = 2.0
_SMALLEST_CAPACITY = 64


@dataclass(frozen=True)
class CacheCost:
    """Bytes of cache a row takes in each block from ``first_block`` on: once, and for each position."""

    first_block: int
    fixed_bytes: tuple[int, ...]
    position_bytes: tuple[int, ...]

    def of(self, rows: int, positions: int, span: tuple[int, int]) -> int:
        """Bytes for a session of this size in blocks ``[span[0], span[1])``."""
        blocks = slice(span[0] - self.first_block, span[1] - self.first_block)
        return rows * (sum(self.fixed_bytes[blocks]) + positions * sum(self.position_bytes[blocks]))


@dataclass(frozen=True)
class Lease:
    """Rows of a slab that belong to one session: ``count`` of them from ``first`` on."""

    slab: Slab
    first: int
    count: int

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.first + self.count


@dataclass(eq=False)
class _Shelf:
    """Slabs are for one range of blocks and one capacity, so that sessions of one kind stand side by side."""

    slab: Slab
    span: tuple[int, int]
    leases: dict[SessionId, Lease]

    def gap(self, rows: int) -> int | None:
        """The first row of the first free stretch that is long enough."""
        at = 0
        for lease in sorted(self.leases.values(), key=lambda lease: lease.first):
            if lease.first - at >= rows:
                return at
            at = lease.end
        return at if at + rows <= self.slab.max_rows else None


def capacity_class(positions: int, longest: int | None) -> int:
    """Positions a slab's rows have for sessions of up to ``positions``: 64, 96, 128, 192, … or the model's context."""
    size = _SMALLEST_CAPACITY
    while size < positions:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size if longest is None else max(positions, min(size, longest))


class CacheBudget:
    """A session is admitted with all it may ever need, so no session runs out half way."""

    def __init__(
        self, capacity_bytes: int, cost: CacheCost, *, rows_together: int = 16, longest: int | None = None
    ) -> None:
        self.capacity_bytes, self._cost = capacity_bytes, cost
        self._rows_together, self._longest = rows_together, longest
        self._shelves: list[_Shelf] = []
        self._beside: dict[SessionId, int] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes of the slabs that open sessions keep alive, and of what they keep beside them."""
        return sum(self._bytes_of(shelf, shelf.slab.rows) for shelf in self._shelves) + sum(self._beside.values())

    @property
    def sessions(self) -> int:
        """Sessions that hold cache."""
        return sum(len(shelf.leases) for shelf in self._shelves)

    def how_many(self, positions: int, span: tuple[int, int]) -> int:
        """How many sessions of one row and so many positions find room at once."""
        return self.capacity_bytes // self._cost.of(1, capacity_class(positions, self._longest), span)

    def admit(self, session_id: SessionId, rows: int, positions: int, span: tuple[int, int], beside: int = 0) -> Lease:
        """Promise a session rows for all its positions, and ``beside`` bytes for what it keeps that is no cache.

        Raises:
            Busy: the id is taken.
            OutOfCache: it does not fit now.
        """
        if any(session_id in shelf.leases for shelf in self._shelves):
            raise Busy("a session with this id is open", retry_after=RETRY_SECONDS)
        capacity = capacity_class(positions, self._longest)
        free = self.capacity_bytes - self.used_bytes - beside
        roomy = [shelf for shelf in self._shelves if shelf.span == span and shelf.slab.capacity >= capacity]
        for shelf in sorted(roomy, key=lambda shelf: shelf.slab.capacity):
            first = shelf.gap(rows)
            if first is None:
                continue
            growth = max(0, first + rows - shelf.slab.rows)
            fits = self._bytes_of(shelf, growth) <= free
            if fits and (growth == 0 or shelf.slab.capacity == capacity):
                self._beside[session_id] = beside
                return self._lease(shelf, session_id, first, rows)
        needed = self._cost.of(rows, capacity, span)
        if needed > free:
            raise OutOfCache(
                f"the session needs {needed + beside} bytes of cache and {free + beside} are free",
                needed_bytes=needed + beside,
                free_bytes=free + beside,
                retry_after=RETRY_SECONDS,
            )
        shelf = _Shelf(Slab(capacity, max(rows, self._rows_together)), span, {})
        self._shelves.append(shelf)
        self._beside[session_id] = beside
        return self._lease(shelf, session_id, 0, rows)

    def free(self, session_id: SessionId) -> None:
        """Take the promise back; a session that has none is no fault."""
        self._beside.pop(session_id, None)
        for shelf in self._shelves:
            if shelf.leases.pop(session_id, None) is not None:
                shelf.slab.rows = max((lease.end for lease in shelf.leases.values()), default=0)
        self._shelves = [shelf for shelf in self._shelves if shelf.leases]

    def _lease(self, shelf: _Shelf, session_id: SessionId, first: int, rows: int) -> Lease:
        lease = shelf.leases[session_id] = Lease(shelf.slab, first, rows)
        shelf.slab.rows = max(shelf.slab.rows, lease.end)
        return lease

    def _bytes_of(self, shelf: _Shelf, rows: int) -> int:
        return self._cost.of(rows, shelf.slab.capacity, shelf.span)
