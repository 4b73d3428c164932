"""How far a node is trusted, from 0 to 1, by what others have seen of it and never by what it says. Pure.

:func:`score_of` multiplies four parts, each from 0 to 1 and none of them better for worse news:

* **dependability**: the mean of a Beta distribution, ``(1 + good) / (2 + good + bad)``, where good is work that was
  completed and bad what failed, timed out, or left others waiting for a replacement (a pause); the rule of succession
  of Laplace (1814), as a reputation A. Jøsang and R. Ismail, "The Beta Reputation System" (2002). Of whom nothing was
  seen it is one half: neither trusted nor shut out.
* **honesty**: ``(4 + right) / (4 + right + 8 wrong)``, where right and wrong are answers of which the right one was
  known (probes); verified work is a tenth of a right one, and receipts that contradict what was seen are wrong. Who was
  never caught is honest; wrong answers weigh more than failures, as nobody notices most of them. Right ones count up to
  40, so that nobody can save up for lies.
* **presence**: how much of the time it was there, ``(4 + hours there) / (4 + hours since it was first seen)``; 1 where
  nobody has watched. Hours count for a week at most.
* **standing**: an identity costs nothing, and who has lost its good name can come back as somebody else. Work can be
  made up between accomplices, and time cannot: ``1 - 0.05 · 2^(-age / 1 h)``, so that nobody passes for reliable
  (0.95) at once. Where a newcomer counts one half, who has earned 0.9 loses by starting again.

What was seen is forgotten exponentially (:data:`HALF_LIFE_SECONDS`), bad and good alike: a node that has been mended is
trusted again after some weeks of work, and one that only waits comes back to what a stranger is. Counts are kept in a
form in which nobody has to read them to add to them: see :func:`grown`.

A score is no protection against many identities of one owner who all behave well until a day that they have chosen.
What it bounds is what a lie gains before it is seen; work is verified and paid by the piece, so that nothing is earned
by being trusted alone. A wallet's stake (``contracts/FarStaking.sol``) can be taken for a proven lie; it buys no score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum

HALF_LIFE_SECONDS = 7 * 86400.0
"""After so long what was seen counts half."""
EPOCH = 1_767_225_600.0
"""The first second of 2026 (Unix): counts that grow are in units of that day (:func:`grown`)."""
HONEST_ENOUGH = 0.5
"""Who is less honest is not used at all: no answer is better than a wrong one."""
WRONG_WEIGHT = 8.0
COMPLETED_WEIGHT, MOST_RIGHT = 0.1, 40.0
NEWCOMERS_DISCOUNT, NEWCOMER_SECONDS = 0.05, 3600.0
WATCHED_HOURS = 168.0
_PRIOR_GOOD = _PRIOR_BAD = 1.0
_PRIOR_HONEST = 4.0
_PRIOR_HOURS = 4.0
_GOOD_ASSUMED = 5.0
_WORTH_SAYING = 0.005  # of a score


class Outcome(StrEnum):
    """What came of work at a node. COMPLETED: its receipts were verified. FAILED: it could not be reached, refused
    without being full, or broke off before the work began. TIMED_OUT: it did not answer in time. PAUSED: it was lost in
    the middle, and others waited until it was replaced. REJECTED: its receipts contradict what was seen."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    PAUSED = "pauses_caused"
    REJECTED = "receipts_rejected"


@dataclass(frozen=True)
class Observations:
    """What was seen of a node. Counts are at least 0 and may be fractions: what is older counts less.

    Attributes:
        completed, failed, timed_out, pauses_caused, receipts_rejected: see :class:`Outcome`.
        probes_right: known computations that it answered rightly; ``probes_wrong``: wrongly.
        uptime: share of the time since it was first seen that it was there, from 0 to 1; None: nobody has watched.
        age: seconds since it was first seen.
    """

    completed: float = 0.0
    failed: float = 0.0
    timed_out: float = 0.0
    pauses_caused: float = 0.0
    receipts_rejected: float = 0.0
    probes_right: float = 0.0
    probes_wrong: float = 0.0
    uptime: float | None = None
    age: float = 0.0

    def __post_init__(self) -> None:
        for name in COUNTS:
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} is {value}")
        if self.uptime is not None and not 0 <= self.uptime <= 1:
            raise ValueError(f"uptime is {self.uptime}")
        if not self.age >= 0:
            raise ValueError(f"age is {self.age}")

    @property
    def anything(self) -> bool:
        """Whether anything was seen but that it is there."""
        return any(getattr(self, name) for name in COUNTS)

    def faded(self, seconds: float, half_life: float = HALF_LIFE_SECONDS) -> Observations:
        """The same after ``seconds`` in which nothing was seen. Age and uptime are as they were."""
        left = remembered(seconds, half_life)
        return self._with({name: getattr(self, name) * left for name in COUNTS})

    def at_most(self, work: float) -> Observations:
        """With as much work as that at most, what came of it scaled down alike; whether answers and receipts were right
        counts as it did."""
        bad = self.failed + self.timed_out + self.pauses_caused
        share = work / max(self.completed + bad, work)
        scaled = ("completed", "failed", "timed_out", "pauses_caused")
        return self._with({name: getattr(self, name) * share for name in scaled})

    def plus(self, outcome: Outcome, times: float = 1.0) -> Observations:
        """With an outcome more."""
        return self._with({outcome.value: getattr(self, outcome.value) + times})

    def __add__(self, other: Observations) -> Observations:
        """What two have seen of the same node, each other things. The longer age counts, and its uptime."""
        longer, shorter = (self, other) if self.age >= other.age else (other, self)
        uptime = shorter.uptime if longer.uptime is None else longer.uptime
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Observations(**counts, uptime=uptime, age=longer.age)

    def _with(self, changes: dict[str, float]) -> Observations:
        counts = {name: getattr(self, name) for name in COUNTS} | changes
        return Observations(**counts, uptime=self.uptime, age=self.age)


COUNTS = tuple(field.name for field in fields(Observations) if field.name not in ("uptime", "age"))
"""The attributes of :class:`Observations` that are counts."""


@dataclass(frozen=True)
class Score:
    """A score and the parts of which it is the product (:mod:`discovery.score`), all from 0 to 1."""

    dependability: float
    honesty: float
    presence: float
    standing: float

    @property
    def value(self) -> float:
        """The score."""
        return self.dependability * self.honesty * self.presence * self.standing

    @property
    def is_honest_enough(self) -> bool:
        """Whether it may be used at all."""
        return self.honesty >= HONEST_ENOUGH


def score_of(seen: Observations) -> Score:
    """The score of what was seen."""
    bad = seen.failed + seen.timed_out + seen.pauses_caused
    wrong = seen.probes_wrong + seen.receipts_rejected
    hours = min(seen.age / 3600.0, WATCHED_HOURS)
    right = _PRIOR_HONEST + min(seen.probes_right + COMPLETED_WEIGHT * seen.completed, MOST_RIGHT)
    there = hours if seen.uptime is None else seen.uptime * hours
    return Score(
        dependability=(_PRIOR_GOOD + seen.completed) / (_PRIOR_GOOD + _PRIOR_BAD + seen.completed + bad),
        honesty=right / (right + WRONG_WEIGHT * wrong),
        presence=(_PRIOR_HOURS + there) / (_PRIOR_HOURS + hours),
        standing=1.0 - NEWCOMERS_DISCOUNT * math.exp2(-seen.age / NEWCOMER_SECONDS),
    )


def chance_of_loss(seen: Observations) -> float:
    """The chance that work at a node is broken off, to weigh a route: ``bad / (bad + good + 5)``. Other than in a score
    a stranger counts as one who never failed, or nobody would ever try him.
    """
    bad = seen.failed + seen.timed_out + seen.pauses_caused
    return bad / (bad + seen.completed + _GOOD_ASSUMED)


def what_helps(seen: Observations) -> tuple[str, ...]:
    """What takes most of a score, and what the owner of the node can do about it: a sentence each, the worst first."""
    score = score_of(seen)
    good, bad = _PRIOR_GOOD + seen.completed, seen.failed + seen.timed_out + seen.pauses_caused
    wrong = seen.receipts_rejected + seen.probes_wrong
    found = [(share * bad / (good + _PRIOR_BAD + bad), sentence) for share, sentence in _broken_off(seen, bad)]
    found += [(share * (1.0 - score.honesty), sentence) for share, sentence in _not_true(seen, wrong)]
    found.append((_PRIOR_BAD / (good + _PRIOR_BAD + bad), "not much was seen of it yet: every request done adds to it"))
    found.append((1.0 - score.presence, "it was not always there: let it run on, and stop it with far-node stop"))
    found.append((1.0 - score.standing, "it is in its first hours: that passes by itself"))
    return tuple(sentence for lost, sentence in sorted(found, key=lambda one: -one[0]) if lost >= _WORTH_SAYING)


def _broken_off(seen: Observations, bad: float) -> list[tuple[float, str]]:
    if not bad:
        return []
    return [
        (
            seen.failed / bad,
            "it could not be reached, refused or broke off: far-node doctor looks at ports, memory and clock",
        ),
        (
            seen.timed_out / bad,
            "its answers came too late: fewer blocks or fewer sessions at once (--num-blocks, --max-sessions)",
        ),
        (
            seen.pauses_caused / bad,
            "it was lost in the middle of texts, and others waited: far-node stop lets sessions end first",
        ),
    ]


def _not_true(seen: Observations, wrong: float) -> list[tuple[float, str]]:
    if not wrong:
        return []
    return [
        (
            seen.receipts_rejected / wrong,
            "its receipts contradict what was seen: run the newest version, unchanged",
        ),
        (
            seen.probes_wrong / wrong,
            "its answers to questions with a known answer were wrong: load the weights anew, and test the memory",
        ),
    ]


def remembered(seconds: float, half_life: float = HALF_LIFE_SECONDS) -> float:
    """What is left of a count after ``seconds``, from 0 to 1."""
    return math.exp2(-max(seconds, 0.0) / half_life)


def grown(unix_seconds: float, half_life: float = HALF_LIFE_SECONDS) -> float:
    """What one event at that time is to be counted as, so that sums of such counts, times ``1 / grown(now)``, are what
    is remembered now: forward decay (G. Cormode, V. Shkapenyuk, D. Srivastava, B. Xu, ICDE 2009). Whoever adds needs
    neither the sum nor the time of the last event, so that a database can add by itself. Numbers are finite until 2045.
    """
    return math.exp2((unix_seconds - EPOCH) / half_life)
