"""Tries a grammar in a process of its own, which may end badly: that is what it is for.

A grammar of a few bytes can take minutes and gigabytes to compile, or overflow the stack. The library's own limits
count most of what it does, but not all. So a grammar that nobody has seen yet is compiled here first, with bytes for
tokens, and some texts are made with it. This file imports nothing of the package, so that the process starts quickly.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import threading
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 2
STEP_SECONDS = 0.25
MEMORY_BYTES = 512 << 20
_STACK_BYTES = 1 << 20  # less than any thread has that will use the grammar
_TEXTS, _STEPS, _WALK_SECONDS = 3, 200, 0.5


def limits() -> LLParserLimits:
    """What a grammar may take, also where it is used: a step some 20 ms and a text some 40 MB at most."""
    return LLParserLimits(
        max_items_in_row=2_000,
        initial_lexer_fuel=300_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=20_000,
        max_grammar_size=100_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def try_out(grammar: str, vocabulary: int) -> str:
    """What is wrong with a grammar in llguidance's form; nothing, if it can be used."""
    names_tokens = "<[" in grammar
    tokens = LLTokenizer(TokenizerWrapper(_Bytes(vocabulary))) if names_tokens else LLTokenizer("byte")
    matcher = LLMatcher(tokens, grammar, log_level=0, limits=limits())
    if matcher.is_error():
        return matcher.get_error()
    until = time.process_time() + _WALK_SECONDS
    for seed in range(_TEXTS):
        error = _write(matcher.deep_copy(), random.Random(seed), until)  # noqa: S311  # any texts will do
        if error:
            return error
    return ""


class _Bytes:
    """Bytes for tokens, and behind them as many special ones as there may be in a grammar."""

    def __init__(self, vocabulary: int) -> None:
        size = max(vocabulary, 257)
        self.tokens = [bytes([index]) for index in range(256)] + [b"<%d>" % index for index in range(256, size)]
        self.special_token_ids = list(range(256, size))
        self.eos_token_id, self.bos_token_id = 256, None

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _set_bits(mask: bytes) -> list[int]:
    return [8 * place + bit for place, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1]


def _write(matcher: LLMatcher, luck: random.Random, until: float) -> str:
    for _ in range(_STEPS):
        began = time.process_time()
        mask = matcher.compute_bitmask()
        if time.process_time() - began > STEP_SECONDS:
            return "it takes too long for a token"
        if matcher.is_stopped() or time.process_time() > until:
            break
        allowed = _set_bits(mask[:32]) or _set_bits(mask)
        if not allowed or not matcher.consume_token(luck.choice(allowed)):
            break
    return matcher.get_error()


def main() -> None:
    """Read ``{"grammar", "vocabulary"}`` from stdin, write ``{"error"}`` to stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)

    def answer() -> None:
        print(json.dumps({"error": try_out(asked["grammar"], asked["vocabulary"])}), flush=True)

    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=answer)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
