"""From logits to a token. Pure: chance is handed in, and belongs to a position."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from far_mesh.config import GenerationOptions
from far_mesh.errors import NotADraw

_COLDEST = 1e-6  # below, a division overflows; all but the likeliest are out of reach there anyway


@dataclass(frozen=True)
class Choice:
    """A token, and the probability that it had."""

    token: int
    probability: float


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
    """The token at ``position`` from ``logits`` (vocabulary,).

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


def _likeliest(logits: Tensor) -> int:
    likeliest = int(logits.argmax())  # which is NaN if anything is
    if not math.isfinite(float(logits[likeliest])):
        raise NotADraw("the answer of the swarm is not a number; a node computed nonsense")
    return likeliest


def _probabilities(logits: Tensor, likeliest: int, options: GenerationOptions) -> Tensor:
    warmth = max(options.temperature, _COLDEST)
    probabilities = torch.softmax((logits - logits[likeliest]) / warmth, dim=-1)
    return _nucleus(probabilities, options.top_p) if options.top_p < 1.0 else probabilities


def _winner(probabilities: Tensor, noise: Noise, position: int) -> int:
    finish = noise.at(position, probabilities.shape[-1]).clamp_(min=torch.finfo(torch.float64).tiny)
    return int((probabilities.double() / finish).argmax())


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the most likely tokens until their sum reaches ``top_p`` (arXiv:1904.09751); at least one stays."""
    ordered, indices = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, torch.zeros_like(ordered))
    return torch.zeros_like(probabilities).scatter(-1, indices, kept)
