"""Answers that keep to a grammar: which tokens may come next, by llguidance (docs/decisions/0028).

A grammar is compiled once and kept for a while. It may come from a stranger, so it is tried in a process of its own
first, and what it may take of time and memory afterwards is limited at every step.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import Grammar
from far_mesh.model import grammar_trial
from far_mesh.model.tokens import Tokens

_KEPT = 64
_LONGEST_REASON = 300
_NEEDED_TO_START = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")  # no secrets
_TRIALS_AT_ONCE = 2
_TRIAL_SECONDS = 60.0  # of a clock on the wall; a busy machine gets it all, a grammar only CPU_SECONDS
_JSON: JsonCompileOptions = {
    "whitespace_pattern": r"[ \n\r\t]{0,64}",  # whatever people indent with, but no page of it
    "coerce_one_of": False,
    "lenient": False,
}


class Matcher:
    """A text as a grammar sees it.

    The library is told of no token that ends a text: it does not come back from there.
    """

    def __init__(self, compiled: LLMatcher, ends: frozenset[int]) -> None:
        self._compiled, self._ends = compiled, ends
        self._state = compiled.deep_copy()
        self._beyond = 0  # tokens read from the end on

    def fresh(self) -> Matcher:
        """Another, which has read nothing."""
        return Matcher(self._compiled, self._ends)

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._beyond > 0 or (self._state.is_stopped() and not self._state.is_error())

    def read(self, ids: Sequence[int]) -> None:
        """The text goes on with ``ids``, which it allows.

        Raises:
            InvalidArgument: it does not, or became too much for its limits.
        """
        for place, token in enumerate(ids):
            if self._beyond or (token in self._ends and self._state.is_accepting()):
                self._beyond += len(ids) - place
                break
            self._state.consume_token(token)
        self._check()

    def back(self, count: int) -> None:
        """Forget the last tokens that were read."""
        beyond = min(count, self._beyond)
        self._beyond -= beyond
        self._state.rollback(count - beyond)
        self._check()

    def forbidden(self, vocabulary: int) -> Tensor:
        """Which tokens may not come next: bool (vocabulary,)."""
        mask = ~np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        self._check()
        bits = np.unpackbits(mask, count=min(vocabulary, 8 * len(mask)), bitorder="little")
        forbidden = torch.from_numpy(bits).view(torch.bool)
        missing = vocabulary - len(forbidden)
        return forbidden if not missing else torch.nn.functional.pad(forbidden, (0, missing), value=True)

    def takes(self, ids: Sequence[int]) -> bool:
        """Whether ``ids`` may come next, and something after them."""
        if not self._ends.isdisjoint(ids) or self._state.validate_tokens(list(ids)) < len(ids):
            return False
        self._state.consume_tokens(list(ids[:-1]))
        goes_on = not self.completes(ids[-1])
        self._state.rollback(len(ids) - 1)
        return goes_on

    def completes(self, token: int) -> bool:
        """Whether nothing may follow ``token``."""
        if self.is_complete or token in self._ends or self._state.validate_tokens([token]) < 1:
            return True
        self._state.consume_token(token)
        complete = self.is_complete
        self._state.rollback(1)
        self._check()
        return complete

    def _check(self) -> None:
        if self._state.is_error():
            raise InvalidArgument(
                f"the grammar cannot be kept to here: {_brief(self._state.get_error())}", param="grammar"
            )


class Grammars:
    """The grammars of one model's texts: compiled once, the latest of them kept."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._turn = asyncio.Semaphore(_TRIALS_AT_ONCE)

    async def matcher(self, grammar: Grammar) -> Matcher:
        """For one text.

        Raises:
            InvalidArgument: it is malformed, has something in it that is not supported, cannot be satisfied, or takes
                too much time or memory.
        """
        if grammar not in self._compiled:
            async with self._turn:
                if grammar not in self._compiled:  # somebody else may have asked for the same
                    self._compiled[grammar] = await asyncio.to_thread(self._compile, grammar)
        self._compiled.move_to_end(grammar)
        compiled = self._compiled[grammar]
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return Matcher(compiled, frozenset(self._tokens.exact.eos_tokens))

    def _compile(self, grammar: Grammar) -> LLMatcher:
        text, tokens = _as_library_has_it(grammar), self._tokens.exact
        _try(text, tokens.vocab_size)
        compiled = LLMatcher(tokens, text, log_level=0, limits=grammar_trial.limits())
        if compiled.is_error():
            raise _refusal(compiled.get_error())
        return compiled


def _as_library_has_it(grammar: Grammar) -> str:
    if grammar.kind == "json_schema":
        try:
            return LLMatcher.grammar_from_json_schema(grammar.text, overrides=_JSON)
        except ValueError as error:
            raise _refusal(str(error)) from None
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    return LLMatcher.grammar_from_lark(grammar.text)


def _try(grammar: str, vocabulary: int) -> None:
    asked = json.dumps({"grammar": grammar, "vocabulary": vocabulary})
    command = [sys.executable, "-P", grammar_trial.__file__]
    needed = {name: value for name in _NEEDED_TO_START if (value := os.environ.get(name)) is not None}
    try:
        trial = subprocess.run(  # noqa: S603  # our own file
            command, input=asked, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False, env=needed
        )
    except subprocess.TimeoutExpired:
        raise _refusal("it takes too long to compile") from None
    if trial.returncode > 0:  # it did not come as far as the grammar
        raise RuntimeError(f"grammars cannot be tried: {_brief(trial.stderr)}")
    if trial.returncode < 0 or not trial.stdout:
        raise _refusal("it takes too much time or memory to compile")
    if error := json.loads(trial.stdout)["error"]:
        raise _refusal(error)


def _refusal(reason: str) -> InvalidArgument:
    return InvalidArgument(f"the grammar cannot be used: {_brief(reason)}", param="grammar")


def _brief(text: str) -> str:
    words = " ".join(text.split())
    return (
        words
        if len(words) <= _LONGEST_REASON
        else f"{words[: _LONGEST_REASON // 2]} … {words[-_LONGEST_REASON // 2 :]}"
    )
