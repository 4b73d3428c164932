"""A transformers model whose blocks are elsewhere.

``AutoDistributedModelForCausalLM.from_pretrained(model, initial_peers=[…])`` gives an instance of the model's own
class with its embeddings and head; ``generate()`` is transformers' own, beam search and logits processors included.
Where the decoder blocks would be, hidden states go round the ring.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import torch
import uvloop
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from discovery.protocol.errors import InvalidArgument
from far_mesh.client import model_facts
from far_mesh.config import MeshConfig
from far_mesh.contributions import Contribution
from far_mesh.model.ends import ModelEnds
from far_mesh.opener import ModelFacts, SessionOpener, Swarm
from far_mesh.session import MeshSession
from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import client_class, read_config, shape_of
from far_node.blocks.load import load_client_model
from far_node.blocks.source import ENDS, find_model
from far_node.blocks.wire import from_wire, to_wire

T = TypeVar("T")


class AutoDistributedModelForCausalLM:
    """The door; it is never instantiated."""

    @classmethod
    def from_pretrained(
        cls, model: str, *, initial_peers: Sequence[str], config: MeshConfig | None = None
    ) -> DistributedModel:
        """Join the swarm that serves ``model`` (directory, hub id or bundled name) and load the model's two ends.

        Raises:
            FarError: the model cannot be found or cut, or no initial peer answers.
        """
        source = find_model(model, part=ENDS)
        model_config = read_config(source)
        loaded = load_client_model(source, model_class=_distributed_class(model_config))
        assert isinstance(loaded, DistributedModel)
        loaded._connect(_Bridge(model_facts(source, model_config), initial_peers, config))
        return loaded


class _Bridge:
    """From the caller's thread to the mesh's event loop, which runs in a thread of its own."""

    def __init__(self, model: ModelFacts, initial_peers: Sequence[str], config: MeshConfig | None) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="far-mesh", daemon=True)
        self._thread.start()
        try:
            self._swarm = self.wait(Swarm.join(initial_peers, config))
        except BaseException:
            self._stop()
            raise
        self.sessions = SessionOpener(self._swarm, model)

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine over there, wait here."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def close(self) -> None:
        """Leave the swarm and end the thread."""
        if self._loop.is_running():
            self.wait(self._swarm.close())
            self._stop()

    def _stop(self) -> None:
        self.wait(_cancel_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_the_rest() -> None:
    """What libraries left running; a loop must not be closed over it."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class RemoteCache(BlockCache):
    """Stands for the caches of the nodes: counts positions, remembers row moves and rollbacks until the next step."""

    def __init__(
        self, config: PreTrainedConfig, bridge: _Bridge, max_length: int, left_padding: tuple[int, ...] = ()
    ) -> None:
        super().__init__(config, 0, 0)
        self._bridge, self._max_length, self._left_padding = bridge, max_length, left_padding
        self._session: MeshSession | None = None
        self._rows: tuple[int, ...] = ()

    def step(self, hidden: Tensor) -> Tensor:
        """Once round the ring with the next positions; opens the session the first time."""
        if self._session is None:
            self._session = self._open(hidden.shape[0])
        wire = to_wire(hidden, self._session.asked.codec)
        answer = self._bridge.wait(self._session.step(wire, self.length, rows=self._rows))
        self._rows = ()
        self.advance(hidden.shape[1])
        return from_wire(answer, hidden.device, hidden.dtype)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """transformers' beam search: continue row i from row ``beam_idx[i]``."""
        moved = tuple(int(row) for row in beam_idx)
        self._rows = tuple(self._rows[row] for row in moved) if self._rows else moved

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions; the next step starts where they did."""
        self.length -= abs(tokens_to_remove)

    def finish(self) -> tuple[Contribution, ...]:
        """Close the session; who is owed for what."""
        if self._session is None:
            return ()
        session, self._session = self._session, None
        return self._bridge.wait(session.finish()).contributions

    def _open(self, rows: int) -> MeshSession:
        repeats = rows // len(self._left_padding) if self._left_padding else 0
        padding = tuple(count for count in self._left_padding for _ in range(repeats))  # as generate() expands rows
        return self._bridge.wait(self._bridge.sessions.open(self._max_length, rows=rows, left_padding=padding))


class DistributedModel(PreTrainedModel):
    """What from_pretrained gives back also has these. The rest is the model's own class."""

    _bridge: _Bridge | None = None
    _contributions: tuple[Contribution, ...] = ()
    _remote_cache: RemoteCache | None = None
    _cache_argument = "past_key_values"

    def get_last_contributing_servers(self) -> list[str]:
        """Peer ids of the nodes whose work for the last ``generate()`` was receipted and verified, in route order."""
        return [contribution.peer_id for contribution in self._contributions]

    def get_last_contributions(self) -> tuple[Contribution, ...]:
        """The same with wallets, blocks, token-layers and receipts."""
        return self._contributions

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """transformers' own ``generate``, on a session of the swarm.

        Raises:
            InvalidArgument: a cache was passed in; the caches are the nodes'.
            FarError: what goes wrong in the swarm.
        """
        if kwargs.get(self._cache_argument) is not None:
            raise InvalidArgument(f"{self._cache_argument} cannot be passed in: the caches are with the nodes")
        bridge = self._connected()
        prompt = inputs if inputs is not None else kwargs.get("input_ids")
        length = prompt.shape[1] if prompt is not None else 1
        padding = _left_padding(kwargs.get("attention_mask"))
        cache = RemoteCache(self.config, bridge, self._length_limit(length, kwargs), padding)
        try:
            return super().generate(inputs, *args, **{self._cache_argument: cache}, **kwargs)
        finally:
            self._contributions = cache.finish()

    def close(self) -> None:
        """Leave the swarm."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None

    def _step_once(self, hidden: Tensor) -> Tensor:
        """A plain forward, without ``generate``: a session for one step."""
        once = RemoteCache(self.config, self._connected(), hidden.shape[1])
        try:
            return once.step(hidden)
        finally:
            self._contributions = once.finish()

    def _connected(self) -> _Bridge:
        if self._bridge is None:
            raise InvalidArgument("this model has left the swarm; load it again with from_pretrained")
        return self._bridge

    def _connect(self, bridge: _Bridge) -> None:
        self._bridge = bridge
        stack = ModelEnds(self).stack  # which has learnt what this model's layers return
        stack.layers[0] = _Ring(self, stack.layers[0])
        self._cache_argument = stack.cache_argument
        self.register_forward_pre_hook(_remember_cache, with_kwargs=True)

    def _length_limit(self, prompt_length: int, kwargs: dict[str, Any]) -> int:
        context = shape_of(self.config).context_length or 2**20
        generation = kwargs.get("generation_config") or self.generation_config
        fresh = kwargs.get("max_new_tokens") or getattr(generation, "max_new_tokens", None)
        total = kwargs.get("max_length") or getattr(generation, "max_length", None)
        if fresh is not None:
            return min(context, prompt_length + int(fresh))
        return min(context, max(int(total), prompt_length + 1)) if total else context


class _Ring(nn.Module):
    """In the place of the first block: hidden states leave for the nodes here and come back."""

    def __init__(self, model: DistributedModel, seam: nn.Module) -> None:
        super().__init__()
        self.__dict__.update({k: v for k, v in vars(seam).items() if not k.startswith("_") and k != "training"})
        self._model = (model,)  # in a tuple: as a submodule the model would hold itself

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        (model,) = self._model
        cache = model._remote_cache
        output = cache.step(hidden) if cache is not None else model._step_once(hidden)
        return (output, None) if self.returns_tuple else output


def _remember_cache(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert isinstance(model, DistributedModel)
    given = kwargs.get(model._cache_argument)
    model._remote_cache = given if isinstance(given, RemoteCache) else None


def _left_padding(attention_mask: Tensor | None) -> tuple[int, ...]:
    """Padding at the start of each row.

    Raises:
        InvalidArgument: padding anywhere else.
    """
    if attention_mask is None or bool(attention_mask.bool().all()):
        return ()
    padding = (attention_mask == 0).sum(dim=1)
    width = attention_mask.shape[1]
    expected = torch.arange(width, device=attention_mask.device)[None] >= padding[:, None]
    if not torch.equal(expected, attention_mask.bool()):
        raise InvalidArgument("pad on the left: tokenizer.padding_side = 'left'", param="attention_mask")
    return tuple(int(count) for count in padding)


def _distributed_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    hollow = client_class(config)
    return type(hollow.__name__, (DistributedModel, hollow), {"__module__": hollow.__module__})


__all__ = ["AutoDistributedModelForCausalLM", "DistributedModel"]
