"""Hollow models: the real transformers class with the layers that are not ours left out.

The decoder stack keeps its full length, so ``layer_idx`` and per-layer settings stay true; a layer that is not ours
becomes a pass-through. transformers' own forward makes masks, rotary tables, windows and caches for every
architecture, and hidden states are injected and captured at the borders. The hollow class is built before any weight
is read, so from_pretrained reads only the bytes of what is left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
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
    "blt": "it works on bytes and on patches of them, in several stacks of layers",
    "gemma3n_text": "its layers need per-layer embeddings of the token ids",
    "gemma4_assistant": "it drafts for another model and reads that model's attention cache",
    "gemma4_unified_assistant": "it drafts for another model and reads that model's attention cache",
    "hrm_text": "a token passes several times through the same two stacks of layers",
    "inkling2_text": "its layers attend to the outputs of layers before them",
    "minimax": "its linear attention keeps its state in a cache class of its own",
    "recurrent_gemma": "its recurrent layers keep the state of a session in themselves",
    "prophetnet": "it predicts several tokens at once, in streams of their own",
    "reformer": "its attention sorts the whole text, and keeps it in a cache of its own kind",
    "roformer": "its layers take their positions from a table that is outside of them",
    "xlstm": "it keeps its state in a cache class of its own",
    "xmod": "it asks its first layer for the languages",
    "zamba": "its shared layers read the embeddings of the tokens once more, and have their weights in common",
    "zamba2": "its shared layers read the embeddings of the tokens once more, and have their weights in common",
    "zaya": "its layers hand on what their routers saw, beside the hidden states",
}
_CACHE_ARGUMENTS = ("past_key_values", "cache_params")


@dataclass(frozen=True)
class ModelShape:
    """Facts of a model that routing and capacity need; ``context_length`` is None where the config names none."""

    block_count: int
    hidden_size: int
    context_length: int | None


def read_config(source: ModelSource) -> PreTrainedConfig:
    """The transformers config of what is to be cut. Code that a repository brings is never run.

    Of a model for more than text whose decoder has a class of its own, it is the decoder's.

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
    obstacle = _obstacle(config)
    if obstacle:
        raise ModelUnsupported(f"{source.id} ({config.model_type}) cannot be cut into blocks: {obstacle}")
    return _cut_config(config)


def _cut_config(config: PreTrainedConfig) -> PreTrainedConfig:
    # as AutoModelForCausalLM does it
    made_for = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].config_class
    decoder = text_config(config)
    return decoder if made_for is type(decoder) else config


def _obstacle(config: PreTrainedConfig) -> str | None:
    text = text_config(config)
    if type(_cut_config(config)) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "its decoder cannot be loaded without its other parts"
    for model_type in (config.model_type, text.model_type):
        if model_type in _REFUSED:
            return _REFUSED[model_type]
    if getattr(text, "hidden_size_per_layer_input", None) or getattr(text, "ple_layer_ids", None):
        return "its layers need per-layer embeddings of the token ids"
    if getattr(text, "hc_mult", None) or getattr(text, "hc_count", None):
        return "its hidden states are several streams side by side"
    if getattr(text, "num_kv_shared_layers", None):
        return "some of its layers use the keys and values of others"
    if "shared" in (getattr(text, "indexer_types", None) or ()):
        return "some of its layers look at the positions that another has chosen"
    return None


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the decoder, also in models that have other parts."""
    decoder = config.get_text_config(decoder=True)
    # of a config for encoder and decoder in one, that is a copy in which some names have changed their meaning
    return config if decoder.model_type == config.model_type else decoder


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """The :class:`ModelShape` a config describes."""
    text = text_config(config)
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return ModelShape(_block_count(text), int(text.hidden_size), int(context) if context else None)


def _block_count(text: PreTrainedConfig) -> int:
    # where there may be an encoder too, num_hidden_layers can mean that one's
    counts = (getattr(text, name, None) for name in ("decoder_layers", "num_decoder_layers", "num_hidden_layers"))
    return next(int(count) for count in counts if count is not None) // _cache_layers_per_block(text)


def cache_layers(config: PreTrainedConfig, first: int, end: int) -> range:
    """The layers of the attention cache that blocks ``[first, end)`` use."""
    each = _cache_layers_per_block(text_config(config))
    return range(first * each, end * each)


def _cache_layers_per_block(text: PreTrainedConfig) -> int:
    return 2 if text.model_type == "longcat_flash" else 1  # whose num_hidden_layers counts those of the cache


class StandIn(nn.Module):
    """Stands where a part of the model is not ours."""


class PassThrough(StandIn):
    """In the place of a layer: gives back the hidden states it gets."""

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


class _AbsentEmbedding(StandIn):
    """A node is never given token ids; what it embeds is replaced at its first block.

    One vector that stretches to any number of positions: OPT asks with its whole attention mask, others with a shape.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        asked = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), torch.empty(1, 1))
        return torch.zeros(*(1 for _ in asked.shape[:2]), self.size, device=asked.device)


class _Absent(StandIn):
    """Another part, a norm or a head for instance: gives back what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.empty(0)  # some initialisers look for one

    def forward(self, hidden: Any = None, *_: Any, **kwargs: Any) -> Any:
        return kwargs.get("inputs_embeds") if hidden is None else hidden


@dataclass(frozen=True)
class Stack:
    """The decoder stack of a model: the module that has the list of layers, and the one whose forward runs it.

    They are one, but for models whose stack stands inside a module that embeds and makes the masks for it (BERT).
    ``cache_argument`` is what that forward calls the attention cache.
    """

    owner: nn.Module
    name: str
    runner: nn.Module
    cache_argument: str
    takes_positions: bool

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
    """The outermost ModuleList with as many layers as the config says; the decoder's, in models with other parts.

    Raises:
        ModelUnsupported: there is none, or it cannot be given hidden states and an attention cache.
    """
    text = text_config(model.config)
    count, name = _block_count(text), type(model).__name__
    found = [
        (not any(_has_config(module, text) for module in around), len(around), around, child_name)
        for around in _paths(model)
        for child_name, child in around[-1].named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count and "mtp" not in child_name
    ]
    if not found:
        raise ModelUnsupported(f"{name} cannot be cut into blocks: it has no list of {count} decoder layers")
    *_, around, child_name = min(found, key=lambda candidate: candidate[:2])
    runner = next((module for module in reversed(around) if "inputs_embeds" in _parameters(module)), None)
    if runner is None:
        raise ModelUnsupported(f"{name} cannot be cut into blocks: it takes nothing but token ids")
    parameters = _parameters(runner)
    cache_argument = next((argument for argument in _CACHE_ARGUMENTS if argument in parameters), None)
    if cache_argument is None:
        raise ModelUnsupported(f"{name} cannot be cut into blocks: it keeps no attention cache, or one of its own kind")
    return Stack(around[-1], child_name, runner, cache_argument, "position_ids" in parameters)


def _paths(model: nn.Module, around: tuple[nn.Module, ...] = ()) -> Iterator[tuple[nn.Module, ...]]:
    """Every module, with those around it, the outermost first."""
    around = (*around, model)
    yield around
    for child in model.children():
        yield from _paths(child, around)


def _has_config(module: nn.Module, config: PreTrainedConfig) -> bool:
    return isinstance(module, PreTrainedModel) and module.config.model_type == config.model_type


def _parameters(module: nn.Module) -> Collection[str]:
    return inspect.signature(module.forward).parameters


def node_class(config: PreTrainedConfig, first: int, end: int) -> type[PreTrainedModel]:
    """The model's class, holding blocks ``[first, end)`` and nothing else."""

    def keep_blocks(model: PreTrainedModel, stack: Stack) -> None:
        _empty_layers(stack, range(first, end))
        _drop_parameters_outside(model, {stack.owner, stack.layers})
        _drop_parameters_outside(stack.owner, {stack.layers})
        model.all_tied_weights_keys = {}

    return _subclass(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], keep_blocks)


def client_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The model's class with its embeddings, final norm and head, and no blocks."""

    def keep_ends(model: PreTrainedModel, stack: Stack) -> None:
        _empty_layers(stack, ())
        if text_config(config) is not config:  # a part for images or sound is of no use to text
            _drop_parameters_outside(model, {stack.runner, model.get_output_embeddings()})

    return _subclass(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], keep_ends)


def _subclass(parent: type[PreTrainedModel], hollow: Callable[[PreTrainedModel, Stack], None]) -> type[PreTrainedModel]:
    def build(self: PreTrainedModel, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        parent.__init__(self, config, *args, **kwargs)
        stack = find_stack(self)
        hollow(self, stack)
        if isinstance(stack.owner, PreTrainedModel):
            _spare_stand_ins(stack)

    # transformers picks weight conversions by the class's name and module, so it keeps both
    return type(parent.__name__, (parent,), {"__init__": build, "__module__": parent.__module__})


def _spare_stand_ins(stack: Stack) -> None:
    """Show the initialiser of the decoder only the layers that are there: Falcon-H1's fills in buffers of all."""
    owner: Any = stack.owner
    initialise = owner._init_weights

    def of_what_is_there(module: nn.Module) -> None:
        if module is not owner:
            initialise(module)
            return
        layers = list(stack.layers)
        stack.replace_layers(layer for layer in layers if not isinstance(layer, StandIn))
        initialise(module)
        stack.replace_layers(layers)

    owner._init_weights = of_what_is_there


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
