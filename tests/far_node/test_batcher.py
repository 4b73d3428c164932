"""Whose step runs next: quick ones beside long ones, each client in turn, and nobody for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.protocol.messages import Priority
from far_node.batcher import AGING_SECONDS, DECODE_POSITIONS, Batcher, Turn, Waiting
from far_node.limits import Limits

LIMITS = Limits(max_batch_size=4, prefill_chunk=512)
LONG = 2000

_keys = count()


def step(client: str = "ann", positions: int = 1, *, packs: bool = True, **more: object) -> Waiting:
    """A step that has just come, of a session of its own."""
    key = next(_keys)
    fields = {"priority": Priority.NORMAL, "since": 0.0, "rows": 1, "kind": "model", "session": key} | more
    return Waiting(key=key, client=client, positions=positions, packs=packs, **fields)  # type: ignore[arg-type]


def keys_of(turn: Turn) -> list[int]:
    return [share.step.key for share in turn.shares]


@dataclass
class Device:
    """What a pass takes, in seconds of a clock that stands still otherwise."""

    of_a_pass: float = 0.01
    of_a_row: float = 0.001
    of_a_prefill_token: float = 0.001

    def seconds(self, turn: Turn) -> float:
        rows = sum(share.tokens for share in turn.decodes)
        return self.of_a_pass + rows * self.of_a_row + turn.prefill_tokens * self.of_a_prefill_token


@dataclass
class Queue:
    """Steps that wait, a batcher, and a device that runs what it picks."""

    limits: Limits = LIMITS
    device: Device = field(default_factory=Device)
    now: float = 0.0
    waiting: list[Waiting] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.limits)

    def add(self, *steps: Waiting) -> None:
        for one in steps:
            self.batcher.came(one.session, self.now)
            self.waiting.append(replace(one, since=self.now))

    def turn(self) -> Turn:
        """Run one pass; what is not done goes on waiting."""
        turn = self.batcher.next_turn(self.waiting, self.now)
        seconds = self.device.seconds(turn)
        self.now += seconds
        self.batcher.learn(turn, seconds, self.now)
        done = {share.step.key: share.positions for share in turn.shares}
        left = [replace(one, positions=one.positions - done.get(one.key, 0)) for one in self.waiting]
        self.waiting = [one for one in left if one.positions]
        self.turns.append(turn)
        return turn

    def decode(self, sessions: Iterable[Waiting], turns: int) -> Counter[str]:
        """Let sessions decode, each with its next step at once when it has its answer; positions for each client."""
        given: Counter[str] = Counter()
        self.add(*sessions)
        for _ in range(turns):
            turn = self.turn()
            for share in turn.decodes:
                given[share.step.client] += share.tokens
                self.add(replace(share.step, key=next(_keys)))
        return given


def passes_of(step: Waiting) -> int:
    """At most: a prefill's rows share the shortest of chunks, eight tokens."""
    return ceil(step.positions / max(1, 8 // step.rows)) if step.is_prefill else 1


def jain(shares: Sequence[int]) -> float:
    """1 for equal shares, 1/n when one has all (Jain, Chiu and Hawe 1984)."""
    return float(sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)))


steps = st.builds(
    step,
    client=st.sampled_from(["ann", "bob", "cem", "dee"]),
    positions=st.sampled_from([1, 1, 1, 2, 5, DECODE_POSITIONS, DECODE_POSITIONS + 1, 60, 300]),
    packs=st.booleans(),
    priority=st.sampled_from(Priority),
    rows=st.sampled_from([1, 1, 1, 2, 3, 9]),
    since=st.floats(0, 10),
    kind=st.sampled_from(["model", "other model", None]),
)


class TestAPass:
    """What may stand in one."""

    @settings(max_examples=300)
    @given(st.lists(st.lists(steps, max_size=12), min_size=1, max_size=8), st.integers(1, 8))
    def test_it_is_never_larger_than_the_batch_and_of_one_kind(self, arrivals: list[list[Waiting]], size: int) -> None:
        queue = Queue(Limits(max_batch_size=size, prefill_chunk=64))
        packs: dict[object, bool] = {}
        for arriving in arrivals:
            # a model packs or not; sessions that run alone may be of either
            arriving = [replace(one, packs=packs.setdefault(one.kind or one.key, one.packs)) for one in arriving]
            queue.add(*arriving)
            if not queue.waiting:
                continue
            waiting = list(queue.waiting)
            turn = queue.turn()
            shares = turn.shares
            assert turn.rows <= size or len(shares) == 1
            assert len(set(keys_of(turn))) == len(shares) >= 1
            assert all(share.step in waiting and 1 <= share.positions <= share.step.positions for share in shares)
            assert all(share.positions == share.step.positions for share in turn.decodes), "decode steps are not cut"
            if len(shares) > 1:
                (kind,) = {share.step.kind for share in shares}
                assert kind is not None
                if not shares[0].step.packs:
                    assert len({share.positions for share in shares}) == 1
                    assert not turn.prefill_tokens

    def test_all_decode_steps_that_fit_go_together(self) -> None:
        queue = Queue()
        queue.add(*(step(f"client {number}") for number in range(6)))
        assert [len(queue.turn().shares) for _ in range(2)] == [4, 2]

    def test_a_step_with_more_rows_than_a_batch_runs_by_itself(self) -> None:
        queue = Queue()
        large = step("ann", rows=9)
        queue.add(large, step("bob"), step("cem", LONG))
        assert [turn.rows for turn in (queue.turn(), queue.turn()) if large.key in keys_of(turn)] == [9]

    def test_where_a_model_cannot_pack_steps_of_different_lengths_do_not_meet(self) -> None:
        queue = Queue()
        one, two, also_one = (step("ann", n, packs=False) for n in (1, 2, 1))
        queue.add(one, two, also_one)
        assert sorted([keys_of(queue.turn()), keys_of(queue.turn())]) == [[one.key, also_one.key], [two.key]]

    def test_where_a_model_packs_they_do(self) -> None:
        queue = Queue()
        queue.add(step("ann", 1), step("bob", 2), step("cem", 1))
        assert [share.positions for share in queue.turn().shares] == [1, 2, 1]

    @pytest.mark.parametrize("positions", [1, 17], ids=["decode", "prefill"])
    def test_what_must_run_alone_does_even_beside_others_like_it(self, positions: int) -> None:
        queue = Queue()
        queue.add(*(step(name, positions, kind=None) for name in ("ann", "bob")), step("cem", LONG, kind=None))
        while queue.waiting:
            assert len(queue.turn().shares) == 1


class TestPrefills:
    """Long steps, in chunks."""

    def test_one_runs_in_turn_with_decode_passes_where_the_model_cannot_pack(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG, packs=False))
        queue.decode([step(name, packs=False) for name in ("bob", "cem", "dee")], 20)
        kinds = [bool(turn.prefill_tokens) for turn in queue.turns]
        assert kinds == [kinds[0], not kinds[0]] * 10
        assert all(len(turn.decodes) == 3 for turn in queue.turns if turn.decodes)

    def test_one_runs_in_the_passes_of_decode_steps_where_it_packs(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG))
        queue.decode([step(name) for name in ("bob", "cem", "dee")], 33)
        quiet = [number for number, turn in enumerate(queue.turns) if not turn.prefill_tokens]
        assert quiet == [0, 16, 32], "now and then a pass tells how long decoding takes by itself"
        assert all(len(turn.decodes) == 3 for turn in queue.turns)

    def test_one_that_finds_no_room_beside_decode_steps_takes_turns_with_them(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG))
        queue.decode([step(f"client {number}") for number in range(4)], 20)
        assert all(turn.rows <= 4 for turn in queue.turns)
        assert sum(bool(turn.prefill_tokens) for turn in queue.turns) == 10

    def test_one_of_another_model_takes_turns_too(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG, kind="other model"))
        queue.decode([step("bob")], 20)
        assert sum(bool(turn.prefill_tokens) for turn in queue.turns) == 10

    def test_alone_on_the_node_its_chunks_are_as_large_as_they_may_be(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG))
        while queue.waiting:
            queue.turn()
        assert [turn.prefill_tokens for turn in queue.turns] == [512, 512, 512, 464]

    def test_rows_count_in_a_chunk(self) -> None:
        queue = Queue()
        queue.add(step("ann", LONG, rows=3))
        turn = queue.turn()
        assert [share.positions for share in turn.shares] == [512 // 3]

    def test_several_share_a_pass_where_the_model_packs(self) -> None:
        queue = Queue()
        queue.add(*(step(name, 100) for name in ("ann", "bob", "cem", "dee", "eve")))
        assert queue.turn().rows == 4
        assert queue.turn().rows == 1

    @pytest.mark.parametrize("packs", [True, False])
    def test_while_others_decode_it_adds_about_as_much_as_they_take(self, packs: bool) -> None:
        queue = Queue(device=Device(0.01, 0.001, 0.0005))
        others = [step(name, packs=packs) for name in ("bob", "cem")]
        queue.decode(others, 50)
        quiet = queue.now / 50
        queue.add(step("ann", 100_000, packs=packs))
        queue.turns.clear()
        queue.decode([], 200)
        ends = _ends_of_decodes(queue)
        assert max(ends) <= 3 * quiet
        assert 1.7 * quiet <= sum(ends[20:]) / len(ends[20:]) <= 2.4 * quiet, "nor is the prefill kept from coming on"

    def test_its_chunks_follow_the_speed_of_the_device(self) -> None:
        queue = Queue(device=Device(0.01, 0.001, 0.0005))
        queue.add(step("ann", 10**9))
        queue.decode([step("bob")], 100)
        quick = queue.turns[-1].prefill_tokens
        queue.device = replace(queue.device, of_a_prefill_token=0.001)
        queue.decode([], 100)
        slow = queue.turns[-1].prefill_tokens
        queue.device = replace(queue.device, of_a_prefill_token=0.0005)
        queue.decode([], 100)
        again = queue.turns[-1].prefill_tokens
        assert 0.4 * quick < slow < 0.6 * quick
        assert 0.8 * quick < again < 1.2 * quick

    def test_short_prompts_say_nothing_of_longer_chunks(self) -> None:
        queue = Queue(device=Device(0.02, 0.0, 0.0005))
        queue.add(step("ann", 10**6))
        queue.decode([step("bob")], 200)
        queue.waiting = [one for one in queue.waiting if one.client == "bob"]
        usual = queue.turns[-1].prefill_tokens
        for _ in range(60):
            queue.add(step("cem", DECODE_POSITIONS + 1))
            queue.decode([], 1)
        queue.add(step("dee", 10**6))
        queue.decode([], 2)
        assert 0.75 * usual <= queue.turns[-1].prefill_tokens <= 1.3 * usual

    def test_nor_do_those_that_met_nobody(self) -> None:
        queue = Queue(device=Device(0.02, 0.0, 0.0005))
        queue.add(step("ann", 10**6))
        bob = step("bob")
        queue.decode([bob], 200)
        usual = queue.turns[-1].prefill_tokens
        queue.now += 5
        queue.waiting = [step("ann", 5120)]
        while queue.waiting:
            queue.turn()
        queue.add(step("ann", 10**6))
        queue.decode([bob], 2)
        assert 0.75 * usual <= queue.turns[-1].prefill_tokens <= 1.3 * usual

    def test_a_chunk_is_never_larger_than_asked_for(self) -> None:
        queue = Queue(Limits(prefill_chunk=64), Device(1.0, 0.0, 0.0))
        queue.add(step("ann", 10**6))
        queue.decode([step("bob")], 50)
        assert max(turn.prefill_tokens for turn in queue.turns) == 64

    def test_chunks_stay_small_for_those_who_will_be_back_in_a_moment(self) -> None:
        queue = Queue()
        queue.decode([step("bob")], 10)
        queue.waiting.clear()
        queue.add(step("ann", LONG))
        assert queue.turn().prefill_tokens < 50
        queue.now += 5
        assert queue.turn().prefill_tokens == 512, "bob has not come back"

    def test_a_session_does_not_keep_its_own_chunks_small(self) -> None:
        queue = Queue()
        bob = step("bob")
        queue.decode([bob], 10)
        queue.waiting.clear()
        queue.add(replace(bob, positions=LONG))
        assert queue.turn().prefill_tokens == 512


def _ends_of_decodes(queue: Queue) -> list[float]:
    """Seconds from the end of one pass with decode steps to that of the next."""
    ends, seconds = [], 0.0
    for turn in queue.turns:
        seconds += queue.device.seconds(turn)
        if turn.decodes:
            ends.append(seconds)
            seconds = 0.0
    return ends


class TestPriorities:
    """High, normal, low: among the steps of one client, and low against everybody."""

    def test_of_one_client_who_is_higher_goes_first(self) -> None:
        queue = Queue(Limits(max_batch_size=1))
        low, normal, high = (step("ann", priority=priority) for priority in sorted(Priority, reverse=True))
        queue.add(low, normal, high)
        assert [keys_of(queue.turn()) for _ in range(3)] == [[high.key], [normal.key], [low.key]]

    def test_who_says_high_gains_nothing_against_others(self) -> None:
        queue = Queue(Limits(max_batch_size=1))
        ann, bob = step("ann"), step("bob")
        queue.add(ann, bob, step("stranger", priority=Priority.HIGH))
        assert keys_of(queue.turn()) == [ann.key]
        queue = Queue(Limits(max_batch_size=1))
        boastful = [step("stranger", priority=Priority.HIGH) for _ in range(3)]
        given = queue.decode([*boastful, ann, bob], 300)
        assert given == {"stranger": 100, "ann": 100, "bob": 100}

    def test_low_gives_way_to_all_others(self) -> None:
        queue = Queue(Limits(max_batch_size=1))
        low, normal = step("ann", priority=Priority.LOW), step("bob")
        queue.add(low, normal)
        assert [keys_of(queue.turn()) for _ in range(2)] == [[normal.key], [low.key]]

    def test_chunks_of_a_higher_prefill_go_first(self) -> None:
        queue = Queue()
        low, high = step("ann", 1000, priority=Priority.LOW), step("bob", 1000, priority=Priority.HIGH)
        queue.add(low, high)
        assert keys_of(queue.turn())[0] == high.key
        assert keys_of(queue.turn())[0] == high.key
        assert keys_of(queue.turn()) == [low.key]

    def test_who_has_waited_long_goes_before_them_all(self) -> None:
        queue = Queue(Limits(max_batch_size=1))
        low = step("ann", priority=Priority.LOW)
        queue.add(low)
        queue.now += AGING_SECONDS + 0.1
        queue.add(step("bob", priority=Priority.HIGH))
        assert keys_of(queue.turn()) == [low.key]


class TestFairness:
    """Clients take turns, however many sessions they have."""

    @pytest.mark.parametrize("size", [1, 4, 16])
    @pytest.mark.parametrize("packs", [True, False])
    def test_equal_clients_get_equal_shares(self, size: int, packs: bool) -> None:
        queue = Queue(Limits(max_batch_size=size))
        given = queue.decode([step(f"client {number}", packs=packs) for number in range(40)], 2000)
        assert len(given) == 40
        assert jain(list(given.values())) >= 0.999

    def test_many_sessions_are_no_larger_share(self) -> None:
        queue = Queue(Limits(max_batch_size=16))
        greedy = [step("greedy") for _ in range(40)]
        given = queue.decode([*greedy, *(step(f"client {number}") for number in range(20))], 2000)
        assert len(given) == 21
        assert jain(list(given.values())) >= 0.99

    def test_room_that_others_leave_is_used(self) -> None:
        queue = Queue(Limits(max_batch_size=16))
        given = queue.decode([*(step("greedy") for _ in range(40)), step("bob")], 200)
        assert given == {"greedy": 15 * 200, "bob": 200}

    def test_sessions_of_one_client_take_turns_as_well(self) -> None:
        queue = Queue(Limits(max_batch_size=4))
        sessions = [step("ann") for _ in range(10)]
        queue.decode(sessions, 1000)
        turns = Counter(share.step.session for turn in queue.turns for share in turn.shares)
        assert jain([turns[one.session] for one in sessions]) >= 0.999

    def test_prompts_of_equal_clients_come_on_equally(self) -> None:
        queue = Queue(Limits(max_batch_size=4, prefill_chunk=64))
        queue.add(*(step("greedy", 10**6) for _ in range(6)), *(step(name, 10**6) for name in ("ann", "bob")))
        queue.decode([step("cem")], 600)
        given: Counter[str] = Counter()
        for turn in queue.turns:
            given.update({share.step.client: share.tokens for share in turn.shares if share.step.is_prefill})
        assert jain([given[name] for name in ("greedy", "ann", "bob")]) >= 0.95

    @pytest.mark.parametrize("rows", [1, 3])
    def test_different_models_share_the_device(self, rows: int) -> None:
        queue = Queue(Limits(max_batch_size=4))
        kinds = ["model"] * 8 + ["other model"] * 2 + [None]
        given = queue.decode([step(f"client {at}", kind=kind, rows=rows) for at, kind in enumerate(kinds)], 3000)
        assert jain(list(given.values())) >= 0.95


class TestNobodyStarves:
    """Whatever comes, each step gets its turn within a bound."""

    @settings(max_examples=150)
    @given(
        st.lists(st.tuples(st.integers(0, 60), steps), min_size=1, max_size=25),
        st.integers(0, 6),
        st.integers(1, 5),
        st.booleans(),
    )
    def test_with_any_arrivals_beside_clients_that_never_rest(
        self, arrivals: list[tuple[int, Waiting]], restless: int, size: int, packs: bool
    ) -> None:
        seconds = 0.1
        queue = Queue(Limits(max_batch_size=size, prefill_chunk=64), Device(seconds, 0.0, 0.0))
        background = [step(f"restless {number}", priority=Priority.HIGH, packs=packs) for number in range(restless)]
        arrivals = [(at, replace(one, packs=packs, positions=min(one.positions, 100))) for at, one in arrivals]
        queue.add(*background)
        served_at = {one.key: 0 for one in background}
        # until it has aged; then a round of all clients for each pass that its client's other steps take
        passes = Counter({one.client: 0 for one in background})
        for _, one in arrivals:
            passes[one.client] += passes_of(one)
        bound = AGING_SECONDS / seconds + 2 * len(passes) * (max(passes.values()) + 1)
        unfinished = {one.key for _, one in arrivals}
        for turn_number in range(10_000):
            for at, one in arrivals:
                if at == turn_number:
                    queue.add(one)
                    served_at[one.key] = turn_number
            if turn_number > 60 and not unfinished & {one.key for one in queue.waiting}:
                return
            if not queue.waiting:
                continue
            turn = queue.turn()
            for share in turn.shares:
                served_at[share.step.key] = turn_number
                if share.step.client.startswith("restless"):
                    again = replace(share.step, key=next(_keys))
                    queue.add(again)
                    served_at[again.key] = turn_number
            assert all(turn_number - served_at[one.key] <= bound for one in queue.waiting)
        raise AssertionError("steps are left over")


class TestPatience:
    """A moment's wait for those who are about to come back."""

    @staticmethod
    def after_decoding(sessions: int, back_after: float = 0.0001, apart: float = 0.0) -> tuple[Queue, list[Waiting]]:
        queue = Queue(Limits(max_batch_size=16), Device(0.01, 0.0, 0.0))
        everybody = [step(f"client {number}") for number in range(sessions)]
        for _ in range(30):
            queue.now += back_after
            for one in everybody:
                queue.add(one)
                queue.now += apart
            queue.turn()
        return queue, everybody

    def test_there_is_none_at_first_and_none_for_one_session(self) -> None:
        assert Queue().batcher.patience([step()]) == 0
        queue, (only,) = self.after_decoding(1)
        assert queue.batcher.patience([only]) == 0
        assert queue.batcher.patience([replace(only, positions=LONG)]) == 0, "with its next prompt neither"

    def test_the_others_of_the_last_pass_are_worth_a_share_of_it(self) -> None:
        queue, everybody = self.after_decoding(3)
        patience = queue.batcher.patience(everybody[:2])
        assert 0 < patience <= 0.5 * 0.01
        assert queue.batcher.patience([step("stranger", LONG)]) == patience

    def test_there_is_none_when_all_are_here(self) -> None:
        queue, everybody = self.after_decoding(3)
        assert queue.batcher.patience(everybody) == 0

    def test_there_is_none_when_the_pass_is_full(self) -> None:
        queue, everybody = self.after_decoding(3)
        full = [step(f"stranger {number}") for number in range(14)]
        assert queue.batcher.patience([*everybody[:2], *full]) == 0
        assert queue.batcher.patience([*everybody[:2], *full[1:]]) > 0

    def test_it_has_a_bound(self) -> None:
        queue, everybody = self.after_decoding(3)
        queue.device = Device(10.0, 0.0, 0.0)
        for _ in range(30):
            queue.add(*everybody)
            queue.turn()
        assert 0 < queue.batcher.patience(everybody[:1]) <= 0.01

    def test_those_who_left_in_one_pass_are_waited_for_when_they_follow_each_other_closely(self) -> None:
        queue, everybody = self.after_decoding(3, back_after=0.2, apart=0.001)
        others = [step("ann"), step("bob")]
        queue.add(*others)
        queue.turn()
        queue.now += 0.2
        queue.add(everybody[0])
        assert 0 < queue.batcher.patience(queue.waiting) <= 0.5 * 0.01
        queue.add(*everybody[1:])
        assert queue.batcher.patience(queue.waiting) == 0, "all are here"
        assert queue.batcher.patience([step("stranger")]) == 0, "who left with nobody waits for nobody"

    def test_there_is_none_for_those_who_come_back_one_by_one(self) -> None:
        queue, everybody = self.after_decoding(3, back_after=0.02, apart=0.02)
        queue.add(everybody[0])
        assert queue.batcher.patience(queue.waiting) == 0

    def test_one_long_pause_does_not_end_it_for_long(self) -> None:
        queue, everybody = self.after_decoding(3)
        queue.now += 3600
        for _ in range(15):
            queue.add(*everybody)
            queue.turn()
        assert queue.batcher.patience(everybody[:1]) > 0

    def test_after_a_pass_without_decode_steps_there_is_none_for_strangers(self) -> None:
        queue, everybody = self.after_decoding(3)
        queue.add(step("ann", LONG))
        queue.turn()
        assert queue.batcher.patience([step("stranger")]) == 0
        assert queue.batcher.patience(everybody[:1]) > 0


def test_rates_are_of_the_time_that_was_computed() -> None:
    queue = Queue(Limits(max_batch_size=16), Device(0.05, 0.0, 0.0))
    queue.decode([step(f"client {number}", rows=2) for number in range(4)], 50)
    assert queue.batcher.decode_seconds == pytest.approx(0.05)
    assert queue.batcher.decode_rows_per_second == pytest.approx(8 / 0.05)
    assert queue.batcher.prefill_positions_per_second == 0
    queue.waiting.clear()
    queue.now += 10
    queue.add(step("ann", 5120))
    while queue.waiting:
        queue.turn()
    assert queue.batcher.prefill_positions_per_second == pytest.approx(512 / 0.05)
    assert queue.batcher.decode_rows_per_second == pytest.approx(8 / 0.05)


@pytest.mark.parametrize("make", [lambda: step("ann"), lambda: step("ann", LONG)], ids=["decode", "prefill"])
def test_a_turn_that_took_no_time_divides_by_nothing(make: Callable[[], Waiting]) -> None:
    batcher = Batcher(LIMITS)
    batcher.learn(batcher.next_turn([make()], 0.0), 0.0, 0.0)
    assert batcher.next_turn([step("bob")], 0.0).rows == 1
