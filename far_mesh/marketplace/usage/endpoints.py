"""``/api/account/usage``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from far_mesh.marketplace.auth.door import AccountReader
from far_mesh.marketplace.usage.schemas import Filter, Line, Sums, UsageAnswer, UsageLine, UsageSums
from far_mesh.marketplace.usage.service import UsageService, far_text, period

MAX_PAGE = 1000
NO_KEY = "none"
_NO_NUL = r"^[^\x00]*$"  # which PostgreSQL cannot even be asked about


def _written_as_a_day(value: Any) -> Any:
    """A number would be seconds since 1970 to pydantic."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise PydanticCustomError("date", "Input should be a day, such as 2026-11-21")
    return value


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
Day = Annotated[date, BeforeValidator(_written_as_a_day)]

router = APIRouter(tags=["account"])


class Format(StrEnum):
    """How the answer is written."""

    JSON = "json"
    CSV = "csv"


async def usage_service(request: Request) -> UsageService:
    """The room's service, made by the app."""
    service: UsageService = request.app.state.rooms.usage
    return service


Service = Annotated[UsageService, Depends(usage_service)]
_CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string", "description": "A row for each line, all at once."}}}}
}


@router.get("/api/account/usage", response_model=UsageAnswer, responses=_CSV)
async def usage(
    request: Request,
    service: Service,
    wallet: AccountReader,
    first: Annotated[
        Day | None, Query(alias="from", description="The first day (UTC); without it 30 days before `to`.")
    ] = None,
    last: Annotated[Day | None, Query(alias="to", description="The last day, which counts; without it today.")] = None,
    model_id: Annotated[str | None, Query(max_length=255, pattern=_NO_NUL, description="Of this model alone.")] = None,
    api_key_id: Annotated[
        str | None, Query(max_length=64, pattern=_NO_NUL, description="With this API key alone; `none`: without any.")
    ] = None,
    cursor: Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    format: Annotated[  # how it is called in the query
        Format | None, Query(description="`csv`, as with `Accept: text/csv`: everything at once, in no pages.")
    ] = None,
) -> UsageAnswer | Response:
    """What the caller has used, per day, model and API key, the newest day first."""
    asked = period(first, last)
    wanted = Filter(wallet, asked, model_id, "" if api_key_id == NO_KEY else api_key_id)
    if format is Format.CSV or (format is None and _wants_csv(request)):
        name = f"far-usage-{asked.first}-{asked.last}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"', "vary": "Accept"}
        return StreamingResponse(service.table(wanted), headers=headers, media_type="text/csv; charset=utf-8")
    found = await service.used(wanted, cursor, limit)
    return UsageAnswer(
        wallet_address=wallet,
        first=asked.first,
        last=asked.last,
        total=UsageSums(**_sums(found.total)),
        usage=[_line(line, found.names) for line in found.lines],
        next_cursor=found.next_cursor,
    )


def _wants_csv(request: Request) -> bool:
    """Whether the caller names CSV and does not name JSON before it."""
    kinds = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    named = [kind for kind in kinds if kind in ("text/csv", "application/json")]
    return named[:1] == ["text/csv"]


def _line(line: Line, names: Mapping[str, str]) -> UsageLine:
    return UsageLine(
        date=date.fromisoformat(line.day),
        model_id=line.model_id,
        api_key_id=line.key_id or None,
        api_key_name=names.get(line.key_id),
        **_sums(line.sums),
    )


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "failed_requests": sums.failed,
        "prompt_tokens": sums.prompt_tokens,
        "cached_tokens": sums.cached_tokens,
        "completion_tokens": sums.completion_tokens,
        "cost_units": sums.cost_units,
        "cost_far": far_text(sums.cost_units),
    }
