"""What receipts take of a step: both hash chains for each token, and every 64 tokens a receipt.

    python -m benchmarks.receipts_cost [--rounds 5] [--out benchmarks/results]

A node extends the root of what it takes and the root of what it gives (raw float32, the longest wire type there is),
and issues a receipt every 64 tokens: signed, and written as it travels. A client extends the root of what it sends and
the root of what it gets back, and reads the receipt of each node: shape and signature. That is set against the time
that one Llama block of the same hidden size takes to compute one token on this machine, in float32 on one thread. A
node holds more blocks than one, so its share is smaller than what is told here; the client's is of one block as well.

All times are CPU time of one thread, medians of rounds; other programs on the machine change them little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from benchmarks.support.report import commit, keep
from discovery.protocol.announcement import Announcement
from discovery.protocol.codec import WireTensor
from discovery.protocol.ids import new_session_id
from discovery.protocol.messages import Open, Step
from discovery.protocol.receipt import RECEIPT_EVERY_POSITIONS, SignedReceipt, extend_root, first_root, read_receipt
from far_node.receipts import Signer, WorkLog
from tests.support.documents import announcement, key_of

SIZES = (1024, 2048, 4096, 8192)
INTERVALS = 4  # of 64 tokens, in a round
PASSES = 12


def spent(call: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


@torch.inference_mode()
def block_seconds(size: int) -> float:
    """What one token takes in one block, median of some passes."""
    config = LlamaConfig(
        hidden_size=size,
        intermediate_size=round(3.5 * size),
        num_attention_heads=size // 128,
        num_key_value_heads=max(1, size // 512),
        num_hidden_layers=1,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):
        block = LlamaDecoderLayer(config, 0).eval()
    block.to_empty(device="cpu")
    for parameter in block.parameters():
        parameter.fill_(1 / size)  # memory of its own, and nothing grows
    hidden, positions = torch.randn(1, 1, size), torch.zeros(1, 1, dtype=torch.long)
    angles = LlamaRotaryEmbedding(config)(hidden, positions)
    return statistics.median(
        spent(lambda: block(hidden, position_ids=positions, position_embeddings=angles)) for _ in range(PASSES)
    )


def an_opening(about: Announcement) -> Open:
    """A session of one block, of 2,048 positions."""
    return Open(
        session_id=new_session_id(),
        nonce=bytes(16),
        model_digest=about.model_digest,
        first_block=about.first_block,
        end_block=about.first_block + 1,
        max_length=2048,
        batch=1,
        codec="float32",
        previous=None,
        next=None,
    )


def node_round(opening: Open, signer: Signer, steps: list[Step]) -> list[SignedReceipt]:
    """What a node does of it."""
    log, issued = WorkLog(opening, signer), list[SignedReceipt]()
    for step in steps:
        log.record(step, given=step.hidden)
        receipt = log.interim_receipt()
        if receipt is not None:
            receipt.to_bytes()
            issued.append(receipt)
    return issued


def client_round(opening: Open, steps: list[Step], documents: list[bytes]) -> None:
    """What a client does, with one node."""
    for _ in ("sent", "received"):
        root = first_root(opening.session_id)
        for step in steps:
            hidden = step.hidden
            root = extend_root(root, step.start_position, hidden.shape, hidden.dtype, hidden.data)
    for document in documents:
        read_receipt(document)


def measure(size: int, rounds: int) -> dict[str, Any]:
    """One hidden size."""
    about = announcement()
    signer, opening = Signer(key_of("node"), about), an_opening(about)
    data = torch.randn(size).numpy().tobytes()
    count = INTERVALS * RECEIPT_EVERY_POSITIONS
    steps = [Step(index, index, WireTensor("float32", (1, 1, size), data)) for index in range(count)]
    documents = [receipt.to_bytes() for receipt in node_round(opening, signer, steps)]
    assert len(documents) == INTERVALS
    block, node, client = list[float](), list[float](), list[float]()
    for _ in range(rounds):
        block.append(block_seconds(size))
        node.append(spent(lambda: node_round(opening, signer, steps)) / count)
        client.append(spent(lambda: client_round(opening, steps, documents)) / count)
    micro = {"block": block, "node": node, "client": client}
    return {
        "us_per_token": {name: round(1e6 * statistics.median(times), 2) for name, times in micro.items()},
        "percent_of_one_block": {
            name: round(100 * statistics.median(a / b for a, b in zip(micro[name], block, strict=True)), 3)
            for name in ("node", "client")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit, results = commit(), dict[str, Any]()
    for size in SIZES:
        results[str(size)] = measure(size, given.rounds)
        print(size, results[str(size)], flush=True)
    keep(given.out, "receipts_cost", f"python -m benchmarks.receipts_cost --rounds {given.rounds}", of_commit, results)


if __name__ == "__main__":
    main()
