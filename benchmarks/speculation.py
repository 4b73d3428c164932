"""Tokens per second with and without speculation, in pairs, on an emulated wide-area network. As root:

    python -m benchmarks.speculation [--rounds 3] [--tokens 96] [--delay-ms 40] [--mbit 100] [--out benchmarks/results]

Bootstrap peer, four nodes and client are processes on hosts of their own. Greedy, one stream; time is counted from the
first look at the stream to the last token, so the prompt is in it. The texts are of three kinds:

- stories: the bundled model and the draft model that comes with it;
- text that repeats itself (code that is edited, a list, quotes) and text that nobody can guess (random tokens), both
  said by a reciter: a GPT-2 whose position embeddings are the tokens of a text and whose blocks compute but add
  nothing, so that any text can be what a model says. It gets the bundled draft too, which is of no use to it;
- prose it has not seen, also recited: little in it repeats.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import uvloop
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from benchmarks.support.report import commit, keep
from benchmarks.support.wan import Wan
from discovery.console import settle_memory
from far_mesh.client import GenerationOptions, Mesh, MeshConfig, Swarm
from far_node.blocks.source import bundled_model_path

WALLET = "0x000000000000000000000000000000000000dEaD"
NODES = 4
BOOTSTRAP, CLIENT = 0, NODES + 1
ROOT = Path(__file__).parents[1]
STORIES = (
    "Tell me a story about a brave rabbit.",
    "Tell me a story about a lazy dragon named Otto.",
    "write a short story about a shy owl who lost a golden key",
)
RECITER = {"n_embd": 256, "n_layer": 8, "n_head": 4, "n_positions": 1024, "vocab_size": 2048}


@dataclass(frozen=True)
class Text:
    """A prompt and, where it is recited, what comes after it."""

    kind: str
    name: str
    prompt: list[int]
    answer: list[int] | None = None


def make_reciter(folder: Path) -> Path:
    """Blocks of full size that add nothing; embeddings that are set when a text is recited."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**RECITER, tie_word_embeddings=False, eos_token_id=None, bos_token_id=None))
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.lm_head.weight.normal_()
        for block in model.transformer.h:
            for projection in (block.attn.c_proj, block.mlp.c_proj):
                projection.weight.zero_()
                projection.bias.zero_()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bundled_model_path()).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def recite(mesh: Mesh, text: Text) -> None:
    """From now on the model says this text, whatever it is told."""
    model: Any = mesh._model._ends._model
    said = torch.tensor(text.prompt[1:] + (text.answer or []))
    with torch.no_grad():
        model.transformer.wpe.weight[: len(said)] = model.lm_head.weight[said]


def recited_texts(encode: Callable[[str], list[int]], tokens: int) -> list[Text]:
    """Of the project's own files."""
    code = (ROOT / "far_mesh/contributions.py").read_text()[:1500]
    prose = (ROOT / "docs/how-it-works.md").read_text()[2000:]
    edited = code.replace("hop", "stage").replace("receipt", "proof")
    rows = [f'{{"id": {n}, "name": "node-{n * 7919 % 1000}", "blocks": {n % 9}, "alive": true}},\n' for n in range(40)]
    sentences = prose[:700].split(". ")[1:-1]
    quotes = "".join(f"\n> {part}.\n\nThat is point {n}.\n" for n, part in enumerate(reversed(sentences)))
    chance = random.Random(1)
    return [
        Text("repeating", "code that is edited", encode(code)[:400], encode(edited)[:tokens]),
        Text("repeating", "a list", encode("".join(rows[:4])), encode("".join(rows[4:]))[:tokens]),
        Text("repeating", "quotes", encode(prose[:700]), encode(quotes)[:tokens]),
        Text("not guessable", "random tokens", *(_random(chance, count) for count in (60, tokens))),
        Text("prose", "documentation", encode(prose[:200]), encode(prose[200:2000])[:tokens]),
    ]


def _random(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(300, 2048) for _ in range(count)]


async def measure(model: Path, peer: str, rounds: int, tokens: int) -> list[dict[str, Any]]:
    """On the client's host: every text with and without speculation, in turn."""
    draft, is_bundled = str(bundled_model_path() / "draft"), model == bundled_model_path()
    swarms = [await Swarm.join([peer], MeshConfig(speculation=wanted)) for wanted in (False, True)]
    meshes = [await Mesh.over(swarm, str(model), draft_model=draft) for swarm in swarms]
    settle_memory()
    if is_bundled:
        texts = [Text("stories", prompt, meshes[0].encode(prompt)) for prompt in STORIES]
    else:
        texts = recited_texts(lambda text: meshes[0].encode(text, raw=True), tokens)
    results = []
    for mesh in meshes:  # warms up: threads, streams, the nodes' caches
        await _timed(mesh, texts[0].prompt, 8)
    for text in texts:
        if text.answer:
            for mesh in meshes:
                recite(mesh, text)
        wanted = len(text.answer) if text.answer else tokens
        pairs = [[await _timed(mesh, text.prompt, wanted) for mesh in meshes] for _ in range(rounds)]
        results.append(_summary(text, pairs))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    for mesh, swarm in zip(meshes, swarms, strict=True):
        await mesh.close()
        await swarm.close()
    return results


async def _timed(mesh: Mesh, prompt: list[int], tokens: int) -> dict[str, Any]:
    generation = await mesh.open(prompt, GenerationOptions(max_tokens=tokens))
    started = time.perf_counter()
    ids = [token.id async for token in generation]
    seconds = time.perf_counter() - started
    result = await generation.finish()
    return {"rate": len(ids) / seconds, "ids": ids, "drafted": result.drafted, "accepted": result.accepted}


def _summary(text: Text, pairs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    plain, ahead = pairs[0][0], pairs[0][1]
    if any(one["ids"] != plain["ids"] for pair in pairs for one in pair):
        raise SystemExit(f"{text.name}: the tokens are not the same with and without speculation")
    if text.answer is not None and plain["ids"] != text.answer:
        raise SystemExit(f"{text.name}: the reciter says something else")
    ratios = [fast["rate"] / slow["rate"] for slow, fast in pairs]
    return {
        "kind": text.kind,
        "text": text.name,
        "tokens": len(plain["ids"]),
        "plain_tokens_per_s": round(statistics.median(slow["rate"] for slow, _ in pairs), 2),
        "speculative_tokens_per_s": round(statistics.median(fast["rate"] for _, fast in pairs), 2),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "drafted": ahead["drafted"],
        "accepted": ahead["accepted"],
    }


def on_network(network: Wan, folder: Path, model: Path, blocks: int, given: argparse.Namespace) -> Any:
    """Start a swarm for a model, one process a host, and have the client measure."""
    with ExitStack() as stack:

        def start(host: int, name: str, *command: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            words = [*network.within(host), sys.executable, "-m", *command]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            return process

        def listen(host: int) -> tuple[str, str]:
            return "--host-maddr", f"/ip4/{network.address(host)}/tcp/31330"

        identity = str(folder / "bootstrap")
        options = ("--json", *listen(BOOTSTRAP), "--identity", identity)
        bootstrap = start(BOOTSTRAP, "bootstrap", "discovery.cli", "bootstrap", *options)
        peer = str(_ready(bootstrap)["maddrs"][0])
        share = blocks // NODES
        nodes = [
            start(
                index + 1,
                f"node{index}",
                *("far_node.cli", "start", "--json", "--model", str(model), "--wallet", WALLET, "--threads", "1"),
                *("--initial-peers", peer, "--blocks", f"{index * share}:{(index + 1) * share}"),
                *("--identity", str(folder / f"node{index}"), "--quantization", "none", *listen(index + 1)),
            )
            for index in range(NODES)
        ]
        for node in nodes:
            _ready(node)
        asked = ["--client", str(model), peer, "--rounds", str(given.rounds), "--tokens", str(given.tokens)]
        words = [*network.within(CLIENT), sys.executable, "-m", "benchmarks.speculation", *asked]
        return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)


def _ready(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event.get("event") == "ready":
            return event
    raise SystemExit("a process of the swarm ended before it was ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--delay-ms", type=float, default=40.0)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--client", nargs=2, metavar=("MODEL", "PEER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.client:
        model, peer = given.client
        print(json.dumps(uvloop.run(measure(Path(model), peer, given.rounds, given.tokens))))
        return
    of_commit = commit()
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), []
        reciter = make_reciter(folder / "reciter")
        for model in (bundled_model_path(), reciter):
            with Wan(NODES + 2, 2 * given.delay_ms / 1000, given.mbit * 1e6, name="ahead") as network:
                results += on_network(network, folder, model, 8, given)
    command = (
        f"python -m benchmarks.speculation --rounds {given.rounds} --tokens {given.tokens} "
        f"--delay-ms {given.delay_ms:g} --mbit {given.mbit:g}"
    )
    keep(given.out, "speculation", command, of_commit, results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
