"""What a machine could serve of a model, and earn by it. Pure: measured facts, prices and demand in, an estimate out.

Every estimate carries what it rests on. What is not known is None and says why: a number that was invented would be
taken for a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from discovery.protocol.announcement import Quantization
from far_node.capacity import Room, Wish, plan_blocks
from far_node.errors import DoesNotFit

BPS = 10_000


@dataclass(frozen=True)
class Serving:
    """How much of a model fits, and how fast it could be at most.

    Attributes:
        blocks: how many fit; 0: none.
        weight_bytes: that these take.
        tokens_per_second: of one session, if nothing took time but reading the weights from memory once for each token.
    """

    model_id: str
    quantization: Quantization
    blocks: int
    block_count: int
    weight_bytes: int
    tokens_per_second: float | None


@dataclass(frozen=True)
class Market:
    """What a gateway says of a model that is on sale there.

    Attributes:
        token_units: price of a token of an answer, in 1e-9 FAR.
        fee_bps: the marketplace's part of it, in basis points.
        utilisation: open requests for each that the swarm is reckoned to carry; above 1 they wait.
    """

    model_id: str
    token_units: int
    fee_bps: int
    utilisation: float
    active_nodes: int


@dataclass(frozen=True)
class Estimate:
    """Units of 1e-9 FAR in an hour, or why they are not known.

    Attributes:
        busy_units: of a node that is never idle.
        now_units: at the demand that there is at this moment.
        assumptions: what the numbers rest on.
    """

    busy_units: int | None
    now_units: int | None
    reason: str | None
    assumptions: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def could_serve(
    model_id: str, sizes: Mapping[Quantization, Sequence[int]], room: Room, bytes_per_second: float | None
) -> list[Serving]:
    """For each kind of weights, as many blocks as fit."""
    found = []
    for kind, blocks in sizes.items():
        try:
            plan = plan_blocks({kind: blocks}, Wish((kind,)), [room])
            first, end = plan.candidates[0]
        except DoesNotFit:
            first = end = 0
        weight = sum(blocks[first:end])
        speed = bytes_per_second / weight if bytes_per_second and weight else None
        found.append(Serving(model_id, kind, end - first, len(blocks), weight, speed))
    return found


def estimate(serving: Serving, market: Market | None) -> Estimate:
    """What a node that serves so much would earn in an hour by tokens of answers, one session at a time.

    A pass through all blocks is paid by the token; the nodes share it by the blocks that each has computed.
    """
    if not serving.blocks:
        return Estimate(None, None, "no block of it fits")
    if market is None:
        return Estimate(None, None, "no gateway that was asked sells it")
    if serving.tokens_per_second is None:
        return Estimate(None, None, "the speed of the memory was not measured")
    share = serving.blocks / serving.block_count * (BPS - market.fee_bps) / BPS
    busy = serving.tokens_per_second * 3600 * market.token_units * share
    used = min(1.0, market.utilisation)
    assumptions = (
        f"{serving.tokens_per_second:.1f} tokens/s: one session at a time, limited by memory alone; the network makes "
        "it slower, several sessions at once faster",
        f"{market.token_units} units for a token of an answer, of which {market.fee_bps / 100:g} % are the fee",
        f"{serving.blocks} of {serving.block_count} blocks earn that part of it",
        f"demand as at this moment: {100 * used:.0f} % of what {market.active_nodes} nodes can carry, shared evenly",
    )
    return Estimate(round(busy), round(busy * used), None, assumptions)
