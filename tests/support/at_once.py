"""Many requests in one moment, through the application itself: what is charged, what is held, what is refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from fastapi import FastAPI

PATH = "/api/inference/distributed/generate"


def client(app: FastAPI, token: str) -> httpx.AsyncClient:
    """One that needs no sockets, and has no limit of them."""
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://far.test", headers=headers)


async def ask(
    http: httpx.AsyncClient, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """One answer. Who is told to ask again, because so many wait for the database, does."""
    while (answer := await http.post(PATH, json=dict(body), headers=headers)).status_code == 503:
        await asyncio.sleep(float(answer.headers["retry-after"]))
    return answer


async def same_key(app: FastAPI, token: str, body: Mapping[str, Any], count: int) -> Counter[str]:
    """``count`` requests with one idempotency key, by how they ended: ``served``, or the code of the refusal."""
    async with client(app, token) as http:
        headers = {"idempotency-key": "my only order"}
        return tally(await asyncio.gather(*(ask(http, body, headers) for _ in range(count))))


async def holds(
    app: FastAPI, token: str, body: Mapping[str, Any], count: int, refusals: int, let_go: Callable[[], None]
) -> Counter[str]:
    """``count`` requests at once against a deposit that covers fewer. Once ``refusals`` of them have ended, the others,
    which hold what there is, are ``let_go``."""
    async with client(app, token) as http:
        asked = [asyncio.create_task(ask(http, body)) for _ in range(count)]
        for ended, one in enumerate(asyncio.as_completed(asked), start=1):
            await one
            if ended == refusals:
                let_go()
        return tally([one.result() for one in asked])


def tally(answers: list[httpx.Response]) -> Counter[str]:
    """How answers ended."""
    return Counter("served" if one.status_code == 200 else one.json()["error"]["code"] for one in answers)
