"""A small mesh in memory: three nodes, eight blocks, an answer known beforehand. It fits ``MeshLike``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from discovery.protocol.announcement import Announcement, Quantization, SignedAnnouncement
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.oncall import Registration, register
from discovery.protocol.receipt import SignedReceipt, sign_receipt
from discovery.score import Observations, Outcome
from far_mesh.config import GenerationOptions, Pool, Treatment
from far_mesh.contributions import Contribution
from far_mesh.costs import Known
from far_mesh.marketplace.inference.meshes import MeshLike, Prompt, ProvenWork
from far_mesh.marketplace.settings import Settings
from far_mesh.model.tools import Tool, ToolFormat
from tests.support.documents import DIGEST, key_of, peer_of, receipt, signed_announcement, wallet_of

MODEL = "tiny"
BLOCKS = 8
CONTEXT = 64
BLOCK_BYTES: Mapping[Quantization, int] = {"none": 4_000_000_000, "int8": 2_000_000_000, "nf4": 1_000_000_000}
STORY = ("Once", " upon", " a", " time", " a", " brave", " rabbit", " sold", " its", " graphics", " card", ".")


@dataclass(frozen=True)
class Node:
    """A node of the double."""

    name: str
    blocks: tuple[int, int]
    quantization: str = "none"
    region: str | None = None
    owner: str | None = None
    state: str = "ready"
    reached: str | None = None

    @property
    def wallet(self) -> str:
        """Where it is paid."""
        return self.owner or wallet_of(self.name)

    @property
    def peer_id(self) -> str:
        """Who it is."""
        return peer_of(self.name)

    def announcement(self) -> SignedAnnouncement:
        """What it says of itself."""
        first, end = self.blocks
        return signed_announcement(
            self.name,
            first_block=first,
            end_block=end,
            quantization=self.quantization,
            region=self.region,
            wallet=self.wallet,
            state=self.state,
            reached=self.reached,
            sessions=10_000,
        )

    def proof(self, positions: int, cached: int = 0, *, session: int = 0) -> Contribution:
        """A receipted contribution to the session with this number."""
        first, end = self.blocks
        layers = positions * (end - first)
        known = min(cached, positions)
        body = receipt(
            self.name,
            wallet=self.wallet,
            first_block=first,
            end_block=end,
            quantization=self.quantization,
            positions=positions,
            token_layers=layers,
            cached_positions=known,
            session_id=f"{session:032x}",
        )
        signed: SignedReceipt = sign_receipt(body, key_of(self.name))
        return Contribution(self.peer_id, self.wallet, self.blocks, self.quantization, positions, layers, signed)


NODES = (Node("ann", (0, 3)), Node("bob", (3, 6), "int8"), Node("cid", (6, 8)))


@dataclass(frozen=True)
class Told:
    """A token's log probability."""

    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class Piece:
    """A token."""

    id: int
    text: str
    offset: int = 0
    logprob: Told | None = None
    top: tuple[Told, ...] = ()


@dataclass(frozen=True)
class Proven:
    """A checkpoint."""

    prompt_tokens: int
    completion_tokens: int
    contributions: tuple[Contribution, ...]
    expected_token_layers: int


@dataclass(frozen=True)
class Ended(Proven):
    """A result."""

    finish_reason: str


@dataclass(frozen=True)
class Embeddings:
    """Vectors."""

    prompt_tokens: int
    contributions: tuple[Contribution, ...]
    expected_token_layers: int
    vectors: np.ndarray[Any, Any]


class Turnstile(asyncio.Event):
    """A gate that lets so many tokens through as somebody says."""

    def __init__(self) -> None:
        super().__init__()
        self._permits = asyncio.Semaphore(0)

    async def wait(self) -> Literal[True]:
        """Until one more may pass."""
        await self._permits.acquire()
        return True

    def let_through(self, loop: asyncio.AbstractEventLoop, tokens: int) -> None:
        """So many more, from any thread."""
        for _ in range(tokens):
            loop.call_soon_threadsafe(self._permits.release)


@dataclass
class MeshDouble:
    """Behaves as its fields say. ``gate`` holds every token back until it is set."""

    story: Sequence[str] = STORY
    serving: tuple[Node, ...] = NODES
    sleeping: tuple[Node, ...] = ()
    broken_off: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    cached: tuple[int, ...] = ()
    checkpoint_every: int = 4
    refuse_to_open: FarError | None = None
    break_at: int | None = None
    mended: tuple[object, ...] = ()
    breaks_with: BaseException = field(default_factory=lambda: FarError("a node was lost"))
    gate: asyncio.Event | None = None
    model_digest: str = DIGEST
    block_count: int = BLOCKS
    context_length: int = CONTEXT
    asked: list[tuple[tuple[int, ...], GenerationOptions]] = field(default_factory=list)
    treatments: list[Treatment] = field(default_factory=list)
    pools: list[Pool | None] = field(default_factory=list)
    listeners: list[Callable[[Sequence[str], Outcome, float], None]] = field(default_factory=list)
    remembered: Mapping[str, Observations] = field(default_factory=dict)
    generations: list[GenerationDouble] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    told_tools: list[Sequence[Tool] | None] = field(default_factory=list)
    tool_format: ToolFormat | None = None
    tool_marks: Mapping[str, int] = field(default_factory=dict)
    refuse_options: FarError | None = None
    knows: Known = Known()  # noqa: RUF009  # a frozen value

    def block_bytes(self, quantization: Quantization, device: str) -> tuple[int, ...]:
        """Made up: the finer the larger."""
        return (BLOCK_BYTES[quantization],) * self.block_count

    def encode(
        self, prompt: Prompt, *, raw: bool = False, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """One token per word; ids as they are."""
        self.prompts.append(prompt)
        self.told_tools.append(tools)
        if tools is not None and self.tool_format is None:
            raise InvalidArgument("this model's chat template knows of no tools", param="tools")
        said = [prompt] if isinstance(prompt, str) else [one for one in prompt if not isinstance(one, int)]
        if not isinstance(prompt, str) and not said:
            return [one for one in prompt if isinstance(one, int)]
        text = " ".join(one if isinstance(one, str) else one["content"] for one in said)
        return [sum(word.encode()) for word in text.split()] + ([] if raw else [1])

    def decode(self, ids: Sequence[int]) -> str:
        """A word for each."""
        return " ".join(f"<{one}>" for one in ids)

    async def check(self, prompt_ids: Sequence[int], options: GenerationOptions) -> None:
        """Nothing is wrong, or what was set to be."""
        if self.refuse_options is not None:
            raise self.refuse_options

    async def nodes(self) -> list[SignedAnnouncement]:
        """Who serves."""
        return [node.announcement() for node in self.serving]

    async def present(self) -> list[SignedAnnouncement]:
        """Those who have not broken off."""
        return [node.announcement() for node in self.serving if node.name not in self.broken_off]

    async def on_call(self) -> list[Registration]:
        """Who sleeps."""
        later = int(time.time()) + 3600
        known = [(node.name, node.announcement().announcement) for node in self.sleeping]
        return [register(about, key_of(name), "https://x/wake", later).registration for name, about in known]

    def known(self, nodes: Sequence[Announcement]) -> Known:
        """What was set to be."""
        return self.knows

    async def open(
        self,
        prompt_ids: Sequence[int],
        options: GenerationOptions,
        *,
        price_units: int = 0,
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
        pool: Pool | None = None,
        on_checkpoint: Callable[[ProvenWork], Awaitable[None]] | None = None,
    ) -> GenerationDouble:
        """A route, or what was set to stand in the way."""
        self.pools.append(pool)
        if self.refuse_to_open is not None:
            raise self.refuse_to_open
        self.serving, self.sleeping = self.serving + self.sleeping, ()  # whoever sleeps is woken
        self.asked.append((tuple(prompt_ids), options))
        self.treatments.append(treatment)
        generation = GenerationDouble(self, len(prompt_ids), options, on_checkpoint)
        self.generations.append(generation)
        return generation

    async def embed(
        self,
        texts: Sequence[Sequence[int]],
        *,
        pooling: Any = "mean",
        price_units: int = 0,
        treatment: Treatment = Treatment(),  # noqa: B008  # a frozen value
        pool: Pool | None = None,
    ) -> Embeddings:
        """For each text how long it is, and which way it was pooled."""
        self.pools.append(pool)
        if self.refuse_to_open is not None:
            raise self.refuse_to_open
        positions = sum(map(len, texts))
        proofs = tuple(node.proof(positions) for node in self.serving if node.name not in self.unproven)
        vectors = np.array([[len(text), ("mean", "last", "cls").index(pooling)] for text in texts], dtype=np.float32)
        return Embeddings(positions, proofs, positions * BLOCKS, vectors)

    def watch(self, on_seen: Callable[[Sequence[str], Outcome, float], None]) -> None:
        """Somebody wants to know who fails."""
        self.listeners.append(on_seen)

    def remember(self, seen: Mapping[str, Observations]) -> None:
        """Somebody says what was seen of nodes."""
        self.remembered = seen

    async def close(self) -> None:
        """Nothing to close."""


class GenerationDouble:
    """An answer in the making."""

    def __init__(
        self,
        mesh: MeshDouble,
        prompt_tokens: int,
        options: GenerationOptions,
        on_checkpoint: Callable[[ProvenWork], Awaitable[None]] | None,
    ) -> None:
        self._mesh, self._prompt_tokens, self._options = mesh, prompt_tokens, options
        self._on_checkpoint = on_checkpoint
        self._number = len(mesh.generations)
        self._done = 0
        self._reason = "stopped"
        self.finished = False

    @property
    def mended(self) -> tuple[object, ...]:
        """What was set to be lost."""
        return self._mesh.mended

    @property
    def hops(self) -> tuple[Node, ...]:
        """The route."""
        return self._mesh.serving

    async def __aiter__(self) -> AsyncIterator[Piece]:
        length = min(self._options.max_tokens, len(self._mesh.story))
        for index in range(length):
            if self._mesh.gate is not None:
                await self._mesh.gate.wait()
            if index == self._mesh.break_at:
                raise self._mesh.breaks_with
            self._done += 1
            if self._done == length:
                self._reason = "length" if length < len(self._mesh.story) else "stop"
            yield self._piece(index)
            if self._on_checkpoint is not None and self._done % self._mesh.checkpoint_every == 0:
                await self._on_checkpoint(self._proven())

    def _piece(self, index: int) -> Piece:
        story, wanted = self._mesh.story, self._options.logprobs
        piece = Piece(index, story[index], offset=sum(map(len, story[:index])))
        if wanted is None:
            return piece
        top = tuple(Told(story[place % len(story)].encode(), -1.0 - place) for place in range(wanted))
        return replace(piece, logprob=Told(story[index].encode(), -0.5), top=top)

    async def finish(self) -> Ended:
        """The end, here."""
        self.finished = True
        proven = self._proven()
        return Ended(
            proven.prompt_tokens,
            proven.completion_tokens,
            proven.contributions,
            proven.expected_token_layers,
            self._reason,
        )

    def _proven(self) -> Proven:
        positions = self._prompt_tokens + self._done - 1 if self._done else 0
        proofs = tuple(
            node.proof(positions, cached, session=self._number)
            for node, cached in zip_longest(self._mesh.serving, self._mesh.cached, fillvalue=0)
            if isinstance(node, Node) and node.name not in self._mesh.unproven and positions
        )
        return Proven(self._prompt_tokens, self._done, proofs, positions * BLOCKS)


def meshes_of(mesh: MeshLike) -> Callable[[Settings], object]:
    """What ``create_app`` takes in place of a swarm."""

    @asynccontextmanager
    async def opened(_settings: Settings) -> AsyncIterator[Mapping[str, MeshLike]]:
        yield {MODEL: mesh}

    return opened
