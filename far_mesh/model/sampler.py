"""From logits to a token. Pure but for the generator that is handed in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from far_mesh.config import GenerationOptions
from far_mesh.errors import NotADraw

_COLDEST = 1e-6  # below, a division overflows; all but the likeliest are out of reach there anyway


def new_generator(options: GenerationOptions) -> torch.Generator:
    """The source of chance of one generation; the same seed gives the same draws."""
    generator = torch.Generator()
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed % 2**64)
    return generator


def pick(logits: Tensor, options: GenerationOptions, generator: torch.Generator) -> int:
    """The next token from ``logits`` (vocabulary,).

    Raises:
        NotADraw: the logits hold NaN, or nothing finite.
    """
    logits = logits.float()
    likeliest = int(logits.argmax())  # which is NaN if anything is
    if not math.isfinite(float(logits[likeliest])):
        raise NotADraw("the answer of the swarm is not a number; a node computed nonsense")
    if options.temperature == 0.0:
        return likeliest
    warmth = max(options.temperature, _COLDEST)
    probabilities = torch.softmax((logits - logits[likeliest]) / warmth, dim=-1)
    if options.top_p < 1.0:
        probabilities = _nucleus(probabilities, options.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the most likely tokens until their sum reaches ``top_p`` (arXiv:1904.09751); at least one stays."""
    ordered, indices = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, torch.zeros_like(ordered))
    return torch.zeros_like(probabilities).scatter(-1, indices, kept)
