"""Shapes of usage. Units are 1e-9 FAR; ``cost_far`` is the same amount, exactly, as text."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from discovery.protocol.ids import Wallet


@dataclass(frozen=True)
class Period:
    """Days of UTC, both included."""

    first: dt.date
    last: dt.date

    @property
    def begins(self) -> dt.datetime:
        """The first moment of it."""
        return dt.datetime.combine(self.first, dt.time(), dt.UTC)

    @property
    def ends(self) -> dt.datetime:
        """The first moment after it."""
        return dt.datetime.combine(self.last + dt.timedelta(days=1), dt.time(), dt.UTC)


@dataclass(frozen=True)
class Filter:
    """Whose requests, when, and of which model and API key alone; key ``""``: those of the wallet itself."""

    wallet: Wallet
    period: Period
    model_id: str | None = None
    key_id: str | None = None


@dataclass(frozen=True)
class Sums:
    """What requests came to."""

    requests: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_units: int


@dataclass(frozen=True)
class Line:
    """What was used on a day, ``YYYY-MM-DD``, of a model, with an API key; key ``""``: by the wallet itself."""

    day: str
    model_id: str
    key_id: str
    sums: Sums


class UsageSums(BaseModel):
    """Requests that began in this time, those that failed and cost nothing included. ``cached_tokens`` are those of
    ``prompt_tokens`` that nodes knew from before. What is still under way has not cost anything yet."""

    requests: int
    failed_requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_units: int
    cost_far: str


class UsageLine(UsageSums):
    """The same for one day (UTC), model and API key. Without a key: the wallet had signed in itself. A key that was
    revoked long ago has no name any more."""

    date: dt.date
    model_id: str
    api_key_id: str | None
    api_key_name: str | None


class UsageAnswer(BaseModel):
    """What an account has used, the newest day first. ``total`` is about the whole time, ``usage`` one page of it."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "wallet_address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                    "from": "2026-02-01",
                    "to": "2026-02-28",
                    "total": {
                        "requests": 2,
                        "failed_requests": 0,
                        "prompt_tokens": 40,
                        "cached_tokens": 0,
                        "completion_tokens": 200,
                        "cost_units": 24000000,
                        "cost_far": "0.024000000",
                    },
                    "usage": [
                        {
                            "date": "2026-02-03",
                            "model_id": "meta-llama/Llama-2-7b-chat-hf",
                            "api_key_id": "key_0123456789abcdef01234567",
                            "api_key_name": "website",
                            "requests": 2,
                            "failed_requests": 0,
                            "prompt_tokens": 40,
                            "cached_tokens": 0,
                            "completion_tokens": 200,
                            "cost_units": 24000000,
                            "cost_far": "0.024000000",
                        }
                    ],
                    "next_cursor": None,
                }
            ]
        },
    )

    wallet_address: str
    first: dt.date = Field(alias="from")
    last: dt.date = Field(alias="to")
    total: UsageSums
    usage: list[UsageLine]
    next_cursor: str | None
