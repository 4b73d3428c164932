"""What a spread of machines costs, and what one move would change."""

from __future__ import annotations

import random

import pytest

from discovery.balance import Balance, Choice, Machine, Model, Seat

ONE = Model("one", 8)


def machine(name: str, first: int | None, length: int = 4, block_ms: float = 1.0, **more: object) -> Machine:
    seat = None if first is None else Seat("one", first, first + length)
    return Machine(name, {"one": Choice(length, block_ms)}, seat, **more)  # type: ignore[arg-type]


def best_seat(balance: Balance, name: str) -> Seat | None:
    option = balance.best(name)[1]
    return None if option is None else option.to


def test_an_even_spread_costs_less_than_any_other() -> None:
    even = Balance([machine("a", 0), machine("b", 4)], [ONE], wanted=1)
    crowded = Balance([machine("a", 0), machine("b", 2)], [ONE], wanted=1)
    assert even.cost() < crowded.cost()
    assert (even.holes("one"), crowded.holes("one")) == (0, 2)


def test_the_place_of_a_newcomer_is_where_nobody_is() -> None:
    balance = Balance([machine("a", 0), machine("b", None)], [ONE], wanted=1)
    assert best_seat(balance, "b") == Seat("one", 4, 8)
    assert balance.best("b")[1].closes == 4  # type: ignore[union-attr]


def test_speed_counts_and_not_only_the_number_of_machines() -> None:
    swarm = [machine("fast", 0, block_ms=0.5), machine("slow", 4, block_ms=2.0), machine("new", None)]
    assert best_seat(Balance(swarm, [ONE], wanted=1), "new") == Seat("one", 4, 8)
    two_slow = [*swarm, machine("slow too", 4, block_ms=2.0)]
    assert best_seat(Balance(two_slow, [ONE], wanted=1), "new") == Seat("one", 4, 8)
    as_fast = [*two_slow, *(machine(f"more {number}", 4, block_ms=2.0) for number in range(4))]
    assert best_seat(Balance(as_fast, [ONE], wanted=1), "new") == Seat("one", 0, 4)


def test_a_second_machine_where_one_alone_is_comes_before_speed() -> None:
    swarm = [machine("fast", 0), *(machine(f"slow {number}", 4, block_ms=2.3) for number in range(2))]
    newcomer = machine("new", None)
    assert best_seat(Balance([*swarm, newcomer], [ONE], wanted=1), "new") == Seat("one", 4, 8)
    assert best_seat(Balance([*swarm, newcomer], [ONE], wanted=2), "new") == Seat("one", 0, 4)


def test_where_machines_are_busy_others_are_needed() -> None:
    swarm = [machine("idle", 0), machine("busy", 4, load=1.0), machine("new", None)]
    assert best_seat(Balance(swarm, [ONE], wanted=1), "new") == Seat("one", 4, 8)


def test_nobody_counts_as_more_than_eight_times_as_fast_as_is_usual() -> None:
    def share_of_the_rest(block_ms: float) -> float:
        swarm = [machine("liar", 0, block_ms=block_ms), *(machine(f"n{number}", 4) for number in range(4))]
        return Balance(swarm, [ONE], wanted=1).work_of("liar")

    assert share_of_the_rest(1e-3) == share_of_the_rest(1 / 8) == 8 * share_of_the_rest(1.0)


def test_what_is_not_trusted_counts_for_less() -> None:
    swarm = [machine("a", 0), machine("b", 4, trust=0.3), machine("new", None)]
    assert best_seat(Balance(swarm, [ONE], wanted=1), "new") == Seat("one", 4, 8)


def test_each_part_of_the_world_comes_to_have_the_whole_model() -> None:
    swarm = [
        *(machine(f"eu {number}", first, site="eu") for number, first in enumerate((0, 0, 4, 4))),
        machine("us", 0, site="na"),
        machine("new", None, site="na"),
    ]
    assert best_seat(Balance(swarm, [ONE], wanted=1), "new") == Seat("one", 4, 8)
    nowhere = [machine(one.name, None if one.seat is None else one.seat.first) for one in swarm]
    assert best_seat(Balance([*nowhere, machine("x", 4)], [ONE], wanted=1), "new") == Seat("one", 0, 4)


def test_a_machine_goes_to_the_model_that_is_asked_for_and_paid() -> None:
    choices = {"hot": Choice(4, 1.0), "cold": Choice(4, 1.0)}
    there = [
        Machine(f"{model} {first}", choices, Seat(model, first, first + 4)) for model in choices for first in (0, 4)
    ]

    def goes_to(hot: Model, cold: Model) -> str:
        option = Balance([*there, Machine("new", choices)], [hot, cold], wanted=1).best("new")[1]
        assert option is not None
        return option.to.model

    assert goes_to(Model("hot", 8, demand=3.0), Model("cold", 8)) == "hot"
    assert goes_to(Model("hot", 8), Model("cold", 8, price=2.0)) == "cold"


def test_nobody_is_offered_a_place_that_would_leave_a_hole() -> None:
    balance = Balance([machine("a", 0), machine("b", 4)], [ONE], wanted=1)
    assert balance.best("a")[1] is None
    assert balance.best("b")[1] is None


def test_while_a_model_stands_still_one_hole_may_be_made_to_close_a_larger_one() -> None:
    balance = Balance([machine("a", 0), machine("b", 1)], [ONE], wanted=1)
    assert balance.holes("one") == 3
    assert best_seat(balance, "b") == Seat("one", 4, 8)
    only_one_hole_less = Balance([machine("a", 0, length=3), machine("b", 3, length=4)], [ONE], wanted=1)
    assert only_one_hole_less.best("b")[1] is None


@pytest.mark.parametrize("seed", range(10))
def test_what_was_put_and_taken_leaves_nothing(seed: int) -> None:
    dice = random.Random(seed)
    swarm = [
        machine(f"n{number}", dice.randint(0, 4), block_ms=dice.uniform(0.1, 3.0), site=dice.choice(["eu", "na", None]))
        for number in range(9)
    ]
    balance = Balance(swarm, [ONE], wanted=2)
    cost = balance.cost()
    for name in dice.sample(sorted(balance.machines), 5):
        before = balance.seats[name]
        balance.put(name, None)
        balance.put(name, Seat("one", dice.randint(0, 4), 0)._replace(end=8))
        balance.put(name, before)
        balance.best(name)
    assert balance.cost() == pytest.approx(cost, rel=1e-9)
