"""What the gateway adds to a swarm: the same text from the swarm itself and through the gateway, in turn.

    python -m benchmarks.gateway_overhead [--pairs 100] [--database sqlite|postgresql] [--out benchmarks/results]

Three nodes with the bundled model and a gateway, each a process of its own, on one machine. Each pair is one greedy
text asked of the swarm by this process (``Mesh.open``) and of the gateway over ``/v1/completions`` as a stream, the one
or the other first by turns; once with one token and once with more. What the gateway adds to a request is the
difference between the two with one token: HTTP, signing in, limits, price, hold, capture. What it adds to a token is
how much more that difference is with more tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvloop

from benchmarks.support.market import MODEL, market, users
from benchmarks.support.report import commit, keep
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig

MORE = 33
WARM_UP = 5

Ask = Callable[[list[int], int], Awaitable[float]]


async def of_swarm(mesh: Mesh, ids: list[int], tokens: int) -> float:
    """Seconds until the whole text is there, receipts included."""
    started = time.perf_counter()
    generation = await mesh.open(ids, GenerationOptions(max_tokens=tokens))
    async for _ in generation:
        pass
    await generation.finish()
    return time.perf_counter() - started


async def of_gateway(http: httpx.AsyncClient, ids: list[int], tokens: int) -> float:
    """Seconds until the stream has ended."""
    body = {"model": MODEL, "prompt": ids, "max_tokens": tokens, "temperature": 0, "stream": True}
    started = time.perf_counter()
    async with http.stream("POST", "/v1/completions", json=body) as response:
        said = [line async for line in response.aiter_lines()]
    assert response.status_code == 200, said
    assert said[-1] == "" or said[-2:] == ["data: [DONE]", ""], said[-3:]
    return time.perf_counter() - started


async def pairs(asks: dict[str, Ask], count: int, tokens: int) -> list[dict[str, float]]:
    """So many pairs of times. Each text is a new one, so that no node knows its prompt."""
    found = []
    for number in range(WARM_UP + count):
        names = list(asks) if number % 2 else list(reversed(asks))
        ids = [10 + (number * 977 + 31 * index + tokens) % 1900 for index in range(32)]
        pair = {name: await asks[name]([*ids, 10 + names.index(name)], tokens) for name in names}
        found.append(pair)
    return found[WARM_UP:]


def spread(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    cut = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"p50": round(1000 * cut[9], 2), "p5": round(1000 * cut[0], 2), "p95": round(1000 * cut[18], 2)}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    with market(3, options.database) as opened:
        headers = (await users(opened, 1))[0]
        config = MeshConfig()
        async with (
            await Mesh.join(MODEL, opened.town.initial_peers, config) as mesh,
            httpx.AsyncClient(base_url=opened.url, headers=headers, timeout=60) as http,
        ):
            asks: dict[str, Ask] = {"swarm": partial(of_swarm, mesh), "gateway": partial(of_gateway, http)}
            one = await pairs(asks, options.pairs, 1)
            before = opened.processor_seconds()
            more = await pairs(asks, options.pairs, MORE)
            used = opened.processor_seconds() - before
    added = [pair["gateway"] - pair["swarm"] for pair in one]
    per_token = [(long["gateway"] - long["swarm"] - statistics.median(added)) / (MORE - 1) for long in more]
    return {
        "pairs": options.pairs,
        "database": options.database,
        "ms_one_token": {name: spread([pair[name] for pair in one]) for name in asks},
        f"ms_{MORE}_tokens": {name: spread([pair[name] for pair in more]) for name in asks},
        "ms_added_to_a_request": spread(added),
        "ms_added_to_a_token": spread(per_token),
        "gateway_processor_ms_per_request": round(1000 * used / (options.pairs + WARM_UP), 2),
    }


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    of_commit = commit()
    results = uvloop.run(measure(options))
    print(json.dumps(results, indent=2))
    if options.out is not None:
        command = f"python -m benchmarks.gateway_overhead --pairs {options.pairs} --database {options.database}"
        keep(options.out, f"gateway_overhead_{options.database}", command, of_commit, results)


if __name__ == "__main__":
    main()
