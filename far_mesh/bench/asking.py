"""Prompts that no node has seen before, and answers with the time of each token."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from far_mesh.bench.figures import Timed
from far_mesh.client import Generation, Mesh
from far_mesh.config import GenerationOptions, Treatment
from far_mesh.opener import OnMended

OnToken = Callable[[Generation, int], Awaitable[None]]
"""Told how many tokens have come, after each of them; the next is read when it returns."""

_SCOPE_BYTES = 16
_WORDS = """
the a small old kind quick rabbit fox dog child sea hill river garden house friend wanted found saw walked sang
slept asked said and but so when then over under beside into with morning evening rain wind little big happy sad
"""


def prompt_of(mesh: Mesh, length: int, seed: int) -> list[int]:
    """Token ids of words in an order of their own: exactly ``length``."""
    order = random.Random(seed)  # noqa: S311  # no secret
    ids: list[int] = []
    while len(ids) < length:
        ids += mesh.encode(" ".join(order.choices(_WORDS.split(), k=length)), raw=True)
    return ids[:length]


async def timed(
    mesh: Mesh,
    prompt_ids: Sequence[int],
    options: GenerationOptions,
    *,
    on_token: OnToken | None = None,
    on_mended: OnMended | None = None,
) -> Timed:
    """Ask, and take the time of every token. Nodes compute the whole prompt: it shares its beginning with none.

    Raises:
        FarError: the answer did not come.
    """
    started = time.monotonic()
    treatment = Treatment(prefix_scope=os.urandom(_SCOPE_BYTES))
    generation = await mesh.open(prompt_ids, options, treatment=treatment, on_mended=on_mended)
    opened = time.monotonic() - started
    arrivals: list[float] = []
    try:
        async for _ in generation:
            arrivals.append(time.monotonic() - started)
            if on_token is not None:
                await on_token(generation, len(arrivals))
    finally:
        result = await generation.finish()
    proven = sum(done.token_layers for done in result.contributions)
    return Timed(opened, tuple(arrivals), result.token_ids, result.trace, proven >= result.expected_token_layers)
