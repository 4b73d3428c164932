"""The mesh as the marketplace sees it. :class:`far_mesh.client.Mesh` fits; so does a small double in a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from discovery.protocol.announcement import Announcement, Quantization, SignedAnnouncement
from discovery.protocol.oncall import Registration
from discovery.score import Observations, Outcome
from far_mesh.config import GenerationOptions, MeshConfig, Pool, Treatment
from far_mesh.marketplace.sessions.schemas import Share, Work
from far_mesh.marketplace.settings import Settings

if TYPE_CHECKING:
    from far_mesh.contributions import Contribution
    from far_mesh.costs import Known
    from far_mesh.model.tools import ToolFormat

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text, token ids, or chat messages with ``role`` and ``content``."""


class LogprobLike(Protocol):
    """A token, its bytes and its log probability."""

    @property
    def bytes(self) -> bytes: ...
    @property
    def logprob(self) -> float: ...


class TokenLike(Protocol):
    """A generated token; ``text`` may be empty while a character is incomplete. ``offset`` is how many characters of
    the answer stand before it. ``logprob`` and ``top``, best first, are there if they were asked for."""

    @property
    def text(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def logprob(self) -> LogprobLike | None: ...
    @property
    def top(self) -> Sequence[LogprobLike]: ...


class VerifiedWork(Protocol):
    """Work on a prompt that was verified."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def contributions(self) -> tuple[Contribution, ...]: ...
    @property
    def expected_token_layers(self) -> int: ...


class ProvenWork(VerifiedWork, Protocol):
    """What was verified of an answer: at a checkpoint, or of a result."""

    @property
    def completion_tokens(self) -> int: ...


class Numbers(Protocol):
    """A table of numbers."""

    def tolist(self) -> list[list[float]]: ...


class EmbeddingsLike(VerifiedWork, Protocol):
    """Vectors of texts, a row for each."""

    @property
    def vectors(self) -> Numbers: ...


class ResultLike(ProvenWork, Protocol):
    """How a generation ended: ``stop``, ``length`` or ``stopped``."""

    @property
    def finish_reason(self) -> str: ...


class GenerationLike(Protocol):
    """An answer in the making. ``finish`` before the end means: stop here. ``mended``: each loss of nodes that others
    have made up for."""

    @property
    def mended(self) -> Sequence[object]: ...
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
    def block_bytes(self, quantization: Quantization, device: str) -> Sequence[int]: ...
    @property
    def tool_format(self) -> ToolFormat | None: ...
    @property
    def tool_marks(self) -> Mapping[str, int]: ...
    def encode(
        self, prompt: Prompt, *, raw: bool = False, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    async def check(self, prompt_ids: Sequence[int], options: GenerationOptions) -> None: ...
    async def nodes(self) -> list[SignedAnnouncement]: ...
    async def present(self) -> list[SignedAnnouncement]: ...
    async def on_call(self) -> list[Registration]: ...
    def known(self, nodes: Sequence[Announcement]) -> Known: ...
    async def open(
        self,
        prompt_ids: Sequence[int],
        options: GenerationOptions,
        *,
        price_units: int = 0,
        treatment: Treatment = ...,
        pool: Pool | None = ...,
        on_checkpoint: Callable[[ProvenWork], Awaitable[None]] | None = None,
    ) -> GenerationLike: ...
    async def embed(
        self,
        texts: Sequence[Sequence[int]],
        *,
        pooling: Any = ...,
        price_units: int = 0,
        treatment: Treatment = ...,
        pool: Pool | None = ...,
    ) -> EmbeddingsLike: ...
    def watch(self, on_seen: Callable[[Sequence[str], Outcome, float], None]) -> None: ...
    def remember(self, seen: Mapping[str, Observations]) -> None: ...
    async def close(self) -> None: ...


@asynccontextmanager
async def swarm_meshes(settings: Settings) -> AsyncIterator[Mapping[str, MeshLike]]:
    """Join the swarm of the settings and open a mesh for every model on sale.

    Raises:
        MissingSetting: nobody to join through.
        FarError: no peer answers, a model cannot be loaded, or the invitation to a private swarm does not count.
    """
    entrance = settings.entrance()
    from far_mesh.client import Mesh, Swarm  # torch and hivemind come along: only for those who serve

    async with AsyncExitStack() as stack:
        config = MeshConfig(
            prefix=entrance.prefix,
            membership=entrance.membership,
            host_maddrs=settings.swarm_maddrs,
            geoip_db=settings.geoip_db,
            location=settings.location,
        )
        swarm = await Swarm.join(await entrance.peers(), config)
        stack.push_async_callback(swarm.close)
        meshes: dict[str, MeshLike] = {}
        for offer in settings.models:
            mesh = await Mesh.over(swarm, offer.model, offer.model_id)
            stack.push_async_callback(mesh.close)
            meshes[offer.model_id] = mesh
        yield meshes


def work_of(proven: VerifiedWork, completion_tokens: int = 0) -> Work:
    """Verified work as the books keep it, for so many tokens of an answer."""
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
    return Work(proven.prompt_tokens, completion_tokens, shares, proven.expected_token_layers, _cached_tokens(proven))


def _cached_tokens(proven: VerifiedWork) -> int:
    """Tokens of the prompt that every node says it knew from before: the fewest that one of them tells."""
    known = (one.receipt.receipt.cached_positions for one in proven.contributions)
    return min(proven.prompt_tokens, min(known, default=0))
