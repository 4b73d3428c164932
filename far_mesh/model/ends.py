"""Embeddings at the front, final norm and head at the back: what stays with the client.

Both are the real model's own forward with nothing between them. A seam in the place of the first block takes the
hidden states out (:meth:`ModelEnds.embed`) or puts those that came back in (:meth:`ModelEnds.logits`), so position
embeddings, input scaling, soft caps and the like are transformers' own for every architecture.
"""

from __future__ import annotations

import inspect
import threading
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import PassThrough, find_stack


class _Seam(nn.Module):
    """First in the stack: stops the forward with what came in, or goes on with what it was given."""

    def __init__(self, beside: PassThrough) -> None:
        super().__init__()
        self.__dict__.update({k: v for k, v in vars(beside).items() if not k.startswith("_") and k != "training"})
        self.injected: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if self.injected is None:
            raise _Reached(hidden)
        return (self.injected, None) if self.returns_tuple else self.injected


class _Reached(Exception):
    """Carries hidden states out of a forward that need not go on."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def _leave(_: nn.Module, __: Any, output: Any) -> None:
    raise _Reached(output[0])


class ModelEnds:
    """The ends of one model. Calls are serialised: a forward keeps its state in the seam, the first of ``stack``."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval()
        stack = find_stack(model)
        first = stack.layers[0]
        assert isinstance(first, PassThrough)
        self._seam = _Seam(first)
        stack.layers[0] = self._seam
        self.stack = stack
        self._cache = BlockCache(model.config, 0, 0)
        """Keeps nothing but a count, so one serves all; making one takes longer than embedding a token."""
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._lock = threading.Lock()
        self._learn_return_type()

    @property
    def dtype(self) -> torch.dtype:
        """The type hidden states are computed in."""
        return self._model.config.dtype

    @torch.inference_mode()
    def embed(self, ids: Tensor, start: int) -> Tensor:
        """Hidden states (rows, positions, size) of token ``ids`` (rows, positions) that stand at ``start`` and on."""
        with self._lock:
            self._seam.injected = None
            try:
                self._forward(ids, start)
            except _Reached as reached:
                return reached.hidden
        raise AssertionError("the decoder never reached its first layer")

    @torch.inference_mode()
    def logits(self, hidden: Tensor, start: int) -> Tensor:
        """Logits (rows, positions, vocabulary) of hidden states that came back for the positions from ``start`` on."""
        with self._lock:
            self._seam.injected = hidden
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long)
            output: Tensor = self._forward(ids, start).logits
            return output

    @torch.inference_mode()
    def final(self, hidden: Tensor, start: int) -> Tensor:
        """The last hidden states of the model (rows, positions, size): what :meth:`logits` gives to the head.

        They are what transformers calls ``last_hidden_state``: behind the final norm, in models that have one.
        """
        with self._lock:
            self._seam.injected = hidden
            hook = self.stack.runner.register_forward_hook(_leave)
            try:
                self._forward(torch.zeros(hidden.shape[:2], dtype=torch.long), start)
            except _Reached as reached:
                return reached.hidden
            finally:
                hook.remove()
        raise AssertionError("the model never ran its decoder")

    def _forward(self, ids: Tensor, start: int) -> Any:
        self._cache.length = start
        arguments: dict[str, Any] = {self.stack.cache_argument: self._cache}
        if self._takes_positions:
            arguments["position_ids"] = torch.arange(start, start + ids.shape[1]).expand(ids.shape[0], -1)
        return self._model(input_ids=ids, use_cache=True, **arguments)

    def _learn_return_type(self) -> None:
        """The loop of some decoders unpacks tuples. Nobody here can be asked, so try the plain form first.

        Blocks that only pass on cost time in each token (80 of them a good part of a millisecond), so all but the
        seam are left out where the decoder's loop does not mind.
        """
        # several rows and positions: with one, the first row of a tensor looks like the first item of a tuple
        hidden = self.embed(torch.zeros(2, 3, dtype=torch.long), 0)
        seam_alone: list[nn.Module] = [self._seam]
        for layers, returns_tuple in product((seam_alone, list(self.stack.layers)), (False, True)):
            self.stack.replace_layers(layers)
            for layer in layers:
                setattr(layer, "returns_tuple", returns_tuple)  # noqa: B010  # nn.Module's own setter has no type for it
            try:
                out = self.logits(hidden, 0)
            except (TypeError, ValueError, AttributeError, IndexError, RuntimeError):
                continue
            if out.ndim == 3 and out.shape[:2] == hidden.shape[:2]:
                return
        raise AssertionError("neither tensors nor tuples pass through this decoder")
