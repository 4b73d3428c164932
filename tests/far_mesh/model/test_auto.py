"""transformers' own ``generate`` over pieces, for architectures of every kind. The network is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from far_mesh.model import auto
from far_mesh.model.auto import DistributedModel, RemoteCache
from far_node.blocks.cut import read_config
from far_node.blocks.load import load_client_model
from far_node.blocks.source import find_model
from tests.support.architectures import ARCHITECTURES, make_architecture, some_ids
from tests.support.models import whole_model
from tests.support.pieces import Pieces, Walk

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
KINDS = ("llama", "gpt2", "bloom", "gptj", "gemma3", "mixtral", "axk2", "mamba", "lfm2", "qwen3_next", "bert", "bart")


class _NearCache(RemoteCache):
    """The nodes are in this process: three pieces of the model, as they would be asked over the network."""

    pieces: Pieces

    def step(self, hidden: Tensor) -> Tensor:
        if self.length == 0:
            self._walk: Walk = self.pieces.start(self._left_padding)
        self._walk.rewind(self.length)
        if self._rows:
            self._walk.select_rows(self._rows)
        self._rows = ()
        for span, cache in zip(self.pieces.spans, self._walk.caches, strict=True):
            hidden = span.run(hidden, cache, span.first, span.end, self._left_padding)
        self.advance(hidden.shape[1])
        return hidden


@pytest.fixture(params=KINDS, scope="module")
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PreTrainedModel, DistributedModel]]:
    path = make_architecture(tmp_path_factory.mktemp("models"), BY_NAME[request.param])
    source = find_model(str(path))
    _NearCache.pieces = Pieces(path)
    near: Any = load_client_model(source, model_class=auto._distributed_class(read_config(source)))
    near._connect(object())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "RemoteCache", _NearCache)
        yield whole_model(path), near


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampled": {"do_sample": True, "top_k": 20, "temperature": 0.8},
    "processors": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 12},
}


@pytest.mark.parametrize("way", WAYS)
def test_generate_says_what_the_whole_model_says(both: tuple[PreTrainedModel, DistributedModel], way: str) -> None:
    said = []
    for model in both:
        torch.manual_seed(0)
        said.append(model.generate(some_ids(1, 9), max_new_tokens=14, pad_token_id=0, eos_token_id=None, **WAYS[way]))
    assert said[0].tolist() == said[1].tolist()
    assert said[0].shape == (1, 23)
