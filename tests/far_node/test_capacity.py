"""What fits is held, and what does not fit is said before a byte is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.protocol.announcement import Quantization
from far_node.capacity import GIB, Memory, Room, Wish, divide, plan_blocks, room_on, share_blocks
from far_node.errors import DoesNotFit

SIZES: dict[Quantization, list[int]] = {"none": [400] * 8, "int8": [100] * 8, "nf4": [50] * 8}


def room(spare: int, most: int | None = None) -> Room:
    most = spare if most is None else most
    return Room(Memory("cpu", most, most), spare, most)


def gpu(gib: float, free: float | None = None) -> Memory:
    return Memory("cuda:0", int((gib if free is None else free) * GIB), int(gib * GIB))


def test_machines_of_11_and_32_and_32_gb_share_32_layers_as_5_and_13_and_14() -> None:
    """The worked example of VRAM-proportional distribution: 2 GB of each are reserved."""
    free = [(gib - 2) * GIB for gib in (11, 32, 32)]
    assert share_blocks(free, 32, GIB // 2) == (5, 13, 14)


def test_equal_machines_share_alike() -> None:
    assert share_blocks([8 * GIB] * 4, 32, GIB // 2) == (8, 8, 8, 8)


def test_what_a_small_machine_cannot_hold_goes_to_those_with_room() -> None:
    assert share_blocks([10, 10, 1], 20, 1) == (9, 10, 1)
    assert share_blocks([100, 100, 9], 20, 10) == (10, 10, 0)
    assert share_blocks([-5, 40], 2, 10) == (0, 2)


def test_machines_that_are_too_small_together_are_told_so() -> None:
    with pytest.raises(DoesNotFit, match=r"32 blocks of 1\.00 GiB each are needed, these machines have room for 31"):
        share_blocks([20 * GIB - 1, 12 * GIB], 32, GIB)


@given(st.lists(st.integers(-10, 400), min_size=1, max_size=8), st.integers(1, 100), st.integers(1, 20))
def test_every_block_has_a_machine_and_no_machine_more_than_it_holds(free: list[int], count: int, size: int) -> None:
    try:
        shares = share_blocks(free, count, size)
    except DoesNotFit:
        assert sum(max(0, one) // size for one in free) < count
        return
    assert sum(shares) == count
    assert all(0 <= share * size <= max(0, one) for share, one in zip(shares, free, strict=True))


def test_reserve_and_cache_are_left_free() -> None:
    found = room_on(gpu(24, free=20), reserve_bytes=2 * GIB, cache_bytes=GIB)
    assert (found.spare, found.most) == (17 * GIB, 20 * GIB)


def test_no_more_than_a_fraction_of_a_device_is_taken() -> None:
    found = room_on(gpu(24), reserve_bytes=2 * GIB, cache_bytes=GIB, fraction=0.5)
    assert (found.spare, found.most) == (11 * GIB, 12 * GIB)
    more = room_on(gpu(24, free=20), reserve_bytes=2 * GIB, cache_bytes=GIB, fraction=0.5, held_bytes=4 * GIB)
    assert (more.spare, more.most) == (7 * GIB, 8 * GIB)


def test_a_device_that_is_full_has_no_room() -> None:
    found = room_on(gpu(24, free=1), reserve_bytes=2 * GIB, cache_bytes=GIB)
    assert (found.spare, found.most) == (0, GIB)


def test_all_blocks_are_held_when_all_fit() -> None:
    plan = plan_blocks(SIZES, Wish(("int8",)), [room(800)])
    assert (plan.quantization, plan.candidates, plan.tight) == ("int8", ((0, 8),), False)


def test_as_many_as_fit_are_held_and_every_place_for_them_is_a_candidate() -> None:
    plan = plan_blocks(SIZES, Wish(("int8",)), [room(650)])
    assert plan.candidates == ((0, 6), (1, 7), (2, 8))


def test_among_blocks_of_many_sizes_the_longest_range_wins() -> None:
    plan = plan_blocks({"none": [9, 9, 1, 1, 1, 9]}, Wish(("none",)), [room(10)])
    assert plan.candidates == ((2, 5),)
    assert plan_blocks({"none": [9, 9, 1, 1, 1, 9]}, Wish(("none",)), [room(12)]).candidates == ((1, 5), (2, 6))


def test_the_finer_weights_are_taken_when_they_hold_what_was_asked() -> None:
    kinds = Wish(("int8", "nf4"))
    assert plan_blocks(SIZES, kinds, [room(800)]).quantization == "int8"
    assert plan_blocks(SIZES, kinds, [room(799)]) == plan_blocks(SIZES, Wish(("nf4",)), [room(799)])
    assert plan_blocks(SIZES, Wish(("int8", "nf4"), blocks=(2, 5)), [room(300)]).quantization == "int8"
    assert plan_blocks(SIZES, Wish(("int8", "nf4"), count=3), [room(299)]).quantization == "nf4"


def test_as_many_as_fit_of_the_coarser_weights_when_neither_holds_all() -> None:
    plan = plan_blocks(SIZES, Wish(("int8", "nf4")), [room(250)])
    assert (plan.quantization, plan.candidates[0]) == ("nf4", (0, 5))


def test_a_number_of_blocks_may_go_wherever_it_fits() -> None:
    plan = plan_blocks({"none": [5, 1, 1, 5]}, Wish(("none",), count=2), [room(4)])
    assert plan.candidates == ((1, 3),)


def test_what_the_owner_names_may_use_up_the_reserve() -> None:
    plan = plan_blocks(SIZES, Wish(("int8",), blocks=(0, 8)), [room(0, most=800)])
    assert (plan.candidates, plan.tight) == (((0, 8),), True)
    with pytest.raises(DoesNotFit):
        plan_blocks(SIZES, Wish(("int8",)), [room(0, most=800)])


def test_what_does_not_fit_on_the_gpu_goes_to_the_second_device() -> None:
    plan = plan_blocks(SIZES, Wish(("int8",)), [room(310), room(1000)])
    assert plan.candidates == ((0, 8),)
    assert divide([100] * 8, [310, 1000]) == (3, 5)
    assert plan_blocks(SIZES, Wish(("int8",)), [room(310), room(250)]).candidates[0] == (0, 5)
    assert divide([100] * 8, [310, 250]) is None


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish(("none",)), r"even one block of this model \(not quantized\) needs 3.00 GiB; cuda:0 has 4.00 GiB free"),
        (Wish(("none",)), "of which 2.00 GiB may be used: try --quantization int8 or nf4 or a smaller --cache-mb"),
        (Wish(("none",), blocks=(0, 2)), "blocks 0:2 of .* needs 6.00 GiB; .* of which 4.00 GiB may be used"),
        (Wish(("none",), count=2), "2 blocks of .* needs 6.00 GiB; .* try --quantization int8 or nf4 or fewer blocks"),
    ],
)
def test_a_refusal_says_what_is_needed_and_free_and_what_to_do(wish: Wish, words: str) -> None:
    small = Room(gpu(4), 2 * GIB, 4 * GIB)
    with pytest.raises(DoesNotFit, match=words) as refusal:
        plan_blocks({"none": [3 * GIB] * 4}, wish, [small])
    assert refusal.value.facts["free_bytes"] == 4 * GIB
    assert refusal.value.facts["needed_bytes"] in (3 * GIB, 6 * GIB)


def test_the_coarsest_weights_are_not_told_to_be_coarser() -> None:
    with pytest.raises(DoesNotFit, match=r"may be used: try a smaller --cache-mb or --reserve-gb$"):
        plan_blocks({"nf4": [5]}, Wish(("nf4",)), [room(4)])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.lists(st.integers(0, 200), min_size=1, max_size=2))
def test_a_plan_fits_and_one_block_more_would_not(sizes: list[int], rooms: list[int]) -> None:
    try:
        plan = plan_blocks({"none": sizes}, Wish(("none",)), [room(one) for one in rooms])
    except DoesNotFit:
        assert all(size > max(rooms) for size in sizes)
        return
    for first, end in plan.candidates:
        assert divide(sizes[first:end], rooms) is not None
    length = plan.candidates[0][1] - plan.candidates[0][0]
    longer = [sizes[first : first + length + 1] for first in range(len(sizes) - length)]
    assert all(divide(window, rooms) is None for window in longer)
