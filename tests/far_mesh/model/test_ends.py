"""What stays with the client, against the whole model."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.architectures import ARCHITECTURES, make_architecture, some_ids
from tests.support.models import whole_model
from tests.support.pieces import Pieces

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
KINDS = (
    "llama",
    "gpt2",
    "bloom",
    "gemma3",
    "mixtral",
    "cohere",
    "opt",
    "mamba",
    "qwen3_next",
    "bert",
    "bart",
    "roberta",
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_final_hidden_states_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    path = make_architecture(tmp_path, BY_NAME[kind])
    pieces, whole = Pieces(path), whole_model(path)
    ids = some_ids(2, 12)
    hidden = through(pieces, ids)
    ours, logits = pieces.ends.final(hidden, 0), pieces.ends.logits(hidden, 0)
    positions: dict[str, Any] = {}
    if "position_ids" in inspect.signature(whole.forward).parameters:
        positions["position_ids"] = torch.arange(12).expand(2, -1)
    with torch.inference_mode():
        output = whole(ids, output_hidden_states=True, **positions)
    torch.testing.assert_close(ours, output.hidden_states[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, output.logits, atol=1e-3, rtol=1e-4)


def test_after_the_final_hidden_states_the_model_still_gives_logits(tmp_path: Path) -> None:
    pieces = Pieces(make_architecture(tmp_path, BY_NAME["llama"]))
    hidden = through(pieces, some_ids(1, 5))
    before = pieces.ends.logits(hidden, 0)
    pieces.ends.final(hidden, 0)
    assert torch.equal(pieces.ends.logits(hidden, 0), before)


def through(pieces: Pieces, ids: Tensor) -> Tensor:
    """Hidden states after the last block."""
    hidden = pieces.ends.embed(ids, 0)
    for span in pieces.spans:
        hidden = span.run(hidden, span.new_cache(), span.first, span.end)
    return hidden
