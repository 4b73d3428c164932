"""What choosing a token costs the client, with a vocabulary of 128,256 tokens.

    python -m benchmarks.sampling [--rounds 5] [--out benchmarks/results]

Pairs, one after the other for each token: the bare choice from logits, and the sampler of a text, without options and
with each of them. The vocabulary is that of the bundled model, and pairs of its tokens. Grammars are kept to by texts
that are drawn from random logits, as a model that babbles would. Times are of the thread's CPU; the figures are medians
over the tokens of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.support.report import commit, keep
from far_mesh.config import GenerationOptions, Grammar
from far_mesh.model.grammar import Grammars, Matcher
from far_mesh.model.sampler import Noise, Sampler, likelihood, pick
from far_mesh.model.tokens import Tokens
from far_node.blocks.source import bundled_model_path

VOCABULARY = 128_256
TOKENS = 60
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "string"}}},
    },
    "required": ["name", "age", "tags", "address"],
}
WISHES: dict[str, dict[str, Any]] = {
    "no options": {},
    "top_k": {"top_k": 40},
    "min_p": {"min_p": 0.05},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "logit_bias": {"logit_bias": {5: 1.0, 9: -100.0}},
    "logprobs": {"logprobs": 5},
    "JSON object": {"grammar": Grammar.json_object()},
    "JSON schema": {"grammar": Grammar.json_schema(PERSON)},
    "regex": {"grammar": Grammar.regex("([a-z]{2,9} ){20,90}[.]")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    results = asyncio.run(measure(given.rounds))
    keep(given.out, "sampling", f"python -m benchmarks.sampling --rounds {given.rounds}", of_commit, results)
    print(json.dumps(results, indent=2))


async def measure(rounds: int) -> dict[str, Any]:
    """All figures; times in microseconds for a token, but for what is done once."""
    tokens = wide_tokens()
    began = time.perf_counter()
    ends = frozenset(tokens.exact.eos_tokens)
    once = time.perf_counter() - began
    logits = list(4 * torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(1)))
    grammars, results = Grammars(tokens), list[dict[str, Any]]()
    for temperature, (name, wish) in product((0.0, 0.8), WISHES.items()):
        options = GenerationOptions(TOKENS, temperature=temperature, seed=1, **wish)
        began = time.perf_counter()
        matcher = None if options.grammar is None else await grammars.matcher(options.grammar)
        compiled = time.perf_counter() - began
        pairs = [pair for _ in range(rounds) for pair in _text(logits, options, ends, matcher)]
        result = {
            "temperature": temperature,
            "options": name,
            "bare_us": round(1e6 * statistics.median(bare for bare, _ in pairs)),
            "us": round(1e6 * statistics.median(own for _, own in pairs)),
            "us_95th": round(1e6 * statistics.quantiles((own for _, own in pairs), n=20)[-1]),
            "ratio": round(statistics.median(own / bare for bare, own in pairs), 3),
        }
        if options.grammar is not None and temperature == 0.0:
            result["first_use_ms"] = round(1e3 * compiled, 1)
        results.append(result)
    return {"vocabulary": VOCABULARY, "tokenizer_once_s": round(once, 2), "choices": results}


def wide_tokens() -> Tokens:
    """A tokenizer with as many tokens as those of large models have."""
    bundled = list(Tokenizer.from_file(str(bundled_model_path() / "tokenizer.json")).get_vocab())
    words = [word for word in bundled if not word.startswith("<|")]
    vocabulary = {word: index for index, word in enumerate(words)}
    for first, second in product(words, words):
        if len(vocabulary) == VOCABULARY - 1:
            break
        vocabulary.setdefault(first + second, len(vocabulary))
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    return Tokens(fast, frozenset([fast.eos_token_id]), VOCABULARY)


def _text(
    logits: list[torch.Tensor], options: GenerationOptions, ends: frozenset[int], matcher: Matcher | None
) -> list[tuple[float, float]]:
    """Seconds for each token: of the bare choice, and of the sampler's."""
    plain, noise = GenerationOptions(1, temperature=options.temperature), Noise(1)
    sampler = Sampler(options, noise, [7], ends, None if matcher is None else matcher.fresh())
    pairs = list[tuple[float, float]]()
    for position, row in enumerate(logits):
        began = time.thread_time()
        pick(row, plain, noise, position)
        between = time.thread_time()
        token = sampler.pick(row)
        if options.logprobs is not None:
            likelihood(row, token, options.logprobs)
        sampler.read([token])
        pairs.append((between - began, time.thread_time() - between))
        if sampler.is_complete:
            break
    return pairs


if __name__ == "__main__":
    main()
