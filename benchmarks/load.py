"""Many people ask one gateway at once, for minutes. Is everybody served, and alike?

    python -m benchmarks.load [--users 64] [--seconds 180] [--database sqlite|postgresql] [--nodes 3] [--out …]

Three nodes with the bundled model and a gateway, each a process of its own, on one machine; the books are real, in
SQLite or PostgreSQL. Each user has a wallet and a balance, and asks ``/v1/chat/completions`` for a stream, reads it to
its end, and asks again. Counted are errors by their code; streams that say nothing for half a minute (stuck); the time
to the first token; tokens a second; how alike the users' shares are (Jain's index: 1 is all alike, 1/n is one who gets
all); how much of a processor the gateway takes. In the end the books are recomputed, and nothing may be held.

The users are one asyncio program with httpx rather than locust: locust's greenlets patch the sockets of the process
they run in, and the figures are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.support.market import MODEL, Market, market, users, what_disagrees
from benchmarks.support.report import commit, keep

STUCK_SECONDS = 30.0
TOKENS = (16, 48)
SUBJECTS = ("rabbit", "fox", "bear", "girl", "boat", "king", "bird", "tree", "cat", "star")


@dataclass
class Tally:
    """What one user has seen."""

    tokens: int = 0
    answers: int = 0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    stuck: int = 0


async def read(http: httpx.AsyncClient, headers: dict[str, str], dice: random.Random, tally: Tally) -> None:
    """Ask once and read to the end."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Tell me a story about a brave {dice.choice(SUBJECTS)}."}],
        "max_tokens": dice.randint(*TOKENS),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = last = time.perf_counter()
    async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        if response.status_code != 200:
            tally.errors[json.loads(await response.aread())["error"]["code"]] += 1
            return
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                tally.errors[event["error"]["code"]] += 1
                return
            if usage := event.get("usage"):
                tally.tokens += usage["completion_tokens"]
                tally.answers += 1
            elif event["choices"][0]["delta"].get("content"):
                at = time.perf_counter()
                (tally.between if last > started else tally.first).append(at - last if last > started else at - started)
                last = at


async def use(market: Market, headers: dict[str, str], seed: int, until: float) -> Tally:
    """Ask again and again."""
    tally, dice = Tally(), random.Random(seed)
    patience = httpx.Timeout(STUCK_SECONDS, read=STUCK_SECONDS)
    async with httpx.AsyncClient(base_url=market.url, timeout=patience) as http:
        while time.perf_counter() < until:
            try:
                await read(http, headers, dice, tally)
            except httpx.ReadTimeout:
                tally.stuck += 1
            except httpx.HTTPError as error:
                tally.errors[type(error).__name__] += 1
    return tally


def jain(shares: list[int]) -> float:
    """Jain, Chiu and Hawe, A quantitative measure of fairness, 1984."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)) if any(shares) else 0.0


def quantiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cut = statistics.quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    return {"p50": round(1000 * cut[9], 1), "p95": round(1000 * cut[18], 1)} if cut else {}


async def load(options: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    with market(options.nodes, options.database) as opened:
        people = await users(opened, options.users)
        await use(opened, people[0], 0, time.perf_counter() + 1)  # everything is loaded
        before, started = opened.processor_seconds(), time.perf_counter()
        until = started + options.seconds
        tallies = await asyncio.gather(*(use(opened, one, seed, until) for seed, one in enumerate(people, 1)))
        lasted, used = time.perf_counter() - started, opened.processor_seconds() - before
        disagreements = await what_disagrees(opened)
    tokens, errors = sum(one.tokens for one in tallies), sum((one.errors for one in tallies), Counter())
    return {
        "users": options.users,
        "seconds": round(lasted, 1),
        "nodes": options.nodes,
        "database": options.database,
        "answers": sum(one.answers for one in tallies),
        "errors": dict(errors),
        "stuck": sum(one.stuck for one in tallies),
        "tokens_per_s": round(tokens / lasted, 1),
        "ms_to_first_token": quantiles([value for one in tallies for value in one.first]),
        "ms_between_tokens": quantiles([value for one in tallies for value in one.between]),
        "jain": round(jain([one.tokens for one in tallies]), 4),
        "least_and_most_tokens": [min(one.tokens for one in tallies), max(one.tokens for one in tallies)],
        "gateway_processors": round(used / lasted, 2),
        "gateway_ms_per_token": round(1000 * used / tokens, 2) if tokens else None,
        "disagreements": disagreements,
    }


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    of_commit = commit()
    results = asyncio.run(load(options))
    print(json.dumps(results, indent=2))
    if options.out is not None:
        command = (
            f"python -m benchmarks.load --users {options.users} --seconds {options.seconds:g} "
            f"--nodes {options.nodes} --database {options.database}"
        )
        keep(options.out, f"load_{options.database}", command, of_commit, results)


if __name__ == "__main__":
    main()
