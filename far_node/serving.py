"""One model on this node: what it offers, where its sessions compute, and how much cache there is for them."""

from __future__ import annotations

import enum

import torch

from discovery.protocol.announcement import Announcement
from discovery.protocol.codec import position_bytes
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import Open
from far_node.blocks.prefix import PrefixCache
from far_node.blocks.run import Blocks
from far_node.blocks.slots import SlotRows
from far_node.cache import CacheBudget, CacheCost
from far_node.errors import BlocksNotServed, Leaving, PriceTooLow, SessionTooLong
from far_node.executor import Executor, Place
from far_node.limits import Limits
from far_node.receipts import Signer


class Standing(enum.Enum):
    """Whether new sessions are taken."""

    READY = "ready"
    LEAVING = "leaving"


class Serving:
    """Blocks of one model, with the cache for their sessions. The device belongs to the executor."""

    def __init__(
        self,
        announcement: Announcement,
        blocks: Blocks,
        signer: Signer,
        executor: Executor,
        budget: CacheBudget,
        limits: Limits,
        context_length: int | None,
    ) -> None:
        self.announcement, self.blocks, self.signer = announcement, blocks, signer
        self.executor, self.budget, self.limits = executor, budget, limits
        self.context_length = context_length
        self.prefixes = PrefixCache(limits.prefix_cache_bytes)
        self.standing = Standing.READY

    @classmethod
    async def prepare(
        cls,
        announcement: Announcement,
        blocks: Blocks,
        signer: Signer,
        executor: Executor,
        *,
        cache_bytes: int,
        context_length: int | None,
        limits: Limits | None = None,
    ) -> Serving:
        """Compute a first step, which also tells what a position of cache takes, and be ready to serve.

        Args:
            context_length: the longest session that is taken; None: no bound.

        Raises:
            InvalidArgument: the cache budget does not hold one short session.
            ComputeFailed: the blocks do not compute; the log says why.
        """
        limits = limits or Limits()
        cost = await executor.run(lambda: measure_cache(blocks))
        budget = CacheBudget(cache_bytes, cost, rows_together=limits.max_batch_size, longest=context_length)
        least = cost.of(1, min(64, context_length or 64), (blocks.first, blocks.end))
        if least > cache_bytes:
            raise InvalidArgument(
                f"a cache of {cache_bytes} bytes does not hold one session of 64 positions, which takes {least}"
            )
        return cls(announcement, blocks, signer, executor, budget, limits, context_length)

    def check(self, opening: Open) -> None:
        """Whether a session can be served at all.

        Raises:
            BlocksNotServed: other blocks are asked for than are here.
            PriceTooLow: less is offered than the owner asks for.
            SessionTooLong: more positions than the context has.
            Leaving: no new sessions are taken.
        """
        about, longest = self.announcement, self.context_length
        if not about.first_block <= opening.first_block < opening.end_block <= about.end_block:
            asked = f"{opening.first_block}:{opening.end_block}"
            raise BlocksNotServed(f"blocks {asked} are asked for, {about.first_block}:{about.end_block} are here")
        if opening.price_units < about.price_units:
            offered = f"{opening.price_units} units are offered for 1,000 token-layers"
            raise PriceTooLow(f"{offered}, {about.price_units} are asked for")
        if longest is not None and opening.max_length > longest:
            raise SessionTooLong(
                f"{opening.max_length} positions are asked for, the longest session here has {longest}"
            )
        if self.standing is Standing.LEAVING:
            raise Leaving("this node is leaving and takes no new sessions")

    def admit(self, opening: Open, client: PeerId) -> Place:
        """Cache for a session, and all else that its steps need.

        Raises:
            Busy: the session's id is taken.
            OutOfCache: it does not fit now.
        """
        span = opening.first_block, opening.end_block
        lease = self.budget.admit(
            opening.session_id, opening.batch, opening.max_length, span, self._kept_bytes(opening)
        )
        alone = self.blocks.one_by_one is not None
        return Place(
            blocks=self.blocks,
            first=opening.first_block,
            end=opening.end_block,
            cache=self.blocks.new_cache() if alone else SlotRows(lease.slab, lease.first, lease.count),
            codec=opening.codec,
            client=client,
            priority=opening.priority,
            left_padding=opening.left_padding,
            prefixes=self.prefixes if self._keeps_prefixes(opening) else None,
        )

    def free(self, opening: Open, place: Place) -> None:
        """The session is over: no step of it runs any more, and its rows go to others."""
        place.closed = True
        self.budget.free(opening.session_id)
        if isinstance(place.cache, SlotRows):
            # before the next owner's first step; and memory is what is promised
            self.executor.soon(torch.inference_mode()(place.cache.clear))

    async def close(self) -> None:
        """Let go of the weights, when the device does not compute with them any more."""
        await self.executor.run(lambda: None)

    def _kept_bytes(self, opening: Open) -> int:
        """What was handed on is kept, for the case that the successor is lost."""
        each = position_bytes(opening.codec, self.blocks.hidden_size) if opening.next else 0
        return opening.batch * opening.max_length * each

    def _keeps_prefixes(self, opening: Open) -> bool:
        blocks = self.blocks
        return (
            self.prefixes.capacity_bytes > 0
            and blocks.one_by_one is None
            and not blocks.has_recurrent_state
            and opening.batch == 1
            and not any(opening.left_padding)
        )


def measure_cache(blocks: Blocks) -> CacheCost:
    """What a row of cache takes in each block, measured on two short runs, so it holds for every architecture."""
    one, two = (_cache_bytes(blocks, positions) for positions in (1, 2))
    per_position = tuple(max(1, more - less) for less, more in zip(one, two, strict=True))
    fixed = tuple(max(0, less - each) for less, each in zip(one, per_position, strict=True))
    return CacheCost(blocks.first, fixed, per_position)


def _cache_bytes(blocks: Blocks, positions: int) -> list[int]:
    cache = blocks.new_cache()
    hidden = torch.zeros(1, positions, blocks.hidden_size, device=blocks.device, dtype=blocks.dtype)
    blocks.run(hidden, cache, blocks.first, blocks.end)
    return cache.held_bytes()
