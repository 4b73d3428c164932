"""How long one user waits: for the first token, by the length of the prompt, and for each one after it."""

from __future__ import annotations

from collections.abc import Sequence

from far_mesh.bench.asking import prompt_of, timed
from far_mesh.bench.figures import Facts, Timed, of, speeds, spread_ms
from far_mesh.bench.progress import OnProgress
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions
from far_mesh.trace import median, parts_as_facts


async def latency(
    mesh: Mesh, *, prompt_lengths: Sequence[int], tokens: int, rounds: int, seed: int, on_progress: OnProgress
) -> Facts:
    """One answer after the other, ``rounds`` for each length of prompt; one more before them warms up.

    Raises:
        FarError: an answer did not come.
    """
    options = GenerationOptions(max_tokens=tokens)
    total = len(prompt_lengths) * rounds + 1
    await timed(mesh, prompt_of(mesh, min(prompt_lengths), seed), options)
    on_progress("warming up", 1, total)
    measured = []
    for index, length in enumerate(prompt_lengths):
        answers = []
        for number in range(rounds):
            prompt = prompt_of(mesh, length, seed + 1 + index * rounds + number)
            answers.append(await timed(mesh, prompt, options))
            on_progress(f"{length} tokens", 2 + index * rounds + number, total)
        measured.append(_figures(length, answers))
    return {"settings": {"tokens": tokens, "rounds": rounds, "seed": seed}, "prompts": measured}


def _figures(length: int, answers: Sequence[Timed]) -> Facts:
    steps = [parts for answer in answers for parts in answer.trace.parts()[1:]]
    return {
        "prompt_tokens": length,
        "completion_tokens": [len(answer.arrivals) for answer in answers],
        "time_to_first_token_ms": spread_ms([answer.first for answer in answers if answer.first is not None]),
        "opening_ms": spread_ms([answer.opened for answer in answers]),
        "time_per_token_ms": spread_ms([gap for answer in answers for gap in answer.gaps]),
        "tokens_per_second": of(speeds(answers)),
        "median_step": parts_as_facts(median(steps)) if steps else None,
        "proven": all(answer.is_proven for answer in answers),
    }
