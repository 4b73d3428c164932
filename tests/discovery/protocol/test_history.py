"""What was sent is kept so that a new reader comes to where the old one was: against a model that keeps the text."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol import history as history_module
from discovery.protocol.codec import WireTensor, position_bytes
from discovery.protocol.history import REPLAY_BYTES, REPLAY_POSITIONS, History
from discovery.protocol.messages import MAX_FRAME_BYTES, Step, encode

SIZE = 2
EACH = 4 * SIZE


class Reader:
    """Somebody who is sent steps: what stands in its cache, position by position in each row."""

    def __init__(self, rows: int) -> None:
        self.text: list[list[bytes]] = [[] for _ in range(rows)]
        self.taken = 0

    def take(self, step: Step) -> None:
        rows, positions, _ = step.hidden.shape
        assert step.start_position <= len(self.text[0]), "a gap"
        text = [row[: step.start_position] for row in self.text]
        text = [list(text[row]) for row in step.rows or range(rows)]
        for row in range(rows):
            for position in range(positions):
                at = (row * positions + position) * EACH
                text[row].append(step.hidden.data[at : at + EACH])
        self.text = text
        self.taken = step.index + (not step.is_replay)


class Conversation:
    """Random steps of a client, with what each reader of them must know."""

    def __init__(self, seed: int, longest: int = 40) -> None:
        self.chance = random.Random(seed)
        self.rows, self.longest = self.chance.choice((1, 1, 2, 3)), longest
        self.index = self.settled = 0
        self.reader = Reader(self.rows)

    def hidden(self, positions: int) -> WireTensor:
        data = self.chance.randbytes(self.rows * positions * EACH)
        return WireTensor("float32", (self.rows, positions, SIZE), data)

    def step(self) -> Step:
        """The next one, which the reader has taken."""
        chance, length = self.chance, len(self.reader.text[0])
        start = length if chance.random() < 0.7 else chance.randint(0, length)
        positions = chance.choice((1, 1, 1, 2, 5, 13))
        if start + positions > self.longest:
            start = chance.randint(0, self.longest - positions - 1)
            start = min(start, length)
        moved = tuple(chance.randrange(self.rows) for _ in range(self.rows)) if chance.random() < 0.3 else ()
        self.settled = chance.randint(self.settled, self.index)
        step = Step(self.index, start, self.hidden(positions), rows=moved, settled=self.settled)
        self.reader.take(step)
        self.index += 1
        return step


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from([1, 3, 8, REPLAY_POSITIONS]))
def test_a_new_reader_of_the_replay_is_where_the_old_one_was(seed: int, steps: int, most: int) -> None:
    conversation, history = Conversation(seed), History()
    for _ in range(steps):
        history.add(conversation.step())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "REPLAY_POSITIONS", most)
        replay = list(history.replay())
    reader = Reader(conversation.rows)
    for step in replay:
        reader.take(step)
    assert reader.text == conversation.reader.text
    assert reader.taken == conversation.reader.taken


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_replays_come_first_and_then_what_is_in_flight_as_it_was(seed: int, steps: int) -> None:
    conversation, history = Conversation(seed), History()
    said = [conversation.step() for _ in range(steps)]
    for step in said:
        history.add(step)
    replay = list(history.replay())
    replays = [step for step in replay if step.is_replay]
    flying = replay[len(replays) :]
    assert flying == said[conversation.settled :]
    assert not any(step.is_replay for step in flying)
    ends = [0, *(step.start_position + step.hidden.shape[1] for step in replays)]
    assert [step.start_position for step in replays] == ends[:-1], "one after the other, from the beginning"
    assert ends[-1] == history.positions
    assert {step.index for step in replays} <= {conversation.settled}
    for before, after in pairwise(replay):
        assert before.index <= after.index
    assert all(step.settled <= step.index for step in replay)
    assert all(step.keep == 1 and not step.rows for step in replays), "nobody asks for their results"


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_who_was_brought_there_can_bring_the_next_one_there(seed: int, stretches: list[int]) -> None:
    """Each takes the place of the one before, in the middle, with nothing but what that one was sent."""
    conversation, history = Conversation(seed), History()
    for steps in stretches:
        for _ in range(steps):
            history.add(conversation.step())
        successor = History()
        for step in history.replay():
            successor.add(step)
        history = successor
    reader = Reader(conversation.rows)
    for step in history.replay():
        reader.take(step)
    assert reader.text == conversation.reader.text


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_no_more_is_kept_than_the_text_and_what_is_in_flight(seed: int) -> None:
    conversation, history = Conversation(seed), History()
    flying: list[Step] = []
    for _ in range(80):
        step = conversation.step()
        history.add(step)
        flying = [one for one in [*flying, step] if one.index >= conversation.settled]
        in_flight = sum(len(one.hidden.data) for one in flying)
        assert history.held_bytes <= conversation.rows * conversation.longest * EACH + in_flight
        assert history.held_bytes >= conversation.rows * history.positions * EACH
    kept = sum(len(step.hidden.data) for step in history.replay())
    assert history.held_bytes == kept, "what is counted is what there is"


def test_a_part_of_a_step_that_was_taken_back_is_let_go() -> None:
    history = History()
    history.add(Step(0, 0, WireTensor("float32", (1, 1000, SIZE), bytes(1000 * EACH))))
    history.add(Step(1, 10, WireTensor("float32", (1, 1, SIZE), bytes(EACH)), settled=1))
    history.add(Step(2, 11, WireTensor("float32", (1, 1, SIZE), bytes(EACH)), settled=2))
    assert history.held_bytes == 12 * EACH


def test_what_nobody_said_is_no_replay() -> None:
    assert list(History().replay()) == []
    assert (History().positions, History().held_bytes) == (0, 0)


def test_a_replayed_step_fits_a_frame_however_many_rows_there_are() -> None:
    rows, size = 256, 2048
    each = rows * position_bytes("bfloat16", size)
    history = History()
    for index in range(40):
        hidden = WireTensor("bfloat16", (rows, 1, size), bytes(each))
        history.add(Step(index, index, hidden, settled=index))
    lengths = [len(step.hidden.data) for step in history.replay()]
    assert max(lengths) <= max(REPLAY_BYTES, each) < MAX_FRAME_BYTES // 2
    assert sum(lengths) == history.held_bytes
    assert all(len(encode(step)) < MAX_FRAME_BYTES for step in history.replay())


def test_a_position_that_is_larger_than_a_replayed_step_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "REPLAY_BYTES", EACH - 1)
    history = History()
    history.add(Step(0, 0, WireTensor("float32", (1, 3, SIZE), bytes(3 * EACH))))
    history.add(Step(1, 3, WireTensor("float32", (1, 1, SIZE), bytes(EACH)), settled=1))
    assert [step.hidden.shape[1] for step in history.replay()] == [1, 1, 1, 1]
