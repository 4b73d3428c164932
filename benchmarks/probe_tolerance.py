"""How far honest answers of nodes are from the right ones, and how far others are: what a prober may allow.

A random text is brought through a model in float32. Then parts of one, two, four blocks and all of them are run as
nodes run them, by the form of their weights, their type, and how hidden states are written on the wire, and as those
run them who save themselves the work. What is kept are the distances (:mod:`discovery.probe.judge`) within which three
quarters of the positions are, the worst of all texts and parts for the honest, and the best for the others; from the
answer of weights in the form that the node announces, and from that of the weights as they are published.

    python -m benchmarks.probe_tolerance --model far-demo --texts 5
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.support.report import commit, keep
from discovery.probe.judge import COARSE_TOLERANCE, RIGHT_SHARE, TOLERANCE
from discovery.protocol.announcement import Codec, Dtype, Quantization
from far_mesh.probe.exam import MOST_POSITIONS, Exam, distances
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.source import find_model
from far_node.blocks.wire import TORCH_DTYPES, from_wire, to_wire

RESULTS = Path(__file__).parent / "results"
HONEST: tuple[tuple[Quantization, Dtype, Codec], ...] = (
    ("none", "float32", "float32"),
    ("none", "bfloat16", "bfloat16"),
    ("none", "float16", "float16"),
    ("none", "bfloat16", "int8"),
    ("int8", "float32", "float32"),
    ("int8", "bfloat16", "bfloat16"),
    ("nf4", "float32", "float32"),
    ("nf4", "bfloat16", "bfloat16"),
)
LAZY = ("gives back what came in", "leaves out every fourth block", "leaves out every other block", "another text")


def within(found: list[float]) -> float:
    """The distance that three quarters of the positions are within."""
    return sorted(found)[math.ceil(RIGHT_SHARE * len(found)) - 1]


def parts(count: int) -> Iterator[tuple[int, int]]:
    """Of one, two, four blocks, and all of them."""
    for length in sorted({length for length in (1, 2, 4, count) if length <= count}):
        yield from ((first, first + length) for first in range(0, count - length + 1, length))


def run(blocks: Blocks, hidden: Tensor, codec: Codec, kept: Callable[[int], bool], span: tuple[int, int]) -> Tensor:
    """The blocks of a part that are ``kept``, with what comes in and goes out as it is on the wire."""
    state = from_wire(to_wire(hidden, codec), torch.device("cpu"), blocks.dtype)
    for block in range(*span):
        if kept(block - span[0]):
            state = blocks.run(state, blocks.new_cache(), block, block + 1)
    return from_wire(to_wire(state, codec), torch.device("cpu"), torch.float32)


def _all(_block: int) -> bool:
    return True


def measure(model: str, texts: int) -> dict[str, object]:
    """Distances, by who answers."""
    exam, source = Exam(model, weights=True), find_model(model)
    questions = []
    for number in range(texts):
        for span in parts(exam.block_count):
            asked = exam.question([f"{number} {span}"], span, MOST_POSITIONS)
            assert asked.answer is not None
            questions.append((span, asked.hidden, asked.answer))
        exam.question([f"{number} {span}"], span, 1)  # the same again: the next text is another
    honest = {}
    for quantization, dtype, codec in HONEST:
        blocks = load_blocks(source, 0, exam.block_count, dtype=dtype, quantization=quantization)
        assert blocks.dtype == TORCH_DTYPES[dtype]
        plain = load_blocks(source, 0, exam.block_count, quantization=quantization)
        same, published = list[float](), list[float]()
        for span, hidden, right in questions:
            given = run(blocks, hidden, codec, _all, span)
            same.append(within(distances(given, run(plain, hidden, "float32", _all, span), hidden)))
            published.append(within(distances(given, right, hidden)))
        worst = {"worst": round(max(same), 4), "worst_from_published": round(max(published), 4)}
        honest[f"{quantization}, {dtype}, {codec} on the wire"] = worst
    exact = load_blocks(source, 0, exam.block_count)
    lazy: dict[str, list[float]] = {name: [] for name in LAZY}
    for span, hidden, right in questions:
        lazy[LAZY[0]].append(within(distances(hidden, right, hidden)))
        if span[1] - span[0] >= 4:
            for name, every in ((LAZY[1], 4), (LAZY[2], 2)):
                given = run(exact, hidden, "float32", lambda block, every=every: block % every != every - 1, span)  # type: ignore[misc]
                lazy[name].append(within(distances(given, right, hidden)))
        others = [given for other, _, given in questions if other == span and given is not right]
        lazy[LAZY[3]] += [within(distances(other, right, hidden)) for other in others]
    return {
        "tolerance": {"same form": TOLERANCE, "different forms": COARSE_TOLERANCE},
        "texts": texts,
        "honest": honest,
        "others": {name: {"best": round(min(found), 4)} for name, found in lazy.items() if found},
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="far-demo")
    parser.add_argument("--texts", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    found = measure(given.model, given.texts)
    for kind in ("honest", "others"):
        for name, values in found[kind].items():  # type: ignore[attr-defined]
            print(f"{kind:7} {name:45} {values}")
    command = f"python -m benchmarks.probe_tolerance --model {given.model} --texts {given.texts}"
    keep(RESULTS, "probe_tolerance", command, of_commit, found)


if __name__ == "__main__":
    main()
