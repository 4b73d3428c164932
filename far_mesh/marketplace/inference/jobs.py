"""What a request has the mesh do: generate texts, or make vectors. A run drives it and knows neither.

A request may ask for several texts: some prompts, and several answers to each. They are generated at the same time, and
the further answers to a prompt begin when the first of them has spoken, so that the nodes know the prompt by then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from discovery.tracing import traced
from far_mesh.config import GenerationOptions, Pool, Treatment
from far_mesh.marketplace.inference.meshes import GenerationLike, MeshLike, ProvenWork, TokenLike, work_of
from far_mesh.marketplace.sessions.schemas import Work
from far_node.errors import Busy, OutOfCache

TEXTS_AT_ONCE = 4
VECTORS_AT_ONCE = 8  # as many as the mesh works on at a time
NO_ROOM = (Busy, OutOfCache)
"""What nodes say that may have room in a moment."""
PAUSE_SECONDS = 1.0
_SEEDS = 2**64


@dataclass(frozen=True)
class Said:
    """A token of the text with this number."""

    index: int
    token: TokenLike

    @property
    def text(self) -> str:
        """What it adds to the text; nothing while a character is incomplete."""
        return self.token.text


def by_text(items: Iterable[object], texts: int) -> list[list[Said]]:
    """The tokens of each text."""
    found: list[list[Said]] = [[] for _ in range(texts)]
    for item in items:
        if isinstance(item, Said):
            found[item.index].append(item)
    return found


@dataclass(frozen=True)
class Embedded:
    """The vectors of all texts, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    text: str = ""


@dataclass(frozen=True)
class Done:
    """What was done, and how each text ended. ``mended``: how often other nodes went on in the place of lost ones; None
    where nobody counts."""

    work: Work
    finish_reasons: tuple[str, ...]
    mended: int | None = None


Keep = Callable[[Work], Awaitable[None]]
"""Told what was proven of a request so far."""


@dataclass(frozen=True)
class Terms:
    """How the nodes are asked. ``price_units`` is what is offered for a thousand token-layers, ``keep`` is told what is
    proven on the way. ``in_turn``: one token after the other, as they are asked for. ``pool``: who alone may serve."""

    price_units: int
    treatment: Treatment
    keep: Keep | None
    in_turn: bool
    pool: Pool | None = None


class Labour(Protocol):
    """A job under way. ``finish`` before the end means: stop here."""

    def __aiter__(self) -> AsyncIterator[Said | Embedded]: ...
    async def finish(self) -> Done: ...


class Job(Protocol):
    """What is to be done."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def most_tokens(self) -> int: ...
    @property
    def width(self) -> int: ...
    async def begin(self, mesh: MeshLike, terms: Terms) -> Labour: ...


# ---- texts


@dataclass(frozen=True)
class Asked:
    """A prompt, and how to go on from it."""

    prompt_ids: tuple[int, ...]
    options: GenerationOptions


@dataclass(frozen=True)
class Generate:
    """``choices`` answers to each prompt. Text number ``i`` answers prompt ``i // choices``."""

    asked: tuple[Asked, ...]
    choices: int = 1

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together, each once."""
        return sum(len(one.prompt_ids) for one in self.asked)

    @property
    def most_tokens(self) -> int:
        """Of all answers together."""
        return self.choices * sum(one.options.max_tokens for one in self.asked)

    @property
    def width(self) -> int:
        """Sessions that are open at once."""
        return min(TEXTS_AT_ONCE, len(self.asked) * self.choices)

    async def begin(self, mesh: MeshLike, terms: Terms) -> Texts:
        """Open a route for the first text.

        Raises:
            FarError: there is none.
        """
        texts = Texts(self, mesh, terms)
        await texts.open_first()
        return texts


class Texts:
    """The texts of one request, as they come."""

    def __init__(self, job: Generate, mesh: MeshLike, terms: Terms) -> None:
        self._job, self._mesh, self._terms = job, mesh, terms
        self._waiting = deque(range(len(job.asked) * job.choices))
        self._generations: dict[int, GenerationLike] = {}
        self._streams: dict[int, AsyncIterator[TokenLike]] = {}
        self._active: set[int] = set()
        self._known: set[int] = set()
        self._tasks: dict[int, asyncio.Task[TokenLike | None]] = {}
        self._ready = deque[Said]()
        self._proven: dict[int, ProvenWork] = {}

    async def open_first(self) -> None:
        """A route for the first text, while nothing has been said yet."""
        await self._open(0)

    def __aiter__(self) -> AsyncIterator[Said]:
        return self

    async def __anext__(self) -> Said:
        while not self._ready:
            self._begin_more()
            for index in self._active - self._tasks.keys():
                self._tasks[index] = asyncio.create_task(self._next(index))
            if not self._tasks:
                raise StopAsyncIteration
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for index in sorted(index for index, task in self._tasks.items() if task.done()):
                token = self._tasks.pop(index).result()
                self._known.add(self._prompt_of(index))
                if token is None:
                    self._active.discard(index)
                else:
                    self._ready.append(Said(index, token))
        return self._ready.popleft()

    async def finish(self) -> Done:
        """End here: the result of all texts."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        indices = sorted(self._generations)
        ended = await asyncio.gather(*(self._generations[index].finish() for index in indices), return_exceptions=True)
        reasons = ["stopped"] * (len(self._job.asked) * self._job.choices)
        for index, result in zip(indices, ended, strict=True):
            if isinstance(result, BaseException):
                raise result
            self._proven[index], reasons[index] = result, result.finish_reason
        mended = sum(len(generation.mended) for generation in self._generations.values())
        return Done(self._joined(), tuple(reasons), mended)

    def _begin_more(self) -> None:
        room = (1 if self._terms.in_turn else TEXTS_AT_ONCE) - len(self._active)
        for index in list(self._waiting):
            if room <= 0:
                return
            if index % self._job.choices == 0 or self._prompt_of(index) in self._known:
                self._waiting.remove(index)
                self._active.add(index)
                room -= 1

    async def _next(self, index: int) -> TokenLike | None:
        if index not in self._streams:
            self._streams[index] = aiter(await self._open_beside_others(index))
        return await anext(self._streams[index], None)

    async def _open_beside_others(self, index: int) -> GenerationLike:
        """Nodes without room for one more text of an answer do not end the others: it is asked again, as long as the
        answer may take."""
        while True:
            try:
                return await self._open(index)
            except NO_ROOM as error:
                await asyncio.sleep(error.retry_after or PAUSE_SECONDS)

    async def _open(self, index: int) -> GenerationLike:
        if index not in self._generations:
            asked, terms = self._job.asked[self._prompt_of(index)], self._terms
            self._generations[index] = await self._mesh.open(
                asked.prompt_ids,
                _with_chance_of_its_own(asked.options, index % self._job.choices),
                price_units=terms.price_units,
                treatment=terms.treatment,
                pool=terms.pool,
                on_checkpoint=None if terms.keep is None else self._keeper(index, terms.keep),
            )
        return self._generations[index]

    def _keeper(self, index: int, keep: Keep) -> Callable[[ProvenWork], Awaitable[None]]:
        async def kept(proven: ProvenWork) -> None:
            self._proven[index] = proven
            await keep(self._joined())

        return kept

    def _joined(self) -> Work:
        """The work for all texts. A prompt counts once, however many answers it has."""
        works = {index: work_of(proven, proven.completion_tokens) for index, proven in sorted(self._proven.items())}
        first = self._first_of_each_prompt(works)
        return Work(
            prompt_tokens=sum(work.prompt_tokens for work in first.values()),
            completion_tokens=sum(work.completion_tokens for work in works.values()),
            shares=tuple(share for work in works.values() for share in work.shares),
            expected_token_layers=sum(work.expected_token_layers for work in works.values()),
            cached_tokens=sum(work.cached_tokens for work in first.values()),
        )

    def _first_of_each_prompt(self, works: Mapping[int, Work]) -> dict[int, Work]:
        first: dict[int, Work] = {}
        for index, work in works.items():
            first.setdefault(self._prompt_of(index), work)
        return first

    def _prompt_of(self, index: int) -> int:
        return index // self._job.choices


def _with_chance_of_its_own(options: GenerationOptions, place: int) -> GenerationOptions:
    """The same for the answer in this place: with one seed for all they would all be the same."""
    if options.seed is None or not place:
        return options
    return replace(options, seed=(options.seed + place + _SEEDS // 2) % _SEEDS - _SEEDS // 2)


# ---- vectors


@dataclass(frozen=True)
class Embed:
    """A vector of each text, of token ids."""

    texts: tuple[tuple[int, ...], ...]
    pooling: str

    @property
    def prompt_tokens(self) -> int:
        """Of all texts together."""
        return sum(map(len, self.texts))

    @property
    def most_tokens(self) -> int:
        """Nothing is generated."""
        return 0

    @property
    def width(self) -> int:
        """Sessions that are open at once."""
        return min(VECTORS_AT_ONCE, len(self.texts))

    @traced("inference")
    async def begin(self, mesh: MeshLike, terms: Terms) -> Vectors:
        """Make them.

        Raises:
            FarError: what went wrong.
        """
        made = await mesh.embed(
            self.texts,
            pooling=self.pooling,
            price_units=terms.price_units,
            treatment=terms.treatment,
            pool=terms.pool,
        )
        work = replace(work_of(made), embedded=True)
        return Vectors(Embedded(tuple(map(tuple, made.vectors.tolist()))), work)


class Vectors:
    """Vectors that were made."""

    def __init__(self, made: Embedded, work: Work) -> None:
        self._made, self._work = made, work

    async def __aiter__(self) -> AsyncIterator[Embedded]:
        yield self._made

    async def finish(self) -> Done:
        """What was done."""
        return Done(self._work, ("stop",))
