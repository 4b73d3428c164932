"""Vectors of texts: the last hidden states of a model, pooled.

Each text is one step of a session of its own, some texts at once. So nothing is padded, whatever the architecture makes
of padding; nodes that can compute several sessions in one pass do; and what is paid is the texts' own tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.messages import WireTensor
from far_mesh.contributions import Contribution, Verified
from far_mesh.session import MeshSession
from far_node.blocks.wire import to_wire

Pooling = Literal["mean", "last", "cls"]
"""What of the hidden states (positions, size) becomes the vector: their mean, the last one, or the first one.

In a model that attends to what stands before only, the first position knows of its own token and no other.
"""

_TEXTS_AT_ONCE = 8


@dataclass(frozen=True)
class Embeddings:
    """Vectors (texts, size) in float32, in the order of the texts, and who is owed for them."""

    vectors: Tensor
    prompt_tokens: int
    contributions: tuple[Contribution, ...]
    rejected: tuple[FarError, ...]
    expected_token_layers: int


class Ends(Protocol):
    """The two ends of a model for one text, in a thread of their own."""

    @property
    def needs_all(self) -> bool: ...
    async def embed(self, ids: Sequence[int], start: int) -> Tensor: ...
    async def pooled(self, answer: WireTensor, start: int, pooling: Pooling) -> Tensor: ...


@dataclass(frozen=True)
class _Embedded:
    vector: Tensor
    verified: Verified
    expected_token_layers: int


def check_pooling(pooling: str) -> None:
    """Check that there is such a way to pool.

    Raises:
        InvalidArgument: there is none.
    """
    if pooling not in get_args(Pooling):
        raise InvalidArgument(f"{pooling!r} is not one of {', '.join(get_args(Pooling))}", param="pooling")


def pool(hidden: Tensor, pooling: Pooling) -> Tensor:
    """A vector (size) of hidden states (positions, size), in float32."""
    states = hidden.float()
    if pooling == "mean":
        return states.mean(dim=0)
    return states[-1] if pooling == "last" else states[0]


async def embed_texts(
    texts: Sequence[Sequence[int]],
    open_session: Callable[[int], Awaitable[MeshSession]],
    ends_for: Callable[[int], Ends],
    pooling: Pooling,
    *,
    normalize: bool,
) -> Embeddings:
    """One vector for each text.

    Args:
        texts: token ids.
        open_session: for so many positions.
        ends_for: the model's ends, for a text of so many positions.
        normalize: make the vectors one long.

    Raises:
        FarError: what went wrong with the first of the texts that failed, which is named; ``facts["texts"]`` has the
            error of each of them by its place. The others have been made for nothing.
    """
    gate = asyncio.Semaphore(_TEXTS_AT_ONCE)

    async def embed(ids: Sequence[int]) -> _Embedded:
        async with gate:
            return await _embed(await open_session(len(ids)), ends_for(len(ids)), ids, pooling)

    done = await _all_or_errors([asyncio.create_task(embed(ids)) for ids in texts])
    vectors = torch.stack([one.vector for one in done])
    return Embeddings(
        vectors=torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors,
        prompt_tokens=sum(len(ids) for ids in texts),
        contributions=tuple(paid for one in done for paid in one.verified.contributions),
        rejected=tuple(error for one in done for error in one.verified.rejected),
        expected_token_layers=sum(one.expected_token_layers for one in done),
    )


async def _all_or_errors(tasks: Sequence[asyncio.Task[_Embedded]]) -> list[_Embedded]:
    """What all of them have made. Whatever is no failure of ours ends all of them at once."""
    try:
        await asyncio.gather(*map(_failing_quietly, tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    failed = {place: error for place, task in enumerate(tasks) if isinstance(error := task.exception(), FarError)}
    if failed:
        place, error = next(iter(failed.items()))
        raise type(error)(f"text {place}: {error.message}", **(error.facts | {"texts": failed})) from error
    return [task.result() for task in tasks]


async def _failing_quietly(task: asyncio.Task[_Embedded]) -> None:
    with suppress(FarError):
        await task


async def _embed(session: MeshSession, ends: Ends, ids: Sequence[int], pooling: Pooling) -> _Embedded:
    try:
        wire = to_wire(await ends.embed(ids, 0), session.asked.codec)
        answer = await session.step(wire, 0, keep=1 if pooling == "last" and not ends.needs_all else 0)
        vector = await ends.pooled(answer, len(ids) - answer.shape[1], pooling)
    except BaseException:
        await session.abandon()
        raise
    return _Embedded(vector, await session.finish(), session.expected_token_layers)
