"""From logits to a token. Chance is handed in, and belongs to a position."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import FORBIDDEN, GenerationOptions
from far_mesh.errors import NotADraw
from far_mesh.model.grammar import Matcher

_COLDEST = 1e-6  # below, a division overflows; all but the likeliest are out of reach there anyway
_OUT = -math.inf


@dataclass(frozen=True)
class Choice:
    """A token, and the probability that it had."""

    token: int
    probability: float


@dataclass(frozen=True)
class Likelihood:
    """The log probability that the model itself gives to a token, and those of the likeliest tokens, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Noise:
    """The chance in one text: numbers for each position that depend on nothing but the seed and the position.

    So it does not matter in which order positions are drawn, how often, or by which model: a draft model that draws
    with the same noise draws the same token as long as it agrees (drafter-invariant speculative decoding,
    arXiv:2408.07978).
    """

    def __init__(self, seed: int | None = None) -> None:
        self._key = secrets.randbits(64) if seed is None else seed % 2**64

    def at(self, position: int, count: int) -> Tensor:
        """``count`` independent exponential variates of rate 1, float64."""
        philox = np.random.Philox(key=np.array([self._key, position], dtype=np.uint64))
        return torch.from_numpy(np.random.Generator(philox).standard_exponential(count))


def pick(logits: Tensor, options: GenerationOptions, noise: Noise, position: int) -> int:
    """The token at ``position`` from ``logits`` (vocabulary,), as far as it does not depend on the text before it.

    The draw is an exponential race: the token with the least noise / probability wins, which it does with its
    probability (the Gumbel-max trick, arXiv:1611.01144, before the logarithm).

    Raises:
        NotADraw: the logits hold NaN, or nothing finite.
    """
    logits = logits.float()
    likeliest = _likeliest(logits)
    if options.temperature == 0.0:
        return likeliest
    return _winner(_probabilities(logits, likeliest, options), noise, position)


def choose(logits: Tensor, options: GenerationOptions, noise: Noise, position: int) -> Choice:
    """As :func:`pick`, with the token's probability; where all is greedy, that at temperature 1."""
    logits = logits.float()
    likeliest = _likeliest(logits)
    if options.temperature == 0.0:
        return Choice(likeliest, float(torch.softmax(logits, dim=-1)[likeliest]))
    probabilities = _probabilities(logits, likeliest, options)
    token = _winner(probabilities, noise, position)
    return Choice(token, float(probabilities[token]))


def likelihood(logits: Tensor, token: int, top: int) -> Likelihood:
    """What the model itself thinks of ``token`` and of the ``top`` likeliest, from ``logits`` (vocabulary,)."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    values, ids = logprobs.topk(min(top, logprobs.shape[-1]))
    return Likelihood(float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


class Sampler:
    """Chooses the tokens of one text, each after those it has read. It goes back where the text does.

    What :class:`~far_mesh.config.GenerationOptions` says of tokens that came before and of a grammar depends on the
    tokens before a position and on nothing else: not on how they were read, nor on what was read and taken back. So
    target and draft choose alike, and guesses change nothing.
    """

    def __init__(
        self,
        options: GenerationOptions,
        noise: Noise,
        prompt: Sequence[int] = (),
        ends: frozenset[int] = frozenset(),
        matcher: Matcher | None = None,
    ) -> None:
        self.options, self.ends, self._noise, self._prompt = options, ends, noise, prompt
        self._matcher = matcher
        self._ids: list[int] = []
        self._banned = frozenset(token for token, bias in options.logit_bias.items() if bias <= -FORBIDDEN)
        self._bias: Tensor | None = None
        self._penalties = _Penalties(options, prompt) if _penalizes(options) else None

    def fork(self) -> Sampler:
        """Another for the same text, which has read nothing of the answer yet."""
        matcher = None if self._matcher is None else self._matcher.fresh()
        return Sampler(self.options, self._noise, self._prompt, self.ends, matcher)

    @property
    def position(self) -> int:
        """Of the token that is chosen next."""
        return len(self._prompt) + len(self._ids)

    @property
    def forbids(self) -> bool:
        """Whether there are tokens that may not come next, whatever the model says."""
        return self._matcher is not None or bool(self._banned)

    @property
    def is_complete(self) -> bool:
        """Whether the grammar lets nothing follow."""
        return self._matcher is not None and self._matcher.is_complete

    def read(self, ids: Sequence[int]) -> None:
        """The answer goes on with ``ids``.

        Raises:
            InvalidArgument: the grammar became too much for its limits.
        """
        self._ids.extend(ids)
        if self._penalties is not None:
            for token in ids:
                self._penalties.count(token, 1)
        if self._matcher is not None:
            self._matcher.read(ids)

    def back_to(self, position: int) -> None:
        """Forget what was read from ``position`` on; what lies in the prompt stays."""
        keep = max(position - len(self._prompt), 0)
        gone = self._ids[keep:]
        if not gone:
            return
        del self._ids[keep:]
        if self._penalties is not None:
            for token in gone:
                self._penalties.count(token, -1)
        if self._matcher is not None:
            self._matcher.back(len(gone))

    def pick(self, logits: Tensor) -> int:
        """The next token, from ``logits`` (vocabulary,). It is not read by that.

        Raises:
            NotADraw: the logits hold NaN, or nothing finite.
            InvalidArgument: the options leave no token, or the grammar became too much for its limits.
        """
        return pick(self._scores(logits), self.options, self._noise, self.position)

    def choose(self, logits: Tensor) -> Choice:
        """As :meth:`pick`, with the token's probability; where all is greedy, that at temperature 1."""
        return choose(self._scores(logits), self.options, self._noise, self.position)

    def ends_with(self, token: int) -> bool:
        """Whether nothing can follow ``token`` here."""
        return token in self.ends or (self._matcher is not None and self._matcher.completes(token))

    def may_follow(self, ahead: Sequence[int], token: int) -> bool:
        """Whether ``token`` is possible after what was read and ``ahead``, and something after it too."""
        if token in self._banned:
            return False
        return self._matcher is None or self._matcher.takes([*ahead, token])

    def _scores(self, logits: Tensor) -> Tensor:
        """What is left of the logits by all that depends on the text before."""
        options, scores = self.options, logits
        needs_more = len(self._ids) < options.min_tokens
        if self._matcher is None and not needs_more and not options.logit_bias and self._penalties is None:
            return logits
        scores = scores.float()
        _likeliest(scores)  # what a node computed is judged before anything is done to it
        if options.logit_bias:
            if self._bias is None:
                self._bias = self._biases(len(scores))
            scores = scores + self._bias
        if self._penalties is not None:
            scores = self._penalties.applied(scores)
        if self._matcher is not None:
            scores = scores.masked_fill(self._matcher.forbidden(len(scores)), _OUT)
        if needs_more:
            ends = torch.tensor([end for end in self.ends if end < len(scores)], dtype=torch.long)
            scores = scores.index_fill(0, ends, _OUT)
        if float(scores.max()) == _OUT:
            raise InvalidArgument("the options leave no token that may come next", param=self._culprit(needs_more))
        return scores

    def _biases(self, vocabulary: int) -> Tensor:
        biases = torch.zeros(vocabulary)
        for token, bias in self.options.logit_bias.items():
            if token < vocabulary:
                biases[token] = _OUT if token in self._banned else bias
        return biases

    def _culprit(self, needs_more: bool) -> str:
        if self._banned:
            return "logit_bias"
        return "min_tokens" if needs_more else "grammar"


class _Penalties:
    """What tokens lose by having occurred. Each number follows from how often, not from the way there."""

    def __init__(self, options: GenerationOptions, prompt: Sequence[int]) -> None:
        self._options, self._counts = options, Counter[int]()
        self._in_prompt = frozenset(prompt) if options.repetition_penalty != 1.0 else frozenset[int]()
        self._lost: Tensor | None = None
        self._occurred: Tensor | None = None

    def count(self, token: int, times: int) -> None:
        """``token`` occurred, or was taken back."""
        self._counts[token] += times
        if self._lost is not None and token < len(self._lost):
            self._note(token)

    def applied(self, scores: Tensor) -> Tensor:
        """``scores`` (vocabulary,) without what is lost."""
        if self._lost is None:
            self._lost = torch.zeros(len(scores))
            self._occurred = torch.zeros(len(scores), dtype=torch.bool)
            self._note_all(token for token in (*self._in_prompt, *self._counts) if token < len(scores))
        penalty = self._options.repetition_penalty
        if penalty != 1.0:
            assert self._occurred is not None
            ids = self._occurred.nonzero()[:, 0]
            worth = scores[ids]
            scores = scores.index_put((ids,), torch.where(worth < 0, worth * penalty, worth / penalty))
        return scores - self._lost

    def _note_all(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self._note(token)

    def _note(self, token: int) -> None:
        assert self._lost is not None
        assert self._occurred is not None
        count, options = self._counts[token], self._options
        self._lost[token] = options.frequency_penalty * count + options.presence_penalty * (count > 0)
        self._occurred[token] = count > 0 or token in self._in_prompt


def _penalizes(options: GenerationOptions) -> bool:
    return bool(options.presence_penalty or options.frequency_penalty or options.repetition_penalty != 1.0)


def _likeliest(logits: Tensor) -> int:
    likeliest = int(logits.argmax())  # which is NaN if anything is
    if not math.isfinite(float(logits[likeliest])):
        raise NotADraw("the answer of the swarm is not a number; a node computed nonsense")
    return likeliest


def _probabilities(logits: Tensor, likeliest: int, options: GenerationOptions) -> Tensor:
    scores = (logits - logits[likeliest]) / max(options.temperature, _COLDEST)
    if 0 < options.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(options.top_k).values[-1], _OUT)
    probabilities = torch.softmax(scores, dim=-1)
    if options.top_p < 1.0:
        probabilities = _nucleus(probabilities, options.top_p)
    if options.min_p > 0.0:
        probabilities = probabilities.masked_fill(probabilities < options.min_p * probabilities[likeliest], 0.0)
    return probabilities


def _winner(probabilities: Tensor, noise: Noise, position: int) -> int:
    finish = noise.at(position, probabilities.shape[-1]).clamp_(min=torch.finfo(torch.float64).tiny)
    return int((probabilities.double() / finish).argmax())


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the most likely tokens until their sum reaches ``top_p`` (arXiv:1904.09751); at least one stays."""
    ordered, indices = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, torch.zeros_like(ordered))
    return torch.zeros_like(probabilities).scatter(-1, indices, kept)
