"""The client of the swarm: a prompt becomes tokens.

:meth:`Generation._tokens` is the whole walk: ids → hidden states → once round the ring → logits → tokens → text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from transformers import PreTrainedConfig

from discovery.protocol.announcement import Announcement, Quantization, SignedAnnouncement
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.messages import WireTensor
from discovery.protocol.oncall import Registration
from discovery.score import Observations
from far_mesh.config import GenerationOptions, MeshConfig, Pool, Treatment
from far_mesh.contributions import Contribution, Verified
from far_mesh.costs import Known
from far_mesh.errors import ContextLengthExceeded
from far_mesh.measure import OnSeen
from far_mesh.model.draft import DraftModel, draft_beside, goes_back
from far_mesh.model.embedding import Embeddings, Pooling, check_pooling, embed_texts, pool
from far_mesh.model.ends import ModelEnds
from far_mesh.model.grammar import Grammars
from far_mesh.model.private import LocalBlocks, LocalText
from far_mesh.model.sampler import Likelihood, Noise, Sampler, likelihood
from far_mesh.model.tokens import Prompt, TextStream, Tokens
from far_mesh.model.tools import Tool, ToolFormat
from far_mesh.opener import ModelFacts, OnMended, SessionOpener, Swarm
from far_mesh.receipts_file import Evidence
from far_mesh.route import RouteHop
from far_mesh.session import Mended, MeshSession
from far_mesh.trace import Trace
from far_mesh.walk import Chosen, Drafter, Walk
from far_node.blocks.cut import read_config, shape_of
from far_node.blocks.load import load_client_model
from far_node.blocks.sizes import block_sizes
from far_node.blocks.slots import divides
from far_node.blocks.source import ENDS, ModelSource, find_model
from far_node.blocks.thread import ComputeThread
from far_node.blocks.wire import from_wire

_UNBOUNDED_CONTEXT = 2**20  # for models whose config names no limit
_MOST_TOGETHER = 32
"""Texts whose logits are computed in one pass."""

__all__ = [
    "Checkpoint",
    "Embeddings",
    "Generation",
    "GenerationOptions",
    "Hop",
    "Mesh",
    "MeshConfig",
    "Result",
    "Swarm",
    "Token",
    "TokenLogprob",
]


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its bytes, which may be a part of a character, and its log probability by the model's own logits."""

    id: int
    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class Token:
    """A generated token. ``text`` may be empty while a character is incomplete or may become a stop string.

    ``offset`` is how many characters of the answer stand before it; one that it completes is not among them.
    ``logprob`` and ``top`` are there if they were asked for.
    """

    id: int
    text: str
    offset: int = 0
    logprob: TokenLogprob | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Hop:
    """A node of the route and the blocks it runs."""

    peer_id: str
    wallet: str
    blocks: tuple[int, int]
    quantization: str


@dataclass(frozen=True)
class Checkpoint:
    """What was verified so far; cumulative, about every 64 positions."""

    prompt_tokens: int
    completion_tokens: int
    contributions: tuple[Contribution, ...]
    expected_token_layers: int


@dataclass(frozen=True)
class Result:
    """How a generation ended.

    ``finish_reason``: ``stop`` (end token, stop string, or the grammar is complete), ``length``, ``stopped``.
    ``drafted`` tokens were guessed and sent ahead, ``accepted`` of them were right; nodes computed all of them.
    ``trace`` says where the time went; ``evidence`` is what :mod:`far_mesh.receipts_file` makes a file of.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    contributions: tuple[Contribution, ...]
    rejected: tuple[FarError, ...]
    expected_token_layers: int
    seconds: float
    time_to_first_token: float | None
    drafted: int
    accepted: int
    trace: Trace = field(repr=False)
    evidence: Evidence = field(repr=False)


CheckpointCallback = Callable[[Checkpoint], Awaitable[None]]


class Mesh:
    """A model that is served by a swarm. Its embeddings and head are here; its blocks are elsewhere."""

    def __init__(self, swarm: Swarm, model: _ClientModel, *, owns_swarm: bool = False) -> None:
        self._swarm, self._model, self._owns_swarm = swarm, model, owns_swarm
        self._opener = SessionOpener(swarm, model.facts)

    @classmethod
    async def join(
        cls,
        model: str,
        initial_peers: Sequence[str],
        config: MeshConfig | None = None,
        *,
        draft_model: str | None = None,
        local_blocks_first: int = 0,
        local_blocks_last: int = 0,
    ) -> Mesh:
        """Join a swarm for one model. :meth:`close` leaves it again.

        Args:
            draft_model: a small model with the same tokens, which guesses ahead; by default the one in the model's
                own directory, if there is one.
            local_blocks_first: so many blocks after the embeddings are computed here, and no node sees what goes in.
            local_blocks_last: so many blocks before the head are computed here too.

        Raises:
            DraftUnfit: the draft model cannot guess for this one.
            FarError: the model cannot be found or cut, or no initial peer answers.
        """
        swarm = await Swarm.join(initial_peers, config)
        try:
            local = local_blocks_first, local_blocks_last
            guesses = swarm.config.speculation
            loaded = await _ClientModel.load(model, draft_model=draft_model, guesses=guesses, local=local)
            return cls(swarm, loaded, owns_swarm=True)
        except BaseException:
            await swarm.close()
            raise

    @classmethod
    async def over(
        cls,
        swarm: Swarm,
        model: str,
        model_id: str | None = None,
        *,
        draft_model: str | None = None,
        local_blocks_first: int = 0,
        local_blocks_last: int = 0,
    ) -> Mesh:
        """A model over a swarm that was joined already; see :meth:`join`."""
        guesses, local = swarm.config.speculation, (local_blocks_first, local_blocks_last)
        loaded = await _ClientModel.load(model, model_id, draft_model=draft_model, guesses=guesses, local=local)
        return cls(swarm, loaded)

    @property
    def model_id(self) -> str:
        """Public name of the model."""
        return self._model.facts.id

    @property
    def model_digest(self) -> str:
        """SHA-256 that identifies its weights."""
        return self._model.facts.digest

    @property
    def block_count(self) -> int:
        """Blocks a route must cover: all but those that are computed here."""
        first, end = self._model.facts.span
        return end - first

    @property
    def context_length(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self._model.facts.context_length

    def block_bytes(self, quantization: Quantization, device: str) -> tuple[int, ...]:
        """What each block takes in the memory of a node that computes on ``device`` (``cpu`` or ``cuda``) as nodes do
        there unless they are told otherwise: bfloat16 on a GPU, float32 on a CPU. Told from the config, in part of a
        second.

        Raises:
            ModelUnsupported: no model can be made of the config.
        """
        return block_sizes(self._model.source, quantization, "float32" if device == "cpu" else "bfloat16", device)

    @property
    def tool_format(self) -> ToolFormat | None:
        """How the model writes calls of tools, if it does in a way that is known."""
        return self._model.tokens.tool_format

    @property
    def tool_marks(self) -> dict[str, int]:
        """Special tokens in that: they go into ``shown_tokens`` for calls to be read, and into the format's grammar."""
        return self._model.tokens.tool_marks

    def encode(self, prompt: Prompt, *, raw: bool = False, tools: Sequence[Tool] | None = None) -> list[int]:
        """Token ids of a prompt: see :meth:`far_mesh.model.tokens.Tokens.encode`."""
        return self._model.tokens.encode(prompt, raw=raw, tools=tools)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return self._model.tokens.decode(ids)

    async def check(self, prompt_ids: Sequence[int], options: GenerationOptions) -> None:
        """Find out what :meth:`open` would find wrong with ``options``, before nodes are asked for anything.

        Raises:
            InvalidArgument: they name tokens that the model does not have, or the grammar cannot be used.
        """
        await self._model.sampler(prompt_ids, options)

    async def nodes(self) -> list[SignedAnnouncement]:
        """Live announcements of the nodes that serve this model."""
        return await self._opener.nodes()

    async def present(self) -> list[SignedAnnouncement]:
        """Those of them that did not break off here a moment ago: announcements outlive a node that was killed."""
        return await self._opener.present()

    async def on_call(self) -> list[Registration]:
        """Nodes that serve this model once they are woken, which :meth:`open` does where no other serves some block."""
        return await self._opener.on_call()

    def known(self, nodes: Sequence[Announcement]) -> Known:
        """What was found out here of some of these nodes: how far they are, how often they broke off, where they are.
        Nobody is asked."""
        return self._swarm.known(nodes)

    async def generate(
        self, prompt: Prompt, options: GenerationOptions | None = None, *, raw: bool = False
    ) -> AsyncIterator[Token]:
        """Stream the tokens that follow a prompt; by default up to 256, greedy. See :meth:`open` for more control."""
        generation = await self.open(self.encode(prompt, raw=raw), options or GenerationOptions(max_tokens=256))
        try:
            async for token in generation:
                yield token
        finally:
            await generation.finish()

    async def open(
        self,
        prompt_ids: Sequence[int],
        options: GenerationOptions,
        *,
        price_units: int = 0,
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
        pool: Pool | None = None,
        on_checkpoint: CheckpointCallback | None = None,
        on_mended: OnMended | None = None,
    ) -> Generation:
        """Find a route and open a session on it; nothing is computed yet.

        Args:
            price_units: what is offered for a thousand token-layers, in 1e-9 FAR; it is written into the receipts.
            treatment: how the nodes are asked to treat it.
            pool: who alone may serve it, to its end.
            on_checkpoint: told what was verified, about every 64 positions.
            on_mended: told when lost nodes were replaced, and while the session waits for somebody to replace them.

        Raises:
            InvalidArgument: an option names tokens that the model does not have, or the grammar cannot be used.
            ContextLengthExceeded: prompt and ``max_tokens`` do not fit.
            NoRoute: some blocks have no live node.
            FarError: nodes refused (``Busy``) or could not be reached, after all attempts.
        """
        prompt_ids = self._model.tokens.encode(prompt_ids)
        length = len(prompt_ids) + options.max_tokens
        if length > self.context_length:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt_ids)} tokens and {options.max_tokens} are asked for; "
                f"the context of {self.model_id} holds {self.context_length}",
                param="max_tokens" if len(prompt_ids) < self.context_length else "prompt",
            )
        sampler = await self._model.sampler(prompt_ids, options)
        session = await self._opener.open(
            length, price_units=price_units, treatment=treatment, pool=pool, on_mended=on_mended
        )
        return Generation(session, self._model, prompt_ids, sampler, on_checkpoint)

    async def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        price_units: int = 0,
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
        pool: Pool | None = None,
    ) -> Embeddings:
        """One vector for each text: its last hidden states, behind the final norm, pooled.

        Args:
            texts: texts, without chat template, or token ids.
            pooling: see :data:`~far_mesh.model.embedding.Pooling`.
            normalize: make the vectors one long.
            price_units: what is offered for a thousand token-layers, in 1e-9 FAR; it is written into the receipts.
            treatment: how the nodes are asked to treat it.
            pool: who alone may serve it.

        Raises:
            InvalidArgument: no texts, an empty one, or an unknown way of pooling.
            ContextLengthExceeded: a text does not fit the context.
            FarError: what went wrong in the swarm with the first text that failed; ``facts["texts"]`` has the error of
                each that did, by its place.
        """
        check_pooling(pooling)
        if not texts:
            raise InvalidArgument("there is no text", param="texts")
        ids = [self._ids_of(text, place) for place, text in enumerate(texts)]
        open_session = partial(self._opener.open, price_units=price_units, treatment=treatment, pool=pool)
        return await embed_texts(ids, open_session, self._model.ends_for, pooling, normalize=normalize)

    def _ids_of(self, text: str | Sequence[int], place: int) -> list[int]:
        try:
            ids = self._model.tokens.encode(text, raw=True)
        except InvalidArgument as error:
            raise InvalidArgument(f"text {place}: {error.message}", param=f"texts.{place}") from None
        if len(ids) > self.context_length:
            raise ContextLengthExceeded(
                f"text {place} has {len(ids)} tokens; the context of {self.model_id} holds {self.context_length}",
                param=f"texts.{place}",
            )
        return ids

    def watch(self, on_seen: OnSeen) -> None:
        """Tell from now on which nodes could not be reached, broke off or lied, in any session of this swarm."""
        self._swarm.measured.listeners.add(on_seen)

    def remember(self, seen: Mapping[str, Observations]) -> None:
        """What somebody else has seen of nodes, by peer id; routes are planned with it from now on."""
        self._swarm.measured.told = seen

    async def close(self) -> None:
        """Leave the swarm, if it was joined for this mesh."""
        self._model.close()
        if self._owns_swarm:
            await self._swarm.close()

    async def __aenter__(self) -> Mesh:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass
class _Progress:
    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    finish_reason: str = "stopped"
    started: float = field(default_factory=time.monotonic)
    first_token_at: float | None = None
    ended: float | None = None


class Generation:
    """One answer in the making: iterate for tokens, then :meth:`finish` for the result and the receipts."""

    def __init__(
        self,
        session: MeshSession,
        model: _ClientModel,
        prompt_ids: list[int],
        sampler: Sampler,
        on_checkpoint: CheckpointCallback | None,
    ) -> None:
        self._session, self._model, self._prompt_ids, self._options = session, model, prompt_ids, sampler.options
        self._on_checkpoint = on_checkpoint
        self._walk = model.walk(session, prompt_ids, sampler)
        self._progress = _Progress()
        self._stream: AsyncIterator[Token] | None = None
        self._result: Result | None = None
        self._finishing = asyncio.Lock()
        self._stop_asked = False

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The route, in order."""
        return tuple(_public_hop(hop) for hop in self._session.route)

    @property
    def mended(self) -> tuple[Mended, ...]:
        """The losses so far that cost a pause and nothing else."""
        return tuple(self._session.mended)

    def __aiter__(self) -> AsyncIterator[Token]:
        if self._stream is None:
            self._stream = self._tokens()
        return self._stream

    async def _tokens(self) -> AsyncIterator[Token]:
        options, progress, walk = self._options, self._progress, self._walk
        text = TextStream(self._model.tokens, options.stop, options.shown_tokens)
        await walk.begin()
        while (chosen := await walk.confirmed()) is not None:
            if not options.stop:
                await walk.go_on()  # the ring works while we turn tokens into text
            for place, token_id in enumerate(chosen.tokens):
                self._note(token_id)
                offset, piece = text.length, text.push(token_id)
                token = Token(token_id, piece, offset, *self._logprobs(chosen, place))
                if text.stopped or (chosen.has_ended and place == len(chosen.tokens) - 1):
                    progress.finish_reason = "stop"
                if self._has_ended:
                    yield self._last(token, text)
                    return
                progress.text.append(token.text)
                yield token
            await self._tell_checkpoint()
            if options.stop:  # a step that a stop string makes needless is not sent
                await walk.go_on()

    def _note(self, token_id: int) -> None:
        progress = self._progress
        progress.first_token_at = progress.first_token_at or time.monotonic()
        progress.token_ids.append(token_id)
        if token_id in self._walk.ahead.ends:
            progress.finish_reason = "stop"
        elif len(progress.token_ids) >= self._options.max_tokens:
            progress.finish_reason = "length"

    def _logprobs(self, chosen: Chosen, place: int) -> tuple[TokenLogprob | None, tuple[TokenLogprob, ...]]:
        if not chosen.likelihoods:
            return None, ()
        likely: Likelihood = chosen.likelihoods[place]
        bytes_of, token = self._model.tokens.bytes_of, chosen.tokens[place]
        top = tuple(TokenLogprob(one, bytes_of(one), logprob) for one, logprob in likely.top)
        return TokenLogprob(token, bytes_of(token), likely.logprob), top

    @property
    def _has_ended(self) -> bool:
        return self._stop_asked or self._progress.finish_reason != "stopped"

    def _last(self, token: Token, text: TextStream) -> Token:
        whole = replace(token, text=token.text + text.flush())
        self._progress.text.append(whole.text)
        self._progress.ended = time.monotonic()
        return whole

    async def _tell_checkpoint(self) -> None:
        if self._on_checkpoint is None:
            return
        verified = self._session.verified_checkpoint()
        if verified is not None:
            done = Checkpoint(
                len(self._prompt_ids),
                len(self._progress.token_ids),
                verified.contributions,
                self._session.token_layers_at_checkpoint(),
            )
            await self._on_checkpoint(done)

    async def finish(self) -> Result:
        """End here: wait for what is in flight, close the session, verify the receipts. Again: the same result."""
        self._stop_asked = True
        async with self._finishing:
            if self._result is None:
                await self._walk.settle()
                self._result = self._conclude(await self._session.finish())
        return self._result

    def _conclude(self, verified: Verified) -> Result:
        progress = self._progress
        first = progress.first_token_at
        return Result(
            text="".join(progress.text),
            token_ids=tuple(progress.token_ids),
            prompt_tokens=len(self._prompt_ids),
            completion_tokens=len(progress.token_ids),
            finish_reason=progress.finish_reason,
            contributions=verified.contributions,
            rejected=verified.rejected,
            expected_token_layers=self._session.expected_token_layers,
            seconds=(progress.ended or time.monotonic()) - progress.started,
            time_to_first_token=None if first is None else first - progress.started,
            drafted=self._walk.ahead.controller.sent,
            accepted=self._walk.ahead.controller.right,
            trace=Trace(progress.started, tuple(self._walk.steps)),
            evidence=self._session.evidence,
        )


class _ClientModel:
    """The ends of a model with a thread of their own: a big head must not hold up other people's streams."""

    def __init__(
        self,
        source: ModelSource,
        facts: ModelFacts,
        tokens: Tokens,
        ends: ModelEnds,
        local: LocalBlocks,
        *,
        guesses: bool,
        draft: DraftModel | None,
    ) -> None:
        self.source, self.facts, self.tokens = source, facts, tokens
        self._ends, self._guesses = ends, guesses
        self._local = local
        self._drafter = None if draft is None else Drafter(draft)
        self._thread = ComputeThread("model-ends")
        self._head = _Head(ends)
        self._grammars = Grammars(tokens)

    @classmethod
    async def load(
        cls,
        model: str,
        model_id: str | None = None,
        *,
        draft_model: str | None = None,
        guesses: bool = True,
        local: tuple[int, int] = (0, 0),
    ) -> _ClientModel:
        return await asyncio.to_thread(cls._load, model, model_id, draft_model, guesses, local)

    @classmethod
    def _load(
        cls, model: str, model_id: str | None, draft_model: str | None, guesses: bool, local: tuple[int, int]
    ) -> _ClientModel:
        source = find_model(model, model_id, ENDS)
        config = read_config(source)
        blocks = LocalBlocks.load(model, config, *local, model_id)
        tokens, ends = Tokens.load(source, config), ModelEnds(load_client_model(source))
        guesses = guesses and goes_back(config)
        draft = draft_model or draft_beside(source)
        loaded = DraftModel.load(str(draft), source.id, tokens) if guesses and draft else None
        facts = replace(model_facts(source, config), local=local)
        return cls(source, facts, tokens, ends, blocks, guesses=guesses, draft=loaded)

    async def sampler(self, prompt_ids: Sequence[int], options: GenerationOptions) -> Sampler:
        """What chooses the tokens of an answer.

        Raises:
            InvalidArgument: an option names tokens that there are not, or the grammar cannot be used.
        """
        for param in ("logit_bias", "stop_token_ids", "shown_tokens"):
            if not all(0 <= token < self.tokens.vocabulary for token in getattr(options, param)):
                raise InvalidArgument(f"token ids lie from 0 to {self.tokens.vocabulary - 1}", param=param)
        if options.logprobs is not None:
            await asyncio.to_thread(lambda: self.tokens.exact)  # made here, and not while others wait for their tokens
        matcher = None if options.grammar is None else await self._grammars.matcher(options.grammar)
        return Sampler(options, Noise(options.seed), prompt_ids, self.tokens.end_ids | options.stop_token_ids, matcher)

    def walk(self, session: MeshSession, prompt_ids: Sequence[int], sampler: Sampler) -> Walk:
        """The walk of an answer to a prompt."""
        ends, ends_of_text = self.ends_for(len(prompt_ids) + sampler.options.max_tokens), sampler.ends
        return Walk(session, ends, prompt_ids, ends_of_text, sampler, guesses=self._guesses, drafter=self._drafter)

    def ends_for(self, max_length: int) -> _TextEnds:
        """The ends for a text of up to so many positions."""
        return _TextEnds(self._ends, self._head, self._thread, self._local.new_text(max_length))

    def close(self) -> None:
        self._thread.close()
        if self._drafter is not None:
            self._drafter.close()


@dataclass(eq=False)
class _Question:
    """What logits are asked for: hidden states (1, ``positions``, size) from ``start`` on, which ``read`` gives."""

    read: Callable[[], torch.Tensor]
    positions: int
    start: int
    logits: torch.Tensor | None = None


class _Head:
    """The head of a model for many texts: its weights are read once for all who wait while it is busy."""

    def __init__(self, ends: ModelEnds) -> None:
        self._ends = ends
        self._waiting: list[_Question] = []

    def ask(self, question: _Question) -> None:
        """Let others answer it by the way, until :meth:`answer` is called for it in the thread of the ends."""
        self._waiting.append(question)

    def answer(self, question: _Question) -> torch.Tensor:
        """Its logits (1, positions, vocabulary)."""
        if question in self._waiting:
            self._waiting.remove(question)
        if question.logits is None:
            others = [one for one in list(self._waiting) if one.logits is None and one.positions == question.positions]
            try:
                self._pass([question, *others[: _MOST_TOGETHER - 1]])
            except Exception:  # one of them is to blame, and told so in its turn
                if not others:
                    raise
                self._pass([question])
        assert question.logits is not None
        return question.logits

    def _pass(self, together: Sequence[_Question]) -> None:
        # only embeddings know of positions, and those that are made here go nowhere
        logits = self._ends.logits(torch.cat([one.read() for one in together]), together[0].start)
        for one, own in zip(together, logits, strict=True):
            one.logits = own[None]


class _TextEnds:
    """The ends of a model for one text, with what the client's own blocks remember of it."""

    def __init__(self, ends: ModelEnds, head: _Head, thread: ComputeThread, text: LocalText) -> None:
        self._ends, self._head, self._thread, self._text = ends, head, thread, text

    @property
    def needs_all(self) -> bool:
        """Whether every position must come back."""
        return self._text.needs_all

    async def embed(self, ids: Sequence[int], start: int) -> torch.Tensor:
        """Hidden states (1, positions, size) of tokens that stand at ``start`` and on, as they leave for the nodes.

        Raises:
            BadPosition: there are blocks here, and they have not come as far as ``start``.
        """
        return await self._thread.run(lambda: self._embed(ids, start))

    async def choose(
        self,
        answer: WireTensor,
        start: int,
        first: int,
        guessed: Sequence[int],
        sampler: Sampler,
    ) -> Chosen:
        """The tokens that an answer tells, in one visit to the thread.

        Args:
            start: position of the first hidden state in the answer.
            first: position of the first of the tokens.
            guessed: what was sent there and at the positions after it; at the first that is wrong the answer ends.
            sampler: of this text; it has read the tokens before, and reads these.
        """
        question = _Question(
            lambda: self._text.after(self._read(answer), start)[:, first - 1 - start :],
            start + answer.shape[1] - first + 1,
            first - 1,
        )
        if not self._text.needs_all:  # else there are blocks here that remember the text, and it takes its turn
            self._head.ask(question)

        def work() -> Chosen:
            tokens, likelihoods, wanted = list[int](), list[Likelihood](), sampler.options.logprobs
            logits = self._head.answer(question)
            for row in logits[0]:
                tokens.append(sampler.pick(row))
                if wanted is not None:
                    likelihoods.append(likelihood(row, tokens[-1], wanted))
                sampler.read(tokens[-1:])
                if len(tokens) > len(guessed) or tokens[-1] != guessed[len(tokens) - 1]:
                    hidden = self._embed(tokens[-1:], first + len(tokens) - 1)
                    return Chosen(tokens, likelihoods, hidden, sampler.is_complete)
            return Chosen(tokens, likelihoods, None, sampler.is_complete)

        return await self._thread.run(work)

    async def pooled(self, answer: WireTensor, start: int, pooling: Pooling) -> torch.Tensor:
        """A vector (size) of the hidden states that came back for the positions from ``start`` on."""

        def work() -> torch.Tensor:
            return pool(self._ends.final(self._text.after(self._read(answer), start), start)[0], pooling)

        return await self._thread.run(work)

    def _embed(self, ids: Sequence[int], start: int) -> torch.Tensor:
        return self._text.before(self._ends.embed(torch.tensor([list(ids)]), start), start)

    def _read(self, answer: WireTensor) -> torch.Tensor:
        return from_wire(answer, torch.device("cpu"), self._ends.dtype)


def model_facts(source: ModelSource, config: PreTrainedConfig) -> ModelFacts:
    """What routing needs to know of a model on this disk."""
    shape = shape_of(config)
    context = shape.context_length or _UNBOUNDED_CONTEXT
    return ModelFacts(source.id, source.digest, shape.block_count, context, divides=divides(config))


def _public_hop(hop: RouteHop) -> Hop:
    node: Announcement = hop.node
    return Hop(node.peer_id, node.wallet, hop.blocks, node.quantization)
