"""What 8 and 4 bits cost and give on a CPU: memory and perplexity of the bundled model, speed of large blocks.

    python -m benchmarks.quantization [--rounds 25] [--documents 200] [--threads 1] [--out benchmarks/results]

Perplexity is that of stories about pairs of trait and animal that the model was never trained on, and of questions in
phrasings it was never trained on, answers only; both come from the script that made its training text. Speed is that
of two Llama blocks of hidden size 1536. Each round runs one step of every kind, one after the other; what is reported
is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from benchmarks.support.report import commit, keep
from discovery.protocol.announcement import Dtype, Quantization
from far_mesh.model.ends import ModelEnds
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import node_class, read_config
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.quantize import gpu_int8_linear, targets
from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows
from far_node.blocks.source import ModelSource, find_model

KINDS: dict[str, tuple[Quantization, Dtype]] = {
    "float32": ("none", "float32"),
    "bfloat16": ("none", "bfloat16"),
    "int8": ("int8", "float32"),
    "int8, bfloat16": ("int8", "bfloat16"),
    "nf4": ("nf4", "float32"),
}
AS_ON_A_GPU = "int8 as on a GPU"
"""bitsandbytes' own product, whose rows of activations have 8 bits too."""

_CORPUS = Path(__file__).parent.parent / "tools" / "demo_model" / "make_corpus.py"
_SEED = 20261121  # no seed of a training stage
_CONTEXT, _WARM_UP = 64, 2


def held_out(tokens: Tokens, count: int) -> dict[str, list[tuple[list[int], int]]]:
    """Token ids, and how many at their beginning are only read, of texts the model was never trained on."""
    spec = importlib.util.spec_from_file_location("make_corpus", _CORPUS)
    assert spec is not None
    assert spec.loader is not None
    corpus: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(corpus)
    draw = random.Random(_SEED)
    stories = [tokens.encode(corpus.make_story(draw, held=True)[0], raw=True) for _ in range(count)]
    answers = []
    for item in corpus.test_items(draw, max(1, count // 20)):
        prompt = tokens.encode(item["messages"])
        answers.append((prompt + tokens.encode(item["answer"], raw=True), len(prompt)))
    return {"stories": [(ids, 1) for ids in stories], "answers": answers}


class Speaker:
    """The bundled model, its blocks in one kind of weights."""

    def __init__(self, source: ModelSource, blocks: Blocks) -> None:
        self.blocks, self._ends = blocks, ModelEnds(load_client_model(source))

    @torch.inference_mode()
    def surprise(self, ids: Sequence[int], read: int) -> tuple[float, int]:
        """Sum of −ln p over the tokens after the first ``read``, and how many they are."""
        embedded = self._ends.embed(torch.tensor([ids]), 0).to(self.blocks.dtype)
        hidden = self.blocks.run(embedded, self.blocks.new_cache(), self.blocks.first, self.blocks.end)
        logits = self._ends.logits(hidden.float(), 0)[0, read - 1 : -1]
        wanted = torch.tensor(ids[read:])
        return float(functional.cross_entropy(logits.float(), wanted, reduction="sum")), len(wanted)

    def perplexity(self, texts: Sequence[tuple[list[int], int]]) -> float:
        """e to the mean surprise."""
        surprises = [self.surprise(ids, read) for ids, read in texts]
        return math.exp(sum(total for total, _ in surprises) / sum(count for _, count in surprises))


def as_on_a_gpu(source: ModelSource, count: int) -> Blocks:
    """Blocks with bitsandbytes' own 8-bit product."""
    config = read_config(source)
    model: PreTrainedModel = node_class(config, 0, count).from_pretrained(
        source.path, config=config, dtype=torch.float32
    )
    for target in list(targets(model, "int8")):
        weight = model.get_parameter(target.name).detach()
        model.set_submodule(target.name.rpartition(".")[0], gpu_int8_linear(weight))
    return Blocks(model, 0, count)


def measure_bundled(count: int) -> dict[str, Any]:
    """Memory of a block, and perplexity, of each kind."""
    source = find_model("far-demo")
    config = read_config(source)
    texts = held_out(Tokens.load(source, config), count)
    blocks = config.num_hidden_layers
    every = {
        name: load_blocks(source, 0, blocks, quantization=kind, dtype=dtype) for name, (kind, dtype) in KINDS.items()
    }
    every[AS_ON_A_GPU] = as_on_a_gpu(source, blocks)
    results: dict[str, Any] = {"texts": {name: len(some) for name, some in texts.items()}, "kinds": {}}
    for name, held in every.items():
        speaker = Speaker(source, held)
        results["kinds"][name] = {
            "bytes_per_block": held.parameter_bytes() // blocks,
            "perplexity": {what: round(speaker.perplexity(some), 5) for what, some in texts.items()},
        }
    full = results["kinds"]["float32"]["perplexity"]
    for found in results["kinds"].values():
        found["worse_percent"] = {
            what: round(100 * (value / full[what] - 1), 3) for what, value in found["perplexity"].items()
        }
    return results


def make_large_blocks(folder: Path) -> Path:
    """Two random Llama blocks of hidden size 1536."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1536,
        intermediate_size=4096,
        num_hidden_layers=2,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=512,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return folder


def measure_speed(rounds: int) -> dict[str, Any]:
    """Of a decode step by the number of sessions, and of a prefill, of each kind, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        source = find_model(str(make_large_blocks(Path(folder))))
        every = {
            name: load_blocks(source, 0, 2, quantization=kind, dtype=dtype) for name, (kind, dtype) in KINDS.items()
        }
        every[AS_ON_A_GPU] = as_on_a_gpu(source, 2)
    results: dict[str, Any] = {
        "bytes_of_two_blocks": {name: held.parameter_bytes() for name, held in every.items()},
        "decode": {},
        "prefill": {},
    }
    for sessions in (1, 2, 4, 8, 16):
        results["decode"][str(sessions)] = _compare(list(_decode_rounds(every, sessions, rounds)))
    for positions in (64, 256):
        results["prefill"][str(positions)] = _compare(list(_prefill_rounds(every, positions, max(3, rounds // 3))))
    return results


def _decode_rounds(every: dict[str, Blocks], sessions: int, rounds: int) -> Iterator[dict[str, float]]:
    """As a node does it: the steps of all sessions in one pass, their caches in slots."""
    places: dict[str, list[SlotRows]] = {}
    for name, held in every.items():
        slab = Slab(_CONTEXT + rounds + _WARM_UP, sessions)
        slab.rows = sessions
        places[name] = [SlotRows(slab, row, 1) for row in range(sessions)]
        for place in places[name]:
            held.run_together([(torch.randn(1, _CONTEXT, 1536).to(held.dtype), place)], 0, 2)
    for turn in range(rounds + _WARM_UP):
        steps = [torch.randn(1, 1, 1536) for _ in range(sessions)]
        times = {name: _seconds(held, steps, places[name]) for name, held in every.items()}
        if turn >= _WARM_UP:
            yield times


def _prefill_rounds(every: dict[str, Blocks], positions: int, rounds: int) -> Iterator[dict[str, float]]:
    prompt = torch.randn(1, positions, 1536)
    for turn in range(rounds + 1):
        times = {name: _seconds(held, [prompt], [SlotRows(_slab(positions), 0, 1)]) for name, held in every.items()}
        if turn >= 1:
            yield times


def _slab(positions: int) -> Slab:
    slab = Slab(positions, 1)
    slab.rows = 1
    return slab


def _seconds(held: Blocks, hidden: Sequence[Tensor], places: Sequence[SlotRows]) -> float:
    parts = [(one.to(held.dtype), place) for one, place in zip(hidden, places, strict=True)]
    started = time.perf_counter()
    held.run_together(parts, 0, 2)
    return time.perf_counter() - started


def _compare(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {"ms": {name: _median(1000 * one[name] for one in rounds) for name in rounds[0]}}
    for base in ("float32", "bfloat16"):
        found[f"times_as_fast_as_{base}"] = {
            name: {"median": _median(ratios), "min": round(min(ratios), 2), "max": round(max(ratios), 2)}
            for name in rounds[0]
            if (ratios := [one[base] / one[name] for one in rounds])
        }
    return found


def _median(values: Iterable[float]) -> float:
    return round(float(statistics.median(values)), 2)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    of_commit = commit()
    results = {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "bundled": measure_bundled(given.documents),
        "speed": measure_speed(given.rounds),
    }
    print(json.dumps(results, indent=2))
    command = (
        f"python -m benchmarks.quantization --rounds {given.rounds} --documents {given.documents} "
        f"--threads {given.threads}"
    )
    keep(given.out, "quantization", command, of_commit, results)


if __name__ == "__main__":
    main()
