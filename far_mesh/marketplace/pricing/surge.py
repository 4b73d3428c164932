"""Prices follow demand, in steps, and do not flutter. Pure.

The specification (section 6.2) multiplies by 1.2 above a utilisation of 0.5 and by 1.5 above 0.8. A price that has gone
up comes down only when the utilisation is :data:`BAND` below the step: one request more or less does not move it.
"""

from __future__ import annotations

from collections.abc import Sequence

from discovery.protocol.announcement import Announcement
from far_mesh.marketplace.ledger.split import BPS

STEPS = ((0.5, 12_000), (0.8, 15_000))
"""Utilisation above which, and by how many basis points of the price is asked."""
BAND = 0.05


def next_level(level: int, utilisation: float) -> int:
    """How many of :data:`STEPS` apply, when ``level`` applied before."""
    reached = sum(utilisation > above for above, _ in STEPS)
    kept = sum(utilisation > above - BAND for above, _ in STEPS)
    return max(reached, min(level, kept))


def multiplier_bps(level: int) -> int:
    """What the price is multiplied by, in basis points."""
    return STEPS[level - 1][1] if level else BPS


def raised(price_units: int, multiplier: int) -> int:
    """A price in units after its multiplier, rounded down."""
    return price_units * multiplier // BPS


def utilisation_of(
    open_requests: int, nodes: Sequence[Announcement], block_count: int, requests_per_node: int
) -> float:
    """Open requests for each that the swarm is reckoned to carry at once: every request needs all blocks, so the block
    that the fewest nodes serve decides. What nodes say of their own load is not asked: they earn by it."""
    served = [0] * block_count
    for node in nodes:
        for block in range(node.first_block, min(node.end_block, block_count)):
            served[block] += 1
    capacity = min(served, default=0) * requests_per_node
    return open_requests / capacity if capacity else float(open_requests > 0)
