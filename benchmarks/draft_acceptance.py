"""How many guesses of the bundled draft model are taken: by drawing with the same noise, and by rejection sampling.

    python -m benchmarks.draft_acceptance [--rounds 3] [--out benchmarks/results]

The bundled model tells stories at several temperatures. At every token the two models' distributions p and q are
compared: rejection sampling (arXiv:2211.17192) takes a guess with probability Σ min(p, q), the best there is; drawing
both with the same noise (arXiv:2408.07978) takes it when both draw the same, of which the share in many draws is given.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.support.report import commit, keep
from far_mesh.config import GenerationOptions
from far_mesh.model.sampler import Noise, pick
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.source import bundled_model_path, find_model

STORIES = tuple(f"Tell me a story about a {who}." for who in ("brave rabbit", "lazy dragon named Otto", "sad whale"))
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
TOKENS = 120
DRAWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    source = find_model(str(bundled_model_path()))
    tokens = Tokens.load(source, read_config(source))
    model, draft = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        for path in (source.path, source.path / "draft")
    )
    prompts = [tokens.encode(story) for story in STORIES]
    results = [compare(model, draft, tokens, prompts, warmth, given.rounds) for warmth in TEMPERATURES]
    keep(
        given.out,
        "draft_acceptance",
        f"python -m benchmarks.draft_acceptance --rounds {given.rounds}",
        of_commit,
        results,
    )
    print(json.dumps(results, indent=2))


@torch.inference_mode()
def compare(
    model: PreTrainedModel,
    draft: PreTrainedModel,
    tokens: Tokens,
    prompts: list[list[int]],
    temperature: float,
    rounds: int,
) -> dict[str, Any]:
    """Over ``rounds`` texts for each prompt."""
    options = GenerationOptions(TOKENS, temperature=temperature)
    taken = coupled = 0.0
    count = 0
    for seed in range(rounds):
        for prompt in prompts:
            ids = told(model, prompt, options, Noise(seed), tokens.end_ids)
            ours, theirs = (one(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1] for one in (model, draft))
            both = (torch.softmax(logits.double() / temperature, -1) for logits in (ours, theirs))
            taken += float(torch.minimum(*both).sum())
            for draw in range(DRAWS):
                noise = Noise(1000 + draw)
                pairs = enumerate(zip(ours, theirs, strict=True), start=len(prompt))
                coupled += (
                    sum(pick(p, options, noise, at) == pick(q, options, noise, at) for at, (p, q) in pairs) / DRAWS
                )
            count += len(ids) - len(prompt)
    return {
        "temperature": temperature,
        "tokens": count,
        "rejection_sampling": round(taken / count, 4),
        "same_noise": round(coupled / count, 4),
    }


def told(
    model: PreTrainedModel, prompt: list[int], options: GenerationOptions, noise: Noise, ends: frozenset[int]
) -> list[int]:
    """A prompt and the answer to it."""
    ids, cache = list(prompt), None
    while len(ids) < len(prompt) + options.max_tokens and ids[-1] not in (ends if len(ids) > len(prompt) else ()):
        fresh = ids if cache is None else ids[-1:]
        output = model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        ids.append(pick(output.logits[0, -1], options, noise, len(ids)))
    return ids


if __name__ == "__main__":
    main()
