"""How much a swarm does for many users at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from discovery.protocol.errors import FarError
from far_mesh.bench.asking import prompt_of, timed
from far_mesh.bench.figures import Facts, Timed, of, speeds, spread_ms
from far_mesh.bench.progress import OnProgress
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions


async def throughput(
    mesh: Mesh,
    *,
    streams: Sequence[int],
    prompt_length: int,
    tokens: int,
    rounds: int,
    seed: int,
    on_progress: OnProgress,
) -> Facts:
    """So many answers at once, ``rounds`` times for each number of streams; one answer before them warms up.

    An answer that is refused or breaks off is counted by its code, and its tokens are not.

    Raises:
        FarError: the first answer, alone, did not come.
    """
    options = GenerationOptions(max_tokens=tokens)
    total = len(streams) * rounds + 1
    await timed(mesh, prompt_of(mesh, prompt_length, seed), options)
    on_progress("warming up", 1, total)
    measured: list[Facts] = []
    seed += 1
    for index, count in enumerate(streams):
        turns = []
        for number in range(rounds):
            prompts = [prompt_of(mesh, prompt_length, seed + stream) for stream in range(count)]
            seed += count
            turns.append(await _at_once(mesh, prompts, options))
            on_progress(f"{count} streams", 2 + index * rounds + number, total)
        measured.append(_figures(count, turns))
    settings = {"prompt_tokens": prompt_length, "tokens": tokens, "rounds": rounds}
    return {"settings": settings, "streams": [_beside(one, measured[0]) for one in measured]}


async def _at_once(
    mesh: Mesh, prompts: Sequence[list[int]], options: GenerationOptions
) -> tuple[float, list[Timed], Counter[str]]:
    """Seconds until the last has ended, the answers, and how many others ended with which code."""
    failed: Counter[str] = Counter()

    async def one(prompt: list[int]) -> Timed | None:
        try:
            return await timed(mesh, prompt, options)
        except FarError as error:
            failed[error.code] += 1
            return None

    started = time.monotonic()
    answers = await asyncio.gather(*(one(prompt) for prompt in prompts))
    return time.monotonic() - started, [answer for answer in answers if answer is not None], failed


def _figures(count: int, turns: Sequence[tuple[float, list[Timed], Counter[str]]]) -> Facts:
    answers = [answer for _, some, _ in turns for answer in some]
    failed = sum((counted for _, _, counted in turns), Counter[str]())
    aggregate = [sum(len(answer.arrivals) for answer in some) / seconds for seconds, some, _ in turns]
    return {
        "streams": count,
        "tokens_per_second": of(aggregate),
        "tokens_per_second_each": of(speeds(answers)),
        "time_to_first_token_ms": spread_ms([answer.first for answer in answers if answer.first is not None]),
        "time_per_token_ms": spread_ms([gap for answer in answers for gap in answer.gaps]),
        "answers": len(answers),
        "failed": dict(failed),
        "proven": all(answer.is_proven for answer in answers),
    }


def _beside(figures: Facts, first: Facts) -> Facts:
    """With how many times the first line's tokens per second they are."""
    base = first["tokens_per_second"]
    return figures | {"times_the_first": round(figures["tokens_per_second"] / base, 3) if base else None}
