"""Guessing ahead of the ring: which tokens may come next, and which guesses are worth sending. Pure; has no clock.

A step carries the last token that is certain and guesses after it; its answer tells for each of them whether it was
right (speculative decoding, arXiv:2211.17192), and several steps may be under way (PipeInfer, arXiv:2407.11798). A
guess comes from the text so far or from a draft model. Which of the two, and how many, is decided guess by guess:

- every guess has a :class:`Kind`, and of each kind it is learnt how often it is right, also from tokens for which
  nothing was sent, so that trying again costs nothing;
- a guess goes when the chance that it and all before it are right earns more tokens than its cost loses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

WINDOW = 8
"""Guesses in a step at most. With the token before them a node still takes it for a decode step, not for a prefill."""
MOST_AHEAD = 32
"""Guesses under way at most."""
FREE_VOID, VOID_PER_TOKEN = 32, 1.0
"""Guesses that may be wrong or under way: so many, and so many for each token that the reader gets."""

_LEAST_CHANCE = 0.2
_COST_MARGIN = 1.25  # costs are guessed low rather than high where they are not known yet
_MEMORY = 0.92  # of what was seen of a kind, for each time it is seen again: about the last twelve count
_PRIOR_WEIGHT = 2.0
_STEP_MEMORY = 0.97
_STEP_PRIOR = 8.0
_SMOOTHING = 0.3
_LONGEST_MATCH = 32
_CANDIDATES = 16
_PAIR = 2
_LONG_MATCH, _SURE_MATCH = 8, 4  # so long that a difference does not end it; so long that it ends another
_DIFFERENCES, _SHIFT = 6, 8  # tokens that may differ in a row, and by how much what follows may have moved
_SCORE_AFTER = 16
_SCORE_SHARE = 0.02


class Source(StrEnum):
    """Where guesses come from."""

    TEXT = "text"
    DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class Kind:
    """Guesses that are about equally good. ``level`` from 0: how much speaks for them."""

    source: Source
    level: int


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that may come next."""

    token: int
    kind: Kind


# Levels of guesses from the text by the length of the match, of drafts by the probability that the draft gives them;
# and the share that is right before anything is known.
_MATCH_LENGTHS = (1, 2, 3, 4, 5, 7, 10, 16)  # 0 and 1 only after a difference
_PROBABILITIES = (0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
_PRIORS = {
    Source.TEXT: (0.4, 0.5, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85),
    Source.DRAFT: (0.15, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95),
}


def drafted(token: int, probability: float) -> Guess:
    """A draft model's guess, to which it gives ``probability``."""
    return Guess(token, Kind(Source.DRAFT, bisect_right(_PROBABILITIES, probability)))


@dataclass(frozen=True, slots=True)
class Match:
    """The text has been here before: the token at ``at`` came next then, after ``length`` tokens that are the same.

    ``differing`` tokens before those were not the same, where a long match goes on after them; it left at ``left_at``.
    """

    at: int
    length: int
    differing: int = 0
    left_at: int = 0

    @property
    def kind(self) -> Kind:
        """Of the guess that follows."""
        return Kind(Source.TEXT, bisect_right(_MATCH_LENGTHS, self.length))

    @property
    def next(self) -> Match:
        """After a token that was the same."""
        return replace(self, at=self.at + 1, length=self.length + 1)


class Repeats:
    """Finds where the end of a text has occurred before (prompt lookup).

    For every pair of tokens the places after it are chained, latest first, as in LZ77; of a few of them the one with
    the longest match counts. A copy with changes (a list, edited code) is followed over them: after a token that
    differs the match goes on behind it, or where that token stands near by. Reading a token takes constant time and
    two numbers of memory.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}
        self._before: list[int] = [0]
        self.match: Match | None = None
        """For the token after the text."""

    def read(self, ids: Sequence[int]) -> None:
        """The text goes on with ``ids``."""
        for token in ids[:-1]:
            self._take(token)
        for token in ids[-1:]:
            self._follow(token)

    def guess(self, ahead: Sequence[int], last: Match | None) -> tuple[Guess, Match] | None:
        """What may follow the text and the guesses ``ahead`` of it.

        Args:
            last: the match of the guess before, which goes on where it was right; None: look anew.
        """
        match = last or (self._find(ahead) if ahead else self.match)
        return None if match is None else (Guess(self._at(match.at, ahead), match.kind), match)

    def _follow(self, token: int) -> None:
        match, known = self.match, len(self._ids)
        self._take(token)
        if match is not None and self._ids[match.at] == token:
            self.match = match.next
            return
        self.match = self._find(())
        if match is not None and (self.match is None or self.match.length < _SURE_MATCH):
            self.match = self._resumed(match, token, known) or self.match

    def _resumed(self, match: Match, token: int, known: int) -> Match | None:
        """A long match, behind a difference: ``token`` came where another was expected."""
        is_new = match.length >= _LONG_MATCH
        differing = 1 if is_new else match.differing + 1
        if not is_new and not 1 < differing <= _DIFFERENCES:
            return None
        left_at = match.at if is_new else match.left_at
        near = range(left_at, min(left_at + _SHIFT, known))
        found = next((at for at in near if self._ids[at] == token), None)
        at, length = (match.at + 1, 0) if found is None else (found + 1, 1)
        return Match(at, length, differing, left_at)

    def _take(self, token: int) -> None:
        ids = self._ids
        ids.append(token)
        before = 0
        if len(ids) >= _PAIR:
            pair = ids[-2], token
            before = self._latest.get(pair, 0)
            self._latest[pair] = len(ids)
        self._before.append(before)

    def _find(self, ahead: Sequence[int]) -> Match | None:
        end = len(self._ids) + len(ahead)
        if end < _PAIR:
            return None
        pair = self._at(end - 2, ahead), self._at(end - 1, ahead)
        at, best = self._latest.get(pair, 0), None
        for _ in range(_CANDIDATES):
            if at >= end:
                at = self._before[at]
            if not at:
                break
            length = self._length(at, end, ahead)
            if best is None or length > best.length:
                best = Match(at, length)
            at = self._before[at]
        return best

    def _length(self, at: int, end: int, ahead: Sequence[int]) -> int:
        """How many tokens before ``at`` are those before ``end``, as far as it matters."""
        length = _PAIR
        while length < min(_LONGEST_MATCH, at) and self._ids[at - length - 1] == self._at(end - length - 1, ahead):
            length += 1
        return length

    def _at(self, index: int, ahead: Sequence[int]) -> int:
        known = len(self._ids)
        return self._ids[index] if index < known else ahead[index - known]


@dataclass
class _Share:
    """How often something was right lately."""

    prior: float
    right: float = 0.0
    seen: float = 0.0

    def note(self, right: bool) -> None:
        self.right = self.right * _MEMORY + right
        self.seen = self.seen * _MEMORY + 1.0

    @property
    def value(self) -> float:
        return (self.prior * _PRIOR_WEIGHT + self.right) / (_PRIOR_WEIGHT + self.seen)


@dataclass
class _StepTimes:
    """What a step takes: a line over the positions in it and before it, by least squares over the latest steps."""

    per_position: float
    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def note(self, positions: int, seconds: float) -> None:
        for name, value in (("weight", 1.0), ("x", positions), ("y", seconds)):
            setattr(self, name, getattr(self, name) * _STEP_MEMORY + value)
        self.xx = self.xx * _STEP_MEMORY + positions * positions
        self.xy = self.xy * _STEP_MEMORY + positions * seconds

    def fit(self) -> tuple[float, float]:
        """Seconds of a step with one position and nothing before it, and of each position more."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        spread, together = self.xx - self.x * mean_x, self.xy - self.x * mean_y
        slope = max(0.0, (together + _STEP_PRIOR * self.per_position) / (spread + _STEP_PRIOR))
        return max(mean_y - slope * mean_x, 0.1 * mean_y), slope


@dataclass
class Budget:
    """Room for guesses after those that are under way; every guess that is taken makes it smaller.

    ``tokens`` is how many tokens the next time round the ring is expected to bring, ``seconds`` how long it takes.
    """

    chances: dict[Kind, float]
    costs: dict[Source, float]
    room: int
    seconds: float
    chance: float = 1.0
    tokens: float = 1.0

    def take(self, guess: Guess) -> bool:
        """Whether the guess is worth sending; then it counts as sent."""
        source, chance = guess.kind.source, self.chances[guess.kind]
        if not self.pays(source, chance):
            return False
        self.count(guess)
        self.room -= 1
        self.seconds += self.costs[source]
        return True

    def pays(self, source: Source, chance: float) -> bool:
        """Whether a guess of that chance would be worth it."""
        useful = self.chance * chance
        return self.room > 0 and useful >= _LEAST_CHANCE and useful * self.seconds > self.tokens * self.costs[source]

    def count(self, guess: Guess) -> None:
        """A guess before those that may be taken."""
        self.chance *= self.chances[guess.kind]
        self.tokens += self.chance


class Controller:
    """Learns what guesses are worth and what they cost, in this text on this route, and says how far to go."""

    def __init__(self) -> None:
        self._shares = {
            Kind(source, level): _Share(prior)
            for source, priors in _PRIORS.items()
            for level, prior in enumerate(priors)
        }
        self._drafts_right = _Share(0.7)
        self._steps: _StepTimes | None = None
        self._draft_seconds: float | None = None
        self._score_seconds: float | None = None
        self.sent = self.right = 0
        """Guesses that were sent, and of these the right ones."""

    def saw(self, kind: Kind, right: bool) -> None:
        """A guess of a kind was right or wrong, whether it was sent or not."""
        self._shares[kind].note(right)
        if kind.source is Source.DRAFT:
            self._drafts_right.note(right)

    def prefill_took(self, positions: int, seconds: float) -> None:
        """The prompt went round: the first that is known of the route, and no less than what a step takes."""
        self._steps = _StepTimes(seconds / (positions + 1))
        self._steps.note(0, seconds)

    def step_took(self, positions: int, seconds: float) -> None:
        """A step took ``seconds``; ``positions``: in it but the first, and in the steps under way before it."""
        assert self._steps is not None
        if self._steps.weight == 1.0:  # until now only the prefill was known
            self._steps = _StepTimes(self._steps.per_position)
        self._steps.note(positions, seconds)

    def draft_took(self, guesses: int, seconds: float) -> None:
        """The draft model made so many guesses."""
        self._draft_seconds = _smooth(self._draft_seconds, seconds / guesses)

    def score_took(self, seconds: float) -> None:
        """The draft model read tokens that it had no part in."""
        self._score_seconds = _smooth(self._score_seconds, seconds)

    @property
    def knows_the_ring(self) -> bool:
        """Whether anything has been round yet."""
        return self._steps is not None

    @property
    def draft_chance(self) -> float:
        """How often drafts are right."""
        return self._drafts_right.value

    @property
    def draft_window(self) -> int:
        """How many guesses to ask of the draft model at once: one, as long as nobody knows how long it takes."""
        return 1 if self._draft_seconds is None else WINDOW

    def budget(self, ahead: Iterable[Guess], tokens: int) -> Budget:
        """For guesses after those ``ahead`` that are under way, in a text of so many new ``tokens``."""
        assert self._steps is not None
        seconds, each = self._steps.fit()
        each *= _COST_MARGIN
        under_way = list(ahead)
        void = self.sent - self.right  # what is under way counts as void until it is not
        budget = Budget(
            chances={kind: share.value for kind, share in self._shares.items()},
            costs={Source.TEXT: each, Source.DRAFT: each + (self._draft_seconds or 0.0)},
            room=min(MOST_AHEAD - len(under_way), FREE_VOID + int(VOID_PER_TOKEN * tokens) - void),
            seconds=seconds + each * len(under_way),
        )
        for guess in under_way:
            budget.count(guess)
        return budget

    def should_score(self, tokens: int) -> bool:
        """Whether to let the draft model read ``tokens`` it has not seen, to learn how it would have done."""
        assert self._steps is not None
        share = _SCORE_SHARE * tokens * self._steps.fit()[0]
        return tokens >= _SCORE_AFTER and (self._score_seconds or 0.0) <= share


@dataclass(slots=True)
class SentStep:
    """A step under way: where it starts, how many positions it has, how many were under way before it.

    ``is_part``: of a prompt that comes in several steps, and not the last; it tells nothing. Nor does one that is void.
    """

    start: int
    positions: int
    behind: int
    is_part: bool = False
    is_void: bool = False


@dataclass
class Lookahead:
    """What is certain, what is guessed after it, and which steps are under way. One text.

    ``tokens`` are the prompt and what came after it; ``guesses`` were sent and stand after them. ``epoch`` changes
    whenever the last token stands in no step: guesses that are being made then are too late. ``unsent`` is a guess that
    was made for a position and not found worth sending; something is learnt from it all the same. ``has_ended``: the
    text is complete, whatever its last token. ``may_follow`` says of guesses and a token after them whether the model
    may choose it there, and something after it.
    """

    tokens: list[int]
    limit: int
    ends: frozenset[int]
    controller: Controller = field(default_factory=Controller)
    repeats: Repeats | None = None
    guesses: deque[Guess] = field(default_factory=deque)
    steps: deque[SentStep] = field(default_factory=deque)
    sent: int = 0
    epoch: int = 0
    unsent: tuple[int, Guess] | None = None
    has_ended: bool = False
    may_follow: Callable[[Sequence[int], int], bool] | None = None
    _match: Match | None = None
    _matched_to: int = -1

    def __post_init__(self) -> None:
        self._prompt = len(self.tokens)

    @property
    def is_over(self) -> bool:
        """Whether no token may follow."""
        if self.has_ended or len(self.tokens) >= self.limit:
            return True
        return len(self.tokens) > self._prompt and self.tokens[-1] in self.ends

    @property
    def needs_step(self) -> bool:
        """Whether the last token has not been sent round yet."""
        return self.sent < len(self.tokens) and not self.is_over

    @property
    def next_position(self) -> int:
        """Of the next guess."""
        return len(self.tokens) + len(self.guesses)

    def budget(self) -> Budget:
        """Room for guesses after those that are under way."""
        return self.controller.budget(self.guesses, len(self.tokens) - self._prompt)

    def takes(self, token: int, position: int) -> bool:
        """Whether anything could be learnt by sending ``token`` as a guess: not, where the text ends with it."""
        return token not in self.ends and position + 1 < self.limit

    def send(self, positions: int, guesses: Sequence[Guess] = ()) -> SentStep:
        """A step leaves with the next ``positions``, the last of them ``guesses``."""
        behind = sum(step.positions for step in self.steps)
        start = self.sent
        step = SentStep(start, positions, behind, is_part=start + positions < self._prompt)
        self.steps.append(step)
        self.guesses.extend(guesses)
        self.sent = start + positions
        self.controller.sent += len(guesses)
        return step

    def answered(self) -> SentStep:
        """The answer to the oldest step is there."""
        return self.steps.popleft()

    def accept(self, chosen: Sequence[int]) -> None:
        """The model's own tokens after those that are certain; at the first that was not guessed they end."""
        for token in chosen:
            guess = self.guesses.popleft() if self.guesses else None
            self._learn(token, guess)
            self.tokens.append(token)
            if guess is None or guess.token != token:
                self._begin_anew()

    def guess_from_text(self, budget: Budget, more: Sequence[Guess], draft_chance: float) -> Guess | None:
        """The text's guess after ``more`` guesses that are not sent yet, if it is worth sending.

        Args:
            draft_chance: what a draft model would do, which is asked where it does better; 0: there is none.
        """
        position = self.next_position + len(more)
        if self.repeats is None or position + 1 >= self.limit:
            return None
        ahead = [guess.token for guess in (*self.guesses, *more)]
        found = self.repeats.guess(ahead, self._match if self._matched_to == position else None)
        if found is None:
            return None
        guess, match = found
        if budget.chances[guess.kind] < draft_chance or guess.token in self.ends:
            return None
        if self.may_follow is not None and not self.may_follow(ahead, guess.token):
            return None
        if not budget.take(guess):
            return None
        self._match, self._matched_to = match.next, position + 1
        return guess

    def _learn(self, token: int, guess: Guess | None) -> None:
        controller, repeats = self.controller, self.repeats
        if guess is not None:
            controller.saw(guess.kind, guess.token == token)
            controller.right += guess.token == token
        elif self.unsent is not None and self.unsent[0] == len(self.tokens):
            controller.saw(self.unsent[1].kind, self.unsent[1].token == token)
        if repeats is not None:
            if repeats.match is not None and (guess is None or guess.kind.source is not Source.TEXT):
                own = repeats.guess((), repeats.match)
                assert own is not None
                controller.saw(own[0].kind, own[0].token == token)
            repeats.read([token])

    def _begin_anew(self) -> None:
        """The last token is not under way, and what was sent after it is void."""
        self.guesses.clear()
        for step in self.steps:
            step.is_void = True
        self.sent = len(self.tokens) - 1
        self.epoch += 1
        self.unsent = None
        self._matched_to = -1


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
