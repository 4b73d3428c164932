"""Whether an answer is right. Pure: distances between hidden states in, verdicts out.

What blocks give is compared by what they *change*: a block adds to what comes in, so that an answer that is nothing but
the question is near the right one by every measure of likeness of the whole (cosines above 0.9). The distance of an
answer from the right one is therefore measured in lengths of the change, for each position: 0 is the same, 1 is what
one has who does nothing at all.

Right nodes do not agree to the last bit: types and kernels differ, and more so the forms of weights. How far they may
be apart was measured (benchmarks/README.md, "Probing"), and is not to be met in every position: where a mixture of
experts chooses anew, a single one may be far off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from discovery.probe.observation import Verdict

TOLERANCE: Final = 0.1
"""How far apart answers of weights of the same form may be."""
COARSE_TOLERANCE: Final = 0.4
"""Of different forms."""
RIGHT_SHARE = 0.75
"""Of the positions, so many must be within the tolerance."""
FEWEST_OWNERS = 3


@dataclass(frozen=True)
class Answer:
    """An answer to be compared with others. ``owner`` is who is paid for it: several nodes of one have one voice."""

    peer_id: str
    owner: str
    quantization: str


def tolerance(one: str, other: str) -> float:
    """How far apart answers of weights of these forms may be."""
    return TOLERANCE if one == other else COARSE_TOLERANCE


def is_right(distances: Sequence[float], allowed: float) -> bool:
    """Whether an answer with these distances, one for each position, is right. What is no number is not."""
    if not distances:
        return False
    near = sum(math.isfinite(one) and one <= allowed for one in distances)
    return near >= RIGHT_SHARE * len(distances)


def typical(distances: Sequence[float]) -> float:
    """The distance that half of the positions are within; infinite where it is no number."""
    known = sorted(one if math.isfinite(one) else math.inf for one in distances)
    return known[(len(known) - 1) // 2] if known else math.inf


def by_majority(answers: Sequence[Answer], distances: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, Verdict]:
    """Verdicts on answers to the same question, by what most of their owners agree on.

    Args:
        distances: between each two answers (both orders), by peer ids, for each position.

    Returns:
        By peer id. Right is who agrees with the answer that more than half of all owners agree with, at least
        :data:`FEWEST_OWNERS` of them having answered; everybody is undecided where there is no such answer.
    """
    owners = {one.owner for one in answers}

    def agree(one: Answer, other: Answer) -> bool:
        if one.peer_id == other.peer_id:
            return True
        return is_right(distances[one.peer_id, other.peer_id], tolerance(one.quantization, other.quantization))

    agreeing = {one.peer_id: [other for other in answers if agree(one, other)] for one in answers}
    voices = {peer_id: len({other.owner for other in those}) for peer_id, those in agreeing.items()}
    best = max(voices, key=lambda peer_id: (voices[peer_id], len(agreeing[peer_id])), default=None)
    if best is None or len(owners) < FEWEST_OWNERS or 2 * voices[best] <= len(owners):
        return {one.peer_id: Verdict.UNDECIDED for one in answers}
    right = {other.peer_id for other in agreeing[best]}
    return {one.peer_id: Verdict.RIGHT if one.peer_id in right else Verdict.WRONG for one in answers}


def block_ms_of(step_seconds: Sequence[float], round_trip_ms: float, blocks: int) -> float | None:
    """Milliseconds that a token takes in a block: the lower quartile of some steps of one token, without the way.

    It is no more than a bound from above: a step may have waited for its turn. None: none was timed.
    """
    if not step_seconds:
        return None
    quick = sorted(step_seconds)[(len(step_seconds) - 1) // 4]
    return max(0.0, 1000.0 * quick - round_trip_ms) / blocks
