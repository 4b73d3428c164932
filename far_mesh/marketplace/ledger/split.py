"""Who gets what of a request's money: pure integers in, pure integers out.

The worked rule, in units of 1e-9 FAR:

1. gross = prompt tokens × prompt price + completion tokens × completion price, never more than what is held; prompt
   tokens that the nodes still knew from before have a price of their own;
2. pool = gross × (10000 - fee) / 10000, rounded down, is what the nodes can earn;
3. the pool is divided by token-layers over *all* work that was expected, with the largest-remainder method. Work that
   nobody could prove takes part in the division like a node, and its part goes back to the user, not to the others;
4. fee = paid × fee / (10000 - fee), rounded down: the escrow contract computes exactly this from what it pays out;
5. refund = held - paid - fee.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

BPS = 10_000
MAX_FEE_BPS = 3_000


class Sortable(Protocol):
    """What can name a payee: anything that can be compared with its like and hashed."""

    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


PayeeT = TypeVar("PayeeT", bound=Sortable)


@dataclass(frozen=True)
class Settlement(Generic[PayeeT]):
    """How ``held`` units are divided. ``held == sum(amounts) + fee + refund``, always."""

    held: int
    amounts: tuple[tuple[PayeeT, int], ...]
    fee: int
    refund: int

    @property
    def paid(self) -> int:
        """What the nodes get together, in units."""
        return sum(amount for _, amount in self.amounts)

    @property
    def cost(self) -> int:
        """What the user pays, in units."""
        return self.paid + self.fee


@dataclass(frozen=True)
class Prices:
    """What is frozen when money is held: units per token of the prompt, of the answer, and of the prompt where the
    nodes know it from before; and the platform's part in basis points of what the user pays."""

    prompt: int
    completion: int
    cached: int
    fee_bps: int


@dataclass(frozen=True)
class Tokens:
    """How many there were. ``cached`` are those of the prompt that the nodes knew from before."""

    prompt: int
    completion: int
    cached: int = 0


def price_of(tokens: Tokens, prices: Prices) -> int:
    """Units for so many tokens. With the most tokens there can be, and none known, it is what must be held."""
    known = min(tokens.cached, tokens.prompt)
    return (tokens.prompt - known) * prices.prompt + known * prices.cached + tokens.completion * prices.completion


def fee_on(paid: int, fee_bps: int) -> int:
    """The platform's fee on top of ``paid``, in units, so that it is ``fee_bps`` of both together, rounded down."""
    return paid * fee_bps // (BPS - fee_bps)


def settle(
    held: int, tokens: Tokens, prices: Prices, shares: Iterable[tuple[PayeeT, int]], expected_token_layers: int
) -> Settlement[PayeeT]:
    """Divide ``held`` units among those who did the work, the platform and the user.

    ``shares`` are payees with the token-layers that were verified for them, in any order; equal payees are one.
    ``expected_token_layers`` is all the work of the request, verified or not.

    Raises:
        ValueError: a negative number, or a fee above 30 %.
    """
    work = _merged(shares)
    _check(held, tokens.prompt, tokens.completion, tokens.cached, *work.values())
    _check(prices.prompt, prices.completion, prices.cached)
    if not 0 <= prices.fee_bps <= MAX_FEE_BPS:
        raise ValueError(f"a fee of {prices.fee_bps} basis points is not between 0 and {MAX_FEE_BPS}")
    gross = min(held, price_of(tokens, prices))
    pool = gross * (BPS - prices.fee_bps) // BPS
    payees = sorted(work)
    unproven = max(0, expected_token_layers - sum(work.values()))
    parts = divide(pool, [*(work[payee] for payee in payees), unproven])
    amounts = tuple((payee, part) for payee, part in zip(payees, parts[:-1], strict=True) if part)
    paid = sum(part for _, part in amounts)
    fee = fee_on(paid, prices.fee_bps)
    return Settlement(held, amounts, fee, held - paid - fee)


def divide(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in whole parts by weight: everyone gets the floor, the largest remainders get the units left over.

    Equal remainders are served in order. With no weight at all the last one gets everything.
    """
    whole = sum(weights)
    if whole == 0:
        return [0] * (len(weights) - 1) + [total]
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -(total * weights[index] % whole))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def _merged(shares: Iterable[tuple[PayeeT, int]]) -> dict[PayeeT, int]:
    work: dict[PayeeT, int] = defaultdict(int)
    for payee, token_layers in shares:
        work[payee] += token_layers
    return dict(work)


def _check(*numbers: int) -> None:
    if min(numbers) < 0:
        raise ValueError("amounts, tokens and token-layers are never negative")
