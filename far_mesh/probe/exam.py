"""Questions whose answers are known: hidden states of a text at the borders of a model's blocks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from discovery.protocol.announcement import Quantization
from far_mesh.model.ends import ModelEnds
from far_node.blocks.cut import read_config, shape_of, text_config
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.source import ENDS, find_model

_BLOCKS_AT_ONCE = 4
MOST_POSITIONS = 64


@dataclass(frozen=True)
class Question:
    """Hidden states (1, positions, size) that go into the first block, and those that come out of the last one; None:
    nobody here knows."""

    hidden: Tensor
    answer: Tensor | None


class Exam:
    """Questions about one model. Calls are blocking, and come one after the other.

    With the weights a text is brought through all blocks once, a few of them in memory at a time, and what is at each
    border is kept: so any node's question is what an ordinary session would send it, and the answer to it is there; for
    weights that were made smaller it is computed anew. A text is used once for a node. Without the weights only the
    first block is asked what it is asked every day; others get embeddings, as large as hidden states are at that depth,
    and nobody here knows the answer.

    Args:
        model: as :func:`~far_node.blocks.source.find_model` takes it.
        weights: whether the answers are computed here; otherwise only the ends of the model are loaded.

    Raises:
        FarError: the model cannot be found or cut.
    """

    def __init__(self, model: str, *, weights: bool) -> None:
        self._source = find_model(model, part=None if weights else ENDS)
        config = read_config(self._source)
        shape = shape_of(config)
        self.block_count, self.context_length = shape.block_count, shape.context_length
        self._vocabulary = int(text_config(config).vocab_size)
        self._ends = ModelEnds(load_client_model(self._source))
        self._has_weights = weights
        self._borders: list[Tensor] = []
        self._asked: set[str] = set()

    @property
    def digest(self) -> str:
        """Of the model's weights."""
        return self._source.digest

    @property
    def knows_answers(self) -> bool:
        """Whether they are computed here."""
        return self._has_weights

    def question(
        self, peer_ids: Sequence[str], blocks: tuple[int, int], positions: int, quantization: Quantization = "none"
    ) -> Question:
        """One for these nodes, of blocks ``[first, end)``; the answer is that of weights in this form."""
        if not self._borders or not self._asked.isdisjoint(peer_ids):
            self._new_text()
        self._asked.update(peer_ids)
        first, end = blocks
        if self._has_weights:
            hidden = self._borders[first][:, :positions]
            if quantization == "none":
                return Question(hidden, self._borders[end][:, :positions])
            held = load_blocks(self._source, first, end, quantization=quantization)
            return Question(hidden, held.run(hidden, held.new_cache(), first, end))
        hidden = self._borders[0][:, :positions]
        return Question(hidden * (1.0 + first) ** 0.5, None)

    def _new_text(self) -> None:
        generator = torch.Generator().manual_seed(secrets.randbits(63))
        ids = torch.randint(self._vocabulary, (1, MOST_POSITIONS), generator=generator)
        self._asked.clear()
        self._borders = [self._ends.embed(ids, 0).float()]
        if not self._has_weights:
            return
        for first in range(0, self.block_count, _BLOCKS_AT_ONCE):
            blocks = load_blocks(self._source, first, min(first + _BLOCKS_AT_ONCE, self.block_count))
            cache = {block: blocks.new_cache() for block in range(blocks.first, blocks.end)}
            for block, one in cache.items():
                self._borders.append(blocks.run(self._borders[-1], one, block, block + 1))


def distances(given: Tensor, right: Tensor, hidden: Tensor) -> list[float]:
    """How far an answer is from the right one, at each position, as a share of what the blocks change (see
    :mod:`discovery.probe.judge`); all (1, positions, size)."""
    change = (right - hidden).norm(dim=-1).clamp(min=1e-12)
    return [float(one) for one in ((given - right).norm(dim=-1) / change)[0]]


def apart(one: Tensor, other: Tensor, hidden: Tensor) -> list[float]:
    """How far two answers are apart, as a share of what they change on average."""
    change = ((one - hidden).norm(dim=-1) + (other - hidden).norm(dim=-1)) / 2
    return [float(each) for each in ((one - other).norm(dim=-1) / change.clamp(min=1e-12))[0]]
