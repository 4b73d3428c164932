"""What an account has used: pages of it, and all of it as a table."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.chain.amounts import UNITS_PER_FAR
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.keys import repository as keys
from far_mesh.marketplace.usage import repository
from far_mesh.marketplace.usage.schemas import Filter, Line, Period, Sums

MAX_DAYS = 366
USUAL_DAYS = 30
CSV_PAGE = 1000
COLUMNS = (
    "date",
    "model_id",
    "api_key_id",
    "api_key_name",
    "requests",
    "failed_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_units",
    "cost_far",
)


@dataclass(frozen=True)
class Used:
    """A page of lines, what the whole time came to, the names of the keys, and where the next page begins."""

    lines: list[Line]
    total: Sums
    names: Mapping[str, str]
    next_cursor: str | None


class UsageService:
    """Answers one wallet at a time, about that wallet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def used(self, wanted: Filter, cursor: str | None, limit: int) -> Used:
        """A page of what was used.

        Raises:
            InvalidArgument: the cursor is none.
        """
        after = None if cursor is None else _place(cursor)
        async with self._database.snapshot() as connection:
            found = await repository.lines(connection, wanted, after, limit + 1)
            total = await repository.total(connection, wanted)
            names = {key.id: key.name for key in await keys.of_wallet(connection, wanted.wallet)}
        page = found[:limit]
        return Used(page, total, names, _cursor(page[-1]) if len(found) > limit else None)

    async def table(self, wanted: Filter) -> AsyncIterator[str]:
        """All of it as CSV (RFC 4180), piece by piece."""
        yield _rows([COLUMNS])
        after: tuple[str, str, str] | None = None
        while True:
            async with self._database.reading() as connection:
                found = await repository.lines(connection, wanted, after, CSV_PAGE)
                names = {key.id: key.name for key in await keys.of_wallet(connection, wanted.wallet)}
            if found:
                yield _rows(_cells(line, names) for line in found)
            if len(found) < CSV_PAGE:
                return
            after = _after(found[-1])


def period(first: date | None, last: date | None) -> Period:
    """The days that are asked about: up to today, and 30 of them, where nothing else is said.

    Raises:
        InvalidArgument: none, or too many at once.
    """
    last = last or now().date()
    first = first or last - timedelta(days=min(USUAL_DAYS - 1, (last - date.min).days))
    if first > last:
        raise InvalidArgument(f"from is {first}, which is after to, {last}", param="from")
    if (last - first).days >= MAX_DAYS:
        raise InvalidArgument(
            f"from {first} to {last} is more than {MAX_DAYS} days: ask for less at a time", param="to"
        )
    if last == date.max:
        raise InvalidArgument(f"to is {last}, after which there is nothing", param="to")
    return Period(first, last)


def far_text(units: int) -> str:
    """The same amount in FAR, exactly."""
    return f"{units // UNITS_PER_FAR}.{units % UNITS_PER_FAR:09d}"


def _after(line: Line) -> tuple[str, str, str]:
    return line.day, line.model_id, line.key_id


def _cursor(line: Line) -> str:
    return base64.urlsafe_b64encode(json.dumps(_after(line)).encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[str, str, str]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        day, model_id, key_id = json.loads(raw)
        date.fromisoformat(day)
        if b"\0" in (model_id + key_id).encode():
            raise ValueError("which no database takes")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("this cursor was not given out here", param="cursor") from None
    return day, model_id, key_id


def _rows(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cells(line: Line, names: Mapping[str, str]) -> list[object]:
    sums = line.sums
    return [
        line.day,
        _plain(line.model_id),
        line.key_id,
        _plain(names.get(line.key_id, "")),
        sums.requests,
        sums.failed,
        sums.prompt_tokens,
        sums.cached_tokens,
        sums.completion_tokens,
        sums.cost_units,
        far_text(sums.cost_units),
    ]


def _plain(text: str) -> str:
    """No formula, when a spreadsheet opens it (as OWASP advises)."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
