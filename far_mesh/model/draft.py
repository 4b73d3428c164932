"""A small model at the client that says what the large one may say next."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING as LAYER_TYPES
from transformers.cache_utils import (
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

from far_mesh.errors import DraftUnfit
from far_mesh.model.sampler import Choice, Sampler
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import find_stack, read_config, text_config
from far_node.blocks.slots import batching_obstacle
from far_node.blocks.source import ModelSource, find_model
from far_node.errors import ModelUnsupported

DRAFT_FOLDER = "draft"
"""A model directory may bring its draft model in a folder of this name."""
_CHUNK = 512


class DraftModel:
    """The weights. Calls come one after the other, from one thread."""

    def __init__(self, model: PreTrainedModel, vocabulary: int) -> None:
        self._model, self._vocabulary = model.eval(), vocabulary
        stack = find_stack(model)
        self._cache_argument, self._takes_positions = stack.cache_argument, stack.takes_positions
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @classmethod
    def load(cls, name: str, target: str, tokens: Tokens) -> DraftModel:
        """Load a whole model as the draft of another.

        Args:
            name: as :func:`~far_node.blocks.source.find_model` takes it.
            target: what the other is called, for messages.
            tokens: of the other.

        Raises:
            DraftUnfit: its tokens are not those of the target, or it cannot go back in a text.
            FarError: it cannot be found or read.
        """
        source = find_model(name)
        config = read_config(source)
        if not _attends_only(config):
            raise DraftUnfit(f"{source.id} cannot draft: it keeps a state that cannot go back to an earlier position")
        if not tokens.are_those_of(Tokens.load(source, config)):
            raise DraftUnfit(f"{source.id} cannot draft for {target}: their tokens are not the same")
        return cls(_whole(source), tokens.vocabulary)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], cache: DynamicCache, wanted: int) -> Tensor:
        """Logits (wanted, vocabulary) after the last positions of ``ids``, which go on where the cache ends."""
        start = cache.get_seq_length()
        arguments: dict[str, Any] = {self._cache_argument: cache, "use_cache": True}
        if self._takes_positions:
            arguments["position_ids"] = torch.arange(start, start + len(ids))[None]
        if self._keeps_logits:
            arguments["logits_to_keep"] = wanted
        logits: Tensor = self._model(input_ids=torch.tensor([list(ids)]), **arguments).logits
        return logits[0, -wanted:, : self._vocabulary]


class DraftText:
    """One text, as far as the draft model has read it; its attention cache goes back where the text does."""

    def __init__(self, model: DraftModel, sampler: Sampler) -> None:
        self._model, self._sampler = model, sampler
        self._cache = DynamicCache()  # without a config: full layers, which can go back however far
        self._ids: list[int] = []

    def predict(
        self, known: int, tail: Sequence[int], since: int, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[Choice]:
        """What comes at the positions from ``since`` to the end of the text, each chosen after what stands before it.

        Args:
            known: so many tokens of the text are as they were in the last call.
            tail: those after them.
            since: from 1 to the length of the text, and not inside the prompt; what the target would choose with the
                same noise is chosen.
            is_wanted: asked between the parts of a long text; when it says no, nothing is returned.

        Returns:
            Fewer, where a grammar lets nothing follow.
        """
        ids = self._ids[:known] + list(tail)
        same = min(self._shared(ids, known), since - 1)
        if same < len(self._ids):
            self._cache.crop(same - len(self._ids))
            del self._ids[same:]
        wanted = len(ids) - since + 1
        while len(ids) - len(self._ids) > max(_CHUNK, wanted):
            if not is_wanted():
                return []
            self._read(ids[len(self._ids) : min(len(self._ids) + _CHUNK, len(ids) - wanted)], 1)
        self._sampler.back_to(min(known, since))
        choices = list[Choice]()
        for position, row in enumerate(self._read(ids[len(self._ids) :], wanted), start=since):
            self._sampler.read(ids[self._sampler.position : position])
            if self._sampler.is_complete:
                break
            choices.append(self._sampler.choose(row))
        return choices

    def ends_with(self, token: int) -> bool:
        """Whether nothing can follow ``token`` after the last choice."""
        return self._sampler.ends_with(token)

    def _read(self, ids: Sequence[int], wanted: int) -> Tensor:
        logits = self._model.logits(ids, self._cache, wanted)
        self._ids.extend(ids)
        return logits

    def _shared(self, ids: Sequence[int], known: int) -> int:
        """How many tokens the cache and the text have in common."""
        end = min(len(ids), len(self._ids))
        return next((index for index in range(min(known, end), end) if ids[index] != self._ids[index]), end)


def draft_beside(source: ModelSource) -> Path | None:
    """The draft model that a model brings in its own directory."""
    folder = source.path / DRAFT_FOLDER
    return folder if (folder / "config.json").is_file() else None


def goes_back(config: PreTrainedConfig) -> bool:
    """Whether nodes can take this model back to an earlier position, as a wrong guess needs it."""
    if batching_obstacle(config) is None:
        return _attends_only(config)
    return all(LAYER_TYPES.get(kind) is DynamicLayer for kind in _layer_kinds(config))


def _attends_only(config: PreTrainedConfig) -> bool:
    attention = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return all(LAYER_TYPES.get(kind) in attention for kind in _layer_kinds(config))


def _layer_kinds(config: PreTrainedConfig) -> Sequence[str]:
    kinds: Sequence[str] = get_layer_types_and_kwargs(text_config(config))[0]
    return kinds


def _whole(source: ModelSource) -> PreTrainedModel:
    options: dict[str, Any] = {"gguf_file": source.gguf.name} if source.gguf else {}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.gguf.parent if source.gguf else source.path,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnsupported(f"{source.id} cannot be loaded as a draft model: {reason}") from None
    return model
