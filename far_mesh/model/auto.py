"""A transformers model whose blocks are elsewhere.

``AutoDistributedModelForCausalLM.from_pretrained(model, initial_peers=[…])`` gives an instance of the model's own
class with its embeddings and head; ``generate()`` is transformers' own, beam search and logits processors included.
Where the decoder blocks would be, hidden states go round the ring. :class:`InferenceSession` lets calls go on where
those before them ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
import uvloop
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING

from discovery.protocol.errors import InvalidArgument
from far_mesh.client import model_facts
from far_mesh.config import MeshConfig
from far_mesh.contributions import Contribution
from far_mesh.model.draft import goes_back
from far_mesh.model.ends import ModelEnds
from far_mesh.model.private import LocalBlocks, LocalText
from far_mesh.opener import ModelFacts, SessionOpener, Swarm
from far_mesh.session import MeshSession
from far_node.blocks.cache import BlockCache
from far_node.blocks.cut import client_class, read_config, shape_of
from far_node.blocks.load import load_client_model
from far_node.blocks.source import ENDS, find_model
from far_node.blocks.wire import from_wire, to_wire
from far_node.errors import SessionTooLong

T = TypeVar("T")
_UNBOUNDED_CONTEXT = 2**20  # for models whose config names no limit
_UNKNOWN = -1  # stands for a token that was given as an embedding


class AutoDistributedModelForCausalLM:
    """The door; it is never instantiated."""

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        *,
        initial_peers: Sequence[str],
        config: MeshConfig | None = None,
        local_blocks_first: int = 0,
        local_blocks_last: int = 0,
    ) -> DistributedModel:
        """Join the swarm that serves ``model`` (directory, hub id or bundled name) and load the model's two ends.

        Args:
            local_blocks_first: so many blocks after the embeddings are computed here, and no node sees what goes in.
            local_blocks_last: so many blocks before the head are computed here too.

        Raises:
            FarError: the model cannot be found or cut, or no initial peer answers.
        """
        source = find_model(model, part=ENDS)
        model_config = read_config(source)
        local = LocalBlocks.load(model, model_config, local_blocks_first, local_blocks_last)
        loaded = load_client_model(source, model_class=_distributed_class(model_config))
        assert isinstance(loaded, DistributedModel)
        facts = replace(model_facts(source, model_config), local=local.counts)
        loaded._connect(_Bridge(facts, initial_peers, config), local)
        return loaded


class Remote(Protocol):
    """One session at the nodes, for whoever waits."""

    def step(self, hidden: Tensor, start: int, keep: int, rows: tuple[int, ...]) -> Tensor: ...
    def finish(self) -> tuple[Contribution, ...]: ...


class Link(Protocol):
    """The way to the nodes."""

    def open(self, max_length: int, rows: int, left_padding: tuple[int, ...]) -> Remote: ...
    def close(self) -> None: ...


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
        self._opener = SessionOpener(self._swarm, model)

    def open(self, max_length: int, rows: int, left_padding: tuple[int, ...]) -> Remote:
        """A session of ``rows`` × ``max_length`` positions."""
        return _Waiting(self, self.wait(self._opener.open(max_length, rows=rows, left_padding=left_padding)))

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


class _Waiting:
    """A session of the swarm whose steps are waited for."""

    def __init__(self, bridge: _Bridge, session: MeshSession) -> None:
        self._bridge, self._session = bridge, session

    def step(self, hidden: Tensor, start: int, keep: int, rows: tuple[int, ...]) -> Tensor:
        """Once round the ring: see :meth:`far_mesh.session.MeshSession.step`."""
        session = self._session
        wire = to_wire(hidden, session.asked.codec)
        answer = self._bridge.wait(session.step(wire, start, keep=keep, rows=rows))
        return from_wire(answer, hidden.device, hidden.dtype)

    def finish(self) -> tuple[Contribution, ...]:
        """Close it; who is owed for what."""
        return self._bridge.wait(self._session.finish()).contributions


@dataclass(frozen=True)
class _Fed:
    """What a forward was called with: token ids (rows, positions), mask, and how many logits are wanted; 0: all."""

    ids: Tensor | None = None
    mask: Tensor | None = None
    wanted: int = 0


class RemoteCache(BlockCache):
    """Stands for the caches of the nodes and of the client's own blocks: one session at a time, opened when needed.

    It counts positions, and remembers row moves and rollbacks until the next step, and the ids of what is cached.
    """

    def __init__(self, config: PreTrainedConfig, link: Link, local: LocalBlocks, max_length: int) -> None:
        super().__init__(config, 0, 0)
        self.max_length = max_length
        self._link, self._local, self._goes_back = link, local, goes_back(config)
        self._remote: Remote | None = None
        self._is_broken = False
        self._contributions: tuple[Contribution, ...] = ()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.length = 0
        self._text: LocalText | None = None
        self._left_padding: tuple[int, ...] = ()
        self._rows: tuple[int, ...] = ()
        self._tokens = torch.empty(0, 0, dtype=torch.long)
        self._fed = _Fed()

    @property
    def ids(self) -> Tensor:
        """Token ids (rows, positions) of what is cached."""
        moved = self._tokens[list(self._rows)] if self._rows else self._tokens
        return moved[:, : self.length]

    def resume(self, ids: Tensor | None, left_padding: tuple[int, ...]) -> None:
        """Make ready for a text (rows, positions): what is cached of its beginning stays, the rest is rolled back.

        At least one position of the text is left to compute. Where a row's beginning is in another row, it continues
        from there.
        """
        if self._remote is None:
            return
        common, rows = 0, tuple[int, ...]()
        fits = ids is not None and len(ids) == len(self._tokens) and left_padding == self._left_padding
        if ids is not None and fits and not self._is_broken:
            common, rows = _longest_beginnings(self._tokens, ids[:, :-1], left_padding)
        if common == 0 or (common < self._tokens.shape[1] and not self._goes_back):
            self._leave()
            return
        self.length, self._rows = common, rows

    def feed(self, fed: _Fed) -> None:
        """What the next step is of."""
        self._fed = fed

    def step(self, hidden: Tensor) -> Tensor:
        """Once round the ring with the next positions; opens the session the first time.

        Raises:
            InvalidArgument: rows or padding are not those of the positions before.
            SessionTooLong: there is no room for so many.
            FarError: what went wrong in the swarm.
        """
        fed, self._fed = self._fed, _Fed()
        rows, count, _ = hidden.shape
        start = self.length
        if start + count > self.max_length:
            raise SessionTooLong(f"{start + count} positions are needed, the session has {self.max_length}")
        remote, text = self._opened(rows, fed.mask)
        try:
            if self._rows:
                text.select_rows(self._rows)
            keep = 0 if text.needs_all or fed.wanted >= count else fed.wanted
            answer = remote.step(_plain(text.before(hidden, start)), start, keep, self._rows)
            answer = _plain(text.after(answer, start))
        except BaseException:
            self._is_broken = True  # nodes may or may not have computed it
            raise
        self._tokens = self.ids if len(self._tokens) else torch.empty(rows, 0, dtype=torch.long)
        self._rows = ()
        ids = torch.full((rows, count), _UNKNOWN) if fed.ids is None else fed.ids.cpu()
        self._tokens = torch.cat((self._tokens, ids), dim=1)
        self.advance(count)
        return functional.pad(answer, (0, 0, count - answer.shape[1], 0))  # nobody looks at what was not kept

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """transformers' beam search: continue row i from row ``beam_idx[i]``."""
        moved = tuple(int(row) for row in beam_idx)
        self._rows = tuple(self._rows[row] for row in moved) if self._rows else moved

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions; the next step starts where they did."""
        self.length -= abs(tokens_to_remove)

    def finish(self) -> tuple[Contribution, ...]:
        """Close what is open; who is owed for what, over all sessions that were opened."""
        self._leave()
        return self._contributions

    def _leave(self) -> None:
        remote, self._remote = self._remote, None
        self._is_broken = False
        self._begin_anew()
        if remote is not None:
            self._contributions += remote.finish()

    def _opened(self, rows: int, mask: Tensor | None) -> tuple[Remote, LocalText]:
        padding = _left_padding(mask)
        if self._remote is None or self._text is None:
            self._remote = self._link.open(self.max_length, rows, padding)
            self._text = self._local.new_text(self.max_length, rows, padding)
            self._left_padding = padding
        elif rows != len(self._tokens):
            raise InvalidArgument(f"the session has {len(self._tokens)} rows, not {rows}", param="input_ids")
        elif padding != self._left_padding and mask is not None:
            raise InvalidArgument("the rows were padded otherwise when the session began", param="attention_mask")
        return self._remote, self._text


class InferenceSession:
    """Positions that nodes remember between calls.

    ``with model.inference_session(max_length=…) as session:`` every ``generate`` in the block goes on where nodes have
    its text already: given the whole text, the longest beginning that is known is not computed again, and what follows
    it is rolled back. ``generate(new_ids, session=session)`` adds ``new_ids`` to what was said before, as in Petals,
    and ``generate(session=session)`` says more. A plain ``model(input_ids)`` in the block computes the next positions.
    """

    def __init__(self, model: DistributedModel, max_length: int) -> None:
        self._model = model
        self.cache = model._new_cache(max_length)
        self._said: Tensor | None = None
        self._outer: InferenceSession | None = None
        self._is_closed = False

    @property
    def max_length(self) -> int:
        """Most positions of a row."""
        return self.cache.max_length

    @property
    def position(self) -> int:
        """Positions that are computed."""
        return self.cache.length

    @property
    def output_ids(self) -> Tensor | None:
        """The text so far (rows, positions): the last ``generate``'s, or what plain forwards have computed."""
        if self._said is not None:
            return self._said
        return self.cache.ids if self.cache.length else None

    def close(self) -> tuple[Contribution, ...]:
        """End at the nodes; who is owed for what. Again: the same."""
        self._is_closed = True
        return self.cache.finish()

    def __enter__(self) -> InferenceSession:
        self._check_open()
        self._outer, self._model._session = self._model._session, self
        return self

    def __exit__(self, *_: object) -> None:
        self._model._session = self._outer
        self._model._contributions = self.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise InvalidArgument("this session is closed; open another", param="session")

    def _with_what_was_said(self, ids: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The whole text and its mask, where only what is new is given."""
        said = self.output_ids
        if said is None:
            return ids, mask
        if ids is not None and len(ids) != len(said):
            raise InvalidArgument(f"the session's text has {len(said)} rows, not {len(ids)}", param="inputs")
        new = said[:, :0] if ids is None else ids
        padding = self.cache._left_padding or (0,) * len(said)
        if len(padding) != len(said):
            raise InvalidArgument("the rows of this text were not those of the session; pass the whole text instead")
        before = (torch.arange(said.shape[1])[None] >= torch.tensor(padding)[:, None]).long()
        after = torch.ones_like(new) if mask is None else mask
        whole = after if after.shape[1] == before.shape[1] + new.shape[1] else torch.cat((before, after), dim=1)
        return torch.cat((said, new), dim=1), whole


class DistributedModel(PreTrainedModel):
    """What from_pretrained gives back also has these. The rest is the model's own class."""

    _link: Link | None = None
    _local = LocalBlocks()
    _contributions: tuple[Contribution, ...] = ()
    _session: InferenceSession | None = None
    _is_generating = False
    _cache_now: RemoteCache | None = None
    _cache_alone: RemoteCache | None = None
    _cache_argument = "past_key_values"

    def get_last_contributing_servers(self) -> list[str]:
        """Peer ids of the nodes whose work was receipted and verified, in route order.

        It is that of the last call; of calls in an :class:`InferenceSession`, when the session has ended.
        """
        return list(dict.fromkeys(contribution.peer_id for contribution in self._contributions))

    def get_last_contributions(self) -> tuple[Contribution, ...]:
        """The same with wallets, blocks, token-layers and receipts."""
        return self._contributions

    def inference_session(self, max_length: int) -> InferenceSession:
        """A session of up to ``max_length`` positions for several calls.

        Raises:
            InvalidArgument: more positions than the model's context has, or the model has left the swarm.
        """
        context = shape_of(self.config).context_length
        if max_length < 1 or (context is not None and max_length > context):
            raise InvalidArgument(f"max_length must be from 1 to {context or 'what nodes take'}", param="max_length")
        return InferenceSession(self, max_length)

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        session: InferenceSession | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' own ``generate``, on a session of the swarm.

        Args:
            session: ``inputs`` are new ids after the text of this session; None: they are the whole text.

        Raises:
            InvalidArgument: a cache was passed in, or a way to generate that needs the blocks or foreign code here.
            FarError: what goes wrong in the swarm.
        """
        options, _ = self._prepare_generation_config(generation_config, **kwargs)
        if options.use_cache is False and (generation_config is None or generation_config.use_cache is None):
            kwargs.setdefault("use_cache", True)  # some models' own default is to have none
        self._check_way(options, kwargs)
        prompt = inputs if inputs is not None else kwargs.pop("input_ids", None)
        current, skipped = session or self._session, 0
        if session is not None:
            session._check_open()
            skipped = 0 if session.output_ids is None else session.output_ids.shape[1]
            prompt, mask = session._with_what_was_said(prompt, kwargs.pop("attention_mask", None))
            kwargs |= {} if mask is None else {"attention_mask": mask}
        length = self._length_limit(1 if prompt is None else prompt.shape[1], options, generation_config, kwargs)
        if current is None:
            with self.inference_session(length) as alone:
                return self._generate_in(alone, prompt, options, generation_config, *args, **kwargs)
        if length - 1 > current.max_length:  # the last token is not computed any more
            raise SessionTooLong(f"{length - 1} positions are asked for, the session has {current.max_length}")
        return _without(skipped, self._generate_in(current, prompt, options, generation_config, *args, **kwargs))

    def close(self) -> None:
        """Leave the swarm."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _generate_in(
        self,
        session: InferenceSession,
        prompt: Tensor | None,
        options: GenerationConfig,
        generation_config: GenerationConfig | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        copies = max(options.num_beams or 1, options.num_return_sequences or 1)
        ids = None if prompt is None else prompt.repeat_interleave(copies, dim=0)
        padding = tuple(count for count in _left_padding(kwargs.get("attention_mask")) for _ in range(copies))
        goes_on = self._cache_argument == "past_key_values"  # else transformers would feed the whole text again
        session.cache.resume(ids if goes_on else None, padding)
        session._said, self._is_generating = None, True
        try:
            caches = {self._cache_argument: session.cache}
            output = super().generate(prompt, generation_config, *args, **caches, **kwargs)
        finally:
            self._is_generating = False
        session._said = output if isinstance(output, Tensor) else output.sequences
        return output

    def _check_way(self, options: GenerationConfig, kwargs: dict[str, Any]) -> None:
        if kwargs.get(self._cache_argument) is not None:
            raise InvalidArgument(
                f"{self._cache_argument} cannot be passed in: the caches are with the nodes; "
                "calls go on from each other in inference_session()",
                param=self._cache_argument,
            )
        if kwargs.get("use_cache", options.use_cache) is False or options.cache_implementation is not None:
            raise InvalidArgument("there is one kind of cache, that of the nodes, and it is needed", param="use_cache")
        if kwargs.get("trust_remote_code") or isinstance(kwargs.get("custom_generate"), str):
            raise InvalidArgument("code from repositories is never run", param="custom_generate")
        mode = options.get_generation_mode(kwargs.get("assistant_model"))
        if "/" in GENERATION_MODES_MAPPING[mode]:
            name = mode.value.replace("_", " ")
            raise InvalidArgument(
                f"{name} is no part of transformers any more but code in a repository, never run here"
            )
        if mode is GenerationMode.ASSISTED_GENERATION:
            if options.use_mtp or options.assistant_early_exit:
                raise InvalidArgument("the model's own layers cannot assist it: they are with the nodes")
            if not goes_back(self.config):
                raise InvalidArgument("this model cannot go back in a text, so nobody can assist it")

    def _connected(self) -> Link:
        if self._link is None:
            raise InvalidArgument("this model has left the swarm; load it again with from_pretrained")
        return self._link

    def _connect(self, link: Link, local: LocalBlocks) -> None:
        self._link, self._local = link, local
        stack = ModelEnds(self).stack  # which has learnt what this model's layers return
        stack.layers[0] = _Ring(self, stack.layers[0])
        self._cache_argument = stack.cache_argument
        self.register_forward_pre_hook(_before_forward, with_kwargs=True)
        self.register_forward_hook(_after_forward, always_call=True)

    def _new_cache(self, max_length: int) -> RemoteCache:
        return RemoteCache(self.config, self._connected(), self._local, max_length)

    def _length_limit(
        self, prompt_length: int, options: GenerationConfig, given: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> int:
        """Positions of prompt and answer, as transformers will reckon them."""
        context = shape_of(self.config).context_length or _UNBOUNDED_CONTEXT
        total = int(options.max_length)
        if options.max_new_tokens is not None:
            total = prompt_length + int(options.max_new_tokens)
        elif not any((kwargs.get("max_length"), given and given.max_length, self.generation_config.max_length)):
            total += prompt_length  # its default is a number of new tokens
        return max(min(context, total), prompt_length)


class _Ring(nn.Module):
    """In the place of the first block: hidden states leave for the nodes here and come back."""

    def __init__(self, model: DistributedModel, seam: nn.Module) -> None:
        super().__init__()
        self.__dict__.update({k: v for k, v in vars(seam).items() if not k.startswith("_") and k != "training"})
        self._model = (model,)  # in a tuple: as a submodule the model would hold itself

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        (model,) = self._model
        cache = model._cache_now
        assert cache is not None
        output = cache.step(hidden)
        return (output, None) if self.returns_tuple else output


def _before_forward(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tell the ring what it is a step of: of the cache given, of the open session, or of one for this step alone."""
    assert isinstance(model, DistributedModel)
    given = kwargs.get(model._cache_argument)
    if given is not None and not isinstance(given, RemoteCache):
        raise InvalidArgument(
            f"{model._cache_argument} cannot be passed in: the caches are with the nodes; "
            "calls go on from each other in inference_session()",
            param=model._cache_argument,
        )
    ids = kwargs.get("input_ids", args[0] if args else None)
    cache = given
    if cache is None and model._session is not None:
        model._session._said = None
        cache = model._session.cache
        if model._is_generating:  # a model whose positions change with the length has the whole text computed again
            cache.resume(None, ())
        kwargs = {**kwargs, model._cache_argument: cache}
    if cache is None:
        positions = (ids if ids is not None else kwargs["inputs_embeds"]).shape[1]
        cache = model._cache_alone = model._new_cache(positions)
    wanted = 0 if kwargs.get("output_hidden_states") else kwargs.get("logits_to_keep", 0)
    cache.feed(_Fed(ids, kwargs.get("attention_mask"), wanted if isinstance(wanted, int) else 0))
    model._cache_now = cache
    return args, kwargs


def _after_forward(model: nn.Module, *_: Any) -> None:
    """A step that was of no session ends what was opened for it."""
    assert isinstance(model, DistributedModel)
    alone, model._cache_alone = model._cache_alone, None
    if alone is not None:
        model._contributions = alone.finish()


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
        raise InvalidArgument(
            "pad on the left (tokenizer.padding_side = 'left'), and where a text has the padding's token in it, "
            "pass its attention_mask",
            param="attention_mask",
        )
    return tuple(int(count) for count in padding)


def _longest_beginnings(held: Tensor, ids: Tensor, left_padding: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """How much of every row of ``ids`` is held, and in which row; no rows, where each is in its own."""
    width = min(held.shape[1], ids.shape[1])
    same = (held[None, :, :width] == ids[:, None, :width].to(held.device)).long().cumprod(dim=-1).sum(dim=-1)
    if left_padding:
        padding = torch.tensor(left_padding)
        same[padding[:, None] != padding[None]] = -1
    same = 2 * same + torch.eye(len(ids), dtype=torch.long)  # of equals each row's own
    longest, rows = same.max(dim=1)
    moved = tuple(int(row) for row in rows)
    return int(longest.min()) // 2, () if moved == tuple(range(len(ids))) else moved


def _plain(hidden: Tensor) -> Tensor:
    """A tensor that any forward takes, also one that could have gradients."""
    return hidden.clone() if hidden.is_inference() else hidden


def _without(positions: int, output: Any) -> Any:
    """What ``generate`` gave, without the text that was said before."""
    if isinstance(output, Tensor):
        return output[:, positions:]
    output.sequences = output.sequences[:, positions:]
    return output


def _distributed_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    hollow = client_class(config)
    return type(hollow.__name__, (DistributedModel, hollow), {"__module__": hollow.__module__})


__all__ = ["AutoDistributedModelForCausalLM", "DistributedModel", "InferenceSession"]
