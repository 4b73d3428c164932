"""What the way round a ring costs, on one machine and over an emulated wide-area network.

    python -m benchmarks.mesh [--rounds 5] [--parts ring,hop,prefill,streams] [--out benchmarks/results]

- ``ring``: four nodes and a client, 40 ms one way on every link, 100 Mbit/s, no guesses ahead: a token's time against
  the limit, which is the sum of the delays and of what nodes and client compute;
- ``hop``: three nodes on this machine: what a token takes beyond computing, for each node;
- ``prefill``: a prompt of 512 tokens through four nodes at 20 ms, in parts and in one piece, in turn: the time to the
  first token against ``(parts + nodes - 1) × slowest stage + delays``;
- ``streams``: 1, 4, 8 and 16 texts at once through three nodes on this machine.

Nodes are processes of their own with one thread each. What they compute is what they say of each step (a trace), which
is checked against nothing here: see ``ring_vs_local.py`` for a comparison with plain transformers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import uvloop
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.support.report import commit, keep
from benchmarks.support.town import CLIENT_HOST, FIRST_NODE_HOST, WanTown
from benchmarks.support.wan import Wan
from far_mesh.client import Mesh, Result
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.trace import median
from tests.support.models import with_bundled_tokenizer
from tests.support.swarm import Town

PLAIN = MeshConfig(speculation=False)
BITS_PER_SECOND = 100e6
LAYERS, HIDDEN = 12, 512
PROMPT_TOKENS = 512


def make_model(folder: Path) -> Path:
    """A random Llama of 42 M parameters, whose blocks take a few milliseconds each node."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=2048,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return with_bundled_tokenizer(folder)


def spans(nodes: int) -> list[tuple[int, int]]:
    """Even ranges."""
    borders = [round(LAYERS * index / nodes) for index in range(nodes + 1)]
    return list(pairwise(borders))


async def text(mesh: Mesh, ids: list[int], tokens: int) -> Result:
    """One greedy text."""
    generation = await mesh.open(ids, GenerationOptions(max_tokens=tokens))
    async for _ in generation:
        pass
    return await generation.finish()


def token_times(result: Result) -> dict[str, float]:
    """Medians of a text's tokens after the first, in seconds."""
    parts = median(result.trace.parts()[1:])
    return {
        "token": parts.until_token,
        "nodes": parts.computed,
        "queue": parts.queue,
        "links": parts.links,
        "client": parts.client,
    }


async def ring(town: Town, model: Path, rounds: int, delay: float, nodes: int) -> dict[str, Any]:
    """Tokens one by one."""
    async with await Mesh.join(str(model), town.initial_peers, PLAIN) as mesh:
        ids = list(range(10, 74))
        await text(mesh, ids, 8)
        found = [token_times(await text(mesh, ids, 48)) for _ in range(rounds)]
    delays = (nodes + 1) * delay
    ratios = [one["token"] / (delays + one["nodes"] + one["client"]) for one in found]
    over = [(one["token"] - delays - one["nodes"] - one["client"]) / nodes for one in found]
    return {
        "nodes": nodes,
        "one_way_ms": 1000 * delay,
        "ms": {name: _ms(statistics.median(one[name] for one in found)) for name in found[0]},
        "limit_ms": _ms(statistics.median(delays + one["nodes"] + one["client"] for one in found)),
        "times_the_limit": _spread(ratios, 3),
        "overhead_ms_per_node": _spread([1000 * value for value in over], 2),
    }


async def prefill(town: Town, model: Path, rounds: int, delay: float, nodes: int) -> dict[str, Any]:
    """Time to the first token, in parts and in one piece."""
    found: dict[str, list[dict[str, float]]] = {"parts": [], "one piece": []}
    async with await Mesh.join(str(model), town.initial_peers, PLAIN) as mesh:
        await text(mesh, list(range(10, 74)), 4)
        for number in range(rounds):
            for kind in found:
                ids = [10 + (number * 977 + 31 * index + len(kind)) % 1900 for index in range(PROMPT_TOKENS)]
                with ExitStack() as stack:
                    if kind == "one piece":
                        whole = mock.patch("far_mesh.walk.prompt_parts", lambda positions, _: [positions])
                        stack.enter_context(whole)
                    result = await text(mesh, ids, 1)
                found[kind].append(_first_token(result, delay, nodes))
    ratios = [one["seconds"] / one["limit"] for one in found["parts"]]
    gains = [
        whole["seconds"] / parts["seconds"] for whole, parts in zip(found["one piece"], found["parts"], strict=True)
    ]
    return {
        "nodes": nodes,
        "one_way_ms": 1000 * delay,
        "prompt_tokens": PROMPT_TOKENS,
        "parts": int(found["parts"][0]["parts"]),
        "ms_to_first_token": {
            kind: _ms(statistics.median(one["seconds"] for one in some)) for kind, some in found.items()
        },
        "limit_ms": _ms(statistics.median(one["limit"] for one in found["parts"])),
        "times_the_limit": _spread(ratios, 3),
        "times_as_quick_as_one_piece": _spread(gains, 2),
    }


def _first_token(result: Result, delay: float, nodes: int) -> dict[str, float]:
    """Its time, and ``(parts + nodes - 1) × slowest stage + delays``."""
    steps = [step for step in result.trace.steps if step.nodes]
    slowest = max(statistics.mean(step.nodes[index].computed for step in steps) for index in range(nodes))
    assert result.time_to_first_token is not None
    return {
        "seconds": result.time_to_first_token,
        "limit": (len(steps) + nodes - 1) * slowest + (nodes + 1) * delay,
        "parts": len(steps),
    }


async def streams(town: Town, model: Path, rounds: int) -> dict[str, Any]:
    """Texts at once."""
    counts, tokens = (1, 4, 8, 16), 48
    rates: dict[int, list[float]] = {count: [] for count in counts}
    async with await Mesh.join(str(model), town.initial_peers, PLAIN) as mesh:
        await text(mesh, list(range(10, 42)), 4)
        for _ in range(rounds):
            for count in counts:
                started = time.perf_counter()
                await asyncio.gather(
                    *(text(mesh, list(range(10 + index, 42 + index)), tokens) for index in range(count))
                )
                rates[count].append(count * tokens / (time.perf_counter() - started))
    gains = [all_ / one for all_, one in zip(rates[16], rates[1], strict=True)]
    return {
        "nodes": 3,
        "tokens_per_s": {str(count): round(statistics.median(some), 1) for count, some in rates.items()},
        "sixteen_times_one": _spread(gains, 2),
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _spread(values: list[float], digits: int) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


@contextmanager
def far_apart(model: Path, nodes: int, delay: float) -> Iterator[Town]:
    """Nodes on hosts of their own, and this process on the client's."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        wan = stack.enter_context(Wan(FIRST_NODE_HOST + nodes, 2 * delay, BITS_PER_SECOND))
        stack.enter_context(wan.inside(CLIENT_HOST))
        town = stack.enter_context(WanTown(Path(name), wan))
        started = [town.node_at(FIRST_NODE_HOST + index, model, span) for index, span in enumerate(spans(nodes))]
        for node in started:
            node.wait_until_ready()
        yield town


@contextmanager
def side_by_side(model: Path, nodes: int) -> Iterator[Town]:
    """Nodes on this machine."""
    with tempfile.TemporaryDirectory() as name, Town(Path(name)) as town:
        town.start_nodes(model, *spans(nodes))
        yield town


def measure(part: str, model: Path, rounds: int) -> dict[str, Any]:
    """One part, in a swarm of its own."""
    match part:
        case "ring":
            with far_apart(model, 4, 0.040) as town:
                return uvloop.run(ring(town, model, rounds, 0.040, 4))
        case "hop":
            with side_by_side(model, 3) as town:
                return uvloop.run(ring(town, model, rounds, 0.0, 3))
        case "prefill":
            with far_apart(model, 4, 0.020) as town:
                return uvloop.run(prefill(town, model, rounds, 0.020, 4))
        case "streams":
            with side_by_side(model, 3) as town:
                return uvloop.run(streams(town, model, rounds))
    raise SystemExit(f"there is no part {part!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="ring,hop,prefill,streams")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        model = make_model(Path(name) / "llama-42m")
        for part in given.parts.split(","):
            results[part] = measure(part, model, given.rounds)
            print(json.dumps({part: results[part]}, indent=2), flush=True)
    command = f"python -m benchmarks.mesh --rounds {given.rounds} --parts {given.parts}"
    keep(given.out, "mesh", command, of_commit, results)


if __name__ == "__main__":
    main()
