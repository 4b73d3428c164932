"""Which of the blocks that were noted has the chain given up?"""

from __future__ import annotations

from collections.abc import Sequence

from far_mesh.marketplace.chain.node import BlockId, Node


class BlockWatch:
    """Asks the chain as little as that takes: nothing but its newest block while that is the same, and once for each
    block while the chain only grows."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._newest: int | None = None
        self._head: BlockId | None = None
        self._kept: frozenset[BlockId] = frozenset()

    async def newest(self) -> int:
        """The number of the newest block that was seen, without asking anew."""
        if self._newest is None:
            self._newest = await self._node.block_number()
        return self._newest

    async def given_up(self, noted: Sequence[BlockId]) -> list[BlockId]:
        """Those of ``noted`` that are no part of the chain any more. They are said once: whoever asks writes down what
        follows from it, or calls :meth:`forget`."""
        if not noted:
            return []
        head = await self._node.head()
        if head == self._head:
            return []
        if self._head is not None and not await self._is_kept(self._head):
            self._kept = frozenset()
        gone = [block for block in noted if block not in self._kept and not await self._is_kept(block)]
        self._newest, self._head, self._kept = head.number, head, frozenset(noted) - frozenset(gone)
        return gone

    def forget(self) -> None:
        """Ask everything anew."""
        self._head, self._kept = None, frozenset()

    async def _is_kept(self, block: BlockId) -> bool:
        return await self._node.block_hash(block.number) == block.hash
