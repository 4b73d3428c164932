"""The mesh as the marketplace sees it. :class:`far_mesh.client.Mesh` fits; so does a small double in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from discovery.protocol.announcement import SignedAnnouncement
from far_mesh.config import GenerationOptions, MeshConfig, Treatment
from far_mesh.marketplace.sessions.schemas import Share, Work
from far_mesh.marketplace.settings import Settings

if TYPE_CHECKING:
    from far_mesh.contributions import Contribution

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or chat messages with ``role`` and ``content``."""


class TokenLike(Protocol):
    """A generated token; ``text`` may be empty while a character is incomplete."""

    @property
    def text(self) -> str: ...


class ProvenWork(Protocol):
    """What was verified: of a checkpoint, or of a result."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def contributions(self) -> tuple[Contribution, ...]: ...
    @property
    def expected_token_layers(self) -> int: ...


class ResultLike(ProvenWork, Protocol):
    """How a generation ended: ``stop``, ``length`` or ``stopped``."""

    @property
    def finish_reason(self) -> str: ...


class HopLike(Protocol):
    """A node of the route."""

    @property
    def wallet(self) -> str: ...


class GenerationLike(Protocol):
    """An answer in the making. ``finish`` before the end means: stop here."""

    @property
    def hops(self) -> Sequence[HopLike]: ...
    def __aiter__(self) -> AsyncIterator[TokenLike]: ...
    async def finish(self) -> ResultLike: ...


class MeshLike(Protocol):
    """A model that a swarm serves."""

    @property
    def model_digest(self) -> str: ...
    @property
    def block_count(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    def encode(self, prompt: Prompt, *, raw: bool = False) -> list[int]: ...
    async def nodes(self) -> list[SignedAnnouncement]: ...
    async def open(
        self,
        prompt_ids: Sequence[int],
        options: GenerationOptions,
        *,
        price_units: int = 0,
        treatment: Treatment = ...,
        on_checkpoint: Callable[[ProvenWork], Awaitable[None]] | None = None,
    ) -> GenerationLike: ...
    async def close(self) -> None: ...


@asynccontextmanager
async def swarm_meshes(settings: Settings) -> AsyncIterator[Mapping[str, MeshLike]]:
    """Join the swarm of the settings and open a mesh for every model on sale.

    Raises:
        MissingSetting: no initial peers.
        FarError: no peer answers, or a model cannot be loaded.
    """
    settings.require("initial_peers")
    from far_mesh.client import Mesh, Swarm  # torch and hivemind come along: only for those who serve

    async with AsyncExitStack() as stack:
        config = MeshConfig(prefix=settings.dht_prefix, geoip_db=settings.geoip_db, location=settings.location)
        swarm = await Swarm.join(settings.initial_peers, config)
        stack.push_async_callback(swarm.close)
        meshes: dict[str, MeshLike] = {}
        for offer in settings.models:
            mesh = await Mesh.over(swarm, offer.model, offer.model_id)
            stack.push_async_callback(mesh.close)
            meshes[offer.model_id] = mesh
        yield meshes


def work_of(proven: ProvenWork, completion_tokens: int | None = None) -> Work:
    """Verified work as the books keep it. ``completion_tokens``: how many the reader has got, when that is fewer."""
    shares = tuple(
        Share(
            wallet=one.wallet,
            node_id=one.peer_id,
            first_block=one.blocks[0],
            end_block=one.blocks[1],
            quantization=one.quantization,
            positions=one.positions,
            token_layers=one.token_layers,
            receipt=one.receipt.to_bytes().decode(),
        )
        for one in proven.contributions
    )
    tokens = proven.completion_tokens if completion_tokens is None else min(completion_tokens, proven.completion_tokens)
    return Work(proven.prompt_tokens, tokens, shares, proven.expected_token_layers, _cached_tokens(proven))


def _cached_tokens(proven: ProvenWork) -> int:
    """Tokens of the prompt that every node says it knew from before: the fewest that one of them tells."""
    known = (one.receipt.receipt.cached_positions for one in proven.contributions)
    return min(proven.prompt_tokens, min(known, default=0))
