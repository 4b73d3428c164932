"""Guesses: where they come from, which of them are sent, and that they never change the text."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from far_mesh.config import GenerationOptions
from far_mesh.model.sampler import Noise, pick
from far_mesh.speculate import (
    FREE_VOID,
    MOST_AHEAD,
    VOID_PER_TOKEN,
    WINDOW,
    Controller,
    Guess,
    Kind,
    Lookahead,
    Match,
    Repeats,
    Source,
    drafted,
)

few_tokens = st.lists(st.integers(0, 3), max_size=60)


class TestRepeats:
    """The end of the text, found earlier in it."""

    @given(few_tokens, few_tokens)
    def test_a_match_is_one_and_the_longest_of_the_latest(self, ids: list[int], ahead: list[int]) -> None:
        repeats = Repeats()
        repeats.read(ids)
        found, whole = repeats.guess(ahead, None), ids + ahead
        places = [at for at in range(2, len(whole)) if at <= len(ids) and whole[at - 2 : at] == whole[-2:]]
        if not places:
            assert found is None
            return
        assert found is not None
        guess, match = found
        assert whole[match.at - match.length : match.at] == whole[len(whole) - match.length :]
        assert guess.token == whole[match.at]
        assert match.length == max(_common(whole, at) for at in places[-16:])

    @given(few_tokens, st.lists(st.integers(1, 5), max_size=30))
    def test_it_does_not_matter_in_which_pieces_a_text_is_read(self, ids: list[int], sizes: list[int]) -> None:
        whole, pieces = Repeats(), Repeats()
        whole.read(ids)
        rest = list(ids)
        for size in [*sizes, len(ids)]:
            pieces.read(rest[:size])
            rest = rest[size:]
        assert (pieces.match is None) == (whole.match is None)
        assert pieces.guess((), None) == whole.guess((), None) or pieces.match is not None

    def test_a_period_is_followed_beyond_the_end_of_the_text(self) -> None:
        repeats, ahead = Repeats(), list[int]()
        repeats.read([1, 2, 3, 1, 2, 3])
        last: Match | None = None
        for _ in range(9):
            found = repeats.guess(ahead, last)
            assert found is not None
            ahead.append(found[0].token)
            last = found[1].next
        assert ahead == [1, 2, 3] * 3

    def test_a_longer_match_speaks_louder(self) -> None:
        levels = [Match(5, length).kind.level for length in (0, 1, 2, 3, 4, 5, 8, 12, 40)]
        assert levels == sorted(set(levels))

    @pytest.mark.parametrize(
        ("changed", "goes_on_at", "lost"),
        [
            ([90], 6, 1),
            ([90, 91], 7, 2),
            ([90, 91, 92, 93], 9, 4),
            ([], 6, 1),
            ([], 9, 1),
            ([90], 5, 2),
            ([90, 91], 5, 3),
        ],
        ids=["one other", "two others", "four others", "one less", "four less", "one more", "two more"],
    )
    def test_a_copy_is_followed_over_a_change(self, changed: list[int], goes_on_at: int, lost: int) -> None:
        """Behind it no token has to be read twice before it is clear where the copy goes on."""
        original, before = list(range(40)), list(range(50, 60))
        repeats, missed = Repeats(), 0
        repeats.read([*before, *original, *before])
        for token in [*original[:5], *changed, *original[goes_on_at:]]:
            found = repeats.guess((), repeats.match)
            missed += found is None or found[0].token != token
            repeats.read([token])
        assert missed == lost

    def test_a_hundred_thousand_equal_tokens_are_read_at_once(self) -> None:
        repeats = Repeats()
        for _ in range(100):  # quadratic work would take hours
            repeats.read([7] * 1000)
        assert repeats.match is not None


def _common(ids: list[int], at: int) -> int:
    length = 0
    while length < min(32, at) and ids[at - length - 1] == ids[len(ids) - length - 1]:
        length += 1
    return length


class Ring:
    """Nodes that remember what they were sent, and a model that says a function of all before."""

    def __init__(self, says: Callable[[Sequence[int]], int]) -> None:
        self.says, self.cache = says, list[int]()
        self.answers: deque[list[int]] = deque()

    def step(self, start: int, ids: Sequence[int]) -> None:
        assert start <= len(self.cache), "nobody can go forward over what was not computed"
        self.cache = self.cache[:start] + list(ids)
        self.answers.append([self.says(self.cache[: start + index + 1]) for index in range(len(ids))])


def plain(says: Callable[[Sequence[int]], int], prompt: list[int], limit: int, ends: frozenset[int]) -> list[int]:
    ids = list(prompt)
    while len(ids) < limit:
        ids.append(says(ids))
        if ids[-1] in ends:
            break
    return ids


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 30), st.booleans())
def test_whatever_is_guessed_and_whenever_it_is_sent_the_text_is_the_same(
    seed: int, vocabulary: int, tokens: int, can_end: bool
) -> None:
    luck = random.Random(seed)

    def says(ids: Sequence[int]) -> int:
        return hash((tuple(ids[-3:]), len(ids))) % vocabulary

    prompt, ends = [0, 1, 2], frozenset([0]) if can_end else frozenset[int]()
    limit = len(prompt) + tokens
    ahead, ring = Lookahead(list(prompt), limit, ends), Ring(says)
    ring.step(0, prompt)
    ahead.send(len(prompt))
    while not ahead.is_over:
        if ahead.steps and (len(ahead.steps) > 4 or luck.random() < 0.5):
            step, answer = ahead.answered(), ring.answers.popleft()
            if step.is_void:
                continue
            ahead.accept(_chosen(answer[-1:] if step.start == 0 else answer, ahead))
            if ahead.needs_step and luck.random() < 0.5:
                ring.step(ahead.sent, [ahead.tokens[-1]])
                ahead.send(1)
            continue
        ids, guesses = ([ahead.tokens[-1]] if ahead.needs_step else []), list[Guess]()
        for token in (luck.randrange(4) for _ in range(luck.randrange(5))):
            if ahead.takes(token, ahead.next_position + len(guesses)):
                guesses.append(drafted(token, 0.5))
        ids += [guess.token for guess in guesses]
        if ids:
            ring.step(ahead.sent, ids)
            ahead.send(len(ids), guesses)
        else:
            assert ahead.steps or not ahead.needs_step, "something is always under way"
    assert ahead.tokens == plain(says, prompt, limit, ends)
    assert len(ring.cache) < limit, "the last token is never sent"
    assert ahead.controller.right <= ahead.controller.sent


def _chosen(answer: Sequence[int], ahead: Lookahead) -> list[int]:
    """As the client's thread does it: the model's tokens up to the first that was not guessed."""
    guessed, tokens = [guess.token for guess in ahead.guesses], list[int]()
    for token in answer:
        tokens.append(token)
        if len(tokens) > len(guessed) or token != guessed[len(tokens) - 1]:
            break
    return tokens


def test_with_a_draft_that_errs_every_position_is_drawn_as_the_model_has_it() -> None:
    """Three thousand texts of a Markov chain, guessed by another: chi-square at the first and at later positions."""
    model = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]).double()
    draft = torch.tensor([[0.3, 0.3, 0.4], [0.4, 0.4, 0.2], [0.1, 0.6, 0.3]]).double()
    options, texts, right, sent = GenerationOptions(6, temperature=1.0), list[list[int]](), 0, 0
    for seed in range(3000):
        noise, ahead = Noise(seed), Lookahead([0], 7, frozenset())
        while not ahead.is_over:
            ids, guesses = [ahead.tokens[-1]], list[Guess]()
            while len(guesses) < 3 and ahead.takes(0, position := ahead.next_position + len(guesses)):
                guesses.append(drafted(pick(draft[ids[-1]].log(), options, noise, position), 0.5))
                ids.append(guesses[-1].token)
            ahead.send(len(ids), guesses)
            ahead.answered()
            first = len(ahead.tokens)
            ahead.accept(
                _chosen([pick(model[one].log(), options, noise, at) for at, one in enumerate(ids, first)], ahead)
            )
        texts.append(ahead.tokens[1:])
        right, sent = right + ahead.controller.right, sent + ahead.controller.sent
    assert 0.3 < right / sent < 0.9, "some guesses are right and some are wrong"
    drawn, expected = torch.tensor(texts), torch.tensor([1.0, 0.0, 0.0]).double()
    for position in range(6):
        expected = expected @ model
        counts = torch.bincount(drawn[:, position], minlength=3)
        squares = ((counts - 3000 * expected) ** 2 / (3000 * expected)).sum()
        assert squares < 13.8, f"position {position}: with 2 degrees of freedom, once in a thousand"


@dataclass
class Walked:
    """What came of a text that was said over a ring with a clock of its own."""

    seconds: float
    computed: int
    controller: Controller


def walk(
    prompt: list[int],
    answer: list[int],
    *,
    ring: float = 0.2,
    each: float = 0.002,
    draft: Callable[[int], tuple[int, float]] | None = None,
    draft_seconds: float = 0.002,
) -> Walked:
    """Say ``answer``; a step takes ``ring`` seconds and ``each`` for each position more, and keeps the ring's order.

    ``draft`` is a draft model's token for a position, with its probability.
    """
    said = prompt + answer
    ahead = Lookahead(list(prompt), len(said), frozenset(), repeats=Repeats())
    assert ahead.repeats is not None
    ahead.repeats.read(prompt)
    now = last = ring + each * len(prompt)
    ahead.controller.prefill_took(len(prompt), now)
    ahead.send(len(prompt))
    ahead.answered()
    ahead.accept([said[len(prompt)]])
    under_way: deque[tuple[float, float]] = deque()
    walked = Walked(0.0, 0, ahead.controller)

    def send(at: float, positions: int, guesses: list[Guess]) -> None:
        nonlocal last
        ahead.send(positions, guesses)
        last = max(last + each * positions, at + ring + each * (positions - 1))
        under_way.append((at, last))
        walked.computed += positions
        wrong = ahead.controller.sent - ahead.controller.right
        assert wrong <= FREE_VOID + VOID_PER_TOKEN * (len(ahead.tokens) - len(prompt)) + WINDOW
        assert len(ahead.guesses) <= MOST_AHEAD

    def from_text() -> list[Guess]:
        budget, guesses = ahead.budget(), list[Guess]()
        chance = ahead.controller.draft_chance
        rival = chance if draft is not None and budget.pays(Source.DRAFT, chance) else 0.0
        while len(guesses) < WINDOW and (guess := ahead.guess_from_text(budget, guesses, rival)) is not None:
            guesses.append(guess)
        return guesses

    def from_draft() -> tuple[list[Guess], float]:
        budget, guesses, asked = ahead.budget(), list[Guess](), 0
        if draft is None or not budget.pays(Source.DRAFT, ahead.controller.draft_chance):
            return [], 0.0
        for _ in range(ahead.controller.draft_window):
            position = ahead.next_position + len(guesses)
            if position + 1 >= len(said):
                break
            asked += 1
            guess = drafted(*draft(position))
            if not budget.take(guess):
                break
            guesses.append(guess)
        if asked:
            ahead.controller.draft_took(asked, asked * draft_seconds)
        return guesses, asked * draft_seconds

    scored = len(ahead.tokens)
    while not ahead.is_over:
        if ahead.needs_step:
            guesses = from_text()
            send(now, 1 + len(guesses), guesses)
        drafting = now
        while True:
            window, took = from_text(), 0.0
            if not window:
                window, took = from_draft()
                scored = len(ahead.tokens) if took else scored
            drafting += took
            if not window or drafting > under_way[0][1]:
                break
            send(drafting, len(window), window)
        if draft is not None and ahead.controller.should_score(len(ahead.tokens) - scored):
            for position in range(scored, len(ahead.tokens)):
                guess = drafted(*draft(position))
                ahead.controller.saw(guess.kind, guess.token == said[position])
            ahead.controller.score_took(2 * draft_seconds)
            scored = len(ahead.tokens)
        sent_at, at = under_way.popleft()
        now, step = max(now, at), ahead.answered()
        if step.is_void:
            continue
        ahead.controller.step_took(step.positions - 1 + step.behind, at - sent_at)
        ahead.accept(_chosen(said[step.start + 1 : step.start + step.positions + 1], ahead))
    walked.seconds = now
    return walked


RINGS = [(0.2, 0.0005), (0.2, 0.005), (0.05, 0.002), (0.01, 0.001), (0.5, 0.02)]
chance = random.Random(3)
RANDOM = [chance.randrange(2000) for _ in range(400)]
LIST = [token for item in range(40) for token in (5, 6, 7, 8, 9, 10, 1000 + item, 11, 12, 13, 14)]


def speed(walked: Walked, tokens: int, ring: float) -> float:
    """Over the plain ring, which takes ``ring`` for each token."""
    return ring * tokens / walked.seconds


@pytest.mark.parametrize(("ring", "each"), RINGS)
def test_text_that_nobody_can_guess_loses_next_to_nothing(ring: float, each: float) -> None:
    walked = walk(RANDOM[:50], RANDOM[50:], ring=ring, each=each)
    assert speed(walked, 350, ring) > 0.97
    assert walked.computed < 1.05 * 350


@pytest.mark.parametrize(("ring", "each"), RINGS)
@pytest.mark.parametrize("draft_seconds", [0.0005, 0.002, 0.05, 1.0])
def test_a_draft_model_that_knows_nothing_is_soon_not_asked(ring: float, each: float, draft_seconds: float) -> None:
    def draft(position: int) -> tuple[int, float]:
        return 3000, (0.2, 0.6, 0.9, 0.99)[position % 4]

    walked = walk(RANDOM[:50], RANDOM[50:], ring=ring, each=each, draft=draft, draft_seconds=draft_seconds)
    assert speed(walked, 350, ring) > 0.97
    assert walked.controller.sent < 30


@pytest.mark.parametrize(("ring", "each"), RINGS)
def test_text_that_repeats_itself_is_guessed_from_itself(ring: float, each: float) -> None:
    walked = walk(LIST[:44], LIST[44:], ring=ring, each=each)
    assert speed(walked, len(LIST) - 44, ring) > 2.5
    assert walked.controller.right > 0.6 * len(LIST)


def test_a_good_draft_model_pays_and_is_used_as_far_as_it_is_good() -> None:
    said, luck = RANDOM, random.Random(5)
    wrong = {position for position in range(len(said)) if luck.random() < 0.1}

    def draft(position: int) -> tuple[int, float]:
        return (3000, 0.6) if position in wrong else (said[position], 0.97)

    walked = walk(said[:50], said[50:], draft=draft)
    assert speed(walked, 350, 0.2) > 4
    assert walked.computed < 2.5 * 350


def test_a_draft_model_as_slow_as_the_ring_is_not_used() -> None:
    walked = walk(RANDOM[:50], RANDOM[50:], draft=lambda position: (RANDOM[position], 0.99), draft_seconds=0.5)
    assert walked.controller.sent < 5


def test_when_the_text_changes_its_character_so_do_the_guesses() -> None:
    said = RANDOM[:150] + LIST[:220] + RANDOM[150:300]
    walked = walk(said[:20], said[20:])
    assert walked.seconds < 0.2 * 280 / 0.97 + 0.2 * 220 / 2.5
    assert walked.controller.sent - walked.controller.right < 60


def test_a_draft_model_that_was_useless_is_tried_again_at_no_cost_to_the_ring() -> None:
    """Its guesses for what has come are compared, and not sent."""

    def draft(position: int) -> tuple[int, float]:
        return (3000 if position < 200 else RANDOM[position]), 0.97

    walked = walk(RANDOM[:50], RANDOM[50:], draft=draft)
    assert walked.controller.right > 80, "after position 200 it is right"
    assert walked.controller.sent - walked.controller.right < 60


def test_prices_are_learnt_from_steps_of_different_lengths() -> None:
    controller, luck = Controller(), random.Random(1)
    controller.prefill_took(100, 0.4)
    for _ in range(60):
        positions = luck.randrange(12)
        controller.step_took(positions, 0.1 + 0.004 * positions + luck.gauss(0, 0.002))
    budget = controller.budget([], 100)
    assert budget.seconds == pytest.approx(0.1, rel=0.1)
    assert budget.costs[Source.TEXT] == pytest.approx(0.004 * 1.25, rel=0.25)


def test_a_guess_that_comes_to_be_wrong_is_soon_not_worth_sending() -> None:
    controller, kind = Controller(), Kind(Source.TEXT, 6)
    controller.prefill_took(20, 0.2)
    assert controller.budget([], 50).take(Guess(1, kind))
    for _ in range(12):
        controller.saw(kind, False)
    assert not controller.budget([], 50).take(Guess(1, kind))
    for _ in range(8):
        controller.saw(kind, True)
    assert controller.budget([], 50).take(Guess(1, kind))


def test_what_is_under_way_leaves_less_room() -> None:
    controller, guess = Controller(), Guess(1, Kind(Source.TEXT, 5))
    controller.prefill_took(20, 0.2)
    counts = []
    for under_way in range(6):
        budget, count = controller.budget([guess] * under_way, 50), 0
        while budget.take(guess):
            count += 1
        counts.append(count)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pytest.mark.parametrize("tokens", [0, 10, 1000])
def test_wrong_guesses_have_an_end(tokens: int) -> None:
    controller, guess = Controller(), drafted(1, 0.999)
    controller.prefill_took(20, 5.0)
    controller.sent = FREE_VOID + int(VOID_PER_TOKEN * tokens)
    assert not controller.budget([], tokens).take(guess)
    controller.right += 1
    assert controller.budget([], tokens).take(guess)
