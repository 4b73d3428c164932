"""Hollow models: the real transformers class with the layers that are not ours left out.

The decoder stack keeps its full length, so ``layer_idx`` and per-layer settings stay true; a layer that is not ours
becomes a pass-through. transformers' own forward makes masks, rotary tables, windows and caches for every
architecture, and hidden states are injected and captured at the borders. The hollow class is built before any weight
is read, so from_pretrained reads only the bytes of what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from far_node.blocks.source import ModelSource
from far_node.errors import ModelUnsupported

# Known not to work when cut, with the reason a provider is told.
_REFUSED = {
    "gemma3n_text": "its layers need per-layer embeddings of the token ids",
    "gemma3n": "its layers need per-layer embeddings of the token ids",
    "minimax": "it needs its own cache class",
    "falcon_h1": "its initialiser reaches into layers that are absent",
    "longcat_flash": "it keeps two cache layers per block",
}


@dataclass(frozen=True)
class ModelShape:
    """Facts of a model that routing and capacity need; ``context_length`` is None where the config names none."""

    block_count: int
    hidden_size: int
    context_length: int | None


def read_config(source: ModelSource) -> PreTrainedConfig:
    """The transformers config. Code that a repository brings is never run.

    Raises:
        ModelUnsupported: the config is unreadable, not of a causal LM, or known not to work when cut.
    """
    try:
        config = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except (ValueError, KeyError, OSError, TypeError, AttributeError, StrictDataclassError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnsupported(f"the config of {source.id} cannot be used: {reason}") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelUnsupported(f"{source.id} is a {config.model_type} model, which has no causal language model head")
    refusal = _REFUSED.get(config.model_type)
    if refusal:
        raise ModelUnsupported(f"{source.id} ({config.model_type}) cannot be cut into blocks: {refusal}")
    return config


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the decoder, also in models that have other parts."""
    return config.get_text_config(decoder=True)


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """The :class:`ModelShape` a config describes."""
    text = text_config(config)
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return ModelShape(int(text.num_hidden_layers), int(text.hidden_size), int(context) if context else None)


class PassThrough(nn.Module):
    """Stands where a layer is not ours: gives back the hidden states it gets."""

    def __init__(self, absent: nn.Module) -> None:
        super().__init__()
        self.returns_tuple = False
        # some decoder loops look at plain attributes of their layers (attention_type, is_linear, …)
        for name, value in vars(absent).items():
            if isinstance(value, str | int | float | bool | None) and not name.startswith("_") and name != "training":
                self.__dict__[name] = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, None) if self.returns_tuple else hidden


class _AbsentEmbedding(nn.Module):
    """A node is never given token ids; what it embeds is replaced at its first block.

    One vector that stretches to any number of positions: OPT asks with its whole attention mask.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, ids: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros(*(1 for _ in ids.shape), self.size, device=ids.device)


class _Absent(nn.Module):
    def forward(self, hidden: Any, *_: Any, **__: Any) -> Any:
        return hidden


@dataclass(frozen=True)
class Stack:
    """The decoder stack of a model: the module that runs it, and the list of its layers."""

    owner: nn.Module
    name: str

    @property
    def layers(self) -> nn.ModuleList:
        """The list as it is now."""
        layers = getattr(self.owner, self.name)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def replace_layers(self, layers: Iterable[nn.Module]) -> None:
        """Put other layers in."""
        setattr(self.owner, self.name, nn.ModuleList(layers))


def find_stack(model: PreTrainedModel) -> Stack:
    """The outermost ModuleList with as many layers as the config says.

    Raises:
        ModelUnsupported: there is none.
    """
    count = shape_of(model.config).block_count
    best: tuple[int, Stack] | None = None
    for path, module in model.named_modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count and "mtp" not in name:
                depth = path.count(".")
                if best is None or depth < best[0]:
                    best = depth, Stack(module, name)
    if best is None:
        raise ModelUnsupported(f"{type(model).__name__} has no list of {count} decoder layers to cut")
    return best[1]


def node_class(config: PreTrainedConfig, first: int, end: int) -> type[PreTrainedModel]:
    """The model's class, holding blocks ``[first, end)`` and nothing else."""

    def keep_blocks(model: PreTrainedModel) -> None:
        stack = find_stack(model)
        _empty_layers(stack, range(first, end))
        _drop_parameters_outside(model, {stack.owner, stack.layers})
        _drop_parameters_outside(stack.owner, {stack.layers})
        model.all_tied_weights_keys = {}

    return _subclass(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], keep_blocks)


def client_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The model's class with its embeddings, final norm and head, and no blocks."""
    return _subclass(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], lambda model: _empty_layers(find_stack(model), ()))


def _subclass(parent: type[PreTrainedModel], hollow: Callable[[PreTrainedModel], None]) -> type[PreTrainedModel]:
    def build(self: PreTrainedModel, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        parent.__init__(self, config, *args, **kwargs)
        hollow(self)

    # transformers picks weight conversions by the class's name and module, so it keeps both
    return type(parent.__name__, (parent,), {"__init__": build, "__module__": parent.__module__})


def _empty_layers(stack: Stack, kept: Iterable[int]) -> None:
    kept = set(kept)
    for index, layer in enumerate(stack.layers):
        if index not in kept:
            stack.layers[index] = PassThrough(layer)


def _drop_parameters_outside(parent: nn.Module, kept: set[nn.Module]) -> None:
    for name, child in list(parent.named_children()):
        if child in kept:
            continue
        if any(module in kept for module in child.modules()):
            _drop_parameters_outside(child, kept)
        elif next(child.parameters(), None) is not None:
            absent = _AbsentEmbedding(child.embedding_dim) if isinstance(child, nn.Embedding) else _Absent()
            setattr(parent, name, absent)
