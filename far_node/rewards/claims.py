"""Which of the payout roots to claim from: each promises all that came before it, so one claim takes everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from far_node.rewards.amounts import WEI_PER_UNIT
from far_node.rewards.answers import Claim
from far_node.rewards.chain import Escrow
from far_node.rewards.check import claim_is_proven
from far_node.rewards.errors import NotProven


@dataclass(frozen=True)
class Takeable:
    """A claim that the escrow would take now, and what it brings, in wei."""

    claim: Claim
    wei: int

    @property
    def units(self) -> int:
        """What it brings, in units."""
        return self.wei // WEI_PER_UNIT

    @property
    def cumulative_wei(self) -> int:
        """All that roots ever gave, this one included."""
        return self.claim.cumulative_units * WEI_PER_UNIT

    @property
    def proof(self) -> list[bytes]:
        """As the contract takes it."""
        return [bytes.fromhex(one[2:]) for one in self.claim.proof]


@dataclass(frozen=True)
class Nothing:
    """There is nothing to claim now. ``claimable_at`` is when there will be, in ISO 8601, if that is known."""

    claimable_at: str | None = None

    @property
    def sentence(self) -> str:
        """In words."""
        return "there is nothing to claim" + (f" before {self.claimable_at}" if self.claimable_at else "")


def best_claim(escrow: Escrow, wallet: str, claims: Iterable[Claim]) -> Takeable | Nothing:
    """The claim that brings the most now.

    Raises:
        NotProven: its proof does not lead to the root on chain; sending it would only cost gas.
        FarError: the chain cannot be asked.
    """
    claimed, now = escrow.claimed_of(wallet), escrow.time()
    later: list[int] = []
    for claim in sorted(claims, key=lambda one: one.cumulative_units, reverse=True):
        wei = claim.cumulative_units * WEI_PER_UNIT - claimed
        if wei <= 0:
            break
        root = escrow.root_of(claim.epoch)
        if root.claimable_at > now:
            later.append(root.claimable_at)
        elif root.claimable_at:
            if not claim_is_proven(claim, wallet, root.root):
                raise NotProven(f"the proof for epoch {claim.epoch} does not lead to its root on chain")
            return Takeable(claim, wei)
    return Nothing(datetime.fromtimestamp(min(later), UTC).isoformat() if later else None)
