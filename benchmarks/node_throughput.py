"""One node, many sessions: how much batching gains, whether it is fair, and what a stranger's long prompt costs.

    python -m benchmarks.node_throughput [--rounds 5] [--sessions 16] [--clients 4] [--seconds 6] [--out RESULTS]

A real node in a process of its own (one thread, fp32, a random Llama of hidden size 1024 and 8 layers) and clients over
libp2p in this one. A session sends a vector, waits for the answer and sends the next: decode without the ends of the
model, which belong to the client. Rounds of one session and of many take turns; medians of their ratios are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvloop
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.support.report import commit, keep
from discovery.protocol.messages import WireTensor
from far_mesh.config import MeshConfig
from far_mesh.demo.processes import ProcessGroup
from far_mesh.opener import Swarm
from far_mesh.route import RouteHop, plan_route
from far_mesh.session import MeshSession, SessionRequest
from far_node.blocks.wire import to_wire

WALLET = "0x000000000000000000000000000000000000dEaD"
HIDDEN, LAYERS = 1024, 8
CONTEXTS = (64, 128, 256, 384)
LONG_PROMPT = 2000
MAX_LENGTH = 4096


def make_model(folder: Path) -> Path:
    """A random Llama of about 100 M parameters in its blocks."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=2816,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=256,
        max_position_embeddings=MAX_LENGTH,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass
class Talk:
    """A session and when its steps were answered."""

    session: MeshSession
    context: int
    seed: int
    decoded: int = 0
    steps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1000 + self.seed)
        self._vectors = [to_wire(torch.randn(1, 1, HIDDEN, generator=generator), "float32") for _ in range(32)]

    async def prefill(self) -> None:
        """Fill the cache with a prompt of ``context`` positions."""
        generator = torch.Generator().manual_seed(self.seed)
        prompt = to_wire(torch.randn(1, self.context, HIDDEN, generator=generator), "float32")
        await self.session.step(prompt, 0, keep=1)

    def for_steps(self, count: int) -> Callable[[], bool]:
        """Until so many are decoded."""
        return lambda: self.decoded < count

    async def decode(self, go_on: Callable[[], bool]) -> WireTensor | None:
        """Step by step as long as told; the last answer."""
        answer = None
        while go_on():
            vector = self._vectors[self.decoded % len(self._vectors)]
            started = time.perf_counter()
            answer = await self.session.step(vector, self.context + self.decoded, keep=1)
            self.steps.append(time.perf_counter() - started)
            self.decoded += 1
        return answer


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Until the clock says so."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() < end


class Clients:
    """Peers of their own in the swarm, and the sessions they open."""

    def __init__(self, swarms: list[Swarm], route: tuple[RouteHop, ...], digest: str) -> None:
        self._swarms, self._route, self._digest = swarms, route, digest

    async def talk(self, number: int, context: int | None = None, seed: int | None = None) -> Talk:
        """An open session of client ``number``; the prompt is the same for the same seed."""
        context = CONTEXTS[number % len(CONTEXTS)] if context is None else context
        request = SessionRequest(self._digest, min(MAX_LENGTH, context + 1024), "float32")
        swarm = self._swarms[number % len(self._swarms)]
        session = MeshSession(self._route, request, swarm.config)
        await session.open(swarm.peer.transport)
        return Talk(session, context, number if seed is None else seed)

    async def talks(self, count: int) -> list[Talk]:
        """Sessions with prompts of several lengths, filled."""
        made = [await self.talk(index) for index in range(count)]
        await asyncio.gather(*(talk.prefill() for talk in made))
        return made

    async def end(self, talks: list[Talk]) -> None:
        """Close sessions."""
        await asyncio.gather(*(talk.session.finish() for talk in talks))


async def throughput(clients: Clients, sessions: int, seconds: float) -> dict[str, Any]:
    """Tokens per second of all sessions together, and Jain's index of fairness over them."""
    talks = await clients.talks(sessions)
    started = time.perf_counter()
    await asyncio.gather(*(talk.decode(for_seconds(seconds)) for talk in talks))
    took = time.perf_counter() - started
    counts = [talk.decoded for talk in talks]
    await clients.end(talks)
    return {"per_s": sum(counts) / took, "jain": sum(counts) ** 2 / (len(counts) * sum(c * c for c in counts))}


async def equality(clients: Clients, sessions: int, steps: int = 24) -> float:
    """Largest relative difference of answers in batches from those of the same session alone."""
    together = await clients.talks(sessions)
    batched = await asyncio.gather(*(talk.decode(talk.for_steps(steps)) for talk in together))
    await clients.end(together)
    worst = 0.0
    for number in range(0, sessions, max(1, sessions // 4)):
        alone = await clients.talk(number)
        await alone.prefill()
        expected, answer = await alone.decode(alone.for_steps(steps)), batched[number]
        await clients.end([alone])
        assert answer is not None
        assert expected is not None
        got, want = (torch.frombuffer(bytearray(w.data), dtype=torch.float32) for w in (answer, expected))
        worst = max(worst, float((got - want).abs().max() / want.abs().max()))
    return worst


async def disturbance(clients: Clients, seconds: float, turn: int) -> dict[str, float]:
    """p95 of a session's steps in quiet, and while a stranger's long prompt is computed; seconds."""
    (talk,) = await clients.talks(1)
    await talk.decode(for_seconds(seconds))
    quiet, talk.steps = talk.steps, []
    stranger = await clients.talk(1, LONG_PROMPT, 10_000 + turn)  # a prompt that no round has seen before
    started = time.perf_counter()
    prompt = asyncio.create_task(stranger.prefill())
    await talk.decode(lambda: not prompt.done())
    beside = time.perf_counter() - started
    alone = await clients.talk(1, LONG_PROMPT, 20_000 + turn)
    await clients.end([talk])
    started = time.perf_counter()
    await alone.prefill()
    undisturbed = time.perf_counter() - started
    await clients.end([stranger, alone])
    return {
        "quiet_p95": _p95(quiet),
        "disturbed_p95": _p95(talk.steps),
        "ratio": _p95(talk.steps) / _p95(quiet),
        "prompt_s": beside,
        "prompt_alone_s": undisturbed,
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


async def measure(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """All of it on one node."""
    local = "/ip4/127.0.0.1/tcp/0"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        group = await stack.enter_async_context(ProcessGroup(folder / "logs"))
        bootstrap = await group.start(
            "bootstrap",
            "discovery.cli",
            ["bootstrap", "--json", "--host-maddr", local, "--identity", str(folder / "bootstrap")],
        )
        peer = str((await bootstrap.ready())["maddrs"][0])
        options = ["start", "--json", "--model", str(model), "--wallet", WALLET, "--initial-peers", peer]
        options += ["--blocks", f"0:{LAYERS}", "--identity", str(folder / "node"), "--host-maddr", local, "--cpu-only"]
        options += ["--threads", "1", "--quantization", "none", "--dtype", "float32", "--cache-mb", "4096"]
        node = await group.start("node", "far_node.cli", options)
        ready = await node.ready()
        swarms = [await Swarm.join([peer], MeshConfig(step_timeout=300.0)) for _ in range(arguments.clients)]
        for swarm in swarms:
            stack.push_async_callback(swarm.close)
        announced = [signed.announcement for signed in await swarms[0].peer.board.nodes_of(str(ready["model_digest"]))]
        clients = Clients(swarms, plan_route(announced, LAYERS, set()), str(ready["model_digest"]))
        await throughput(clients, arguments.sessions, 2.0)  # warms up
        worst = await equality(clients, arguments.sessions)
        one, many, prompts = [], [], []
        for turn in range(arguments.rounds):
            one.append(await throughput(clients, 1, arguments.seconds))
            many.append(await throughput(clients, arguments.sessions, arguments.seconds))
            prompts.append(await disturbance(clients, arguments.seconds, turn))
    ratios = [all_["per_s"] / single["per_s"] for single, all_ in zip(one, many, strict=True)]
    return {
        "sessions": arguments.sessions,
        "one_session_tokens_per_s": round(statistics.median(r["per_s"] for r in one), 1),
        "all_sessions_tokens_per_s": round(statistics.median(r["per_s"] for r in many), 1),
        "gain_median": round(statistics.median(ratios), 2),
        "gain_min": round(min(ratios), 2),
        "gain_max": round(max(ratios), 2),
        "jain_median": round(statistics.median(r["jain"] for r in many), 4),
        "jain_min": round(min(r["jain"] for r in many), 4),
        "largest_relative_difference": worst,
        "quiet_p95_ms": round(1000 * statistics.median(r["quiet_p95"] for r in prompts), 1),
        "beside_a_prompt_p95_ms": round(1000 * statistics.median(r["disturbed_p95"] for r in prompts), 1),
        "p95_ratio_median": round(statistics.median(r["ratio"] for r in prompts), 2),
        "p95_ratio_max": round(max(r["ratio"] for r in prompts), 2),
        "prompt_beside_a_session_s": round(statistics.median(r["prompt_s"] for r in prompts), 2),
        "prompt_alone_s": round(statistics.median(r["prompt_alone_s"] for r in prompts), 2),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    with tempfile.TemporaryDirectory() as folder:
        result = uvloop.run(measure(arguments, make_model(Path(folder) / "llama-1024x8")))
    command = f"python -m benchmarks.node_throughput --rounds {arguments.rounds} --seconds {arguments.seconds:g}"
    print(json.dumps(result, indent=2))
    keep(arguments.out, "node_throughput", command, of_commit, result)


if __name__ == "__main__":
    main()
