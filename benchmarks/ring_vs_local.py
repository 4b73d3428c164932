"""One greedy stream over three local nodes against plain transformers: same weights, same threads, one run.

    python -m benchmarks.ring_vs_local [--rounds 9] [--tokens 96] [--threads 1] [--out benchmarks/results]

Nodes, bootstrap peer and client are processes of their own. Each round times plain ``generate()`` and the ring one
after the other and compares their tokens; what is reported is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import uvloop
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.support.report import commit, keep
from discovery.console import settle_memory
from far_mesh.client import GenerationOptions, Mesh
from far_mesh.demo.config import plan_nodes
from far_mesh.demo.processes import ProcessGroup
from far_node.blocks.source import bundled_model_path

WALLET = "0x000000000000000000000000000000000000dEaD"
NODES = 3


def make_medium_model(folder: Path) -> Path:
    """A random Llama of about 57 M parameters and 9 layers, its weights drawn large enough to say something."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=704,
        intermediate_size=1920,
        num_hidden_layers=9,
        num_attention_heads=11,
        num_key_value_heads=11,
        vocab_size=2048,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_model_path()).save_pretrained(folder)
    return folder


async def start_swarm(group: ProcessGroup, folder: Path, model: Path, blocks: int, threads: int) -> str:
    """Bootstrap peer and nodes; the bootstrap's address."""
    local = "/ip4/127.0.0.1/tcp/0"
    bootstrap = await group.start(
        "bootstrap",
        "discovery.cli",
        ["bootstrap", "--json", "--host-maddr", local, "--identity", str(folder / "bootstrap")],
    )
    peer = str((await bootstrap.ready())["maddrs"][0])
    for plan in plan_nodes(NODES, blocks):
        first, end = plan.blocks
        node = await group.start(
            plan.name,
            "far_node.cli",
            [
                *("start", "--json", "--model", str(model), "--wallet", WALLET, "--initial-peers", peer),
                *("--blocks", f"{first}:{end}", "--identity", str(folder / plan.name)),
                *("--host-maddr", local, "--threads", str(threads), "--quantization", "none"),
            ],
        )
        await node.ready()
    return peer


async def compare(model_path: Path, prompt: str, rounds: int, tokens: int, threads: int) -> dict[str, Any]:
    """Time both, in turn."""
    local: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with ProcessGroup(folder / "logs") as group:
            peer = await start_swarm(group, folder, model_path, local.config.num_hidden_layers, threads)
            async with await Mesh.join(str(model_path), [peer]) as mesh:
                settle_memory()  # as far-mesh does; plain transformers profits as well
                ids = mesh.encode(prompt)
                pairs = [await _round(local, mesh, ids, tokens) for _ in range(rounds + 1)][1:]  # the first warms up
    ratios = [pair["ring"] / pair["local"] for pair in pairs]
    return {
        "parameters": local.num_parameters(),
        "blocks": local.config.num_hidden_layers,
        "local_tokens_per_s": round(statistics.median(pair["local"] for pair in pairs), 1),
        "ring_tokens_per_s": round(statistics.median(pair["ring"] for pair in pairs), 1),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "time_to_first_token_ms": round(1000 * statistics.median(pair["first"] for pair in pairs), 1),
        "ring_ms_over_local_per_node": round(
            statistics.median((1 / pair["ring"] - 1 / pair["local"]) * 1000 / NODES for pair in pairs), 2
        ),
    }


async def _round(local: PreTrainedModel, mesh: Mesh, ids: list[int], tokens: int) -> dict[str, float]:
    started = time.perf_counter()
    output = local.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    local_seconds = time.perf_counter() - started
    expected = output[0, len(ids) :].tolist()
    started = time.perf_counter()
    generation = await mesh.open(ids, GenerationOptions(max_tokens=tokens))
    first = 0.0
    async for _ in generation:
        first = first or time.perf_counter() - started
    ring_seconds = time.perf_counter() - started
    result = await generation.finish()
    if list(result.token_ids) != expected:
        raise SystemExit("the ring's tokens differ from plain transformers': the timing means nothing")
    return {"local": len(expected) / local_seconds, "ring": len(expected) / ring_seconds, "first": first}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    of_commit = commit()
    prompt = "Tell me a story about a brave rabbit."
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for title, path in (("far-demo", bundled_model_path()), ("llama-57m", make_medium_model(Path(name)))):
            results[title] = await compare(path, prompt, given.rounds, given.tokens, given.threads)
            print(title, json.dumps(results[title]), flush=True)
    command = (
        f"python -m benchmarks.ring_vs_local --rounds {given.rounds} --tokens {given.tokens} --threads {given.threads}"
    )
    keep(given.out, "ring_vs_local", command, of_commit, results)


if __name__ == "__main__":
    uvloop.run(main())
